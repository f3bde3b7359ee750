"""`langadapt init`: a first recipe, made from a look at the model, the text and the machine.

Look (`wish`, `survey`), measure (`vocabulary`), decide (`decisions`), write (`writing`).
"""

from __future__ import annotations

from dataclasses import dataclass

from langadapt.planning.first_recipe.decisions import Decisions, decide
from langadapt.planning.first_recipe.vocabulary import Curve, curve
from langadapt.planning.first_recipe.wish import Findings, Wish, look
from langadapt.planning.first_recipe.writing import recipe_text
from langadapt.progress import Progress
from langadapt.recipe.plain_values import build, parse
from langadapt.recipe.recipe import Recipe


@dataclass(frozen=True)
class FirstRecipe:
    """What `langadapt init` made."""

    text: str
    """The recipe, in YAML."""
    recipe: Recipe
    found: Findings
    curve: Curve
    decided: Decisions


def first_recipe(wish: Wish, *, file: str = "recipe.yaml", progress: Progress | None = None) -> FirstRecipe:
    """Make a recipe that plans and runs as it stands; nothing is written.

    Raises:
        ConfigError, DataError, FileNotFoundError: something is not there, or nothing fits.
    """
    found = look(wish, progress=progress)
    measured = curve(found.target, found.shape, 2048, tokenizer=found.tokenizer, progress=progress)
    decided = decide(found, measured)
    text = recipe_text(found, decided, file)
    return FirstRecipe(text, build(Recipe, parse(text), ""), found, measured, decided)
