"""What all stages of a run share: its recipe, its folder, its source model."""

from __future__ import annotations

import errno
import logging
from dataclasses import dataclass
from pathlib import Path

from langadapt.artefacts.engine import Engine
from langadapt.artefacts.folders import write_atomically
from langadapt.artefacts.names import RESULTS_NAME
from langadapt.artefacts.stages import Run
from langadapt.machine import quiet_transformers
from langadapt.models.folder import resolve_model
from langadapt.progress import Progress
from langadapt.recipe.recipe import Recipe

log = logging.getLogger(__name__)

RECIPE_NAME = "recipe.yaml"
FERTILITY_NAME, VECTORS_NAME, BAKE_OFF_NAME = "fertility.json", "vectors.safetensors", "bake-off.json"
OUTPUTS = (RECIPE_NAME, RESULTS_NAME, FERTILITY_NAME, VECTORS_NAME, BAKE_OFF_NAME, "tokenizer", "evaluation", "report")
"""What stages write without a look at what lies there."""


@dataclass(frozen=True)
class Job:
    """One run of one recipe."""

    recipe: Recipe
    run: Run
    model: Path
    """Folder of the source model."""
    progress: Progress | None = None
    """Called as ``(phase, done, total or None, unit)``."""
    engine: Engine | None = None
    """What builds corpora in shards; none = this process."""

    @property
    def folder(self) -> Path:
        """Where all that is made lies."""
        return self.run.folder

    def write_recipe(self) -> None:
        """Keep the recipe with what is made by it."""
        write_atomically(self.folder / RECIPE_NAME, self.recipe.to_yaml())


def parts_of(run: Path, language: str) -> Path:
    """Where the parts of a language's corpus lie, if it was built in shards."""
    return run / "parts" / f"corpus-{language}"


def open_job(recipe: Recipe, progress: Progress | None = None) -> Job:
    """Check what can be checked before anything is made or overwritten.

    Raises:
        ConfigError, DataError, FileExistsError: as :func:`checked_model`.
    """
    model = checked_model(recipe)
    return Job(recipe, Run(Path(recipe.out), log.info), model, progress)


def checked_model(recipe: Recipe) -> Path:
    """The folder of the source model, once all has been checked that can be; nothing is written.

    Raises:
        ConfigError: the recipe cannot work with its model.
        DataError: the model is not whole.
        FileExistsError: the run's folder holds what no run has written.
    """
    # It looks at everything, and so needs everything.
    from langadapt.pipeline.precheck import check_run

    quiet_transformers()
    model = resolve_model(recipe.model)
    check_run(recipe, model, [recipe.swap.method, *recipe.compare])
    out = Path(recipe.out)
    if not (out / "stages").is_dir():
        for name in OUTPUTS:
            if (out / name).exists():
                problem = "is there, and no run has written it; name another folder as `out`"
                raise FileExistsError(errno.EEXIST, problem, str(out / name))
    return model
