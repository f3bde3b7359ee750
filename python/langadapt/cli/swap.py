"""``langadapt swap``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from langadapt.cli.progress import progress
from langadapt.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from langadapt.swap_report import SwapReport


def command(
    model: Annotated[str, typer.Argument(help="Model folder or hub id.")],
    tokenizer: Annotated[str, typer.Option("--tokenizer", help="Folder (or tokenizer.json) of the new tokenizer.")],
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write.")] = None,
    method: Annotated[
        str,
        typer.Option(help="How new rows are made: focus, subword_mean, mean, normal, random, zipf, wechsel, clp, omp."),
    ] = "focus",
    output_method: Annotated[
        str | None, typer.Option(help="The same for an untied output matrix. Default: as the input.")
    ] = None,
    vectors: Annotated[Path | None, typer.Option(help="Token vectors, from `langadapt vectors train`.")] = None,
    words: Annotated[
        tuple[Path, Path, Path] | None,
        typer.Option(
            help="For wechsel: word vectors (.bin, .vec) of source and of target language, and a dictionary of pairs.",
            metavar="SOURCE TARGET DICTIONARY",
        ),
    ] = None,
    helper: Annotated[str | None, typer.Option(help="For clp: folder of a small model with the new tokenizer.")] = None,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
    pad_to_multiple_of: Annotated[int, typer.Option(help="Rows are rounded up to this.")] = 128,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Scale combined rows to the copied rows' norm.")
    ] = False,
    fuzzy: Annotated[bool, typer.Option("--fuzzy", help="Match up to case and leading space, too.")] = False,
    text: Annotated[
        list[str] | None, typer.Option("--text", help="Text of the target language, to see what the swap saves.")
    ] = None,
    source_text: Annotated[
        list[str] | None, typer.Option("--source-text", help="Text of the source language, to see what it costs.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would happen; write nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run model code that comes with the folder.")
    ] = False,
) -> None:
    """Give a model a new tokenizer, ready for `from_pretrained`."""
    if out is None and not dry_run:
        raise ConfigError("give --out FOLDER, or --dry-run to write nothing")
    from langadapt.corpus import read_documents
    from langadapt.model_folder import resolve_model
    from langadapt.swap import swap_folder

    folder = resolve_model(model)
    options: dict[str, Any] = {"vectors": vectors}
    if words is not None:
        from langadapt.wechsel import vectors_from_files

        options["vectors"], options["source_vectors"] = vectors_from_files(folder, tokenizer, *words)
    if helper is not None:
        from langadapt.swap_folder import input_rows

        options["helper_rows"] = input_rows(resolve_model(helper))
    with progress("swap") as report_progress:
        report = swap_folder(
            folder,
            tokenizer,
            out,
            method=method,
            output_method=output_method,
            seed=seed,
            pad_to_multiple_of=pad_to_multiple_of,
            calibrate=calibrate,
            fuzzy=fuzzy,
            trust_remote_code=trust_remote_code,
            dry_run=dry_run,
            target_text=read_documents(text) if text else None,
            source_text=read_documents(source_text) if source_text else None,
            progress=report_progress,
            **options,
        )
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=2, ensure_ascii=False))
        return
    from rich.console import Console

    console = Console()
    console.print(summary_table(report))
    for note in report.notes:
        console.print(f"Note: {note}", highlight=False)
    console.print(report.advice, highlight=False, soft_wrap=True)


def summary_table(report: SwapReport) -> Table:
    """The report for a terminal."""
    from rich.table import Table

    table = Table(title=f"Swap by `{report.method}`", show_header=True)
    table.add_column("")
    table.add_column("before", justify="right")
    table.add_column("after", justify="right")
    table.add_row("parameters", f"{report.parameters_before:,}", f"{report.parameters_after:,}")
    table.add_row("embedding rows", f"{report.rows_before:,}", f"{report.rows_after:,}")
    for name, cost in (("target", report.target_text), ("source", report.source_text)):
        if cost is not None:
            per = [f"{cost.bytes / max(1, tokens):.2f}" for tokens in (cost.tokens_before, cost.tokens_after)]
            table.add_row(f"bytes per token, {name} language", *per)
    table.add_section()
    table.add_row("rows copied", "", f"{report.copied:,}")
    table.add_row("rows combined", "", f"{report.combined:,}")
    table.add_row("rows without any anchor", "", f"{report.drawn:,}")
    for script, cell in list(report.overlap["script"].items())[:5]:
        table.add_row(f"overlap, {script.lower()}", f"{cell['tokens']:,}", f"{cell['matched']:,}")
    return table
