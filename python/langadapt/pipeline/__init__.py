"""The stages of a recipe, in order: from files to the report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from langadapt.exports import on_first_use

if TYPE_CHECKING:
    from langadapt.pipeline.run import adapt, train

__all__ = ["adapt", "train"]

_HOMES = {
    "langadapt.pipeline.run": (
        "adapt",
        "train",
    )
}
__getattr__, __dir__ = on_first_use(__name__, _HOMES)
