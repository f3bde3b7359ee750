"""Work in shards: which files a shard reads, where its part lies, and whether parts belong together.

A shard is number i of n: consecutive files, about the n-th part of all bytes. Its part is an artefact of its own in a
folder named after it, such as ``00003-of-00016``, whose manifest says in ``shard`` which it is and of what. Parts are
made in any order, on any machine, again or not; a merge asks for all n of one kind.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langadapt import _core
from langadapt.artefacts.folders import read_manifest
from langadapt.artefacts.remote import RemoteFile, expand, is_remote
from langadapt.errors import ConfigError, DataError

SLURM = "slurm"
"""In place of a number: that of this task in a Slurm array, from 0."""
NAME = re.compile(r"\d{5}-of-\d{5}")
"""Folder of a part."""


@dataclass(frozen=True)
class Shard:
    """Number ``number``, from 0, of ``count``."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """``I/N``, or ``slurm/N``, whose number is ``SLURM_ARRAY_TASK_ID``.

        Raises:
            ConfigError: it is neither, or there is no such shard.
        """
        number, _, count = text.partition("/")
        if number == SLURM:
            number = os.environ.get("SLURM_ARRAY_TASK_ID", "")
            if not number:
                raise ConfigError("--shard slurm/N: SLURM_ARRAY_TASK_ID is not set; this is no task of a Slurm array")
        if not (number.isdecimal() and count.isdecimal() and int(number) < int(count) < 100_000):
            raise ConfigError(
                f"--shard: {text!r} (number {number or 'none'}); give I/N with I from 0 to N - 1, as 0/16"
            )
        return cls(int(number), int(count))

    @property
    def name(self) -> str:
        """Name of the part's folder."""
        return f"{self.number:05}-of-{self.count:05}"

    def names(self, names: Sequence[str] | None, block_bytes: int = 1) -> tuple[list[str], dict[str, Any]]:
        """The files of this shard, in reading order, and what its manifest says of it.

        Only whole blocks of files, of ``block_bytes`` or more each, belong to a shard; there may be none.

        Raises:
            ConfigError: what is read has no files: standard input, a stream.
        """
        if names is None or "-" in names or any(re.match("hf:(?!//)", name) for name in names):
            raise ConfigError("--shard: only files can be read in shards; write the stream to files first")
        blocks = blocks_of(names, block_bytes)
        sizes = [sum(size for _, size in block) for block in blocks]
        total, start, mine = max(sum(sizes), 1), 0, []
        for block, size in zip(blocks, sizes, strict=True):
            # By the middle of the block: a pure function of the sizes that never goes back.
            if min((2 * start + size) * self.count // (2 * total), self.count - 1) == self.number:
                # By the URL that was given, whose signature may be needed to read it.
                mine += [file.url if isinstance(file, RemoteFile) else file for file, _ in block]
            start += size
        every = (file for block in blocks for file in block)
        files = "\n".join(f"{file.name if isinstance(file, RemoteFile) else file} {size}" for file, size in every)
        of = _core.hash_bytes(files.encode("utf-8", "surrogateescape"))
        return mine, {"number": self.number, "count": self.count, "files": of}


def blocks_of(names: Sequence[str], block_bytes: int) -> list[list[tuple[str | RemoteFile, int]]]:
    """The files that names stand for, with their bytes, in blocks of consecutive ones: as the core cuts them, each of
    ``block_bytes`` or more but for the last."""
    blocks: list[list[tuple[str | RemoteFile, int]]] = []
    filled = 0
    for name in names:
        for file in expand(name) if is_remote(name) else _core.expand_inputs([name]):
            size = file.size if isinstance(file, RemoteFile) else file.stat().st_size
            if not blocks or filled >= max(block_bytes, 1):
                blocks.append([])
                filled = 0
            blocks[-1].append((file if isinstance(file, RemoteFile) else str(file), size))
            filled += size
    return blocks


def find_parts(places: Sequence[Path]) -> list[Path]:
    """The parts in ``places``, each a part or a folder of parts, in the order of their shards.

    Raises:
        DataError: there are none, one is missing or there twice, or they are not of one kind; names the part.
    """
    found: dict[int, tuple[Path, dict[str, Any]]] = {}
    folders = [part for place in places for part in ([place] if NAME.fullmatch(place.name) else below(place))]
    if not folders:
        raise DataError(f"{', '.join(map(str, places))}: no parts, which are folders like 00000-of-00016")
    for folder in folders:
        manifest = read_manifest(folder)
        shard = manifest["settings"].get("shard")
        if not isinstance(shard, dict) or not {"number", "count", "files"} <= shard.keys():
            raise DataError(f"{folder}: its manifest names no shard; this is no part, move it elsewhere")
        if shard["number"] in found and found[shard["number"]][1]["settings"]["shard"] == shard:
            other = found[shard["number"]][0]
            raise DataError(f"{folder}: part {shard['number']} of {shard['count']} is there twice, also in {other}")
        first = next(iter(found.values()), (folder, manifest))
        check_alike(first, (folder, manifest))
        found[shard["number"]] = folder, manifest
    count = next(iter(found.values()))[1]["settings"]["shard"]["count"]
    missing = [str(number) for number in range(count) if number not in found]
    if missing:
        named = ", ".join(missing[:10]) + (", ..." if len(missing) > 10 else "")
        raise DataError(
            f"{folders[0].parent}: {len(missing)} of {count} parts missing: {named}; make them with --shard"
        )
    return [found[number][0] for number in range(count)]


def parts_beside(out: Path) -> Path:
    """Where the parts lie from which an engine makes ``out``; they stay there."""
    return out.with_name(f"{out.name}-parts")


def below(place: Path) -> list[Path]:
    """The parts in a folder."""
    return sorted(path for path in place.iterdir() if NAME.fullmatch(path.name)) if place.is_dir() else []


def check_alike(one: tuple[Path, Mapping[str, Any]], other: tuple[Path, Mapping[str, Any]]) -> None:
    """Raise DataError where two parts are of different stages, versions, settings or files."""
    (path, first), (another, second) = one, other
    ours, theirs = ({**first["settings"], "stage": first["stage"]}, {**second["settings"], "stage": second["stage"]})
    for manifest, settings in ((first, ours), (second, theirs)):
        settings["langadapt"] = manifest.get("langadapt")
        shard = settings.pop("shard")
        settings |= {"number of shards": shard["count"], "files": shard["files"]}
    for name in sorted(ours.keys() | theirs.keys()):
        if ours.get(name) != theirs.get(name):
            what = "other files" if name == "files" else f"{name} = {theirs.get(name)!r}, not {ours.get(name)!r}"
            raise DataError(f"{another}: made with {what} as {path} was; make one of them again")


def settings_of(part: Path) -> dict[str, Any]:
    """The settings of a part, without its shard."""
    return {name: value for name, value in read_manifest(part)["settings"].items() if name != "shard"}


def inputs_of(parts: Sequence[Path]) -> dict[str, str]:
    """What all parts were made from: files in order, then what all have in common, such as a tokenizer."""
    found = [read_manifest(part)["inputs"] for part in parts]
    common = {name for name in found[0] if len(parts) > 1 and all(name in one for one in found)}
    own = {name: known for one in found for name, known in one.items() if name not in common}
    return own | {name: found[0][name] for name in found[0] if name in common}
