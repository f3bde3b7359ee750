"""AdamW in plain torch: float32 math in the kernel's order of operations, one rounding at the store.

Bit-equal to the kernel, and to langadapt's compiled core, in every mode.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..codes import GROUP
from ..codes.reference import decode_average, decode_variance, encode_average, encode_variance
from ..rounding.reference import random_bits, random_bits_at, round_stochastic, split, unsplit
from .modes import Entry

# Elements per pass: the dozen float32 temporaries of a pass stay in a CPU's cache.
_BLOCK = 1 << 17


def adamw_step(entry: Entry, scalars: Tensor, grad_scale: Tensor | None) -> Tensor:
    """Update one tensor in place.

    Args:
        entry: the tensor and its states.
        scalars: float32 `[9]`, see `modes.SCALARS`.
        grad_scale: float32 tensor of no dimensions that the gradient is multiplied with, or None.

    Returns:
        int64 tensor of no dimensions: how many stored weights the step left as they were.
    """
    stale = torch.zeros((), dtype=torch.int64, device=entry.param.device)
    for start in range(0, entry.param.numel(), _BLOCK):
        stale += _step_block(entry, slice(start, start + _BLOCK), scalars.unbind(), grad_scale)
    return stale


def _step_block(entry: Entry, part: slice, scalars: tuple[Tensor, ...], grad_scale: Tensor | None) -> Tensor:
    decay, step_size, variance_scale, eps, beta1, one_minus_beta1, beta2, one_minus_beta2, step = scalars
    weight, low = entry.param[part], None if entry.low is None else entry.low[part]
    grad = entry.grad[part].float()
    if grad_scale is not None:
        grad = grad * grad_scale
    exp_avg, exp_avg_sq = _moments(entry, part)
    exp_avg = exp_avg * beta1 + grad * one_minus_beta1
    exp_avg_sq = exp_avg_sq * beta2 + (grad * grad) * one_minus_beta2
    # torch's float32 square root on a CPU may be off by a unit in the last place, so it is taken in float64.
    ratio = exp_avg / (exp_avg_sq.double().sqrt().float() * variance_scale + eps)
    updated = _widen(weight, low, entry.rounding) * decay - ratio * step_size

    new_weight, new_low = _narrow(updated, entry, part, step)
    frozen = entry.frozen_elements(part.start, part.start + weight.numel())
    if frozen is not None:
        new_weight = torch.where(frozen, weight, new_weight)
        new_low = None if low is None or new_low is None else torch.where(frozen, low, new_low)
    unmoved = pattern(new_weight) == pattern(weight)
    if low is not None and new_low is not None:
        unmoved &= pattern(new_low) == pattern(low)
        low.copy_(new_low)
    weight.copy_(new_weight)
    _store_moments(entry, part, exp_avg, exp_avg_sq, step=step, frozen=frozen)
    return unmoved.sum()


def _moments(entry: Entry, part: slice) -> tuple[Tensor, Tensor]:
    """Both in float32."""
    exp_avg, exp_avg_sq = entry.exp_avg[part], entry.exp_avg_sq[part]
    if entry.exp_avg_scale is None or entry.exp_avg_sq_scale is None:
        return exp_avg.float(), exp_avg_sq.float()
    groups = slice(part.start // GROUP, part.stop // GROUP)
    return (
        decode_average(exp_avg, entry.exp_avg_scale[groups]),
        decode_variance(exp_avg_sq, entry.exp_avg_sq_scale[groups]),
    )


def _store_moments(
    entry: Entry, part: slice, exp_avg: Tensor, exp_avg_sq: Tensor, *, step: Tensor, frozen: Tensor | None
) -> None:
    bits = None
    if entry.stochastic_variance and entry.exp_avg_sq.dtype != torch.float32:
        bits = element_bits(entry, part, exp_avg_sq.numel(), step, stream=1)
    if entry.exp_avg_scale is not None and entry.exp_avg_sq_scale is not None:
        groups = slice(part.start // GROUP, part.stop // GROUP)
        exp_avg, average_scales = encode_average(exp_avg, frozen)
        exp_avg_sq, variance_scales = encode_variance(exp_avg_sq, bits, frozen)
        entry.exp_avg_scale[groups].copy_(average_scales)
        entry.exp_avg_sq_scale[groups].copy_(variance_scales)
    elif bits is not None:
        exp_avg_sq = round_stochastic(exp_avg_sq, bits)
    for kept, new in ((entry.exp_avg[part], exp_avg), (entry.exp_avg_sq[part], exp_avg_sq)):
        new = new.to(kept.dtype)
        kept.copy_(new if frozen is None else torch.where(frozen, kept, new))


def _widen(weight: Tensor, low: Tensor | None, rounding: str) -> Tensor:
    if low is None:
        return weight.float()
    if rounding == "kahan":
        return weight.float() + low.float()
    return unsplit(weight, low)


def _narrow(updated: Tensor, entry: Entry, part: slice, step: Tensor) -> tuple[Tensor, Tensor | None]:
    if entry.param.dtype == torch.float32:
        return updated, None
    if entry.rounding == "stochastic":
        return round_stochastic(updated, element_bits(entry, part, updated.numel(), step, stream=0)), None
    if entry.rounding == "kahan":
        weight = updated.to(torch.bfloat16)
        # The subtraction is exact. Beside an infinite weight the difference has no meaning.
        missing = updated - weight.float()
        return weight, torch.where(missing.isfinite(), missing, 0.0).to(torch.bfloat16)
    if entry.rounding in ("split", "split8"):
        return split(updated, 16 if entry.rounding == "split" else 8)
    return updated.to(torch.bfloat16), None


def element_bits(entry: Entry, part: slice, count: int, step: Tensor, *, stream: int) -> Tensor:
    """16 random bits (int32) for each of `count` elements of the tensor from `part.start` on."""
    if entry.contiguous_index():
        first = entry.index.base + part.start
        return random_bits(entry.seed, first, count, step.long(), stream=stream, device=entry.param.device)
    return random_bits_at(entry.seed, entry.element_places(part.start, part.start + count), step.long(), stream)


def pattern(x: Tensor) -> Tensor:
    """Bits as integers: NaN equals itself, and a weight that went from 0.0 to -0.0 has moved."""
    kinds = {torch.bfloat16: torch.int16, torch.float32: torch.int32}
    return x.view(kinds[x.dtype]) if x.dtype in kinds else x


def square_sum(grad: Tensor) -> Tensor:
    """Sum of squares of a gradient `[numel]`: float64 tensor of no dimensions.

    Groups of eight are summed as a float32 tree, the groups in float64: the same bits as the kernel's, whatever
    its blocks are, up to the order of the float64 sums.
    """
    total = torch.zeros((), dtype=torch.float64, device=grad.device)
    for start in range(0, grad.numel(), _BLOCK):
        squares = grad[start : start + _BLOCK].float().square()
        squares = torch.nn.functional.pad(squares, (0, -squares.numel() % 8)).view(-1, 4, 2)
        pairs = squares[..., 0] + squares[..., 1]
        quads = pairs.view(-1, 2, 2)
        halves = quads[..., 0] + quads[..., 1]
        total += (halves[:, 0] + halves[:, 1]).double().sum()
    return total
