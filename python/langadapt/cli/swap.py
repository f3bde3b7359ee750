"""``langadapt swap``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from langadapt.artefacts.remote import RemoteFile
from langadapt.artefacts.stages import make_once
from langadapt.cli.compare import show_choices
from langadapt.cli.options import (
    Fuzzy,
    Helper,
    MatchFrequencies,
    Model,
    Padding,
    ScaleRows,
    Seed,
    SourceText,
    SourceTokenizer,
    TrustCode,
    Weighting,
    Words,
    inputs_of,
    options_of,
    warn_renamed,
    wish_of,
)
from langadapt.cli.progress import next_step, progress, say
from langadapt.corpus.documents import files_of, read_documents
from langadapt.errors import ConfigError
from langadapt.recipe.plain_values import build
from langadapt.swap.rows.names import AUTO, METHODS
from langadapt.swap.rows.options import SwapOptions
from langadapt.terminal import Terminal, echo

if TYPE_CHECKING:
    from langadapt.swap.report import SwapReport
    from langadapt.trials.inputs import MethodInputs, ProbeWish

METHOD_HELP = f"How new rows are made: auto (a bake-off on your text), {', '.join(METHODS)}."

NewTokenizer = Annotated[
    str | None, typer.Option("--tokenizer", help="Folder (or tokenizer.json) of the new tokenizer.")
]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Folder to write.")]
OutputMethod = Annotated[str | None, typer.Option(help="The same for an untied output matrix. Default: as the input.")]
Vectors = Annotated[
    Path | None,
    typer.Option(help="Token vectors, from `langadapt vectors train`. Default: trained on --store by one thread."),
]
Store = Annotated[
    Path | None,
    typer.Option(help="Token store of the target language: counts of tokens, and what `--method auto` trains on."),
]
ProbeSteps = Annotated[int, typer.Option(help="Of `--method auto`: training steps for each method.")]
ProbeTokens = Annotated[int, typer.Option(help="Of `--method auto`: tokens per step.")]
ProbeRate = Annotated[float, typer.Option(help="Of `--method auto`: learning rate.")]
Candidates = Annotated[
    list[str] | None,
    typer.Option("--candidate", help="Of `--method auto`: a method to try. Default: all that can."),
]
Text = Annotated[
    list[str] | None,
    typer.Option("--text", help="Text of the target language: what the swap saves, and what probes are measured on."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would happen; write nothing.")]
Measure = Annotated[
    bool | None,
    typer.Option(
        "--measure/--no-measure",
        help="Run the model on --text and --source-text: what can it do before a swap? Default: with --dry-run, where "
        "that takes no more than half a minute.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]


def command(
    ctx: typer.Context,
    model: Model,
    *,
    tokenizer: NewTokenizer = None,
    out: Out = None,
    method: Annotated[str, typer.Option(help=METHOD_HELP)] = "focus",
    output_method: OutputMethod = None,
    vectors: Vectors = None,
    store: Store = None,
    words: Words = None,
    helper: Helper = None,
    weighting: Weighting = "uniform",
    probe_steps: ProbeSteps = 50,
    probe_tokens: ProbeTokens = 8192,
    probe_rate: ProbeRate = 1e-4,
    candidates: Candidates = None,
    seed: Seed = 0,
    pad_to_multiple_of: Padding = 128,
    scale_rows: ScaleRows = False,
    calibrate: Annotated[bool, typer.Option("--calibrate", hidden=True)] = False,
    fuzzy: Fuzzy = False,
    match_frequencies: MatchFrequencies = True,
    text: Text = None,
    source_text: SourceText = None,
    source_tokenizer: SourceTokenizer = None,
    dry_run: DryRun = False,
    measure: Measure = None,
    as_json: AsJson = False,
    trust_remote_code: TrustCode = False,
    compare: Annotated[str | None, typer.Option(hidden=True)] = None,
    vocab_size: Annotated[int | None, typer.Option(hidden=True)] = None,
    new_tokens: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Give a model a new tokenizer, ready for `from_pretrained`."""
    # Long: a line for each flag.
    if tokenizer is None and compare is None:
        raise ConfigError("give the new tokenizer's folder as --tokenizer")
    if out is None and not dry_run and compare is None:
        raise ConfigError("give --out FOLDER, or --dry-run to write nothing")
    if calibrate:
        warn_renamed("--calibrate", "--scale-rows")
    # A bake-off names the method itself, when it is over.
    swap = options_of({**ctx.params, "method": SwapOptions.method if method == AUTO else method})
    inputs, wish = inputs_of(ctx.params), wish_of(ctx.params)
    if compare is not None:
        show_comparison(inputs, wish, swap, ctx.params)
        return
    places: dict[str, Any] = {"out": None if dry_run else out, "trust_remote_code": trust_remote_code}
    if measure is None and dry_run and wish.text and files_of([*wish.text, *inputs.source_text]) is not None:
        known = what_it_knows(inputs, wish, affordable=True, trust_remote_code=trust_remote_code)
    else:
        known = what_it_knows(inputs, wish, trust_remote_code=trust_remote_code) if measure else {}
    show(replace(run_once(inputs, swap, wish, auto=method == AUTO, **places), known=known), as_json, places["out"])


def what_it_knows(
    inputs: MethodInputs, wish: ProbeWish, *, affordable: bool = False, trust_remote_code: bool
) -> dict[str, float]:
    """Bits per byte of the source model over those of xz, by language; ``affordable``: nothing where that takes long.

    Raises:
        ConfigError: there is no text of the target language.
    """
    from langadapt.evaluation.knowledge import MEASURED_BYTES, affordable_bytes, measure_knowledge

    if not wish.text:
        raise ConfigError("--measure needs --text, text of the target language to measure the model on")
    texts = {"target": read_documents(wish.text)}
    if inputs.source_text:
        texts["source"] = read_documents(inputs.source_text)
    most = affordable_bytes(inputs.model) if affordable else MEASURED_BYTES
    if not most:
        return {}
    how: dict[str, Any] = {"most_bytes": most, "trust_remote_code": trust_remote_code}
    with progress("measure") as report_progress:
        return measure_knowledge(inputs.model, inputs.own, texts, **how, progress=report_progress)


def show_comparison(inputs: MethodInputs, wish: ProbeWish, swap: SwapOptions, flags: Mapping[str, Any]) -> None:
    """What `tokenizer compare` does, by the flags of the last release."""
    warn_renamed("swap --compare", "tokenizer compare")
    if flags["method"] == AUTO:
        raise ConfigError("a comparison of vocabularies needs one method for all, such as `--method focus`")
    names = [name.strip() for name in flags["compare"].split(",") if name.strip()]
    rest = {name: flags[name] for name in ("out", "as_json", "vocab_size", "new_tokens")}
    show_choices(inputs, wish, names, swap=swap, **rest)


def run_once(
    inputs: MethodInputs,
    swap: SwapOptions,
    wish: ProbeWish,
    *,
    auto: bool,
    out: Path | None,
    trust_remote_code: bool,
) -> SwapReport:
    """What :func:`run` does, or has done before."""
    from langadapt.swap.report import SwapReport

    if out is None:
        return run(inputs, swap, wish, auto=auto, out=out, trust_remote_code=trust_remote_code)
    settings = {name: value for name, value in asdict(swap).items() if value is not None}
    settings |= {"bake-off": asdict(wish) if auto else None, "source tokenizer": inputs.source_tokenizer}
    settings["match_frequencies"] = inputs.match_frequencies
    report = make_once(
        "swap",
        out,
        lambda: run(inputs, swap, wish, auto=auto, out=out, trust_remote_code=trust_remote_code).to_dict(),
        settings={**settings, "tokenizer": inputs.tokenizer, "helper": inputs.helper},
        inputs=made_from(inputs, wish),
        log=say,
    )
    # `advice`: of earlier versions.
    report = {name: value for name, value in report.items() if name not in ("prognosis", "advice")}
    return build(SwapReport, report, "")


def made_from(inputs: MethodInputs, wish: ProbeWish) -> dict[str, Path | RemoteFile] | None:
    """Files and folders of a swap; none where some of its text cannot be read twice."""
    texts = [*wish.text, *inputs.source_text]
    files = files_of(texts) if texts else {}
    named: dict[str, Any] = {"model": inputs.model, "tokenizer": inputs.tokenizer}
    named["source tokenizer"] = inputs.source_tokenizer
    named |= {"vectors": inputs.vectors, "store": inputs.store, "helper": inputs.helper}
    named |= {f"words {number}": file for number, file in enumerate(inputs.words or ())}
    there = {name: Path(place) for name, place in named.items() if place and Path(place).exists()}
    return None if files is None else {**there, **files}


def run(
    inputs: MethodInputs,
    swap: SwapOptions,
    wish: ProbeWish,
    *,
    auto: bool,
    out: Path | None,
    trust_remote_code: bool,
) -> SwapReport:
    """The bake-off, if there is to be one, and the swap; nothing is written without ``out``."""
    from langadapt.swap.files import check_out, swap_folder
    from langadapt.trials.inputs import choose_method

    if out is not None:
        check_out(inputs.model, out)
    ranking = None
    with progress("swap") as report_progress:
        inputs = replace(inputs, progress=report_progress)
        if auto:
            ranking, swap = choose_method(inputs, wish, swap, trust_remote_code=trust_remote_code)
        else:
            # Without weights to write there is nothing to shift.
            inputs = replace(inputs, match_frequencies=inputs.match_frequencies and out is not None)
            swap = inputs.complete(swap, trust_remote_code=trust_remote_code)
        return swap_folder(
            inputs.model,
            inputs.tokenizer,
            out,
            swap=swap,
            source_tokenizer=inputs.source_tokenizer,
            trust_remote_code=trust_remote_code,
            dry_run=out is None,
            target_text=read_documents(wish.text) if wish.text else None,
            source_text=read_documents(inputs.source_text) if inputs.source_text else None,
            ranking=ranking.rows if ranking else None,
            progress=report_progress,
        )


def show(report: SwapReport, as_json: bool, folder: Path | None) -> None:
    """Print what the swap did; ``folder``: where it was written, if it was."""
    if as_json:
        echo(json.dumps(report.to_dict(), indent=2, ensure_ascii=False))
        return
    out = Terminal()
    if report.ranking:
        out.print(ranking_table(report.ranking))
    out.print(summary_table(report))
    for note in report.notes:
        out.print(f"Note: {note}", highlight=False)
    out.print(report.prognosis, highlight=False, soft_wrap=True)
    next_step("the same with --out DIR" if folder is None else f"langadapt evaluate {folder} --text FILES")


def ranking_table(rows: list[dict[str, Any]]) -> Table:
    """The bake-off for a terminal, best first."""
    table = Table(title="Bake-off: bits per byte after the probe (right after the swap)")
    table.add_column("method")
    for side in ("target", "source"):
        table.add_column(side, justify="right")
    for row in rows:
        cells = []
        for side in ("target", "source"):
            after, before = row.get(side), row.get(f"{side}_before")
            cells.append("" if after is None else f"{after:.4f} ({before:.4f})")
        table.add_row(row["method"], *(cells if "failed" not in row else [row["failed"], ""]))
    return table


def summary_table(report: SwapReport) -> Table:
    """The report for a terminal."""
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
