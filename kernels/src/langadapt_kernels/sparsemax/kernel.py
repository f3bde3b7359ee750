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

from ..rounding.kernel import round_to_bf16, widen_bf16

# Rows up to this many entries stay in registers: 32 per thread.
RESIDENT = 32768
_STREAM_BLOCK = 4096


@triton.jit
def newton(x, tau, count):
    """One step from the left over `x`: the next lower bound, and how many entries lie above `tau`."""
    above = x > tau
    size = tl.sum(above.to(tl.int32))
    total = tl.sum(tl.where(above, x, 0.0))
    # Rounding must not let the bound sink, nor the set grow: the loop would not end.
    return tl.maximum(tau, (total - 1.0) / tl.maximum(size, 1).to(x.dtype)), tl.minimum(size, count)


@triton.jit
def threshold(x, tau, SIZE: tl.constexpr):
    """Exact threshold of the entries `x` (of which some lie above `tau`), none of which is above 0."""
    count = SIZE + 1
    next_tau, next_count = newton(x, tau, count)
    while next_count < count:
        count = next_count
        tau = next_tau
        next_tau, next_count = newton(x, tau, count)
    return tau


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
def not_below_infinity(x):
    """Whether an entry is NaN or +inf, for which a row has no projection."""
    return (x < float("inf")) == 0


@triton.jit
def project(x, largest, tau):
    """max(x - tau, 0) where a NaN anywhere in the row (then in `tau`) comes through."""
    z = x - largest
    return tl.where(z <= tau, 0.0, z - tau)


@triton.jit
def sparsemax_resident_kernel(
    x_ptr,  # [rows, n]
    output_ptr,  # [rows, n]
    n,
    BF16: tl.constexpr,
    WIDE: tl.constexpr,  # dtype of the computation
    BLOCK: tl.constexpr,  # >= n
    LANES: tl.constexpr,  # divides BLOCK: columns of the folded row
):
    row = tl.program_id(0).to(tl.int64) * n
    lane = tl.arange(0, BLOCK)
    x = load_wide(x_ptr + row + lane, lane < n, True, BF16, WIDE)
    invalid = tl.sum(not_below_infinity(x).to(tl.int32))
    folded = tl.max(tl.reshape(x, [BLOCK // LANES, LANES]), axis=0)
    largest = tl.max(folded)
    tau = threshold(folded - largest, tl.full([], -1.0, WIDE), LANES)
    tau = threshold(x - largest, tau, BLOCK)
    tau = tl.where(invalid > 0, float("nan"), tau)
    store_narrow(output_ptr + row + lane, project(x, largest, tau), lane < n, BF16)


@triton.jit
def sparsemax_stream_kernel(
    x_ptr,  # [rows, n]
    output_ptr,  # [rows, n]
    n,
    BF16: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Any row length: the row is read again for each step of the exact search, mostly from the L2 cache."""
    row = tl.program_id(0).to(tl.int64) * n
    lane = tl.arange(0, BLOCK)
    folded = tl.full([BLOCK], float("-inf"), WIDE)
    invalid = tl.zeros([BLOCK], tl.int32)
    for at in range(0, n, BLOCK):
        x = load_wide(x_ptr + row + at + lane, at + lane < n, True, BF16, WIDE)
        folded = tl.maximum(folded, x)
        invalid += not_below_infinity(x).to(tl.int32)
    largest = tl.max(folded)
    tau = threshold(folded - largest, tl.full([], -1.0, WIDE), BLOCK)
    count = n + 1
    next_count = n
    next_tau = tau
    while next_count < count:
        count = next_count
        tau = next_tau
        total = tl.zeros([BLOCK], WIDE)
        size = tl.zeros([BLOCK], tl.int32)
        for at in range(0, n, BLOCK):
            z = load_wide(x_ptr + row + at + lane, at + lane < n, True, BF16, WIDE) - largest
            total += tl.where(z > tau, z, 0.0)
            size += (z > tau).to(tl.int32)
        next_count = tl.minimum(tl.sum(size), count)
        next_tau = tl.maximum(tau, (tl.sum(total) - 1.0) / tl.maximum(next_count, 1).to(WIDE))
    tau = tl.where(tl.sum(invalid) > 0, float("nan"), tau)
    for at in range(0, n, BLOCK):
        x = load_wide(x_ptr + row + at + lane, at + lane < n, True, BF16, WIDE)
        store_narrow(output_ptr + row + at + lane, project(x, largest, tau), at + lane < n, BF16)


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
    """On the support the gradient less its mean there, elsewhere zero."""
    row = tl.program_id(0).to(tl.int64) * n
    lane = tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], WIDE)
    size = tl.zeros([BLOCK], tl.int32)
    for at in range(0, n, BLOCK):
        here, mask = row + at + lane, at + lane < n
        inside = load_wide(output_ptr + here, mask, False, OUTPUT_BF16, WIDE) > 0
        total += tl.where(inside, load_wide(grad_ptr + here, mask, False, GRAD_BF16, WIDE), 0.0)
        size += inside.to(tl.int32)
    mean = tl.sum(total) / tl.maximum(tl.sum(size), 1).to(WIDE)
    for at in range(0, n, BLOCK):
        here, mask = row + at + lane, at + lane < n
        inside = load_wide(output_ptr + here, mask, False, OUTPUT_BF16, WIDE) > 0
        grad = load_wide(grad_ptr + here, mask, False, GRAD_BF16, WIDE)
        store_narrow(grad_input_ptr + here, tl.where(inside, grad - mean, 0.0), mask, GRAD_BF16)


def _raw(x: Tensor) -> Tensor:
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
    # float64 takes two registers an entry.
    if n <= resident // (2 if wide == tl.float64 else 1):
        block = max(128, triton.next_power_of_2(n))
        warps = min(32, max(4, block // 1024))
        config = {"BLOCK": block, "LANES": min(block, 32 * warps), "num_warps": warps}
        kernel = sparsemax_resident_kernel
    else:
        config = {"BLOCK": _STREAM_BLOCK, "num_warps": 8}
        kernel = sparsemax_stream_kernel
    with torch.cuda.device_of(x):
        kernel[(rows,)](_raw(x), _raw(output), n, BF16=bf16, WIDE=wide, **config)
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
            _raw(output),
            _raw(grad),
            _raw(result),
            n,
            OUTPUT_BF16=output.dtype == torch.bfloat16,
            GRAD_BF16=grad.dtype == torch.bfloat16,
            WIDE=_wide(grad),
            BLOCK=block,
            num_warps=max(1, block // 512),
        )
    return result
