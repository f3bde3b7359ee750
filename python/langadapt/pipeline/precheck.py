"""What can be told to be wrong with a run before any of it is done."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from langadapt.artefacts.folders import check_space
from langadapt.errors import ConfigError
from langadapt.machine import choose_device
from langadapt.models.folder import context_length
from langadapt.recipe.recipe import Recipe
from langadapt.swap.rows.names import AUTO, KEEP, check_methods
from langadapt.training.course import check_deadline


def check_run(recipe: Recipe, model: Path, arms: Iterable[str]) -> None:
    """Refuse what would only fail hours later.

    Args:
        recipe: of the run.
        model: folder of the source model.
        arms: methods of the comparison, the recipe's own first.

    Raises:
        ConfigError: the recipe cannot work with this model.
        DataError: the model's weights are missing, in another format than safetensors, or cut short.
    """
    choose_device(recipe.train.device)
    arms = list(arms)
    # A run that is complete may be called again at any time.
    done = {path.parent.name for path in Path(recipe.out).glob("trained/*/final")}
    left = [arm for arm in arms if arm not in done and not (arm == AUTO and done)]
    if left:
        check_deadline(recipe.train)
    check_model(model, Path(recipe.out), left)
    context, length = context_length(model), recipe.train.sequence_length
    if context is not None and length > context:
        raise ConfigError(f"train.sequence_length: {length} tokens exceed the model's context of {context} ({model})")
    methods = [method for method in arms if method != AUTO]
    check_methods([*methods, *recipe.swap.candidates])
    for method, needed in (("wechsel", "words"), ("clp", "helper")):
        if method in (*methods, *recipe.swap.candidates) and not getattr(recipe.swap, needed):
            raise ConfigError(f"method `{method}` needs `swap.{needed}`, which the recipe does not set")


def check_model(model: Path, out: Path, arms: Iterable[str]) -> None:
    """Make sure of a model's files, that it can be swapped if an arm does, and of room for a copy by each stage.

    Raises:
        ConfigError: a table by token id for which no rows can be made.
        DataError: weights are missing, or not as long as their headers say.
        OSError: the disk is too full, or nothing may be written there.
    """
    from langadapt.models.weights import read_header, weight_files
    from langadapt.swap.files import read_model

    files = weight_files(model)
    for file in files:
        read_header(file)
    if any(arm != KEEP for arm in arms):
        read_model(model)
    # Swapped and trained; checkpoints hold more, and are pruned.
    copies = sum(2 - (arm == KEEP or (out / "swapped" / arm).is_dir()) for arm in arms)
    check_space(out, copies * sum(file.stat().st_size for file in files))
