"""``langadapt adapt``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from langadapt.cli.progress import progress
from langadapt.recipe.recipe import Recipe
from langadapt.report import results_table


def command(
    recipe: Annotated[Path, typer.Argument(help="Recipe in YAML.", show_default=False)],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, such as train.steps=100.")
    ] = None,
) -> None:
    """Run all stages of a recipe; run it again after any interruption and it goes on."""
    from langadapt.pipeline.run import adapt

    plan = Recipe.from_yaml(recipe, overrides or ())
    with progress(plan.name) as report:
        results = adapt(plan, progress=report)
    out = Console()
    out.print(results_table(results))
    out.print(f"Report: {Path(plan.out) / 'report' / 'index.html'}")
