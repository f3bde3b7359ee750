"""Sparsemax of rows in Triton: no sort, every row read from memory once where it fits in registers.

The threshold tau of a row is the root of the convex f(tau) = sum(max(x - tau, 0)) - 1. Newton's method from the left
(Michelot's algorithm) is exact after finitely many steps: from a lower bound, tau <- (sum of entries above tau -
1) / their number, until that set stops changing. A good lower bound is the threshold of any part of the row; here
of the maxima of its columns when the row is folded, which hold most of the row's largest entries.

Entries are taken relative to the row's largest, so that sums keep their precision whatever the entries' size.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..backend import interpreting
from ..rounding.kernel import round_to_bf16, widen_bf16

# Rows up to this many entries stay in registers: 64 per thread.
RESIDENT = 32768
_STREAM_BLOCK = 4096

# The interpreter would call a reduction of our own element by element.
_INTERPRETED = tl.constexpr(interpreting())


@triton.jit
def above(x, tau):
    """Sum and number of the entries above `tau`, both in the dtype of `x`.

    As one reduction of pairs: it waits for the other warps half as often as two.
    """
    inside = x > tau
    pairs = tl.join(tl.where(inside, x, 0.0), tl.where(inside, 1.0, 0.0).to(x.dtype))
    return tl.split(tl.sum(pairs, axis=0))


@triton.jit
def threshold(x, tau, count):
    """Exact threshold of the entries `x`, none of which is above 0, and how many of them lie above it.

    `tau` is a lower bound. If it is the threshold of `count` of the entries, and as many lie above it, it is the
    result; give -1 where nothing is known.
    """
    total, size = above(x, tau)
    # From the second time on the sets can but shrink: rounding must not let the bound sink, or this would not end.
    while size != count:
        count = size
        tau = tl.maximum(tau, (total - 1.0) / tl.maximum(size, 1.0))
        total, size = above(x, tau)
    return tau, count


@triton.jit
def load_wide(pointers, mask, other, BF16: tl.constexpr, WIDE: tl.constexpr):
    """Entries in the dtype of the computation; bfloat16 comes as its bits."""
    if BF16:
        # The bits of -inf, or of zero.
        return widen_bf16(tl.load(pointers, mask=mask, other=0xFF80 if other else 0))
    elif other:
        return tl.load(pointers, mask=mask, other=float("-inf")).to(WIDE)
    else:
        return tl.load(pointers, mask=mask, other=0.0).to(WIDE)


@triton.jit
def store_narrow(pointers, value, mask, BF16: tl.constexpr):
    if BF16:
        value = round_to_bf16(value)
    tl.store(pointers, value, mask=mask)


@triton.jit
def larger(a, b):
    """The larger one, or NaN."""
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def largest_of(x, axis: tl.constexpr):
    """Along `axis`; not finite (if not -inf) where one has no projection."""
    if _INTERPRETED:
        return tl.max(tl.where(x < float("inf"), x, float("inf")), axis=axis)
    else:
        return tl.reduce(x, axis, larger)


@triton.jit
def project(z, tau):
    """max(z - tau, 0), NaN if `tau` is NaN."""
    return larger(z - tau, 0.0)


# One instruction per entry and step counts here: a row of 32,768 has a multiprocessor for itself, whose memory rests
# while it is searched. Hence the count without the sum where the folded row's threshold mostly is the row's.
@triton.jit
def sparsemax_resident_kernel(
    x_ptr,  # [rows, n]
    output_ptr,  # [rows, n]
    n,
    BF16: tl.constexpr,
    WIDE: tl.constexpr,  # dtype of the computation
    BLOCK: tl.constexpr,  # >= n
    LANES: tl.constexpr,  # divides BLOCK: columns of the folded row
    WHOLE: tl.constexpr,  # n == BLOCK
):
    row = tl.program_id(0).to(tl.int64) * n
    lane = tl.arange(0, BLOCK)
    mask = lane < (BLOCK if WHOLE else n)
    x = load_wide(x_ptr + row + lane, mask, True, BF16, WIDE)
    # The largest entries of the columns hold most of the row's largest.
    folded = largest_of(tl.reshape(x, [BLOCK // LANES, LANES]), 0)
    largest = largest_of(folded, 0)
    x -= largest
    tau, count = threshold(folded - largest, tl.full([], -1.0, WIDE), tl.full([], -1.0, WIDE))
    if tl.sum(tl.where(x > tau, 1.0, 0.0).to(WIDE)) != count:
        tau, count = threshold(x, tau, count)
    tau = tl.where(largest < float("inf"), tau, float("nan"))
    store_narrow(output_ptr + row + lane, project(x, tau), mask, BF16)


@triton.jit
def above_in_memory(x_ptr, n, largest, tau, BF16: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr):
    """As `above`, of the `n` entries at `x_ptr`, taken relative to the largest."""
    lane = tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], WIDE)
    size = tl.zeros([BLOCK], WIDE)
    for at in range(0, n, BLOCK):
        z = load_wide(x_ptr + at + lane, at + lane < n, True, BF16, WIDE) - largest
        total += tl.where(z > tau, z, 0.0)
        size += tl.where(z > tau, 1.0, 0.0)
    return tl.split(tl.sum(tl.join(total, size), axis=0))


@triton.jit
def sparsemax_stream_kernel(
    x_ptr,  # [rows, n]
    output_ptr,  # [rows, n]
    n,
    BF16: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Any row length: the row is read again for each step of the exact search."""
    row = tl.program_id(0).to(tl.int64) * n
    lane = tl.arange(0, BLOCK)
    folded = tl.full([BLOCK], float("-inf"), WIDE)
    for at in range(0, n, BLOCK):
        folded = larger(folded, load_wide(x_ptr + row + at + lane, at + lane < n, True, BF16, WIDE))
    largest = largest_of(folded, 0)
    tau, count = threshold(folded - largest, tl.full([], -1.0, WIDE), tl.full([], -1.0, WIDE))
    total, size = above_in_memory(x_ptr + row, n, largest, tau, BF16, WIDE, BLOCK)
    while size != count:
        count = size
        tau = tl.maximum(tau, (total - 1.0) / tl.maximum(size, 1.0))
        total, size = above_in_memory(x_ptr + row, n, largest, tau, BF16, WIDE, BLOCK)
    tau = tl.where(largest < float("inf"), tau, float("nan"))
    for at in range(0, n, BLOCK):
        z = load_wide(x_ptr + row + at + lane, at + lane < n, True, BF16, WIDE) - largest
        store_narrow(output_ptr + row + at + lane, project(z, tau), at + lane < n, BF16)


@triton.jit
def sparsemax_backward_kernel(
    output_ptr,  # [rows, n]
    grad_ptr,  # [rows, n]
    grad_input_ptr,  # [rows, n]
    n,
    OUTPUT_BF16: tl.constexpr,
    GRAD_BF16: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """On the support the gradient less its mean there, elsewhere zero.

    The gradient is read on the support alone, which is a thousandth of most rows: what goes through memory is the
    output, twice, and the result.
    """
    row = tl.program_id(0).to(tl.int64) * n
    lane = tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], WIDE)
    size = tl.zeros([BLOCK], tl.int32)
    for at in range(0, n, BLOCK):
        here, mask = row + at + lane, at + lane < n
        inside = load_wide(output_ptr + here, mask, False, OUTPUT_BF16, WIDE) > 0
        total += load_wide(grad_ptr + here, inside, False, GRAD_BF16, WIDE)
        size += inside.to(tl.int32)
    mean = tl.sum(total) / tl.maximum(tl.sum(size), 1).to(WIDE)
    for at in range(0, n, BLOCK):
        here, mask = row + at + lane, at + lane < n
        inside = load_wide(output_ptr + here, mask, False, OUTPUT_BF16, WIDE) > 0
        grad = load_wide(grad_ptr + here, inside, False, GRAD_BF16, WIDE)
        store_narrow(grad_input_ptr + here, tl.where(inside, grad - mean, 0.0), mask, GRAD_BF16)


def raw_bits(x: Tensor) -> Tensor:
    """bfloat16 as its bits; see rounding/kernel.py."""
    return x.view(torch.uint16) if x.dtype == torch.bfloat16 else x


def _wide(x: Tensor) -> tl.dtype:
    return tl.float64 if x.dtype == torch.float64 else tl.float32


def sparsemax(x: Tensor, resident: int = RESIDENT) -> Tensor:
    """Rows of `x` (`[rows, n]`) projected onto the simplex; rows up to `resident` entries stay in registers."""
    x = x.contiguous()
    output = torch.empty_like(x)
    rows, n = x.shape
    if rows == 0:
        return output
    bf16, wide = x.dtype == torch.bfloat16, _wide(x)
    with torch.cuda.device_of(x):
        # float64 takes two registers an entry, and more beside it.
        if n <= resident // (4 if wide == tl.float64 else 1):
            block = max(128, triton.next_power_of_2(n))
            warps = min(16, max(4, block // 512))
            sparsemax_resident_kernel[(rows,)](
                raw_bits(x),
                raw_bits(output),
                n,
                BF16=bf16,
                WIDE=wide,
                BLOCK=block,
                LANES=min(block, 32 * warps),
                WHOLE=n == block,
                num_warps=warps,
            )
        else:
            sparsemax_stream_kernel[(rows,)](
                raw_bits(x), raw_bits(output), n, BF16=bf16, WIDE=wide, BLOCK=_STREAM_BLOCK, num_warps=16
            )
    return output


def sparsemax_backward(output: Tensor, grad: Tensor) -> Tensor:
    """Gradient of the input `[rows, n]`, of the dtype of `grad`."""
    output, grad = output.contiguous(), grad.contiguous()
    result = torch.empty_like(grad)
    rows, n = grad.shape
    if rows == 0:
        return result
    block = min(_STREAM_BLOCK, max(128, triton.next_power_of_2(n)))
    with torch.cuda.device_of(grad):
        sparsemax_backward_kernel[(rows,)](
            raw_bits(output),
            raw_bits(grad),
            raw_bits(result),
            n,
            OUTPUT_BF16=output.dtype == torch.bfloat16,
            GRAD_BF16=grad.dtype == torch.bfloat16,
            WIDE=_wide(grad),
            BLOCK=block,
            num_warps=max(1, block // 256),
        )
    return result
