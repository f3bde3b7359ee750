"""Continued pretraining: packed batches, schedules, pure-bf16 optimization, exact resume.

Reading order: `settings` (what can be asked for), `loop` (top to bottom what happens), then the parts it names.
Only `settings`, `schedule` and `packing` may be imported without torch; the rest is imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from langadapt.training.settings import TrainSettings

if TYPE_CHECKING:
    from langadapt.training.batches import StoreShare
    from langadapt.training.loop import train_model
    from langadapt.training.result import TrainResult

__all__ = ["StoreShare", "TrainResult", "TrainSettings", "train_model"]


def __getattr__(name: str) -> Any:
    if name in {"StoreShare", "TrainResult", "train_model"}:
        return getattr(import_module("langadapt.training.loop"), name)
    raise AttributeError(f"module 'langadapt.training' has no attribute {name!r}")
