"""``langadapt fertility``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from langadapt.artefacts.remote import shown
from langadapt.cli.options import AsJson, TextField, Threads, arguments_of
from langadapt.cli.progress import next_step, progress
from langadapt.errors import ConfigError
from langadapt.terminal import Terminal, echo


def command(
    ctx: typer.Context,
    tokenizers: Annotated[
        list[str],
        typer.Argument(metavar="TOKENIZER", help="[NAME=] folder, tokenizer.json or hub id.", show_default=False),
    ],
    *,
    corpora: Annotated[
        list[str],
        typer.Option(
            "--corpus",
            metavar="NAME=PATH",
            help="Text: file, folder, pattern or URL. Once for each corpus.",
            show_default=False,
        ),
    ],
    reference: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Corpus to measure parity against; all must then be line-aligned."),
    ] = None,
    text_field: TextField = "text",
    rare_below: Annotated[int, typer.Option(help="Count vocabulary entries that occur less often.")] = 10,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Measure how tokenizers cut text, side by side: fertility, parity, bytes per token and the rest."""
    from langadapt.fertility import measure_fertility

    arguments = arguments_of(ctx)
    arguments |= {"tokenizers": named("tokenizer", tokenizers), "corpora": named("--corpus", corpora)}
    with progress("fertility") as report_progress:
        report = measure_fertility(**arguments, progress=report_progress)
    if as_json:
        echo(json.dumps(report.to_dict(), indent=2, ensure_ascii=False))
    else:
        Terminal().print(report)
        next_step("langadapt tokenizer compare MODEL --text FILES: what another vocabulary would gain")


def named(what: str, values: list[str]) -> dict[str, str]:
    """``NAME=VALUE`` pairs; a value alone is named by its last part.

    Raises:
        ConfigError: two have one name.
    """
    found: dict[str, str] = {}
    for value in values:
        name, equals, rest = value.partition("=")
        if not equals or "/" in name:
            name, rest = short_name(shown(value)), value
        if not rest:
            raise ConfigError(f"{what}: {value!r} names nothing; give NAME=PATH or PATH")
        if name in found:
            raise ConfigError(f"{what}: two are called {name!r}; tell them apart as NAME=PATH")
        found[name] = rest
    return found


def short_name(path: str) -> str:
    """A folder's name, a file's up to its first dot, a ``tokenizer.json``'s folder."""
    place = Path(path)
    if place.name == "tokenizer.json" and place.parent.name:
        return place.parent.name
    return place.name.split(".")[0] or path
