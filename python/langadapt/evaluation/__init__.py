"""What a model can do: bits per byte on held-out text, and suites of lm-eval."""

from __future__ import annotations

from typing import TYPE_CHECKING

from langadapt.exports import on_first_use

if TYPE_CHECKING:
    from langadapt.evaluation.bits_per_byte import BitsPerByte, bits_per_byte, measure_bits_per_byte
    from langadapt.evaluation.suites import evaluate_suites

__all__ = ["BitsPerByte", "bits_per_byte", "evaluate_suites", "measure_bits_per_byte"]

_HOMES = {
    "langadapt.evaluation.bits_per_byte": (
        "BitsPerByte",
        "bits_per_byte",
        "measure_bits_per_byte",
    ),
    "langadapt.evaluation.suites": ("evaluate_suites",),
}
__getattr__, __dir__ = on_first_use(__name__, _HOMES)
