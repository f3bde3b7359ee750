"""``langadapt sheet``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from langadapt.cli.options import TextField
from langadapt.cli.progress import next_step, progress
from langadapt.corpus.documents import read_documents
from langadapt.errors import ConfigError
from langadapt.evaluation.sheet import Pair, Preference, check_sheet, write_sheet
from langadapt.machine import choose_device, quiet_transformers
from langadapt.models.folder import load_model
from langadapt.pipeline.finished import held_out, is_run, model_of
from langadapt.terminal import Terminal


def command(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL MODEL", help="Two folders, hub ids or runs.", show_default=False),
    ],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="F.html", help="Sheet to write.", show_default=False)],
    text: Annotated[
        list[str] | None, typer.Option("--text", help="Held-out text to go on from. Default: what a run has set aside.")
    ] = None,
    count: Annotated[int, typer.Option(help="Texts on the sheet.", min=1)] = 30,
    title: Annotated[str, typer.Option(help="Above the sheet.")] = "Which text is better?",
    tokens: Annotated[int, typer.Option(help="Written for each text, at most.", min=1)] = 80,
    seed: Annotated[int, typer.Option(help="Of the sides.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    text_field: TextField = "text",
) -> None:
    """Write a blind sheet on which native speakers compare what two models write."""
    from langadapt.evaluation.continuations import prompts

    if len(models) != 2:
        raise ConfigError(f"a sheet compares two models, and {len(models)} are given")
    check_sheet(out)
    sources = text or [str(file) for run in models if is_run(run) for file in list(held_out(Path(run)).values())[:1]]
    if not sources:
        raise ConfigError("give --text INPUT: beginnings of texts to go on from")
    chosen = [start for start, _ in prompts(list(read_documents(sources, text_field=text_field)), count)]
    if not chosen:
        raise ConfigError("--text: no document is long enough to go on from; give text of 240 characters and more")
    written = [continued(model, chosen, tokens, device) for model in models]
    pairs = [Pair(start, *both) for start, *both in zip(chosen, *written, strict=True)]
    key = write_sheet(pairs, (models[0], models[1]), out, title=title, seed=seed)
    Terminal().print(f"{out}: for judges; {key}: keep it to yourself", highlight=False, soft_wrap=True)
    next_step("langadapt evaluate --sheet ANSWERS.json")


def continued(model: str, starts: list[str], tokens: int, device: str) -> list[str]:
    """What a model writes, the likeliest token each time."""
    from langadapt.evaluation.continuations import continuations
    from langadapt.tokenizer.encoder import Tokenizer

    quiet_transformers()
    folder = model_of(model)
    loaded = load_model(folder, dtype="auto").to(choose_device(device)).eval()
    tokenizer = Tokenizer.from_pretrained(folder)
    found = []
    with progress("sheet") as report:
        for at, start in enumerate(starts):
            found += continuations(loaded, tokenizer, [start], tokens=tokens, seconds=3600)
            report(f"write with {model}", at + 1, len(starts), "texts")
    return found


def show(found: Preference) -> None:
    """What judges found, for people."""
    first, second = found.models
    low, high = found.interval
    out = Terminal()
    out.print(
        f"{second} over {first}: preferred {found.preference:.0%} (95 % interval {low:.0%} to {high:.0%}), "
        f"{found.texts} texts, {found.judges} judges",
        highlight=False,
        soft_wrap=True,
    )
    out.print(", ".join(f"{name} {count}" for name, count in found.counts.items()), highlight=False)
    if found.agreement is not None and found.alpha is not None:
        out.print(f"judges agree on {found.agreement:.0%} (Krippendorff's alpha {found.alpha:.2f})", highlight=False)
    least = 0.5 + found.detectable
    shown = f"so many texts show a preference from {least:.0%} on" if least <= 1 else "so few texts show no preference"
    out.print(shown, highlight=False)
