"""What is trained, and for how long: embeddings first, where that is asked for, then everything."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from langadapt.errors import ConfigError
from langadapt.training import model as models
from langadapt.training.optimizer import Named, RowTrainer
from langadapt.training.settings import TrainSettings


@dataclass(frozen=True)
class Phase:
    """Parameters that are trained together, by one optimizer."""

    name: str
    """``embeddings`` or ``main``, as checkpoints have it."""
    groups: dict[str, Named]
    rows: RowTrainer | None = None
    """Where only some rows are trained: ``groups`` holds copies of them."""

    @property
    def named(self) -> Named:
        """All parameters with their names."""
        return [item for group in self.groups.values() for item in group]


def main_phase(model: Any, parts: str = "all") -> Phase:
    """Everything is trained, or what ``parts`` says."""
    models.train_parts(model, parts)
    return Phase("main", models.groups(model))


def embeddings_phase(model: Any, new_rows: Sequence[int] | None) -> Phase:
    """Embeddings are trained alone; of them ``new_rows`` alone, unless none.

    Raises:
        ConfigError: a row that does not exist.
    """
    embeddings = models.embeddings(model)
    tokens = {id(weight) for weight in embeddings}
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    if not any(hasattr(weight, "device_mesh") for weight in embeddings):
        # Under FSDP the other gradients are made and thrown away: sharding fixes at the start what is trained.
        for parameter in model.parameters():
            parameter.requires_grad_(id(parameter) in tokens)
    weights = [(names[id(weight)], weight) for weight in embeddings]
    if new_rows is None:
        return Phase("embeddings", {"embeddings": weights})
    rows = torch.tensor(sorted(set(new_rows)), dtype=torch.int64)
    count = weights[0][1].shape[0]
    if len(rows) and not 0 <= int(rows[0]) <= int(rows[-1]) < count:
        raise ConfigError(f"new_rows: {int(rows[-1])} is no row of the {count} embedding rows")
    trainer = RowTrainer(weights, rows)
    return Phase("embeddings", {"embeddings": trainer.named}, trainer)


def embeddings_rate(step: int, settings: TrainSettings) -> float:
    """Rate of the embeddings-first phase: a tenth of it warms up, then a cosine falls to a tenth of the peak."""
    done = (step + 1) / settings.embeddings_first_steps
    return settings.embeddings_first_peak * min(done / 0.1, 1.0) * (0.55 + 0.45 * math.cos(math.pi * done))
