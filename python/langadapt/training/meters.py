"""What is measured while training, and where it goes: JSON lines always, TensorBoard and W&B where asked."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import resource
import time
import uuid
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from langadapt.artefacts.folders import write_atomically
from langadapt.errors import ConfigError, LangadaptError
from langadapt.training.parallel import ProcessGroup
from langadapt.training.settings import TrainSettings

log = logging.getLogger(__name__)

LOG_NAME = "log.jsonl"
WANDB_IDS = "wandb-ids.json"


class Journal:
    """The log of a run: one JSON object per line, mirrored to TensorBoard and W&B."""

    def __init__(self, out: Path, settings: TrainSettings, resume_step: int, *, active: bool, origin: int) -> None:
        """Drop lines after ``resume_step``, whose steps are done again. ``active``: this process writes; ``origin``:
        step from which the run was last extended."""
        self.active = active
        self.tensorboard: Any = None
        self.wandb: Any = None
        if not active:
            return
        # The packages that may be missing come before the file, which would stay open.
        if settings.tensorboard:
            self.tensorboard = open_tensorboard(out, resume_step)
        if settings.wandb_project:
            self.wandb = open_wandb(out, settings, origin)
        self.path = out / LOG_NAME
        keep_until(self.path, resume_step)
        # Without a buffer, which on a full disk could neither be written nor closed.
        self.file = self.path.open("ab", buffering=0)

    def write(self, line: dict[str, Any]) -> None:
        """Append a line; it must have a ``step``. Numbers that JSON cannot hold become null."""
        if not self.active:
            return
        clean = {key: finite(value) for key, value in line.items()}
        data = (json.dumps({**clean, "time": round(time.time(), 3)}, ensure_ascii=False) + "\n").encode()
        try:
            while data:
                data = data[self.file.write(data) :]
        except OSError as error:
            raise LangadaptError(
                f"{self.path}: cannot write the log: {error.strerror or error}; whole checkpoints are in "
                f"{self.path.with_name('checkpoints')}; free some space and run the same command again"
            ) from error
        numbers = flatten(clean)
        if self.tensorboard is not None:
            for key, value in numbers.items():
                self.tensorboard.add_scalar(key, value, line["step"])
        if self.wandb is not None:
            self.wandb.log(numbers, step=line["step"])

    def close(self) -> None:
        """Flush and close everything."""
        if not self.active:
            return
        os.fsync(self.file.fileno())
        self.file.close()
        if self.tensorboard is not None:
            self.tensorboard.close()
        if self.wandb is not None:
            self.wandb.finish()


def keep_until(path: Path, step: int) -> None:
    """Drop lines of later steps, and a half-written last line."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError, TypeError):
            continue
    # A new run has nothing to keep: its line for step 0 is written again.
    write_atomically(path, "".join(kept) if step else "")


def check_packages(settings: TrainSettings) -> None:
    """Raise ConfigError where the package of a log that is asked for is missing."""
    if settings.tensorboard:
        tensorboard_writer()
    if settings.wandb_project is not None:
        wandb_package(settings.wandb_project)


def tensorboard_writer() -> Any:
    """The writer of the package `tensorboard`."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ConfigError(
            "tensorboard: true, but the package `tensorboard` is missing; pip install tensorboard"
        ) from None
    return SummaryWriter


def wandb_package(project: str) -> Any:
    """The package `wandb`."""
    try:
        import wandb
    except ImportError:
        raise ConfigError(f"wandb_project: {project}, but `wandb` is missing; pip install wandb") from None
    return wandb


def open_tensorboard(out: Path, resume_step: int) -> Any:
    """An event writer below ``out``."""
    # What a killed process had not written by then would be missing for ever: its steps are not done again.
    return tensorboard_writer()(str(out / "tensorboard"), purge_step=resume_step + 1, flush_secs=10)


def open_wandb(out: Path, settings: TrainSettings, origin: int) -> Any:
    """A W&B run that goes on after a restart. An extension is one of its own, for W&B takes no step twice.

    Raises:
        ConfigError: W&B is not installed or does not start.
    """
    wandb = wandb_package(str(settings.wandb_project))
    # All recipes name this folder by the method, and runs of one id would be one run.
    place = out.resolve()
    name = "-".join([*(part for part in place.parts[-3:-1] if part != "trained"), place.name])
    try:
        return wandb.init(
            project=settings.wandb_project,
            dir=str(out),
            name=f"{name}-from-{origin}" if origin else name,
            id=wandb_id(out, origin),
            resume="allow",
            config=settings.to_dict(),
        )
    except (wandb.Error, OSError) as error:
        raise ConfigError(
            f"wandb_project: {settings.wandb_project}, but W&B does not start: {error} "
            "(or set WANDB_MODE=offline, and `wandb sync` later)"
        ) from None


def wandb_id(out: Path, origin: int) -> str:
    """A name for W&B that belongs to this folder and extension for good."""
    path = out / WANDB_IDS
    ids: dict[str, str] = {}
    with contextlib.suppress(OSError, ValueError):
        ids = json.loads(path.read_text(encoding="utf-8"))
    if str(origin) not in ids:
        ids[str(origin)] = uuid.uuid4().hex[:12]
        write_atomically(path, json.dumps(ids) + "\n")
    return ids[str(origin)]


def finite(value: Any) -> Any:
    """NaN and infinities are no JSON."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def flatten(line: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """Numbers of nested mappings under dotted names, without the step."""
    found: dict[str, float] = {}
    for key, value in line.items():
        if isinstance(value, dict):
            found |= flatten(value, f"{prefix}{key}.")
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and key != "step":
            found[prefix + key] = float(value)
    return found


def losses_by_source(
    names: list[str], sums: list[float], counts: list[float], bytes_per_token: list[float | None]
) -> dict[str, Any]:
    """What a line of the log says of losses: nats per token of all and of each source, and bits per byte of each whose
    size is known."""
    line: dict[str, Any] = {"loss": sum(sums) / max(sum(counts), 1)}
    means = {name: total / count for name, total, count in zip(names, sums, counts, strict=True) if count}
    if len(names) > 1:
        line["loss_by_source"] = means
    sizes = dict(zip(names, bytes_per_token, strict=True))
    bits = {name: mean / math.log(2) / size for name, mean in means.items() if (size := sizes[name]) is not None}
    return line | ({"bits_per_byte": bits} if bits else {})


class LossMeter:
    """Sums of loss and tokens per source, on the device: nothing is read back until `take`."""

    def __init__(self, sources: int, device: torch.device) -> None:
        """All zeros."""
        self.sums = torch.zeros(2, sources, dtype=torch.float64, device=device)

    def add(self, losses: Tensor, labels: Tensor, sources: Tensor) -> None:
        """``losses`` fp32 ``[windows * length]``, labels ``[windows, length]``, sources ``[windows]``."""
        per_window = losses.reshape(labels.shape).sum(dim=1, dtype=torch.float64)
        counts = (labels >= 0).sum(dim=1).double()
        self.sums[0].index_add_(0, sources, per_window)
        self.sums[1].index_add_(0, sources, counts)

    def take(self, processes: ProcessGroup) -> tuple[list[float], list[float]]:
        """(loss sums, token counts) per source over all processes since the last call; waits for the device."""
        values: list[list[float]] = processes.all_reduce(self.sums.clone()).tolist()
        self.sums.zero_()
        return values[0], values[1]

    def so_far(self, processes: ProcessGroup) -> list[list[float]]:
        """Sums and counts since the last `take`, over all processes, which may be given to `add_sums` again."""
        values: list[list[float]] = processes.all_reduce(self.sums.clone()).tolist()
        return values

    def add_sums(self, sums: list[list[float]]) -> None:
        """Go on with what `so_far` gave; one process does."""
        self.sums += torch.tensor(sums, dtype=self.sums.dtype, device=self.sums.device)

    def begin_step(self) -> None:
        """Remember the sums, for `forget`."""
        self.before = self.sums.clone()

    def forget(self) -> None:
        """Drop what was added since `begin_step`."""
        self.sums.copy_(self.before)


class Stopwatch:
    """Seconds spent in one part of the loop; on a GPU by events, read only when asked."""

    def __init__(self, device: torch.device) -> None:
        """Nothing measured yet."""
        self.gpu = device.type == "cuda"
        self.seconds = 0.0
        self.events: list[tuple[Any, Any]] = []

    def __enter__(self) -> None:
        if self.gpu:
            pair = (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True))
            pair[0].record()
            self.events.append(pair)
        else:
            self.begun = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        if self.gpu:
            self.events[-1][1].record()
        else:
            self.seconds += time.perf_counter() - self.begun

    def take(self) -> float:
        """Seconds since the last call; on a GPU call it only after a sync."""
        for begin, end in self.events:
            self.seconds += begin.elapsed_time(end) / 1000
        self.events.clear()
        seconds, self.seconds = self.seconds, 0.0
        return seconds


def peak_memory(device: torch.device) -> int:
    """Peak bytes: of tensors on a GPU, of the whole process on a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
