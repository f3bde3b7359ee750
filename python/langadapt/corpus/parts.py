"""A corpus in shards: parts made apart, and their merge, which is what :func:`build_corpus` writes, byte for byte.

Exact duplicates across parts are found by ranges of hashes and near ones by bands, see ``corpus/parts.rs`` of the core.
A part of a corpus without deduplication, and the first part always, is compressed once and copied; another part is
compressed once more when it is known what the parts before it hold.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from langadapt import _core
from langadapt.artefacts.engine import Engine
from langadapt.artefacts.folders import fingerprints, new_folder, read_manifest, verify, write_manifest
from langadapt.artefacts.remote import RemoteFile
from langadapt.artefacts.shards import Shard, inputs_of, settings_of
from langadapt.artefacts.stages import Log, make_once
from langadapt.corpus.build import READING, BuildOptions, CorpusReport, check_split
from langadapt.corpus.documents import Inputs, PathName, Reading
from langadapt.errors import DataError
from langadapt.machine import thread_count
from langadapt.progress import Progress

logger = logging.getLogger(__name__)

STAGE = "corpus part"
"""Of the manifest of a part."""


def build_corpus_part(
    inputs: Inputs,
    out: PathName,
    shard: Shard,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Path:
    """Read, filter and deduplicate one shard of ``inputs``; returns its folder below ``out``.

    Args:
        inputs: files, as for :func:`langadapt.build_corpus`; a shard takes whole blocks of ``block_bytes``.
        out: folder of all parts.
        shard: which one.
        threads: all cores by default.
        progress: called as ``(phase, done, total, unit)``.
        options: fields of :class:`BuildOptions` by name, the same for all parts.

    Raises:
        ConfigError: no files, or an option out of range.
        FileNotFoundError, DataError: as :func:`langadapt.build_corpus`.
    """
    chosen = BuildOptions(**options)
    chosen.check()
    settings = asdict(chosen)
    names, described = shard.names(Reading(inputs).names, chosen.block_bytes)
    reading = Reading(names)
    files = reading.files() or {}
    folder = Path(out) / shard.name
    with new_folder(folder, files) as temporary:
        core = chosen.for_core(Reading(inputs, **{name: settings[name] for name in READING}), threads)
        with reading.local(temporary) as local:
            found = _core.build_part(local, temporary, core, shard.number == 0, progress)
        summary = {**found.pop("read"), **found}
        write_manifest(temporary, STAGE, settings | {"shard": described}, fingerprints(files), summary=summary)
    return folder


def make_corpus_part(
    inputs: Inputs,
    out: PathName,
    shard: Shard,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
    log: Log = logger.info,
    **options: Any,
) -> dict[str, Any]:
    """:func:`build_corpus_part`, unless that part is there and whole; returns its summary."""
    names, described = shard.names(Reading(inputs).names, options.get("block_bytes", BuildOptions.block_bytes))

    def make() -> dict[str, Any]:
        folder = build_corpus_part(inputs, out, shard, threads=threads, progress=progress, **options)
        return dict(read_manifest(folder)["summary"])

    files, settings = BuildOptions(**options).made_from(Reading(names).files()), options | {"shard": described}
    return make_once(STAGE, Path(out) / shard.name, make, settings=settings, inputs=files, log=log)


def merge_corpus(
    parts: Sequence[Path], out: Path, *, threads: int | None = None, progress: Progress | None = None
) -> CorpusReport:
    """Write to ``out`` what :func:`langadapt.build_corpus` would have written from all files; ``parts`` in order."""
    settings = settings_of(parts[0])
    found = [verify(part, hashes=False)["summary"] for part in parts]
    with new_folder(out, parts) as folder:
        finished = [
            (part, one["train"]["documents"], one["train"]["bytes"], one["passed"])
            for part, one in zip(parts, found, strict=True)
        ]
        if not sum(one["documents"] for one in found):
            raise DataError(f"{parts[0].parent}: no document in any part; the input is empty")
        core = settings | {"language": None, "threads": thread_count(threads)}
        joined = _core.join_corpus(finished, folder, core, progress)
        report = CorpusReport(
            files=sum(one["files"] for one in found),
            documents=sum(one["documents"] for one in found),
            bytes=sum(one["bytes"] for one in found),
            skipped=added([one["skipped"] for one in found]),
            first_problems=[problem for one in found for problem in one["first_problems"]][:10],
            dropped=added([*(one["dropped"] for one in found), joined.pop("dropped")]),
            **joined,
        )
        check_split(report, settings)
        write_manifest(folder, "corpus", settings, inputs_of(parts), summary=report.to_dict())
    return report


def build_on(
    engine: Engine, inputs: Inputs, out: Path, *, parts: Path, progress: Progress | None, **options: Any
) -> CorpusReport:
    """:func:`langadapt.build_corpus` with an engine's tasks: its parts go to the folder ``parts`` and stay there."""
    made = engine.run(make_corpus_part, parts, {"inputs": inputs, **options}, title="corpus", progress=progress)
    return merge_corpus(made, out, progress=progress)


def added(counts: Sequence[dict[str, int]]) -> dict[str, int]:
    """The sums by name, in the order of the first."""
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return {name: total[name] for name in counts[0]}


def check_parts(parts: Sequence[Path], options: Mapping[str, Any], files: Mapping[str, Path | RemoteFile]) -> None:
    """Make sure that parts are those of a corpus with these options and files.

    Raises:
        DataError: they are not; names what differs.
    """
    made = settings_of(parts[0])
    for name, value in options.items():
        if made.get(name) != value:
            raise DataError(f"{parts[0].parent}: made with {name} = {made.get(name)!r}, not {value!r}; make them again")
    if [*inputs_of(parts)] != [*files]:
        raise DataError(f"{parts[0].parent}: made from other files than are to be read; make them again")
