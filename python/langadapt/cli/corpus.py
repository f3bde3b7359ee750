"""``langadapt corpus``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from langadapt.artefacts.stages import make_once
from langadapt.cli.progress import progress, say
from langadapt.corpus.documents import CorpusReport, FileNames, build_corpus, files_of

if TYPE_CHECKING:
    from rich.table import Table

app = typer.Typer(no_args_is_help=True)


@app.callback()
def noun() -> None:
    """Files to documents: stream, filter, deduplicate, split."""


@app.command()
def build(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Files, folders or patterns: .jsonl, .txt (each also .gz, .zst), .parquet; `-` for stdin; "
            "`hf:NAME[:CONFIG[:SPLIT]]` for a stream of the package `datasets`.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write.", show_default=False)],
    text_field: Annotated[str, typer.Option(help="Field of JSON lines, column of Parquet files.")] = "text",
    text_unit: Annotated[str, typer.Option(metavar="line|file", help="One document of a .txt file.")] = "line",
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first line without a document.")] = False,
    min_chars: Annotated[int | None, typer.Option(help="Leave out shorter documents.")] = None,
    max_chars: Annotated[int | None, typer.Option(help="Leave out longer documents.")] = None,
    keep_pattern: Annotated[str | None, typer.Option(metavar="REGEX", help="Keep only documents with a match.")] = None,
    drop_pattern: Annotated[str | None, typer.Option(metavar="REGEX", help="Leave out documents with a match.")] = None,
    repetition: Annotated[
        bool, typer.Option("--repetition", help="Leave out documents that repeat themselves (rules of Gopher).")
    ] = False,
    exact_duplicates: Annotated[
        bool, typer.Option("--exact-duplicates", help="Leave out documents that occurred before.")
    ] = False,
    near_duplicates: Annotated[
        bool, typer.Option("--near-duplicates", help="Leave out documents that resemble an earlier one (MinHash).")
    ] = False,
    validation_share: Annotated[float, typer.Option(help="Share of documents set aside, by hash.")] = 0.01,
    validation_bytes: Annotated[int | None, typer.Option(help="Set aside at most so many bytes of text.")] = None,
    validation_documents: Annotated[int | None, typer.Option(help="Set aside at most so many documents.")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads [default: all cores].", min=1)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
) -> None:
    """Stream, filter, deduplicate and split text into DIR/train.jsonl.zst and DIR/validation.jsonl.zst."""
    from rich.console import Console

    names = FileNames(inputs)
    options: dict[str, Any] = {"text_field": text_field, "text_unit": text_unit, "strict": strict}
    options |= {"min_chars": min_chars, "max_chars": max_chars, "repetition": repetition}
    options |= {"keep_pattern": keep_pattern, "drop_pattern": drop_pattern}
    options |= {"exact_duplicates": exact_duplicates, "near_duplicates": near_duplicates}
    options |= {"validation_share": validation_share, "validation_bytes": validation_bytes}
    options |= {"validation_documents": validation_documents}

    def make() -> dict[str, Any]:
        with progress("corpus") as report_progress:
            return asdict(build_corpus(names, out, **options, threads=threads, progress=report_progress))

    report = CorpusReport(**make_once("corpus", out, make, settings=options, inputs=files_of(names), log=say))
    if as_json:
        typer.echo(json.dumps(asdict(report), indent=2, ensure_ascii=False))
        return
    Console().print(table(report))
    for problem in report.first_problems:
        place = problem["path"] if problem["line"] is None else f"{problem['path']}:{problem['line']}"
        say(f"skipped {place}: {problem['reason']}")


def table(report: CorpusReport) -> Table:
    """Documents and bytes: read, left out and why, written."""
    from rich.table import Table

    found = Table("", "documents", "MB of text")
    for column in found.columns[1:]:
        column.justify = "right"
    for reason, count in report.skipped.items():
        if count:
            found.add_row(f"no document: {reason.replace('_', ' ')}", f"{count:,}", "")
    found.add_row("read", f"{report.documents:,}", f"{report.bytes / 1e6:,.2f}")
    for reason, count in report.dropped.items():
        if count:
            found.add_row(f"left out: {reason.replace('_', ' ')}", f"{count:,}", "")
    for name, split in (("train", report.train), ("validation", report.validation)):
        found.add_row(name, f"{split['documents']:,}", f"{split['bytes'] / 1e6:,.2f}")
    return found
