"""``langadapt adapt``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from langadapt.artefacts.names import RESULTS_NAME
from langadapt.cli.options import Address, EngineOption, Shards, engine_of
from langadapt.cli.progress import next_step, progress
from langadapt.errors import TrainingDiverged
from langadapt.pipeline.dry_run import dry_run, language_looks
from langadapt.recipe.recipe import Recipe
from langadapt.report import results_table
from langadapt.terminal import Terminal, echo


def command(
    recipe: Annotated[Path, typer.Argument(help="Recipe in YAML.", show_default=False)],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, such as train.steps=100.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check all that can be checked, name the stages, and write nothing.")
    ] = False,
    engine: EngineOption = None,
    address: Address = None,
    shards: Shards = 16,
) -> None:
    """Run all stages of a recipe; run it again after any interruption and it goes on."""
    plan = Recipe.from_yaml(recipe, overrides or ())
    if dry_run:
        show_stages(plan)
        next_step(f"langadapt adapt {recipe}{''.join(f' --set {one}' for one in overrides or ())}")
        return
    cluster = engine_of(engine, address, shards)
    from langadapt.pipeline.run import adapt

    try:
        with progress(plan.name) as report:
            results = adapt(plan, progress=report, engine=cluster)
    except TrainingDiverged:
        # All was measured and written before it was raised.
        show_results(json.loads((Path(plan.out) / RESULTS_NAME).read_text(encoding="utf-8")), Path(plan.out))
        raise
    show_results(results, Path(plan.out))
    next_step(f"langadapt generate {plan.out} --prompt TEXT; langadapt evaluate {plan.out}")


def show_results(results: Mapping[str, Any], folder: Path) -> None:
    """The verdict with its table, and where the page lies."""
    out = Terminal()
    out.print(results_table(results))
    out.print(f"Report: {folder / 'report' / 'index.html'}", soft_wrap=True, highlight=False)


def show_stages(plan: Recipe) -> None:
    """Print what a run would do."""
    for stage, made in dry_run(plan):
        echo(f"{stage}: {'made already' if made else 'to do'}")
    for line in language_looks(plan):
        echo(line)
    from langadapt.trials.cutting import lines_of, try_cutting
    from langadapt.trials.prognosis import prognosis_of

    trials = try_cutting(plan)
    for line in lines_of(trials):
        echo(line)
    with progress("prognosis") as report:
        text = prognosis_of(plan, trials, progress=report)
    if text:
        echo(text)
