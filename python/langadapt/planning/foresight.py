"""``langadapt.plan``: what a recipe's budget buys."""

from __future__ import annotations

from collections.abc import Sequence

from langadapt.errors import LangadaptError
from langadapt.planning.plan import Plan, plan_recipe
from langadapt.planning.sources import BYTES_PER_TOKEN
from langadapt.recipe.recipe import Recipe, RecipeLike
from langadapt.swap.rows.names import KEEP
from langadapt.trials.cutting import SMALL_VOCABULARY, Trial, try_cutting


def plan(recipe: RecipeLike) -> Plan:
    """Plan the training of a recipe, as ``langadapt plan`` does: no weights are read, nothing is written; where the
    text is here, a tokenizer is tried on a sample of it.

    Args:
        recipe: itself, the path of its YAML file, or its plain values.

    Raises:
        ConfigError: the recipe cannot work, or nothing fits; the message says what would.
        TypeError: it is none.
    """
    given = Recipe.given(recipe)
    return plan_recipe(given, sampled=of_a_sample(given, cut_if_possible(given)[0]))


def cut_if_possible(recipe: Recipe) -> tuple[list[Trial], str]:
    """:func:`langadapt.trials.cutting.try_cutting`, and why there is none: a plan may come before the text and the
    model's tokenizer."""
    try:
        return try_cutting(recipe), ""
    except OSError as error:
        return [], f"{error.filename}: {error.strerror}" if error.filename else str(error)
    except LangadaptError as error:
        return [], str(error)


def of_a_sample(recipe: Recipe, trials: Sequence[Trial]) -> dict[str, float]:
    """Bytes per token by language, as the recipe's tokenizer was found to cut a sample.

    A sample bears :data:`SMALL_VOCABULARY` entries at most, and more make longer tokens of the new language: what is
    found is then the least of it.
    """
    chosen = next((one for one in trials if one.is_chosen), None)
    found = {} if chosen is None else {name: value for name, value in chosen.bytes_per_token.items() if value}
    is_trained = recipe.swap.method != KEEP and recipe.tokenizer.path is None
    if is_trained and recipe.tokenizer.vocab_size > SMALL_VOCABULARY and "target" in found:
        found["target"] = max(found["target"], BYTES_PER_TOKEN)
    return found
