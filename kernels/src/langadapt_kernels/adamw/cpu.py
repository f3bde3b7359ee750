"""The reference's step for CPU tensors: the same bits, several times faster.

A block is stepped by some twenty in-place operations on scratch that stays in the caches. What is rare (values for
which rounding by plain integers is wrong, scattered shards) goes through the reference's own functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from ..rounding import reference as rounding
from . import reference
from .modes import Entry

try:
    import numpy

    from ..rounding.cpu import Philox
except ImportError:  # torch works without numpy; then the reference does its part
    numpy = None  # type: ignore[assignment]

# Elements per block: torch starts no threads for so few, and the scratch of 24 to 32 bytes per element stays in the
# second-level cache.
_BLOCK = 1 << 15
# Blocks are shared among threads of Python from this many on: torch's own would meet after every operation, which
# costs as much as the operation, and a hundred times as much on a busy machine.
_LEAST_FOR_THREADS = 8
_MOST_THREADS = 8

# From this size on a carry of the rounding may reach infinity.
_LARGEST = 3.3895313892515355e38

_EIGHT, _SIXTEEN, _HALF = (torch.tensor(x, dtype=torch.int32) for x in (8, 16, 0x8000))


class Scratch:
    """Memory for one block."""

    def __init__(self, largest: int) -> None:
        """`largest`: elements of the largest tensor."""
        size = min(_BLOCK, -(-max(largest, 1) // 8) * 8)
        self.grad, self.exp_avg, self.exp_avg_sq, self.weight, self.ratio = torch.empty(5, size).unbind()
        self.integers = torch.empty(size, dtype=torch.int32)
        self.philox = None if numpy is None else Philox(size)


def for_each_block(sizes: Sequence[int], work: Callable[[int, slice, Scratch], float]) -> list[float]:
    """Sums of `work(tensor, part, scratch)` over all blocks of tensors of the given sizes, one sum per tensor.

    Blocks run in torch's number of threads. Sums are taken in the order of the blocks, whoever computed them.
    """
    blocks = [(i, slice(at, min(at + _BLOCK, size))) for i, size in enumerate(sizes) for at in range(0, size, _BLOCK)]
    largest = max(sizes, default=0)
    found = [0.0] * len(blocks)

    def run(mine: Iterable[int]) -> None:
        scratch = Scratch(largest)
        with torch.no_grad():  # a property of the thread
            for k in mine:
                found[k] = work(*blocks[k], scratch)

    threads = min(torch.get_num_threads(), _MOST_THREADS, len(blocks) // _LEAST_FOR_THREADS)
    if threads <= 1:
        run(range(len(blocks)))
    else:
        with ThreadPoolExecutor(threads) as pool:
            shared = iter(range(len(blocks)))
            for done in [pool.submit(run, shared) for _ in range(threads)]:
                done.result()
    sums = [0.0] * len(sizes)
    for (i, _), value in zip(blocks, found, strict=True):
        sums[i] += value
    return sums


def step_block(
    entry: Entry,
    part: slice,
    scalars: Sequence[Tensor],
    grad_scale: Tensor | None,
    *,
    scratch: Scratch,
    count_stale: bool,
) -> int:
    """Update a block of one tensor in place; see `reference.adamw_step`.

    Args:
        entry: the tensor and its states.
        part: the block.
        scalars: float32 tensors of no dimensions, see `modes.SCALARS`.
        grad_scale: float32 tensor of no dimensions that the gradient is multiplied with, or None.
        scratch: memory.
        count_stale: whether to count.

    Returns:
        How many stored weights the step left as they were; 0 unless `count_stale`.
    """
    decay, step_size, variance_scale, eps, beta1, one_minus_beta1, beta2, one_minus_beta2, step = scalars
    count = part.stop - part.start
    grad, ratio = scratch.grad[:count].copy_(entry.grad[part]), scratch.ratio[:count]
    if grad_scale is not None:
        grad.mul_(grad_scale)
    exp_avg = _as_float(entry.exp_avg[part], scratch.exp_avg)
    exp_avg.mul_(beta1).add_(torch.mul(grad, one_minus_beta1, out=ratio))
    exp_avg_sq = _as_float(entry.exp_avg_sq[part], scratch.exp_avg_sq)
    exp_avg_sq.mul_(beta2).add_(grad.mul_(grad).mul_(one_minus_beta2))

    _square_root(exp_avg_sq, ratio)
    torch.div(exp_avg, ratio.mul_(variance_scale).add_(eps), out=ratio)
    weight = _widen(entry, part, scratch)
    before = _patterns(entry, part, copy=True) if count_stale else None
    weight.mul_(decay).sub_(ratio.mul_(step_size))
    _narrow(entry, part, weight, step, scratch=scratch)
    if entry.exp_avg.dtype == torch.bfloat16:
        entry.exp_avg[part].copy_(exp_avg)
        if entry.stochastic_variance:
            _round_stochastic(entry, part, exp_avg_sq, entry.exp_avg_sq[part], step=step, stream=1, scratch=scratch)
        else:
            entry.exp_avg_sq[part].copy_(exp_avg_sq)
    if before is None:
        return 0
    unmoved = [now == then for now, then in zip(_patterns(entry, part), before, strict=True)]
    return int(unmoved[0].logical_and_(unmoved[-1]).sum())


def _as_float(stored: Tensor, scratch: Tensor) -> Tensor:
    """float32 to compute in: the tensor itself if it is one."""
    return stored if stored.dtype == torch.float32 else scratch[: len(stored)].copy_(stored)


def _square_root(x: Tensor, out: Tensor) -> None:
    """The nearest float32, as IEEE demands; torch's own on a CPU may be off by a unit in the last place."""
    if numpy is not None:
        numpy.sqrt(x.numpy(), out=out.numpy())
    else:
        out.copy_(x.double().sqrt_())


def _widen(entry: Entry, part: slice, scratch: Scratch) -> Tensor:
    weight = _as_float(entry.param[part], scratch.weight)
    if entry.low is None:
        return weight
    low = entry.low[part]
    if entry.rounding == "kahan":
        return weight.add_(scratch.grad[: len(low)].copy_(low))
    # The bits below belong to a pattern whose upper half was rounded: as a signed number they are what is missing.
    below = scratch.integers[: len(low)]
    if entry.rounding == "split":
        below.copy_(low)
    else:
        below.copy_(low.view(torch.int8)).bitwise_left_shift_(_EIGHT)
    weight.view(torch.int32).add_(below)
    return weight


def _narrow(entry: Entry, part: slice, updated: Tensor, step: Tensor, *, scratch: Scratch) -> None:
    """Store the weight, and what is kept beside it. `updated` is destroyed."""
    weight = entry.param[part]
    if weight.dtype == torch.float32:
        return
    if entry.rounding == "stochastic":
        _round_stochastic(entry, part, updated, weight, step=step, stream=0, scratch=scratch)
    elif entry.low is None:
        weight.copy_(updated)
    else:
        _narrow_with_low(entry.rounding, updated, weight, entry.low[part], scratch=scratch)


def _narrow_with_low(mode: str, updated: Tensor, weight: Tensor, low: Tensor, *, scratch: Scratch) -> None:
    if mode == "kahan":
        weight.copy_(updated)
        missing = updated.sub_(scratch.grad[: len(weight)].copy_(weight))
        low.copy_(missing.nan_to_num_(0.0, 0.0, 0.0))
        return
    if not _ordinary(updated):
        high, below = rounding.split(updated, 16 if mode == "split" else 8)
        weight.copy_(high)
        low.copy_(below)
        return
    pattern, other = updated.view(torch.int32), scratch.integers[: len(weight)]
    if mode == "split":
        low.copy_(pattern)
    else:
        pattern.add_(torch.bitwise_right_shift(pattern, _EIGHT, out=other).bitwise_and_(1).add_(0x7F))
        low.copy_(torch.bitwise_right_shift(pattern, _EIGHT, out=other))
    weight.view(torch.int16).copy_(pattern.add_(_HALF).bitwise_right_shift_(_SIXTEEN))


def _ordinary(x: Tensor) -> bool:
    """Whether all are finite and no rounding makes one infinite."""
    low, high = torch.aminmax(x)
    return float(low) > -_LARGEST and float(high) < _LARGEST


def _round_stochastic(
    entry: Entry, part: slice, x: Tensor, out: Tensor, *, step: Tensor, stream: int, scratch: Scratch
) -> None:
    """Round float32 `x`, which is destroyed, into bfloat16 `out`."""
    if entry.contiguous_index() and scratch.philox is not None:
        bits = scratch.integers[: len(x)]
        scratch.philox.random_bits(entry.seed, entry.index.base + part.start, int(step), stream, out=bits)
    else:
        bits = reference.element_bits(entry, part, len(x), step, stream=stream)
    if _ordinary(x):
        out.view(torch.int16).copy_(x.view(torch.int32).add_(bits).bitwise_right_shift_(_SIXTEEN))
    else:
        out.copy_(rounding.round_stochastic(x, bits))


def _patterns(entry: Entry, part: slice, copy: bool = False) -> list[Tensor]:
    stored = [entry.param[part]] if entry.low is None else [entry.param[part], entry.low[part]]
    patterns = [reference.pattern(tensor) for tensor in stored]
    return [tensor.clone() for tensor in patterns] if copy else patterns


def square_sum_block(grad: Tensor, scratch: Scratch) -> float:
    """Sum of squares of a block of a gradient `[n]`; see `reference.square_sum`."""
    if numpy is None:
        return float(reference.square_sum(grad))
    count = len(grad)
    padded = -(-count // 8) * 8
    squares = scratch.grad[:padded]
    squares[count:].zero_()
    squares[:count].copy_(grad)
    squares.mul_(squares)
    sums = squares.numpy()
    for level, memory in ((2, scratch.exp_avg), (4, scratch.weight), (8, scratch.ratio)):
        sums = numpy.add(sums[0::2], sums[1::2], out=memory[: padded // level].numpy())
    return float(torch.from_numpy(sums).sum(dtype=torch.float64))
