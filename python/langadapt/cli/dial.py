"""``langadapt dial``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from langadapt.artefacts.folders import write_atomically
from langadapt.cli.evaluate import named_corpora
from langadapt.cli.options import AsJson
from langadapt.cli.progress import next_step, progress
from langadapt.corpus.documents import read_documents
from langadapt.errors import ConfigError
from langadapt.machine import choose_device, quiet_transformers
from langadapt.models.folder import resolve_model
from langadapt.pipeline.finished import final_model, held_out, is_run, start_of
from langadapt.terminal import Terminal, echo

DIAL_NAME = "dial.json"


def command(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN | START END",
            help="Folder of a finished run, or of a model before and after its training.",
            show_default=False,
        ),
    ],
    *,
    text: Annotated[
        list[str] | None,
        typer.Option(metavar="[NAME=]CORPUS", help="Held-out text to measure on. Default: the run's."),
    ] = None,
    at: Annotated[str, typer.Option(help="Amounts to measure.")] = "0,0.25,0.5,0.75,0.9,1",
    amount: Annotated[
        float | None, typer.Option(help="Write the model at this amount: 0 = before the training, 1 = after it.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="DIR", help="Where to write it.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    as_json: AsJson = False,
) -> None:
    """Keep a part of a training: bits per byte of every language between two models, and the model you pick.

    A training's first part gains most and forgets least; along the straight line from the model before it to the model
    after it both can be read, and had, without training again.
    """
    from langadapt.models.interpolation import write_between

    start, end, texts = places(models, text or ())
    if (amount is None) != (out is None):
        raise ConfigError("--amount says which model to write and --out where: give both, or none to measure")
    if amount is not None and out is not None:
        with progress("dial") as report:
            write_between(start, end, amount, out, progress=report)
        echo(f"{out}: {amount:g} of the training; langadapt evaluate {out} --text CORPUS measures it")
        return
    rows = measured(start, end, texts, amounts=amounts_of(at), device=device)
    if len(models) == 1:
        write_atomically(Path(models[0]) / DIAL_NAME, json.dumps(rows, indent=2) + "\n")
    if as_json:
        echo(json.dumps(rows, indent=2))
        return
    Terminal().print(table_of(rows))
    next_step(f"langadapt dial {' '.join(models)} --amount 0.75 --out FOLDER")


def measured(
    start: Path, end: Path, texts: Mapping[str, str], *, amounts: Sequence[float], device: str
) -> list[dict[str, float]]:
    """Rows of :func:`langadapt.trials.dial.dial`.

    Raises:
        ConfigError: there is no text.
    """
    from langadapt.trials.dial import dial

    if not texts:
        raise ConfigError("nothing to measure on: give --text NAME=CORPUS for each language")
    quiet_transformers()
    documents = {name: list(read_documents(path)) for name, path in texts.items()}
    with progress("dial") as report:
        return dial(start, end, documents, amounts=amounts, device=choose_device(device), progress=report)


def places(models: Sequence[str], text: Sequence[str]) -> tuple[Path, Path, dict[str, str]]:
    """The model before, the model after, and what to measure on, by name.

    Raises:
        ConfigError: more than two folders, no run, or one whose training is not over.
    """
    named = named_corpora(text)
    if len(models) == 2:
        return resolve_model(models[0]), resolve_model(models[1]), named
    if len(models) != 1:
        raise ConfigError(f"{len(models)} folders: give a run, or the model before and the model after its training")
    run = Path(models[0])
    if not is_run(run):
        raise ConfigError(f"{run}: is no run's folder; give one, or the model before and the model after its training")
    end = final_model(run)
    return start_of(run, end), end, named or {file.parent.name: str(file) for file in held_out(run).values()}


def amounts_of(given: str) -> list[float]:
    """``0,0.5,1`` as numbers.

    Raises:
        ConfigError: it is no such list.
    """
    try:
        return [float(part) for part in given.split(",")]
    except ValueError:
        raise ConfigError(f"--at: {given!r} is no list of numbers such as 0,0.5,1") from None


def table_of(rows: Sequence[Mapping[str, float]]) -> Table:
    """A row for each amount, the best of each text in bold."""
    table = Table(title="bits per byte (lower is better)")
    names = [name for name in rows[0] if name != "amount"]
    for name in ("amount", *names):
        table.add_column(name, justify="right")
    best = {name: min(row[name] for row in rows) for name in names}
    for row in rows:
        cells = [Text(f"{row[name]:.4f}", style="bold" if row[name] == best[name] else "") for name in names]
        table.add_row(f"{row['amount']:g}", *cells)
    return table
