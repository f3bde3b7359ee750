"""``langadapt items``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from langadapt.artefacts.stages import make_once
from langadapt.cli.options import AsJson, TextField
from langadapt.cli.progress import next_step, say
from langadapt.corpus.documents import files_of, read_documents
from langadapt.evaluation.items import make_items
from langadapt.pipeline.finished import held_out, is_run
from langadapt.terminal import Terminal, echo


def command(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN|INPUT...",
            help="Held-out text: files, folders or patterns; or a run's folder, for what it set aside of its language.",
            show_default=False,
        ),
    ],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder to write.", show_default=False)],
    count: Annotated[int, typer.Option(help="Items of each kind, at most.", min=1)] = 300,
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 0,
    text_field: TextField = "text",
    as_json: AsJson = False,
) -> None:
    """Make questions of your own held-out text: next paragraph, cloze, word order; for `evaluate --suite DIR`."""
    texts = [str(next(iter(held_out(Path(inputs[0])).values())))] if is_run(inputs[0]) else inputs
    settings = {"count": count, "seed": seed, "text_field": text_field}

    def make() -> dict[str, Any]:
        return asdict(make_items(read_documents(texts, text_field=text_field), out, count=count, seed=seed))

    found = make_once("items", out, make, settings=settings, inputs=files_of(texts), log=say)
    if as_json:
        echo(json.dumps(found, indent=2))
        return
    kinds = ", ".join(f"{number} {kind.replace('_', ' ')}" for kind, number in found["items"].items())
    Terminal().print(f"{out}: {kinds}, of {found['documents']:,} documents; guessing gets 0.25", highlight=False)
    for note in found["notes"]:
        Terminal().print(f"Note: {note}", highlight=False)
    next_step(f"langadapt evaluate MODEL... --suite {out}")
