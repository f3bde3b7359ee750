"""``langadapt.plan``: what a recipe's budget buys."""

from __future__ import annotations

from langadapt.planning.plan import Plan, plan_recipe
from langadapt.recipe.recipe import Recipe, RecipeLike


def plan(recipe: RecipeLike) -> Plan:
    """Plan the training of a recipe, as ``langadapt plan`` does: no weights are read, nothing is written.

    Args:
        recipe: itself, the path of its YAML file, or its plain values.

    Raises:
        ConfigError: the recipe cannot work, or nothing fits; the message says what would.
        TypeError: it is none.
    """
    return plan_recipe(Recipe.given(recipe))
