"""A checkpoint as a model, to be measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from langadapt.errors import MismatchError
from langadapt.models.folder import load_model
from langadapt.training import adapter
from langadapt.training import model as models
from langadapt.training.checkpoint import Reader, read_state
from langadapt.training.resume import earlier_settings, restore_model

PREFIX = "model."
"""Of the parameters' names in a checkpoint."""


def model_at(checkpoint: Path, *, start: Path, trained: Path, device: str | torch.device) -> Any:
    """A run's model as it was at a checkpoint, bit by bit what the export would have been there.

    Beside an adapter it takes as much memory as the training did to load the model (4 bytes per parameter but in
    `pure-bf16`), else that of the trained model.

    Args:
        checkpoint: folder ``step-...``.
        start: the model that the run began with; read where the run had an adapter.
        trained: the model that the run ended with, which has what did not move; read where it had none.
        device: where the model is wanted. An adapter's products are summed there, and in another order elsewhere.

    Raises:
        DataError: the checkpoint is damaged.
        ConfigError: it is of an adapter that cannot be attached here: a package or a GPU is missing.
        MismatchError: it is of another model.
    """
    state = read_state(checkpoint)
    reader = Reader(checkpoint, state)
    if "start" in state:
        return merged_at(checkpoint, reader, state, start=start, device=torch.device(device))
    model = load_model(trained, dtype="auto")
    fill(model, reader)
    return model.to(device).eval()


def fill(model: nn.Module, reader: Reader) -> None:
    """Give a run's trained model what a checkpoint of the same run holds; what it does not hold did not move."""
    parameters = dict(model.named_parameters())
    for key in reader.places:
        name = key.removeprefix(PREFIX)
        if name != key:
            if name not in parameters:
                raise MismatchError(f"checkpoint: holds `{name}`, which the trained model does not have")
            reader.fill(key, parameters[name].data)


def merged_at(checkpoint: Path, reader: Reader, state: dict[str, Any], *, start: Path, device: torch.device) -> Any:
    """The model that a run with an adapter began with, and in it what the adapter was."""
    model = models.load(start, earlier_settings(state), device)
    if adapter.start_of(model)["start"] != state["start"]:
        raise MismatchError(
            f"{checkpoint}: holds what an adapter moved, beside other weights than those of {start}; put the model "
            "there that the run began with, or measure without --checkpoints"
        )
    restore_model(reader, model)
    adapter.fold(model)
    wide = models.fp32_names(model)
    for name, parameter in model.named_parameters():
        parameter.data = parameter.data.to(torch.float32 if name in wide else torch.bfloat16)
    model.config.use_cache = True
    return model.eval()
