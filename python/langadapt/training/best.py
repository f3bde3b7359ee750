"""The weights of a run's best model, in this machine's memory while training goes on and in its checkpoints.

A checkpoint that is not itself the best model has that model's weights beside its own, so that a run that goes on knows
both; none is written for a best model alone. Costs as many bytes of memory as the weights have, not on the GPU; beside
an adapter, as those that it moves.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from langadapt.training.adapter import moving
from langadapt.training.checkpoint import Reader, part_of
from langadapt.training.optimizer import first_row, local
from langadapt.training.parallel import ProcessGroup

PREFIX = "best."
"""Of the tensors' names in a checkpoint."""


class BestWeights:
    """A copy of the parameters that can move, or of this process' part of them."""

    def __init__(self, model: Any, processes: ProcessGroup) -> None:
        """Nothing is copied yet."""
        self.model, self.processes = model, processes
        self.copies: dict[str, Tensor] = {}

    def take(self) -> None:
        """Copy the model as it is now. What was copied before is left as it is: it may be on its way to a disk."""
        self.copies = {name: local(parameter.data).to("cpu", copy=True) for name, parameter in moving(self.model)}

    @torch.no_grad()
    def put_back(self) -> None:
        """Make the model what it was when it was copied."""
        for name, parameter in moving(self.model):
            local(parameter.data).copy_(self.copies[name])

    def parts(self) -> dict[str, tuple[list[int], int, Tensor]]:
        """What this process saves: shape of the whole, first row, rows; see `checkpoint.Writer.save`."""
        found = {}
        for name, parameter in moving(self.model):
            part = part_of(parameter.data, self.processes)
            if part is not None:
                found[PREFIX + name] = (list(parameter.shape), part[0], self.copies[name])
        return found

    def restore(self, reader: Reader, *, is_it: bool, wanted: bool) -> None:
        """Go on with the copy of the run that left this checkpoint, if ``wanted``; ``is_it``: it is the best itself."""
        if wanted and is_it:
            self.take()
        elif wanted and any(key.startswith(PREFIX) for key in reader.places):
            self.read(reader)

    def read(self, reader: Reader) -> None:
        """Take the copy out of a checkpoint that has one."""
        for name, parameter in moving(self.model):
            mine = local(parameter.data)
            key = PREFIX + name
            whole = not hasattr(parameter, "device_mesh")
            rows = reader.whole(key) if whole else reader.rows(key, first_row(parameter), len(mine))
            self.copies[name] = rows.to(mine.dtype)
