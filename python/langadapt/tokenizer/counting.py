"""Counting the words of a corpus, or of a shard of it, to learn from later."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from langadapt.artefacts.engine import Engine
from langadapt.artefacts.folders import fingerprints, new_folder, write_manifest
from langadapt.artefacts.shards import Shard, parts_beside
from langadapt.artefacts.stages import Log, make_once
from langadapt.corpus.documents import Inputs, Reading, files_of
from langadapt.machine import thread_count
from langadapt.progress import Progress
from langadapt.tokenizer.counts import STAGE, WORDS, cutting_of, merge_counts
from langadapt.tokenizer.files import copied_from
from langadapt.tokenizer.options import BpeOptions
from langadapt.tokenizer.training import blueprint_of, count, make_counter

logger = logging.getLogger(__name__)


def count_words(
    inputs: Inputs,
    out: str | Path,
    *,
    shard: Shard | None = None,
    text_field: str = "text",
    text_unit: str = "line",
    strict: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Count the words of ``inputs``, or of one shard of them, for ``train_bpe(counts=...)``; returns the summary.

    Args:
        inputs: files, as for :func:`langadapt.read_documents`.
        out: folder to write, or that of all parts.
        shard: which one.
        text_field, text_unit, strict: as for :func:`langadapt.read_documents`.
        threads: all cores by default.
        progress: called as ``(phase, done, total or None, unit)``.
        options: those fields of :class:`BpeOptions` that decide how text is cut: ``style``, ``like``,
            ``special_tokens``, ``pattern``, ``normalization``, ``max_sentence_length``.

    Raises:
        ConfigError, DataError, FileNotFoundError: as :func:`langadapt.train_bpe`.
    """
    chosen = BpeOptions(**options)
    chosen.check()
    reading, described, out = Reading(inputs, text_field=text_field, text_unit=text_unit, strict=strict), {}, Path(out)
    if shard is not None:
        names, of = shard.names(reading.names)
        reading = Reading(names, **{**reading.how, "allow_empty": True})
        described, out = {"shard": of}, out / shard.name
    blueprint = blueprint_of(chosen)
    counter = make_counter(blueprint, chosen.max_sentence_length, None, thread_count(threads))
    if reading.names != []:
        count(counter, reading, blueprint, progress)
    files = reading.files() or {}
    with new_folder(out, files) as folder:
        counter.save(folder / WORDS)
        settings = {"cutting": cutting_of(blueprint, chosen), "text_field": text_field, "text_unit": text_unit}
        summary = {name: value for name, value in counter.summary() if name != "prunings"}
        write_manifest(folder, STAGE, settings | described, fingerprints(files), summary=summary)
    return summary


def make_counts(
    inputs: Inputs,
    out: str | Path,
    *,
    shard: Shard | None = None,
    engine: Engine | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    log: Log = logger.info,
    **options: Any,
) -> dict[str, Any]:
    """:func:`count_words`, unless what it would write is there and whole; returns the summary.

    Args:
        inputs, out, shard, threads, progress, options: as for :func:`count_words`.
        engine: counts the parts as its tasks, in a folder beside ``out``, where they stay.
        log: told where nothing is made.
    """
    place, files, settings = Path(out), files_of(inputs), dict(options)
    if shard is not None:
        names, settings["shard"] = shard.names(Reading(inputs).names)
        place, files = place / shard.name, files_of(names) or {}
    if files is not None:
        files |= copied_from(options.get("like"))

    def make() -> dict[str, Any]:
        if engine is not None:
            arguments = {"inputs": inputs, **options}
            parts = engine.run(make_counts, parts_beside(place), arguments, title=STAGE, progress=progress)
            return merge_counts(parts, place)
        return count_words(inputs, out, shard=shard, threads=threads, progress=progress, **options)

    return make_once(STAGE, place, make, settings=settings, inputs=files, log=log)
