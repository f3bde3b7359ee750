"""What a run has left to use: its trained model, and the text that it set aside."""

from __future__ import annotations

from pathlib import Path

from langadapt.artefacts.folders import read_manifest
from langadapt.artefacts.names import RESULTS_NAME
from langadapt.artefacts.stages import read_stamp
from langadapt.errors import ConfigError
from langadapt.models.folder import resolve_model
from langadapt.pipeline.job import RECIPE_NAME
from langadapt.recipe.recipe import Recipe
from langadapt.swap.rows.names import KEEP

CHAT = "chat"
"""`train.data`, and where such a training lies, which has no swap before it."""


def is_run(name: str | Path) -> bool:
    """Whether this is the folder of a run, and no model's."""
    folder = Path(name)
    return (folder / RECIPE_NAME).is_file() and not (folder / "config.json").is_file()


def model_of(name: str | Path) -> Path:
    """The folder of a model: the trained one where ``name`` is a run's folder, else as `resolve_model` finds it.

    Raises:
        ConfigError: no model, or a run whose training is not over.
    """
    return final_model(Path(name)) if is_run(name) else resolve_model(str(name))


def final_model(run: Path) -> Path:
    """The trained model of a run's own method.

    Raises:
        ConfigError: its training is not over.
    """
    results = read_stamp(run / RESULTS_NAME)
    # `auto` is known by its winner's name once a bake-off is over.
    method, command = results["method"] if results else None, "adapt"
    if method is None:
        recipe = Recipe.from_yaml(run / RECIPE_NAME)
        method, command = (CHAT, "train") if recipe.train.data == CHAT else (recipe.swap.method, "adapt")
    final = run / "trained" / str(method) / "final"
    if not (final / "config.json").is_file():
        raise ConfigError(f"{run}: its training is not over; go on with `langadapt {command} {run / RECIPE_NAME}`")
    return final


def start_of(run: Path, final: Path) -> Path:
    """The model that a training of ``run`` began with; ``final``: the folder of what became of it."""
    # Trainings lie in `trained/METHOD/final`.
    method = final.parent.name
    return (
        resolve_model(Recipe.from_yaml(run / RECIPE_NAME).model) if method in (KEEP, CHAT) else run / "swapped" / method
    )


def models_of_training(run: Path) -> dict[str, Path]:
    """A finished run's model before its training, its checkpoints up to the one that it ended with, and the trained
    one, by names for readers, in the order of their steps; checkpoints are folders ``step-...``.

    Raises:
        ConfigError: the training is not over.
    """
    # Lazily: it brings torch.
    from langadapt.training.checkpoint import found

    final = final_model(run)
    summary = read_manifest(final)["summary"]
    end = summary.get("kept_step")
    end = summary["steps"] if end is None else end
    steps = {int(path.name.removeprefix("step-")): path for path in found(final.parent / "checkpoints")}
    between = {f"step {step}": path for step, path in sorted(steps.items()) if 0 < step < end}
    return {"before": start_of(run, final), **between, "trained": final}


def is_checkpoint(folder: Path) -> bool:
    """Whether this is a training's checkpoint, and no model."""
    return (folder / "state.json").is_file() and not (folder / "config.json").is_file()


def held_out(run: Path) -> dict[str, Path]:
    """What a run set aside to measure on, by the names of its languages and of its other sources."""
    recipe = Recipe.from_yaml(run / RECIPE_NAME)
    names = {"target": recipe.target_language, "source": recipe.source_language}
    texts = [one.name for one in recipe.corpus.texts]
    files = {names.get(name, name): run / "corpus" / name / "validation.jsonl.zst" for name in texts}
    return {name: file for name, file in files.items() if file.is_file()}
