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

    from langadapt.swap.report import SwapReport
    from langadapt.trials.inputs import MethodInputs, ProbeWish


METHOD_HELP = "How new rows are made: auto (a bake-off on your text), focus, subword_mean, mean, normal, random, zipf, "
METHOD_HELP += "wechsel, clp, omp."


def command(
    model: Annotated[str, typer.Argument(help="Model folder or hub id.")],
    tokenizer: Annotated[
        str | None, typer.Option("--tokenizer", help="Folder (or tokenizer.json) of the new tokenizer.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write.")] = None,
    method: Annotated[str, typer.Option(help=METHOD_HELP)] = "focus",
    output_method: Annotated[
        str | None, typer.Option(help="The same for an untied output matrix. Default: as the input.")
    ] = None,
    vectors: Annotated[
        Path | None,
        typer.Option(help="Token vectors, from `langadapt vectors train`. Default: trained on --store by one thread."),
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(help="Token store of the target language: counts of tokens, and what `--method auto` trains on."),
    ] = None,
    words: Annotated[
        tuple[Path, Path, Path] | None,
        typer.Option(
            help="For wechsel: word vectors (.bin, .vec) of source and of target language, and a dictionary of pairs.",
            metavar="SOURCE TARGET DICTIONARY",
        ),
    ] = None,
    helper: Annotated[str | None, typer.Option(help="For clp: folder of a small model with the new tokenizer.")] = None,
    weighting: Annotated[str, typer.Option(help="Of subword_mean: uniform, or characters.")] = "uniform",
    probe_steps: Annotated[int, typer.Option(help="Of `--method auto`: training steps for each method.")] = 50,
    probe_tokens: Annotated[int, typer.Option(help="Of `--method auto`: tokens per step.")] = 8192,
    probe_rate: Annotated[float, typer.Option(help="Of `--method auto`: learning rate.")] = 1e-4,
    candidates: Annotated[
        list[str] | None,
        typer.Option("--candidate", help="Of `--method auto`: a method to try. Default: all that can."),
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(
            help="Instead of a swap, compare ways to do it: replace, extend, trim, or tokenizer folders, with commas. "
            "The first three are made from --text."
        ),
    ] = None,
    vocab_size: Annotated[
        int | None, typer.Option(help="Of `--compare replace`: entries. Default: as many as the model's own.")
    ] = None,
    new_tokens: Annotated[
        int | None, typer.Option(help="Of `--compare extend`: tokens to add. Default: a quarter of the model's own.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the draws, and of the probes' data order.")] = 0,
    pad_to_multiple_of: Annotated[int, typer.Option(help="Rows are rounded up to this.")] = 128,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Scale combined rows to the copied rows' norm.")
    ] = False,
    fuzzy: Annotated[bool, typer.Option("--fuzzy", help="Match up to case and leading space, too.")] = False,
    text: Annotated[
        list[str] | None,
        typer.Option(
            "--text", help="Text of the target language: what the swap saves, and what probes are measured on."
        ),
    ] = None,
    source_text: Annotated[
        list[str] | None, typer.Option("--source-text", help="Text of the source language, to see what it costs.")
    ] = None,
    source_tokenizer: Annotated[
        str | None, typer.Option(help="The model's own tokenizer, where it does not lie in the model's folder.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would happen; write nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run model code that comes with the folder.")
    ] = False,
) -> None:
    """Give a model a new tokenizer, ready for `from_pretrained`."""
    if out is None and not dry_run and compare is None:
        raise ConfigError("give --out FOLDER, or --dry-run to write nothing")
    from langadapt.artefacts.folders import check_replaceable
    from langadapt.corpus.documents import FileNames, read_documents
    from langadapt.models.folder import resolve_model
    from langadapt.swap.files import swap_folder
    from langadapt.swap.rows.names import AUTO
    from langadapt.trials.inputs import MethodInputs, ProbeWish, choose_method

    if out is not None and compare is None and not dry_run:
        check_replaceable(out)
    folder = resolve_model(model)
    if tokenizer is None and compare is None:
        raise ConfigError("give the new tokenizer's folder as --tokenizer, or --compare replace,extend,trim")
    common: dict[str, Any] = {"pad_to_multiple_of": pad_to_multiple_of, "calibrate": calibrate, "fuzzy": fuzzy}
    common["trust_remote_code"] = trust_remote_code
    wish = ProbeWish(probe_steps, probe_tokens, probe_rate, candidates or (), text or ())
    ranking = None
    with progress("swap") as report_progress:
        given = (vectors, store, words, helper, weighting, source_text or (), seed, report_progress, source_tokenizer)
        inputs = MethodInputs(folder, tokenizer or "", *given)
        if compare is not None:
            sizes = vocab_size, new_tokens
            show_choices(inputs, wish, compare, out, as_json, {"method": method, "sizes": sizes, **common})
            return
        if method == AUTO:
            ranking, options = choose_method(inputs, wish, **common)
            method = ranking.best
        else:
            options = inputs.options(method)
        if output_method is not None:
            options = {**inputs.options(output_method), **options}
        report = swap_folder(
            folder,
            tokenizer,
            out,
            method=method,
            output_method=output_method,
            source_tokenizer=source_tokenizer,
            seed=seed,
            dry_run=dry_run,
            target_text=read_documents(FileNames(text)) if text else None,
            source_text=read_documents(FileNames(source_text)) if source_text else None,
            ranking=ranking.rows if ranking else None,
            progress=report_progress,
            **common,
            **options,
        )
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=2, ensure_ascii=False))
        return
    from rich.console import Console

    console = Console()
    if report.ranking:
        console.print(ranking_table(report.ranking))
    console.print(summary_table(report))
    for note in report.notes:
        console.print(f"Note: {note}", highlight=False)
    console.print(report.advice, highlight=False, soft_wrap=True)


def show_choices(
    inputs: MethodInputs, wish: ProbeWish, names: str, out: Path | None, as_json: bool, options: dict[str, Any]
) -> None:
    """`--compare`: print the table; with a folder, keep it and the tokenizers that were made."""
    from dataclasses import asdict

    from rich.console import Console

    from langadapt.artefacts.folders import write_atomically
    from langadapt.trials.vocabularies import compare_vocabularies

    choices = [name.strip() for name in names.split(",") if name.strip()]
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    rows = [asdict(choice) for choice in compare_vocabularies(inputs, wish, choices, keep_tokenizers=out, **options)]
    text = json.dumps(rows, indent=2, ensure_ascii=False)
    if out is not None:
        write_atomically(out / "comparison.json", text + "\n")
    if as_json:
        typer.echo(text)
    else:
        Console().print(choices_table(rows))


def choices_table(rows: list[dict[str, Any]]) -> Table:
    """Ways to change a vocabulary, side by side."""
    from rich.table import Table

    from langadapt.report.words import short_count

    table = Table(title="Bits per byte after training on the same text", caption="speed: reading text, one pass")
    for name in ("vocabulary", "entries", "weights", "bytes/token", "target", "source", "tokens/s", "bytes/s"):
        table.add_column(name, justify="left" if name == "vocabulary" else "right")
    for row in rows:
        cells = [f"{row['vocabulary']:,}", short_count(row["parameters"]), f"{row['bytes_per_token']:.2f}"]
        cells += ["" if row[side] is None else f"{row[side]:.4f}" for side in ("target", "source")]
        cells += [f"{row['tokens_per_second']:,.0f}", f"{row['bytes_per_second']:,.0f}"]
        table.add_row(row["name"] if row["name"] == row["kind"] else f"{row['name']} ({row['kind']})", *cells)
    return table


def ranking_table(rows: list[dict[str, Any]]) -> Table:
    """The bake-off for a terminal, best first."""
    from rich.table import Table

    table = Table(title="Bake-off: bits per byte after the probe (right after the swap)")
    table.add_column("method")
    for side in ("target", "source"):
        table.add_column(side, justify="right")
    for row in rows:
        cells = []
        for side in ("target", "source"):
            after, before = row.get(side), row.get(f"{side}_before")
            cells.append("" if after is None else f"{after:.4f} ({before:.4f})")
        table.add_row(row["method"], *(cells if "failed" not in row else [row["failed"].replace("[", "\\["), ""]))
    return table


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
