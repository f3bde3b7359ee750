"""``langadapt merge``."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from langadapt.artefacts.folders import read_manifest
from langadapt.artefacts.shards import find_parts
from langadapt.artefacts.stages import make_once
from langadapt.cli.options import AsJson, Threads
from langadapt.cli.progress import progress, say
from langadapt.corpus.parts import merge_corpus
from langadapt.errors import ConfigError, DataError
from langadapt.terminal import echo


def command(
    parts: Annotated[list[Path], typer.Argument(metavar="PARTS", help="Folders of parts.", show_default=False)],
    *,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", help="Folder to write. A token store may stay in its parts."),
    ] = None,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Put the parts of all shards together: byte for byte what one machine makes of all text."""
    found = find_parts(parts)
    stage = str(read_manifest(found[0])["stage"])
    make = maker(stage, found, out, threads)
    if out is None:
        summary = make()
    else:
        inputs = {str(part): part for part in found}
        summary = make_once(f"merge {stage}", out, make, settings={}, inputs=inputs, log=say)
    if as_json:
        echo(json.dumps({"merged": str(out or found[0].parent), **summary}, ensure_ascii=False))
        return
    say(f"{out or found[0].parent}: {len(found)} parts of stage `{stage}`, {summary['documents']:,} documents")


def maker(stage: str, parts: list[Path], out: Path | None, threads: int | None) -> Callable[[], dict[str, Any]]:
    """What merges the parts of a stage.

    Raises:
        ConfigError: it needs a folder to write.
        DataError: nothing of this stage is made in shards.
    """
    if stage == "tokenize":
        from langadapt.store import merge_stores

        return lambda: merge_stores(parts, out)
    if stage not in ("corpus part", "word counts"):
        raise DataError(f"{parts[0]}: made by stage `{stage}`, whose parts are not merged")
    if out is None:
        raise ConfigError("--out: name a folder to write")
    place = out

    def merge() -> dict[str, Any]:
        if stage == "word counts":
            from langadapt.tokenizer.counts import merge_counts

            return merge_counts(parts, place)
        with progress("merge") as report:
            return asdict(merge_corpus(parts, place, threads=threads, progress=report))

    return merge
