"""``langadapt tokenizer compare``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from langadapt.artefacts.folders import write_atomically
from langadapt.artefacts.places import begins, check_file, check_folder
from langadapt.cli.options import (
    AsJson,
    Fuzzy,
    Helper,
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
    wish_of,
)
from langadapt.cli.progress import next_step, progress
from langadapt.report.words import short_count
from langadapt.swap.rows.names import METHODS
from langadapt.terminal import Terminal, echo

FILE = "comparison.json"
BEGINNING = b'[\n  {\n    "name": '
"""Of such a file."""

if TYPE_CHECKING:
    from langadapt.trials.inputs import MethodInputs, ProbeWish

Choices = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[WAY]...",
        help="replace, extend, trim (made from --text), or a tokenizer's folder. Default: the first three.",
        show_default=False,
    ),
]
Text = Annotated[
    list[str],
    typer.Option(help="Text of the target language, to make tokenizers, train and measure on.", show_default=False),
]
Out = Annotated[
    Path | None, typer.Option("--out", "-o", metavar="DIR", help="Folder for the table and the tokenizers made.")
]
VocabSize = Annotated[
    int | None, typer.Option(help="Of `replace`: entries. Default: those of the model, at most 32,768.", min=1)
]
NewTokens = Annotated[int | None, typer.Option(help="Of `extend`: tokens to add. Default: a quarter of that.", min=1)]
Steps = Annotated[int, typer.Option(help="Training steps, counted with the model's own tokenizer.", min=1)]


def command(
    ctx: typer.Context,
    model: Model,
    choices: Choices = None,
    *,
    text: Text,
    source_text: SourceText = None,
    out: Out = None,
    method: Annotated[str, typer.Option(help=f"How new rows are made: {', '.join(METHODS)}.")] = "focus",
    vocab_size: VocabSize = None,
    new_tokens: NewTokens = None,
    probe_steps: Steps = 50,
    probe_tokens: Annotated[int, typer.Option(help="Tokens per step.", min=1)] = 8192,
    probe_rate: Annotated[float, typer.Option(help="Learning rate.")] = 1e-4,
    words: Words = None,
    helper: Helper = None,
    weighting: Weighting = "uniform",
    seed: Seed = 0,
    pad_to_multiple_of: Padding = 128,
    scale_rows: ScaleRows = False,
    fuzzy: Fuzzy = False,
    source_tokenizer: SourceTokenizer = None,
    as_json: AsJson = False,
    trust_remote_code: TrustCode = False,
) -> None:
    """Compare ways to change a model's vocabulary: all get the same text to train on and to be measured on."""
    inputs, wish = inputs_of(ctx.params), wish_of(ctx.params)
    options: dict[str, Any] = {"vocab_size": vocab_size, "new_tokens": new_tokens, "swap": options_of(ctx.params)}
    ways = choices or ("replace", "extend", "trim")
    show_choices(inputs, wish, ways, out=out, as_json=as_json, trust_remote_code=trust_remote_code, **options)


def show_choices(
    inputs: MethodInputs, wish: ProbeWish, choices: Sequence[str], *, out: Path | None, as_json: bool, **options: Any
) -> None:
    """Print the table; with a folder, keep it and the tokenizers that were made."""
    from langadapt.trials.vocabularies import compare_vocabularies

    if out is not None:
        check_folder(out)
        check_file(out / FILE, lambda there: begins(there, BEGINNING))
        out.mkdir(parents=True, exist_ok=True)
    with progress("compare") as report:
        measured = compare_vocabularies(replace(inputs, progress=report), wish, choices, keep_tokenizers=out, **options)
    rows = [asdict(choice) for choice in measured]
    text = json.dumps(rows, indent=2, ensure_ascii=False)
    if out is not None:
        write_atomically(out / FILE, text + "\n")
    if as_json:
        echo(text)
    else:
        Terminal().print(choices_table(rows))
        next_step("langadapt init --model MODEL --text FILES --language LANGUAGE")


def choices_table(rows: list[dict[str, Any]]) -> Table:
    """Ways to change a vocabulary, side by side."""
    table = Table(
        title="Bits per byte after training on the same text",
        caption="speed: reading text, one pass",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    table.add_column("vocabulary")
    for name in ("entries", "weights", "bytes\nper\ntoken", "target", "source", "tokens/s", "bytes/s"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        cells = [f"{row['vocabulary']:,}", short_count(row["parameters"]), f"{row['bytes_per_token']:.2f}"]
        cells += ["" if row[side] is None else f"{row[side]:.4f}" for side in ("target", "source")]
        cells += [short_count(row[f"{unit}_per_second"]) for unit in ("tokens", "bytes")]
        table.add_row(row["name"] if row["name"] == row["kind"] else f"{row['name']} ({row['kind']})", *cells)
    return table
