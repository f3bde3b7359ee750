"""``langadapt finish``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from langadapt.artefacts.stages import make_once
from langadapt.cli.options import AsJson, SourceText, TrustCode
from langadapt.cli.progress import progress, say
from langadapt.corpus.documents import files_of, read_documents
from langadapt.errors import ConfigError
from langadapt.finish.options import AUTO, METHODS
from langadapt.machine import quiet_transformers
from langadapt.models.folder import resolve_model
from langadapt.pipeline.finished import final_model, held_out, is_run
from langadapt.recipe.recipe import Recipe
from langadapt.terminal import Terminal, echo

Text = Annotated[
    list[str] | None,
    typer.Option("--text", help="Held-out text of the target language, for `--scale auto`. Default: the run's own."),
]


@dataclass(frozen=True)
class Places:
    """Where everything lies."""

    model: Path
    base: Path | None
    swapped: Path | None
    out: Path
    texts: dict[str, list[str]]
    """Held-out text by language."""


def command(
    model: Annotated[str, typer.Argument(metavar="RUN|MODEL", help="A run's folder, or an adapted model.")],
    *,
    instruct: Annotated[str, typer.Option(help="Instruct model of the same base: folder or hub id.")],
    base: Annotated[
        str | None, typer.Option(help="Model that both were made from: folder or hub id. Default: the run's.")
    ] = None,
    swapped: Annotated[
        Path | None, typer.Option(help="Folder that `langadapt swap` wrote. Default: the run's, or the model's own.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder to write. Default: `finished` in the run's.")
    ] = None,
    method: Annotated[str, typer.Option(help=f"{', '.join(METHODS)}.")] = "residual",
    scale: Annotated[str, typer.Option(help="How much: auto (measured), or a number; 1 = all.")] = AUTO,
    text: Text = None,
    source_text: SourceText = None,
    prompts: Annotated[
        list[str] | None, typer.Option("--prompt", help="What a user says, for `--scale auto`; more than one will do.")
    ] = None,
    device: Annotated[str, typer.Option(help="Of `--scale auto`: auto, cpu, cuda, ...")] = "auto",
    as_json: AsJson = False,
    trust_remote_code: TrustCode = False,
) -> None:
    """Give an adapted model the chat of an instruct model: weights, template, end tokens."""
    places = places_of(model, base, swapped, out, text={"target": text, "source": source_text})
    settings = {"method": method, "scale": amount(scale), "prompts": prompts or [], "device": device}
    found = run_once(places, instruct, settings, trust_remote_code)
    if as_json:
        echo(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        show(found, places.out)


def run_once(places: Places, instruct: str, settings: dict[str, Any], trust_remote_code: bool) -> dict[str, Any]:
    """The finishing, or what it reported when it was done before."""
    tuned, texts = resolve_model(instruct), places.texts if settings["scale"] == AUTO else {}
    files = files_of([name for names in texts.values() for name in names]) if texts else {}
    members = {"model": places.model, "instruct": tuned, "base": places.base, "swapped": places.swapped}
    there = {name: path for name, path in members.items() if path is not None}

    def make() -> Mapping[str, Any]:
        from langadapt.finish.files import finish_folder

        quiet_transformers()
        with progress("finish") as report_progress:
            return finish_folder(
                places.model,
                tuned,
                places.out,
                base=places.base,
                swapped=places.swapped,
                texts={language: read_documents(names) for language, names in texts.items()},
                trust_remote_code=trust_remote_code,
                progress=report_progress,
                **settings,
            ).to_dict()

    inputs = None if files is None else {**there, **files}
    return make_once("finish", places.out, make, settings={**settings, "instruct": instruct}, inputs=inputs, log=say)


def amount(scale: str) -> float | str:
    """``auto`` or a number.

    Raises:
        ConfigError: neither.
    """
    try:
        return scale if scale == AUTO else float(scale)
    except ValueError:
        raise ConfigError(f"--scale: {scale!r}; give auto or a number such as 0.7") from None


def places_of(
    model: str, base: str | None, swapped: Path | None, out: Path | None, *, text: Mapping[str, list[str] | None]
) -> Places:
    """Where everything lies, for a run's folder or for a model of its own; ``text`` goes before a run's own.

    Raises:
        ConfigError: a run whose training is not over, or no place to write to.
    """
    texts = {language: names for language, names in text.items() if names}
    if not is_run(model):
        if out is None:
            raise ConfigError("give --out FOLDER: the model is not in a run's folder")
        return Places(resolve_model(model), None if base is None else resolve_model(base), swapped, out, texts)
    run, final = Path(model), final_model(Path(model))
    kept = run / "swapped" / final.parent.name
    return Places(
        final,
        resolve_model(base or Recipe.from_yaml(run / "recipe.yaml").model),
        swapped or (kept if kept.is_dir() else None),
        out or run / "finished",
        {file.parent.name: [str(file)] for file in held_out(run).values()} | texts,
    )


def show(found: Mapping[str, Any], out: Path) -> None:
    """Print what was done."""
    console = Terminal()
    if found["sweep"]:
        console.print(sweep_table(found["sweep"], found["scale"]))
    rows = ", ".join(f"{count:,} {kind}" for kind, count in found["rows"].items())
    console.print(
        f"{out}: `{found['method']}` at scale {found['scale']:g}; rows: {rows}", highlight=False, soft_wrap=True
    )
    for note in found["notes"]:
        console.print(f"Note: {note}", highlight=False, soft_wrap=True)


def sweep_table(rows: list[dict[str, Any]], chosen: float) -> Table:
    """The scales for a terminal."""
    table = Table(title="Scales: bits per byte, and shares of replies that keep to the template")
    languages = list(rows[0]["bits_per_byte"])
    for head in ("scale", *languages, "stops", "roles", "no stray markers"):
        table.add_column(head, justify="right")
    for row in rows:
        cells = [f"{row['bits_per_byte'][language]:.4f}" for language in languages]
        cells += [f"{row['replies'][name]:.0%}" for name in ("stops", "roles", "markers")]
        table.add_row(f"{row['scale']:g}", *cells, style="bold" if row["scale"] == chosen else "")
    return table
