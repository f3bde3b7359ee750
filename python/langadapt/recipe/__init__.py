"""A recipe: one YAML file that says everything about a run, read into checked dataclasses."""

from __future__ import annotations

from langadapt.recipe.recipe import Recipe

__all__ = ["Recipe"]
