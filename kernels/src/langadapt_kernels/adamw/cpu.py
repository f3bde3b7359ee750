"""The step and the sums of squares for CPU tensors by langadapt's compiled core: the reference's bits.

One call takes all tensors. Random bits are keyed by the elements' places, so that results depend neither on threads nor
on shards.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..backend import core, memory
from .modes import Entry


def step(entries: Sequence[Entry], rows: Sequence[int], scalars: Tensor, grad_scale: Tensor | None) -> list[int]:
    """Update every entry in place; see `run.run_step`. How many stored weights of each stayed as they were."""
    described = [_described(entry, row) for entry, row in zip(entries, rows, strict=True)]
    scale = 1.0 if grad_scale is None else float(grad_scale)
    counts: list[int] = core().adamw_step(described, scalars.numpy(), scale, threads=torch.get_num_threads())
    # The core writes past the version counters, by which autograd notices that a tensor was changed.
    for entry in entries:
        scales = entry.exp_avg_scale, entry.exp_avg_sq_scale
        for tensor in (entry.param, entry.exp_avg, entry.exp_avg_sq, entry.low, *scales):
            if tensor is not None:
                torch.autograd.graph.increment_version(tensor)
    return counts


def square_sums(grads: Sequence[Tensor]) -> list[float]:
    """Sum of squares of each gradient `[n]`; see `reference.square_sum`."""
    sums: list[float] = core().square_sums([memory(grad) for grad in grads], threads=torch.get_num_threads())
    return sums


def _described(entry: Entry, row: int) -> dict[str, Any]:
    return {
        "weight": memory(entry.param),
        "grad": memory(entry.grad),
        "exp_avg": memory(entry.exp_avg),
        "exp_avg_sq": memory(entry.exp_avg_sq),
        "low": None if entry.low is None else memory(entry.low),
        "rounding": "nearest" if entry.low is None and entry.rounding != "stochastic" else entry.rounding,
        "stochastic_variance": entry.stochastic_variance,
        "seed": entry.seed,
        "index": (entry.index.base, max(entry.index.run, 1), entry.index.stride),
        "row": row,
        "frozen": None if entry.frozen is None else memory(entry.frozen),
        "columns": entry.columns,
        "exp_avg_scale": None if entry.exp_avg_scale is None else memory(entry.exp_avg_scale),
        "exp_avg_sq_scale": None if entry.exp_avg_sq_scale is None else memory(entry.exp_avg_sq_scale),
    }
