"""What may be chosen about finishing a model; light, because recipes are made of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from langadapt.checks import at_least

Method: TypeAlias = Literal["residual", "lep", "elchat"]
Scale: TypeAlias = Literal["auto"] | float

AUTO = "auto"
"""The scale that a sweep finds."""
METHODS: tuple[Method, ...] = ("residual", "lep", "elchat")
SCALES = (0.25, 0.5, 0.75, 1.0)
"""What the sweep tries, besides the adapted model itself."""


@dataclass
class FinishSettings:
    """Chat for the trained model, from an instruct model of the same base."""

    instruct: str | None = None
    """Folder or hub id of a model that was tuned to instructions from ``model``; none = no chat."""
    method: Method = "residual"
    """``residual``: the difference between instruct and source model is added to the trained one; ``lep``: the instruct
    model's body with the trained rows; ``elchat``: body between trained and instruct model, special tokens' rows from
    the latter."""
    scale: Scale = "auto"
    """How much of it: 0 = nothing, 1 = all; ``auto``: measured, on held-out text and on replies in the template."""

    def __post_init__(self) -> None:
        if self.scale != AUTO:
            at_least(0, "finish.", scale=float(self.scale))
