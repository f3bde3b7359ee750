"""One step over many tensors, by the chosen implementation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from . import reference
from .modes import Entry


class StepCache:
    """What steps over the same tensors share."""

    def upload(self, values: Tensor, device: torch.device) -> Tensor:
        """A copy on `device`, without waiting for it."""
        return values.to(device) if device.type != "cuda" else values.pin_memory().to(device, non_blocking=True)


def run_step(
    entries: Sequence[Entry],
    rows: Sequence[int],
    scalars: Tensor,
    grad_scale: Tensor | None,
    *,
    backend: str,
    cache: StepCache,
    count_stale: bool,
) -> Tensor | None:
    """Update every entry in place with its row of `scalars`.

    Returns:
        int64 `[len(entries)]`: how many stored weights of each entry stayed as they were; None unless `count_stale`.
    """
    stale = [reference.adamw_step(entry, scalars[row], grad_scale) for entry, row in zip(entries, rows, strict=True)]
    return torch.stack(stale) if count_stale else None


def square_sum(grads: Sequence[Tensor], *, backend: str, cache: StepCache) -> Tensor:
    """Sum of squares over all (flat, local) gradients: float64 tensor of no dimensions on their device."""
    return torch.stack([reference.square_sum(grad) for grad in grads]).sum()
