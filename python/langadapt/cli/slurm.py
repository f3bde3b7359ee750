"""``langadapt slurm``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from langadapt.cli.progress import next_step
from langadapt.pipeline.slurm import Cluster, write_slurm
from langadapt.recipe.recipe import Recipe
from langadapt.terminal import echo


def command(
    recipe: Annotated[Path, typer.Argument(help="Recipe in YAML.", show_default=False)],
    *,
    shards: Annotated[int, typer.Option(help="Tasks that build the corpus.")] = 16,
    cpus: Annotated[int, typer.Option(help="Cores of each of them.")] = 8,
    nodes: Annotated[int, typer.Option(help="Nodes for training.")] = 1,
    gpus: Annotated[int, typer.Option(help="GPUs of each node.")] = 1,
    hours: Annotated[float, typer.Option(help="Limit of each job.")] = 24.0,
) -> None:
    """Write a recipe as Slurm jobs (array for the corpus, torchrun, report) to OUT/slurm, and send nothing."""
    cluster = Cluster(shards=shards, cpus=cpus, nodes=nodes, gpus=gpus, hours=hours)
    folder = write_slurm(Recipe.from_yaml(recipe), recipe.resolve(), cluster, sys.executable)
    for script in sorted(folder.glob("*.s*")):
        echo(script)
    next_step(f"{folder / 'submit.sh'}")
