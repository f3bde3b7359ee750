"""A recipe as jobs of Slurm: an array that builds the corpus, training by ``torchrun``, then measuring and the report.

Slurm itself schedules; each script is what a user would write, and may be edited. Scripts go on where they stopped:
send them again after any failure.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, fields
from pathlib import Path

from langadapt.artefacts.folders import write_atomically
from langadapt.checks import at_least
from langadapt.corpus.build import BuildOptions
from langadapt.corpus.documents import is_stream
from langadapt.errors import ConfigError
from langadapt.pipeline.job import parts_of
from langadapt.recipe.recipe import Recipe

WARNING = 180
"""Seconds before the limit at which training is told to write a checkpoint."""


@dataclass(frozen=True)
class Cluster:
    """What jobs ask for."""

    shards: int = 16
    """Tasks of the array."""
    cpus: int = 8
    """Cores of each."""
    nodes: int = 1
    """For training."""
    gpus: int = 1
    """Of each node."""
    hours: float = 24.0
    """Limit of each job."""

    def __post_init__(self) -> None:
        at_least(1, "--", shards=self.shards, cpus=self.cpus, nodes=self.nodes, gpus=self.gpus)
        at_least(0.1, "--", hours=self.hours)


def slurm_scripts(recipe: Recipe, file: Path, cluster: Cluster, python: str) -> dict[str, str]:
    """The scripts by name: ``data.sbatch``, ``train.sbatch``, ``report.sbatch``, ``submit.sh``.

    Args:
        recipe: what is run.
        file: where it lies.
        cluster: see :class:`Cluster`.
        python: the interpreter, which all nodes see.

    Raises:
        ConfigError: text that is streamed cannot be read in shards.
    """
    langadapt = f"{shlex.quote(python)} -m langadapt"
    here, run = shlex.quote(str(Path.cwd())), Path(recipe.out)
    minutes = round(cluster.hours * 60)
    shared = [f"#SBATCH --time={minutes}", f'#SBATCH --output="{run / "slurm" / "%x-%j.log"}"', "#SBATCH --requeue"]
    # SC2016: what stands in single quotes is the recipe's, and means itself.
    begin = ["", "# shellcheck disable=SC2016", "set -euo pipefail", f"cd {here}"]

    def script(name: str, asks: list[str], lines: list[str]) -> str:
        head = ["#!/bin/bash", f"#SBATCH --job-name={re.sub('[^A-Za-z0-9.]+', '-', f'{recipe.name}-{name}')}"]
        return "\n".join([*head, *shared, *(f"#SBATCH {one}" for one in asks), *begin, *lines]) + "\n"

    data = [
        " \\\n    ".join([langadapt, *build_arguments(recipe, language, cluster)]) for language in languages(recipe)
    ]
    signals = "--signals-to-handle SIGTERM,SIGINT,SIGUSR1"
    train = [
        # sed reads to the end: `head` would close the pipe, and a scontrol that still writes would end the job.
        'head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)',
        f"srun {shlex.quote(python)} -m torch.distributed.run {signals} \\",
        f"    --nnodes {cluster.nodes} --nproc-per-node {cluster.gpus} \\",
        '    --rdzv-backend c10d --rdzv-id "$SLURM_JOB_ID" --rdzv-endpoint "$head:29500" \\',
        f"    -m langadapt train {shlex.quote(str(file))}",
    ]
    gpus = [f"--nodes={cluster.nodes}", "--ntasks-per-node=1", f"--gpus-per-node={cluster.gpus}"]
    array = [f"--array=0-{cluster.shards - 1}", f"--cpus-per-task={cluster.cpus}"]
    report = [f"{langadapt} adapt {shlex.quote(str(file))}"]
    return {
        "data.sbatch": script("data", array, data),
        "train.sbatch": script("train", [*gpus, f"--signal=USR1@{WARNING}"], train),
        "report.sbatch": script("report", ["--nodes=1", "--gpus-per-node=1"], report),
        "submit.sh": SUBMIT,
    }


SUBMIT = """#!/bin/bash
# Sends all jobs; each begins when the one before it has ended well.
set -euo pipefail
cd "$(dirname "$0")"
data=$(sbatch --parsable data.sbatch)
train=$(sbatch --parsable --dependency="afterok:${data%%;*}" train.sbatch)
report=$(sbatch --parsable --dependency="afterok:${train%%;*}" report.sbatch)
echo "data ${data%%;*}, train ${train%%;*}, report ${report%%;*}"
"""


def languages(recipe: Recipe) -> list[str]:
    """Names of the recipe's texts, which are those of its two languages where it has no other sources."""
    return [one.name for one in recipe.corpus.texts]


def build_arguments(recipe: Recipe, language: str, cluster: Cluster) -> list[str]:
    """The command that builds one shard of one language's corpus, as lines."""
    source = next(one for one in recipe.corpus.texts if one.name == language)
    inputs = source.paths
    if source.kind == "pairs":
        raise ConfigError(f"corpus.{language}: pairs are not read in shards; write them as documents")
    for name in inputs:
        if is_stream(name):
            raise ConfigError(f"corpus.{language}: {name} is a stream, which is not read in shards; write it to files")
    chosen, usual, options = recipe.corpus.building(source), BuildOptions(), []
    for name in (field.name for field in fields(BuildOptions)):
        value, flag = chosen[name], f"--{name.replace('_', '-')}"
        if value != getattr(usual, name):
            values = value if isinstance(value, list) else [value]
            options += [flag if one is True else f"{flag}={shlex.quote(str(one))}" for one in values]
    out = shlex.quote(str(parts_of(Path(recipe.out), language)))
    reads = " ".join(shlex.quote(name) for name in inputs)
    return [f"corpus build {reads}", f"--out {out} --shard slurm/{cluster.shards} --threads {cluster.cpus}", *options]


def write_slurm(recipe: Recipe, file: Path, cluster: Cluster, python: str) -> Path:
    """Write :func:`slurm_scripts` to ``OUT/slurm``; returns that folder."""
    folder = Path(recipe.out) / "slurm"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in slurm_scripts(recipe, file, cluster, python).items():
        write_atomically(folder / name, text)
        mode = (folder / name).stat().st_mode
        (folder / name).chmod(mode | (mode & 0o444) >> 2)  # for all who may read it
    return folder
