"""Sparsemax in plain torch, over the last dimension of a matrix."""

from __future__ import annotations

import torch
from torch import Tensor

# Candidates tried first; the supports met in practice are far smaller.
_FIRST = 64


def sparsemax(x: Tensor) -> Tensor:
    """Rows of `x` (`[rows, n]`, float32 or float64) projected onto the simplex.

    The threshold of a row is found among its largest entries alone; rows whose support does not fit are done again with
    twice as many.
    """
    rows, n = x.shape
    if rows == 0:
        return torch.empty_like(x)
    # Relative to the largest entry, so that nothing is lost to the size of the entries.
    x = x - x.amax(dim=1, keepdim=True)
    return (x - threshold(x, min(_FIRST, n)).unsqueeze(1)).clamp_(min=0)


def threshold(x: Tensor, first: int) -> Tensor:
    """tau `[rows]` with `sum(max(x - tau, 0)) == 1` in each row of `x` `[rows, n]`, whose largest entry is 0.

    Source: Martins & Astudillo, "From Softmax to Sparsemax" (2016), algorithm 1.
    """
    top = torch.topk(x, first, dim=1).values
    total = top.cumsum(dim=1) - 1
    rank = torch.arange(1, first + 1, dtype=x.dtype, device=x.device)
    support = (top * rank > total).sum(dim=1, keepdim=True).clamp_(min=1)
    tau = (total.gather(1, support - 1) / support).squeeze(1)
    if first < x.shape[1]:
        full = (support.squeeze(1) == first).nonzero().squeeze(1)
        if full.numel():
            tau[full] = threshold(x[full], min(2 * first, x.shape[1]))
    return tau


def sparsemax_backward(output: Tensor, grad: Tensor) -> Tensor:
    """Gradient of the input: on the support the gradient less its mean there, elsewhere zero; all `[rows, n]`."""
    support = output > 0
    inside = torch.where(support, grad, 0)
    mean = inside.sum(dim=1, keepdim=True) / support.sum(dim=1, keepdim=True).clamp_(min=1)
    return torch.where(support, grad - mean, 0)
