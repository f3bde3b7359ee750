"""Cross-entropy in plain torch, some rows at a time."""

from __future__ import annotations

import torch
from torch import Tensor

# Logits that are held in float32 at a time (entries): 64 MB.
_BLOCK = 1 << 24


def cross_entropy_(logits: Tensor, targets: Tensor, *, scale: float, ignore_index: int, gradient: bool) -> Tensor:
    """See `langadapt_kernels.cross_entropy_`."""
    rows = max(1, _BLOCK // logits.shape[1])
    parts = zip(logits.split(rows), targets.split(rows), strict=True)
    return torch.cat(
        [_block(part, target, scale=scale, ignore_index=ignore_index, gradient=gradient) for part, target in parts]
    )


def _block(logits: Tensor, targets: Tensor, *, scale: float, ignore_index: int, gradient: bool) -> Tensor:
    valid, inside = targets != ignore_index, (targets >= 0) & (targets < logits.shape[1])
    index = torch.where(inside, targets, 0).unsqueeze(1)
    wide = logits.float()
    picked = torch.where(inside, wide.gather(1, index).squeeze(1), torch.nan)
    largest = wide.amax(dim=1, keepdim=True)
    exponential = (wide - largest).exp()
    total = exponential.sum(dim=1, keepdim=True)
    if gradient:
        result = exponential * (scale / total)
        result.scatter_add_(1, index, torch.where(inside, -scale, 0.0).unsqueeze(1))
        logits.copy_(torch.where(valid.unsqueeze(1), result, 0.0))
    return torch.where(valid, (total.log() + largest).squeeze(1) - picked, 0.0)
