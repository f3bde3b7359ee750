"""Continued pretraining: packed batches, schedules, pure-bf16 optimization, exact resume.

Reading order: `settings` (what can be asked for), `loop` (top to bottom what happens), then the parts it names.
Only `settings`, `schedule` and `packing` may be imported without torch; the rest is imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from langadapt.exports import on_first_use
from langadapt.training.settings import TrainSettings

if TYPE_CHECKING:
    from langadapt.training.data.batches import StoreShare
    from langadapt.training.loop import train_model
    from langadapt.training.result import TrainResult

__all__ = ["StoreShare", "TrainResult", "TrainSettings", "train_model"]

_HOMES = {
    "langadapt.training.data.batches": ("StoreShare",),
    "langadapt.training.loop": ("train_model",),
    "langadapt.training.result": ("TrainResult",),
}
__getattr__, __dir__ = on_first_use(__name__, _HOMES)
