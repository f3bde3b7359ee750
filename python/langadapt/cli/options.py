"""Options that several commands have, and spellings of the last release."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from langadapt.artefacts.engine import Engine, check
from langadapt.cli.progress import console
from langadapt.errors import ConfigError
from langadapt.models.folder import resolve_model
from langadapt.swap.rows.options import SwapOptions

if TYPE_CHECKING:
    from langadapt.trials.inputs import MethodInputs, ProbeWish

Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT",
        help="Files, folders or patterns, here or as URLs (s3://, https://): .jsonl, .txt (each also .gz, .zst), "
        ".parquet; `-` for stdin.",
        show_default=False,
    ),
]
Out = Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder to write.", show_default=False)]
TextField = Annotated[str, typer.Option(help="Field of JSON lines, column of Parquet files.")]
TextUnit = Annotated[str, typer.Option(metavar="line|file", help="One document of a .txt file.")]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at the first line without a document.")]
Threads = Annotated[int | None, typer.Option(help="Threads. Default: all cores.", min=1)]
ShardOption = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/N",
        help="Work on part I (from 0) of N, into a folder below --out; `slurm/N`: the part of this Slurm array task.",
    ),
]
EngineOption = Annotated[
    str | None,
    typer.Option("--engine", metavar="ray", help="Work in shards, as tasks of Ray, then merge them."),
]
Address = Annotated[str | None, typer.Option(help="Of --engine: HOST:PORT or `auto`. Default: Ray on this machine.")]
Shards = Annotated[int, typer.Option(help="Of --engine: tasks; their number changes no byte.", min=1)]
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
MatchFrequencies = Annotated[
    bool,
    typer.Option(
        "--match-frequencies/--no-match-frequencies",
        help="Shift the logits of new tokens to how often these come in --store, which takes the model into memory.",
    ),
]
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


def options_of(flags: Mapping[str, Any]) -> SwapOptions:
    """The options of the swap among a command's flags."""
    given = {field.name: flags[field.name] for field in fields(SwapOptions) if field.name in flags}
    given.pop("vectors", None)  # a file, which the inputs of the method open
    return SwapOptions(**{**given, "scale_rows": flags["scale_rows"] or flags.get("calibrate", False)})


def inputs_of(flags: Mapping[str, Any]) -> MethodInputs:
    """The files among the command's flags."""
    from langadapt.trials.inputs import MethodInputs

    given = {field.name: flags[field.name] for field in fields(MethodInputs) if field.name in flags}
    texts = flags["source_text"] or ()
    given |= {"model": resolve_model(flags["model"]), "tokenizer": flags.get("tokenizer") or "", "source_text": texts}
    return MethodInputs(**given)


def wish_of(flags: Mapping[str, Any]) -> ProbeWish:
    """What the command's flags ask of a bake-off."""
    from langadapt.trials.inputs import ProbeWish

    steps, tokens, rate = (flags[f"probe_{name}"] for name in ("steps", "tokens", "rate"))
    return ProbeWish(steps, tokens, rate, flags.get("candidates") or (), flags["text"] or ())


def engine_of(name: str | None, address: str | None, shards: int, shard: str | None = None) -> Engine | None:
    """The cluster that work is done on; none = this process.

    Raises:
        ConfigError: there is no such engine, nobody answers at the address, or one ``shard`` is asked for.
    """
    if name is None:
        if address is not None:
            raise ConfigError("--address: says where `--engine ray` is; name that, too")
        return None
    if name != "ray":
        raise ConfigError(f"--engine: {name!r} is none; `ray` is")
    if shard is not None:
        raise ConfigError("--shard: makes one part here, and --engine all parts elsewhere; name one of them")
    check(address)
    return Engine(shards, address)


def warn_renamed(old: str, new: str) -> None:
    """Say that an option has another name now; the old one is taken for one release."""
    console.print(f"Note: `{old}` is called `{new}` now.", highlight=False)
