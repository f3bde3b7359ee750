"""Models between two of one shape: every weight on the straight line from the one to the other.

Wortsman et al., *Robust fine-tuning of zero-shot models*, CVPR 2022 (arXiv 2109.01903), there to keep what a model
knew before its fine-tuning.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from torch import Tensor

from langadapt.artefacts.folders import MANIFEST_NAME, fingerprints, new_folder, write_manifest
from langadapt.artefacts.stages import check_stage
from langadapt.errors import ConfigError, MismatchError
from langadapt.models.skeleton import build_skeleton, loaded_names
from langadapt.models.weights import DTYPES, Entry, read_entries, read_tensor, rewrite_shards
from langadapt.progress import Progress


def write_between(start: Path, end: Path, amount: float, out: Path, *, progress: Progress | None = None) -> None:
    """Write the model ``start + amount (end - start)``, with all other files of ``end``; two tensors are held at once.

    Args:
        start: folder of a model.
        end: folder of a model of the same tensors, such as ``start`` after a training.
        amount: 0 gives the weights of ``start``, 1 those of ``end``, bit by bit where both have one dtype; between
            them arithmetic is fp32, rounded to the dtype of ``end``.
        out: the new folder.
        progress: called as ``(phase, done, total, unit)``.

    Raises:
        ConfigError: ``amount`` is not within 0 and 1, or ``out`` is what another stage made.
        MismatchError: the two have not the same tensors; the first difference is named.
        DataError: a folder is no whole model.
        FileExistsError: ``out`` holds somebody's files.
    """
    if not 0.0 <= amount <= 1.0:
        raise ConfigError(f"amount: {amount:g} is not within 0 (the start) and 1 (the end)")
    first, last = read_entries(start), read_entries(end)
    if first.keys() != last.keys():
        first, last = as_loaded(first, last, end)
    check_pair(start, first, end, last)

    def make(name: str) -> Tensor:
        a, b = read_tensor(first[name]).float(), read_tensor(last[name])
        # `lerp` is exact at both ends.
        return a.lerp(b.float(), amount).to(b.dtype)

    files = {entry.file for entry in last.values()}
    moved = {name: entry.shape for name, entry in last.items() if entry.dtype in DTYPES}
    check_stage(out, "dial")
    with new_folder(out, [start, end]) as folder:
        for path in sorted([*end.iterdir(), *end.glob("*/*.jinja")]):
            if path.is_file() and path not in files and not path.name.startswith(".") and path.name != MANIFEST_NAME:
                copy = folder / path.relative_to(end)
                copy.parent.mkdir(exist_ok=True)
                shutil.copyfile(path, copy)
        rewrite_shards(end, folder, moved, make, entries=last, progress=progress)
        inputs = fingerprints({"start": start, "end": end})
        write_manifest(folder, "dial", {"amount": amount}, inputs, summary={})


def as_loaded(first: dict[str, Entry], last: dict[str, Entry], end: Path) -> tuple[dict[str, Entry], dict[str, Entry]]:
    """The same tensors by the names in the files of ``end``, without those that loading skips: models that are
    published have other prefixes, tied matrices twice, or buffers, which a training does not write again."""
    skeleton = build_skeleton(end)[1]
    state = skeleton.state_dict(keep_vars=True)
    owners: dict[int, str] = {}
    for name, tensor in state.items():
        owners.setdefault(id(tensor), name)

    def names(entries: dict[str, Entry]) -> dict[str, str]:
        loaded = loaded_names(skeleton, entries)
        return {key: owners[id(state[name])] for key, name in loaded.same.items()} | {
            key: key for key in loaded.computed
        }

    before, after = names(first), names(last)
    by_name = {name: first[key] for key, name in before.items()}
    known = set(after.values())
    pairs = {key: by_name[name] for key, name in after.items() if name in by_name}
    alone = {name: entry for name, entry in by_name.items() if name not in known}
    return {**pairs, **alone}, {key: last[key] for key in after}


def check_pair(start: Path, first: dict[str, Entry], end: Path, last: dict[str, Entry]) -> None:
    """Raise MismatchError unless both have the same tensors."""
    for name in [*first, *last]:
        one, other = first.get(name), last.get(name)
        if one is None or other is None:
            raise MismatchError(
                f"`{name}` is in {end if one is None else start} alone; they are not one model trained on"
            )
        if one.shape != other.shape:
            raise MismatchError(
                f"`{name}` is {list(one.shape)} in {start} and {list(other.shape)} in {end}; they are not one model "
                "trained on"
            )
