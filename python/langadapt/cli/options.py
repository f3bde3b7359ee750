"""Options that several commands have, and spellings of the last release."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from langadapt.cli.progress import console

Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT...",
        help="Files, folders or patterns: .jsonl, .txt (each also .gz, .zst), .parquet; `-` for stdin.",
        show_default=False,
    ),
]
Out = Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder to write.", show_default=False)]
TextField = Annotated[str, typer.Option(help="Field of JSON lines, column of Parquet files.")]
TextUnit = Annotated[str, typer.Option(metavar="line|file", help="One document of a .txt file.")]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at the first line without a document.")]
Threads = Annotated[int | None, typer.Option(help="Threads [default: all cores].", min=1)]
AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of text for people.")]

Model = Annotated[str, typer.Argument(help="Model folder or hub id.")]
Words = Annotated[
    tuple[Path, Path, Path] | None,
    typer.Option(
        help="For wechsel: word vectors (.bin, .vec) of source and of target language, and a dictionary of pairs.",
        metavar="SOURCE TARGET DICTIONARY",
    ),
]
Helper = Annotated[str | None, typer.Option(help="For clp: folder of a small model with the new tokenizer.")]
Weighting = Annotated[str, typer.Option(help="Of subword_mean: uniform, or characters.")]
Seed = Annotated[int, typer.Option(help="Of the draws, and of the probes' data order.")]
Padding = Annotated[int, typer.Option(help="Rows are rounded up to this.")]
ScaleRows = Annotated[bool, typer.Option("--scale-rows", help="Scale combined rows to the copied rows' norm.")]
Fuzzy = Annotated[bool, typer.Option("--fuzzy", help="Match up to case and leading space, too.")]
SourceText = Annotated[
    list[str] | None, typer.Option("--source-text", help="Text of the source language, to see what it costs.")
]
SourceTokenizer = Annotated[
    str | None, typer.Option(help="The model's own tokenizer, where it does not lie in the model's folder.")
]
TrustCode = Annotated[bool, typer.Option("--trust-remote-code", help="Run model code that comes with the folder.")]


def arguments_of(ctx: typer.Context) -> dict[str, Any]:
    """A command's parameters by name, but where its result goes: the arguments of the function that it stands for."""
    return {name: value for name, value in ctx.params.items() if name not in ("out", "as_json")}


def warn_renamed(old: str, new: str) -> None:
    """Say that an option has another name now; the old one is taken for one release."""
    console.print(f"Note: `{old}` is called `{new}` now.", highlight=False)
