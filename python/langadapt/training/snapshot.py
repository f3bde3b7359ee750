"""A checkpoint as a model, to be measured."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from langadapt.errors import ConfigError
from langadapt.training.checkpoint import Reader, read_state

PREFIX = "model."
"""Of the parameters' names in a checkpoint."""


def fill_from_checkpoint(model: nn.Module, checkpoint: Path) -> None:
    """Make a run's trained model what it was at a checkpoint.

    Args:
        model: the trained model, on a CPU: what did not move is there, and is the same.
        checkpoint: folder ``step-...`` of the same run.

    Raises:
        DataError: the checkpoint is damaged.
        ConfigError: the checkpoint has an adapter's matrices, not the weights that they change.
        MismatchError: a tensor has another shape there.
    """
    reader = Reader(checkpoint, read_state(checkpoint))
    parameters = dict(model.named_parameters())
    held = {name.removeprefix(PREFIX) for name in reader.places if name.startswith(PREFIX)}
    strange = sorted(held - parameters.keys())
    if strange:
        raise ConfigError(
            f"{checkpoint}: holds `{strange[0]}`, which the trained model does not have: checkpoints of a run with an "
            "adapter have its matrices alone and cannot be measured; measure without --checkpoints"
        )
    for name in held:
        reader.fill(f"{PREFIX}{name}", parameters[name].data)
