"""What a finished run was: returned by `train_model` and kept in the manifest of its model."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class TrainResult:
    """What a finished run was."""

    out: str
    """Folder of log, checkpoints and ``final``."""
    steps: int
    """Optimizer steps, those of the embeddings-first phase included."""
    tokens: int
    """Windows times their length."""
    loss: float
    """Mean of the last logged interval, nats per token."""
    validation: dict[str, float]
    """Of the model in ``final``; of the last one where none is kept."""
    seconds: float
    """Wall-clock time of all processes that worked on this run, one after the other."""
    tokens_per_second: float
    """Over the whole run."""
    epochs: dict[str, float]
    """Passes over each store."""
    fullness: dict[str, float]
    """Share of window positions of each store that hold a pair."""
    layout: dict[str, Any] = field(default_factory=dict)
    """Micro-batch, recomputation, sharding and processes, as set or as found."""
    best_step: int | None = None
    """Step whose model was the best at a validation, 0 for the one before training; none where nothing told."""
    kept_step: int | None = None
    """Step of the model in ``final``."""
    overfit_from: int | None = None
    """Step after which the run over-fitted: validation got worse while the training loss fell."""
    stopped_early: bool = False
    """By ``patience``."""
    diverged: str = ""
    """What showed that the run diverged, and what to do; empty for one that did not."""

    @property
    def final(self) -> Path:
        """The trained model's folder."""
        return Path(self.out) / "final"

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)
