"""What one tensor's step needs to know: how its weight is stored, and where its elements stand in the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

ROUNDINGS = ("nearest", "stochastic", "kahan", "split", "split8")

# The tensor kept beside a bfloat16 weight: its name in the optimizer's state, and its type.
LOW_BITS: dict[str, tuple[str, torch.dtype]] = {
    "kahan": ("compensation", torch.bfloat16),
    "split": ("low_bits", torch.int16),
    "split8": ("low_bits", torch.uint8),
}


class ElementIndex(NamedTuple):
    """Where the elements of a (shard of a) tensor stand in the whole model; keys the random bits of the rounding.

    Local element `i` is element `base + (i // run) * stride + i % run` of the model.
    """

    base: int
    """Index of the first element. Tensors start at multiples of eight."""
    run: int
    """Length of the runs of consecutive elements; the whole tensor unless it is sharded along an inner dimension."""
    stride: int
    """Distance between the starts of neighbouring runs."""


@dataclass(slots=True)
class Entry:
    """One tensor of a step. All tensors are local, of one device and `[numel]`, sharing one memory order."""

    param: Tensor
    """bfloat16 or float32."""
    grad: Tensor
    """bfloat16 or float32."""
    exp_avg: Tensor
    """bfloat16 or float32, as is `exp_avg_sq`; or codes (see `codes`): int8, and `exp_avg_sq` uint8."""
    exp_avg_sq: Tensor
    low: Tensor | None
    """See `LOW_BITS`; None for the other roundings and for float32 parameters."""
    rounding: str
    stochastic_variance: bool
    seed: int
    index: ElementIndex
    frozen: Tensor | None = None
    """uint8, a bit for each column of the row-major matrix, lowest bit first: 1 for columns that a step leaves as they
    are. The tensor holds whole rows."""
    columns: int = 1
    exp_avg_scale: Tensor | None = None
    """float32 `[numel / GROUP]` where moments are codes, as `exp_avg_sq_scale`; else None."""
    exp_avg_sq_scale: Tensor | None = None

    def contiguous_index(self) -> bool:
        """Whether the elements are consecutive in the model."""
        return self.index.run >= self.param.numel()

    def frozen_elements(self, start: int, stop: int) -> Tensor | None:
        """Which of the local elements are in frozen columns, bool `[stop - start]`; None where no column is."""
        if self.frozen is None:
            return None
        column = torch.arange(start, stop, device=self.param.device) % self.columns
        return (self.frozen[column // 8] >> (column % 8).to(torch.uint8)) & 1 == 1

    def element_places(self, start: int, stop: int) -> Tensor:
        """Places in the model, int64 `[stop - start]`, of local elements."""
        local = torch.arange(start, stop, device=self.param.device)
        return self.index.base + (local // self.index.run) * self.index.stride + local % self.index.run


class EntryRow(NamedTuple):
    """A row of the int64 table of entries, through which a kernel finds a tensor; columns are known by these names."""

    weight: int
    """An address, as are the next four."""
    grad: int
    exp_avg: int
    exp_avg_sq: int
    low: int
    """0 where nothing is kept beside the weight."""
    base: int
    """See `ElementIndex`, with `run` and `stride`."""
    run: int
    stride: int
    seed: int
    scalars: int
    """The tensor's row in the table of scalars."""
    place: int
    """Where its results go, for a launch that has some."""
    frozen: int
    """An address, or 0; see `Entry`, as of `columns`."""
    columns: int
    exp_avg_scale: int
    """An address, or 0 where moments are no codes; as the next."""
    exp_avg_sq_scale: int


class ChunkRow(NamedTuple):
    """A row of the int64 table of chunks: what one program does."""

    entry: int
    """A row of the table of entries."""
    start: int
    """The chunk's first element."""
    elements: int
    """How many it has."""


FAST_EPS = 1e-10
"""Least `eps` for the fast square root, which takes second moments below 1.2e-38 for zero: beside it the roots of
these (1.1e-19, and 32 times as much in the first step) are below the precision of float32."""

# Columns of the table of scalars, float32 [n_tensors, 9], that `scalar_table` fills and the step reads.
SCALARS = (
    "decay",  # 1 - lr * weight_decay
    "step_size",  # lr / (1 - beta1 ** step)
    "variance_scale",  # 1 / sqrt(1 - beta2 ** step)
    "eps",
    "beta1",
    "one_minus_beta1",
    "beta2",
    "one_minus_beta2",
    "step",
)


def scalar_table(settings: Tensor, steps: Tensor) -> Tensor:
    """The scalars of a step for every tensor, computed on the device in float64 and rounded once.

    Args:
        settings: float64 `[n, 5]`: lr, beta1, beta2, eps, weight_decay.
        steps: float32 `[n]`, counting this step (from 1).

    Returns:
        float32 `[n, 9]`, columns as in `SCALARS`.
    """
    lr, beta1, beta2, eps, weight_decay = settings.unbind(1)
    # On a GPU each of these is a launch before every step.
    betas, count = settings[:, 1:3], steps.double()
    bias, rest = 1 - betas ** count.unsqueeze(1), 1 - betas
    columns = (
        1 - lr * weight_decay,
        lr / bias[:, 0],
        1 / bias[:, 1].sqrt(),
        eps,
        beta1,
        rest[:, 0],
        beta2,
        rest[:, 1],
        count,
    )
    return torch.stack(columns, dim=1).float()
