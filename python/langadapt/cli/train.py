"""``langadapt train``: continued pretraining of what a recipe's earlier stages made; under `torchrun` it shards."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from langadapt.artefacts.stages import is_running
from langadapt.cli.progress import next_step
from langadapt.errors import ConfigError, TrainingDiverged, TrainingStopped
from langadapt.recipe.recipe import Recipe
from langadapt.terminal import echo
from langadapt.training.signals import ask_to_anneal


def command(
    recipe: Annotated[Path, typer.Argument(help="The recipe (YAML).", show_default=False)],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a value of the recipe.")
    ] = None,
    extend: Annotated[bool, typer.Option("--extend", help="Go on with a larger budget or at other rates.")] = False,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="STEP",
            help="Of `--extend`: the checkpoint to go on from, or `newest`. Default: the newest; after the final decay "
            "the one before it, which is always kept.",
        ),
    ] = None,
    anneal: Annotated[
        bool, typer.Option("--anneal", help="Ask the run that is under way to finish its schedule now, and leave.")
    ] = False,
) -> None:
    """Train on a recipe's token stores; goes on where an interrupted run stopped.

    SIGTERM, SIGUSR1 and Ctrl-C write a checkpoint first; the same command then goes on. `torchrun` passes SIGUSR1 on
    if told to: `torchrun --signals-to-handle SIGTERM,SIGINT,SIGUSR1 ...`; it ends with code 1 itself.

    An extension of `wsd`, `infinite` or `constant` from within the constant phase stays at that rate until the last
    `anneal` of the larger budget, as if that had been the budget from the start; a budget just above `--from` anneals
    from there. Others rise to the peak again. The extended run's `final` takes the place of the old one.
    """
    where = starting_point(extend, start)
    loaded = Recipe.from_yaml(recipe, overrides or ())
    if anneal:
        later = "" if is_running(Path(loaded.out)) else "; nothing trains there now, it will when the run goes on"
        for folder in ask_to_anneal(Path(loaded.out)):
            echo(f"asked {folder} to anneal{later}")
        return
    from langadapt.pipeline.run import train
    from langadapt.training import parallel

    try:
        summary = train(loaded, extend=where)
    except (TrainingStopped, TrainingDiverged):
        # All processes stop at the same step.
        parallel.leave()
        raise
    parallel.leave()
    if int(os.environ.get("RANK", "0")) == 0:
        echo(Path(summary["out"]) / "final")
        next_step(after(recipe, loaded))


def after(file: Path, recipe: Recipe) -> str:
    """What to do with a trained model."""
    if recipe.train.data == "chat":
        return f"langadapt generate {recipe.out} --prompt TEXT; langadapt export gguf {recipe.out} --out FILE"
    return f"langadapt adapt {file}: evaluation, comparison and report"


def starting_point(extend: bool, start: str | None) -> bool | int | str:
    """What `--extend` and `--from` ask for together."""
    if start is None:
        return extend
    if not extend:
        raise ConfigError("--from: says where `--extend` goes on from; without it a run goes on where it stopped")
    if start == "newest":
        return start
    if not start.isdecimal():
        raise ConfigError(f"--from: {start} is neither the step of a checkpoint nor `newest`")
    return int(start)
