"""``langadapt corpus``."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from langadapt.artefacts.shards import Shard, parts_beside
from langadapt.artefacts.stages import make_once
from langadapt.cli.options import (
    Address,
    AsJson,
    EngineOption,
    Out,
    ShardOption,
    Shards,
    Strict,
    TextField,
    TextUnit,
    Threads,
    engine_of,
)
from langadapt.cli.progress import next_step, progress, say
from langadapt.corpus.build import BuildOptions, CorpusReport, build_corpus
from langadapt.corpus.documents import LONGEST_LINE, files_of
from langadapt.corpus.parts import build_on, make_corpus_part
from langadapt.terminal import Terminal, echo

if TYPE_CHECKING:
    from rich.table import Table

app = typer.Typer(no_args_is_help=True)


@app.callback()
def noun() -> None:
    """Files to documents: stream, filter, deduplicate, split."""


Texts = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT",
        help="Files, folders or patterns, here or as URLs (s3://, https://): .jsonl, .txt (each also .gz, .zst), "
        ".parquet; `-` for stdin; "
        "`hf:NAME[:CONFIG[:SPLIT]]` for a stream of the package `datasets`.",
        show_default=False,
    ),
]
MaxLineBytes = Annotated[int, typer.Option(help="Skip longer lines, rows and whole files.")]
MinChars = Annotated[int | None, typer.Option(help="Leave out shorter documents.")]
MaxChars = Annotated[int | None, typer.Option(help="Leave out longer documents.")]
KeepPattern = Annotated[str | None, typer.Option(metavar="REGEX", help="Keep only documents with a match.")]
DropPattern = Annotated[str | None, typer.Option(metavar="REGEX", help="Leave out documents with a match.")]
Foreign = Annotated[
    list[str] | None,
    typer.Option(metavar="FILE", help="Text of another language: leave out what is not in that of the corpus."),
]
Repetition = Annotated[
    bool, typer.Option("--repetition", help="Leave out documents that repeat themselves (rules of Gopher).")
]
ExactDuplicates = Annotated[bool, typer.Option("--exact-duplicates", help="Leave out documents that occurred before.")]
NearDuplicates = Annotated[
    bool, typer.Option("--near-duplicates", help="Leave out documents that resemble an earlier one (MinHash).")
]
ValidationShare = Annotated[float, typer.Option(help="Share of documents set aside, by hash.")]
ValidationBytes = Annotated[int, typer.Option(help="Set aside at most so many bytes of text.")]
BlockBytes = Annotated[int, typer.Option(help="Files that are compressed together, and read by one shard.")]
ValidationDocuments = Annotated[int | None, typer.Option(help="Set aside at most so many documents.")]


@app.command()
def build(
    ctx: typer.Context,
    inputs: Texts,
    *,
    out: Out,
    text_field: TextField = "text",
    text_unit: TextUnit = "line",
    strict: Strict = False,
    max_line_bytes: MaxLineBytes = LONGEST_LINE,
    min_chars: MinChars = None,
    max_chars: MaxChars = None,
    keep_pattern: KeepPattern = None,
    drop_pattern: DropPattern = None,
    foreign: Foreign = None,
    repetition: Repetition = False,
    exact_duplicates: ExactDuplicates = False,
    near_duplicates: NearDuplicates = False,
    validation_share: ValidationShare = 0.02,
    validation_bytes: ValidationBytes = 1_000_000,
    validation_documents: ValidationDocuments = None,
    block_bytes: BlockBytes = 64 << 20,
    shard: ShardOption = None,
    engine: EngineOption = None,
    address: Address = None,
    shards: Shards = 16,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Stream, filter, deduplicate and split text into DIR/train.jsonl.zst and DIR/validation.jsonl.zst."""
    # Long: each option has its line.
    options = {one.name: ctx.params[one.name] for one in fields(BuildOptions)} | {"foreign": foreign or []}
    cluster = engine_of(engine, address, shards, shard)
    if shard is not None:
        make_part(inputs, out, Shard.parse(shard), options, threads=threads)
        return

    made_from = BuildOptions(**options).made_from(files_of(inputs))

    def make() -> dict[str, Any]:
        with progress("corpus") as report_progress:
            if cluster is not None:
                beside = parts_beside(out)
                return asdict(build_on(cluster, inputs, out, parts=beside, progress=report_progress, **options))
            return asdict(build_corpus(inputs, out, **options, threads=threads, progress=report_progress))

    report = CorpusReport(**make_once("corpus", out, make, settings=options, inputs=made_from, log=say))
    if as_json:
        echo(json.dumps(asdict(report), indent=2, ensure_ascii=False))
        return

    Terminal().print(table(report))
    for problem in report.first_problems:
        place = problem["path"] if problem["line"] is None else f"{problem['path']}:{problem['line']}"
        say(f"skipped {place}: {problem['reason']}")
    next_step(f"langadapt tokenizer train {out}/train.jsonl.zst --out tokenizer")


def make_part(inputs: list[str], out: Path, shard: Shard, options: dict[str, Any], *, threads: int | None) -> None:
    """Build one shard's part, unless it is there."""
    with progress(f"corpus {shard.name}") as report:
        made = make_corpus_part(inputs, out, shard, **options, threads=threads, progress=report, log=say)
    say(f"{out / shard.name}: {made['passed']:,} of {made['documents']:,} documents")


def table(report: CorpusReport) -> Table:
    """Documents and bytes: read, left out and why, written."""
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
