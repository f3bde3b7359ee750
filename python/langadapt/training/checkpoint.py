"""Checkpoints: whole or absent, complete, without pickles, readable by any number of processes.

``checkpoints/step-00000120/`` holds one ``shard-00000.safetensors`` per process with its rows of every tensor
(parameters, optimizer states, generator states) and ``state.json`` with everything else: course, settings, where each
row lies, sizes and hashes of the shards. Loading reads just the rows that a process needs, so a checkpoint of two
processes serves one or eight. `torch.distributed.checkpoint` writes safetensors, too (`HuggingFaceStorageWriter`), but
makes each shard a second time in memory first (2 x 400 MB for a shard of 400 MB, and three times the seconds, torch
2.13), plans by collectives, which a thread beside the training must not call, and refuses states that share memory.
"""

from __future__ import annotations

import errno
import json
import logging
import shutil
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from langadapt import _core
from langadapt.artefacts.folders import sync_file, sync_folder, write_atomically
from langadapt.artefacts.mirror import Mirror
from langadapt.errors import DataError, LangadaptError, MismatchError
from langadapt.training.optimizer import first_row, local
from langadapt.training.parallel import ProcessGroup

log = logging.getLogger(__name__)

STATE = "state.json"
PARTS = {"step", "shapes", "run", "course", "phase", "validation", "loss", "protected", "optimizer_states"}
"""What a run cannot go on without."""


def folder_of(root: Path, step: int) -> Path:
    """The folder of the checkpoint after ``step`` steps."""
    return root / f"step-{step:08d}"


def hidden(folder: Path) -> Path:
    """Name of a checkpoint that is about to be deleted."""
    return folder.with_name(f".{folder.name}.old")


def found(root: Path) -> list[Path]:
    """Checkpoints, oldest first. Those being written have other names."""
    return sorted(path for path in root.glob("step-[0-9]*") if (path / STATE).is_file())


def good_checkpoints(root: Path, lost: int) -> str:
    """Where to go on from after the step of index ``lost``, and how.

    A checkpoint with the very weights that this step began with leads there again.
    """
    steps = {int(path.name.removeprefix("step-")): path for path in found(root)}
    good = [path for step, path in sorted(steps.items()) if step < lost]
    if not good:
        return "There is no checkpoint from before: lower learning_rate, lengthen warmup, or look at these documents"
    suspect = f" (delete {steps[lost]}, which leads here again)" if lost in steps else ""
    return (
        f"The last good checkpoint is {good[-1]}{suspect}: go on with a lower learning_rate or max_grad_norm by "
        "`extend` (`langadapt train --extend`), or look at these documents"
    )


@dataclass
class Draft:
    """A checkpoint that is being written: this process' part of it, and what all processes make of their parts."""

    step: int
    state: dict[str, Any]
    """For ``state.json``, without the shards."""
    protect: set[str]
    written: Future[dict[str, Any]]
    """Describes this process' shard, once it is on the disk."""


class Writer:
    """Writes checkpoints, in the background where asked.

    Every process writes its own shard; none waits for another but in calls that all of them make: `save`, `wait`,
    `complete_if_written` and `close`.
    """

    def __init__(
        self, root: Path, processes: ProcessGroup, keep: int, background: bool, *, mirror: Mirror | None = None
    ) -> None:
        """``keep``: how many to leave; ``background``: copy to memory and write while training goes on; ``mirror``: of
        the main process, where checkpoints are sent."""
        self.root, self.processes, self.keep, self.mirror = root, processes, keep, mirror
        self.pool = ThreadPoolExecutor(1, "langadapt-checkpoint") if background else None
        self.draft: Draft | None = None
        self.pinned: dict[str, Tensor] = {}
        self.copied: Any = None
        """Event on the GPU before which no weight may change."""
        self.seconds: float | None = None
        """What the last write took."""
        self.latest = -1
        """Step of the checkpoint that was begun last."""
        if processes.is_main:
            root.mkdir(parents=True, exist_ok=True)
            for leftover in root.glob(".step-*"):
                shutil.rmtree(leftover, ignore_errors=True)

    def save(
        self,
        step: int,
        tensors: dict[str, Tensor],
        state: dict[str, Any],
        protect: Iterable[int] = (),
        *,
        copied: Mapping[str, tuple[list[int], int, Tensor]] | None = None,
    ) -> None:
        """Save the checkpoint of ``step``; steps in ``protect`` are not deleted.

        ``copied``: tensors in memory that nobody changes any more, each as shape of the whole, first row and rows.

        Raises:
            LangadaptError: this or the previous background write failed; earlier checkpoints are whole.
        """
        self.wait()
        self.latest = step
        parts = {key: part_of(tensor, self.processes) for key, tensor in tensors.items()}
        copies = {key: part for key, part in parts.items() if part is not None}
        shapes = {key: list(tensor.shape) for key, tensor in tensors.items()}
        shapes |= {key: shape for key, (shape, _, _) in (copied or {}).items()}
        others = {key: (first, rows) for key, (_, first, rows) in (copied or {}).items()}
        state = {**state, "step": step, "shapes": shapes}
        written: Future[dict[str, Any]]
        if self.pool is not None:
            copies, done = self.host_copies(copies)
            written = self.pool.submit(self.write_shard, step, copies | others, done)
        else:
            written = Future()
            try:
                written.set_result(self.write_shard(step, copies | others))
            except (OSError, SafetensorError) as error:
                written.set_exception(error)
        self.draft = Draft(step, state, {folder_of(self.root, number).name for number in protect}, written)
        if self.pool is None:
            self.wait()

    def host_copies(self, parts: dict[str, tuple[int, Tensor]]) -> tuple[dict[str, tuple[int, Tensor]], Any]:
        """Copies in this machine's memory, and the event after which they are complete; none if they are already.

        On a GPU a stream of its own copies into pinned memory, which is kept for the next checkpoint: the passes of the
        next step go on meanwhile, and its update waits for `copied`.
        """
        if all(tensor.device.type != "cuda" for _, tensor in parts.values()):
            return {key: (first, tensor.to("cpu", copy=True)) for key, (first, tensor) in parts.items()}, None
        stream, self.copied = torch.cuda.Stream(), torch.cuda.Event()
        stream.wait_stream(torch.cuda.current_stream())
        copies = {}
        with torch.cuda.stream(stream):
            for key, (first, tensor) in parts.items():
                tensor = tensor.detach()
                # A phase that ends frees its optimizer's states.
                tensor.record_stream(stream)
                buffer = self.pinned.get(key)
                if buffer is None or buffer.shape != tensor.shape or buffer.dtype != tensor.dtype:
                    buffer = pinned_like(tensor)
                self.pinned[key] = buffer.copy_(tensor, non_blocking=True)
                copies[key] = (first, buffer)
            self.copied.record(stream)
        return copies, self.copied

    def write_shard(self, step: int, parts: dict[str, tuple[int, Tensor]], done: Any = None) -> dict[str, Any]:
        """Write this process' shard, once the event ``done`` has come, and describe it."""
        begun = time.monotonic()
        if done is not None:
            done.synchronize()
        shard = self.temporary(step) / f"shard-{self.processes.rank:05d}.safetensors"
        shard.parent.mkdir(parents=True, exist_ok=True)
        save_file(own_memory({key: tensor for key, (_, tensor) in parts.items()}), shard)
        sync_file(shard)
        entry = {"file": shard.name, "bytes": shard.stat().st_size, "xxh3_128": _core.hash_file(shard)}
        entry["rows"] = {key: [first, len(tensor) if tensor.ndim else 1] for key, (first, tensor) in parts.items()}
        self.seconds = time.monotonic() - begun
        return entry

    def temporary(self, step: int) -> Path:
        """Where a checkpoint lies until it is whole."""
        return self.root / f".{folder_of(self.root, step).name}.tmp"

    def complete_if_written(self) -> None:
        """Complete a background write if all processes are done with theirs; all must call it."""
        if self.mirror is not None:
            self.mirror.go_on()
        if self.draft is not None and all(self.processes.all_gather(self.draft.written.done())):
            self.wait()

    def wait(self) -> None:
        """Until the background write is done; then the checkpoint is there, for all processes, or an error for all.

        Raises:
            LangadaptError: a process could not write its shard.
        """
        if self.draft is None:
            return
        draft, self.draft = self.draft, None
        target, entry, problem = folder_of(self.root, draft.step), None, None
        try:
            entry = draft.written.result()
        except (OSError, SafetensorError) as error:
            problem = self.explain(error, target)
        shards, problems = zip(*self.processes.all_gather((entry, problem)), strict=True)
        problem = next(filter(None, problems), None)
        if problem is None and self.processes.is_main:
            try:
                self.complete(target, {**draft.state, "shards": shards}, draft.protect)
            except OSError as error:
                problem = self.explain(error, target)
        problem = self.processes.broadcast(problem)
        if problem is not None:
            shutil.rmtree(self.temporary(draft.step), ignore_errors=True)
            raise LangadaptError(problem)

    def complete(self, target: Path, state: dict[str, Any], protect: set[str]) -> None:
        """Add the state to shards that are all there, and give the checkpoint its name."""
        temporary = self.temporary(state["step"])
        write_atomically(temporary / STATE, json.dumps(state, ensure_ascii=False) + "\n")
        sync_folder(temporary)
        if target.exists():
            # Damaged, or of a run that was extended from before it: gone only once the new one is there.
            target.rename(hidden(target))
        temporary.rename(target)
        sync_folder(self.root)
        shutil.rmtree(hidden(target), ignore_errors=True)
        self.delete_old(protect if self.mirror is None else protect | self.mirror.busy, target.name)
        if self.mirror is not None:
            self.mirror.send(target, [path.name for path in found(self.root)])

    def explain(self, error: Exception, target: Path) -> str:
        """What failed, what is left, what to do."""
        whole = found(self.root)
        left = f"; the checkpoint {whole[-1]} is whole" if whole else "; there is no earlier checkpoint"
        full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
        reason = "the disk is full" if full else str(error)
        return f"{target}: cannot write the checkpoint: {reason}{left}; free some space and run the same command again"

    def delete_old(self, protect: set[str], last: str) -> None:
        """Keep the newest ``keep`` up to ``last``; later ones are of what an extension has left behind."""
        whole = found(self.root)
        mine = [path for path in whole if path.name <= last]
        for old in whole:
            if old not in mine or (old in mine[: -self.keep] and old.name not in protect):
                # Out of sight first, so that a kill in the middle leaves no half checkpoint with a whole name.
                old.rename(hidden(old))
                shutil.rmtree(hidden(old), ignore_errors=True)

    def close(self) -> None:
        """Wait for the last write, and until it is sent, and stop the thread."""
        self.wait()
        if self.pool is not None:
            self.pool.shutdown()
        if self.mirror is not None:
            self.mirror.finish()
        self.processes.barrier()


def part_of(tensor: Tensor, processes: ProcessGroup) -> tuple[int, Tensor] | None:
    """(first row, rows) that this process saves; none if another one saves them."""
    if not hasattr(tensor, "device_mesh"):
        return (0, tensor) if processes.is_main else None
    coordinate = tensor.device_mesh.get_coordinate()
    if coordinate is not None and len(coordinate) > 1 and coordinate[0] != 0:
        return None
    return first_row(tensor), local(tensor)


def pinned_like(tensor: Tensor) -> Tensor:
    """Memory of this machine that a GPU can write to while others work; where none is left, any memory."""
    try:
        return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    except RuntimeError:
        return torch.empty(tensor.shape, dtype=tensor.dtype)


def own_memory(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """As safetensors wants them: contiguous, no views into larger tensors, and no memory in common, which the states
    of an optimizer may have (bitsandbytes' parameters share their tables)."""
    owned, seen = {}, set()
    for key, tensor in tensors.items():
        tensor = tensor.detach().contiguous()
        storage = tensor.untyped_storage()
        if tensor.nbytes and (storage.nbytes() != tensor.nbytes or storage.data_ptr() in seen):
            tensor = tensor.clone()
        seen.add(storage.data_ptr())
        owned[key] = tensor
    return owned


def read_state(folder: Path) -> dict[str, Any]:
    """``state.json`` after checking that the shards are the ones it describes.

    Raises:
        DataError: names the damaged file.
    """
    try:
        state: dict[str, Any] = json.loads((folder / STATE).read_text(encoding="utf-8"))
        shards = [
            (folder / entry["file"], entry["bytes"], entry["xxh3_128"], entry["rows"]) for entry in state["shards"]
        ]
        missing = PARTS - state.keys()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{folder / STATE}: cannot be read ({error})") from None
    if missing:
        raise DataError(f"{folder / STATE}: lacks {', '.join(sorted(missing))}")
    for file, size, digest, _ in shards:
        if not file.is_file():
            raise DataError(f"{file}: missing")
        if file.stat().st_size != size or _core.hash_file(file) != digest:
            raise DataError(f"{file}: altered or half-written, it differs from {STATE}")
    return state


def newest(root: Path, run: Mapping[str, Any] | None = None) -> tuple[Path, dict[str, Any]] | None:
    """The newest checkpoint that is whole, with its state; damaged ones are named in a warning.

    Those of ``run`` come first: a run that was extended from an older checkpoint leaves the later ones behind, which
    are deleted with its first own.
    """
    others = {path: run is not None and settings_of(path) != run["settings"] for path in reversed(found(root))}
    for folder in sorted(others, key=others.__getitem__):
        try:
            return folder, read_state(folder)
        except DataError as error:
            log.warning("%s; trying an older checkpoint", error)
    return None


def settings_of(folder: Path) -> Any:
    """Settings of the run that a checkpoint is of; none where they cannot be read."""
    try:
        return json.loads((folder / STATE).read_text(encoding="utf-8"))["run"]["settings"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


class Reader:
    """Rows of tensors out of a checkpoint."""

    def __init__(self, folder: Path, state: dict[str, Any]) -> None:
        """``state``: from `read_state`."""
        self.shapes: dict[str, list[int]] = state["shapes"]
        self.places: dict[str, list[tuple[int, int, Any]]] = {}
        for entry in state["shards"]:
            file = safe_open(folder / entry["file"], framework="pt")
            for key, (first, count) in entry["rows"].items():
                self.places.setdefault(key, []).append((first, count, file))

    def __contains__(self, key: str) -> bool:
        return key in self.places

    def whole(self, key: str) -> Tensor:
        """A complete tensor."""
        shape = self.shapes[key]
        return self.rows(key, 0, shape[0]) if shape else self.places[key][0][2].get_tensor(key)

    def rows(self, key: str, first: int, count: int) -> Tensor:
        """Rows ``first`` to ``first + count``."""
        found_rows = []
        for start, size, file in sorted(self.places[key], key=lambda place: place[0]):
            low, high = max(first, start), min(first + count, start + size)
            if low < high:
                found_rows.append(file.get_slice(key)[low - start : high - start])
        if not found_rows:
            return self.places[key][0][2].get_slice(key)[:0]
        return torch.cat(found_rows) if len(found_rows) > 1 else found_rows[0]

    @torch.no_grad()
    def fill(self, key: str, tensor: Tensor) -> None:
        """Copy into ``tensor`` what it, or its shard, holds of ``key``."""
        if key not in self.places or list(tensor.shape) != self.shapes[key]:
            raise MismatchError(
                f"checkpoint: `{key}` is {self.shapes.get(key, 'missing')} there, but {list(tensor.shape)} in this run"
            )
        mine = local(tensor)
        if not tensor.ndim:
            mine.copy_(self.whole(key))
        elif len(mine):
            mine.copy_(self.rows(key, first_row(tensor), len(mine)))
