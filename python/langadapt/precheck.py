"""What can be told to be wrong with a run before any of it is done."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from langadapt.errors import ConfigError, DataError
from langadapt.machine import choose_device
from langadapt.methods import AUTO, check_methods
from langadapt.model_folder import CONTEXT_FIELDS, read_config
from langadapt.recipe import Recipe
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
    if not all(arm in done or (arm == AUTO and done) for arm in arms):
        check_deadline(recipe.train)
    check_weights(model)
    context, length = context_length(model), recipe.train.sequence_length
    if context is not None and length > context:
        raise ConfigError(f"train.sequence_length: {length} tokens exceed the model's context of {context} ({model})")
    methods = [method for method in arms if method != AUTO]
    check_methods([*methods, *recipe.swap.candidates])
    for method, needed in (("wechsel", "words"), ("clp", "helper")):
        if method in (*methods, *recipe.swap.candidates) and not getattr(recipe.swap, needed):
            raise ConfigError(f"method `{method}` needs `swap.{needed}`, which the recipe does not set")


def check_weights(model: Path) -> None:
    """Raise DataError unless all files of a model's weights are there and as long as their headers say."""
    from langadapt.weight_files import read_header, weight_files

    for file in weight_files(model):
        read_header(file)


def context_length(model: Path) -> int | None:
    """Tokens that a model was made for, by its ``config.json``; none where that does not say.

    Raises:
        DataError: it is no model's configuration.
    """
    try:
        config = read_config(model)
    except FileNotFoundError:
        return None
    config = config.get("text_config", config)
    if not isinstance(config, dict):
        raise DataError(f"{model / 'config.json'}: not a model's configuration; get the file again")
    for name in CONTEXT_FIELDS:
        if isinstance(config.get(name), int) and config[name] > 0:
            return int(config[name])
    return None
