"""Cross-entropy in Triton: a program has a row, reads it twice and writes its gradient in its place.

The first pass keeps the largest entry and the sum of exponentials lane by lane, and puts lanes together once: a second
exponential per entry costs less than a reduction per block, for which all warps would wait.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..sparsemax.kernel import load_wide, raw_bits, store_narrow

_BLOCK = 4096

# Below every entry but -inf, whose difference to itself is not a number.
_LOWEST = tl.constexpr(-3.4028234663852886e38)


@triton.jit(do_not_specialize=["scale", "ignore_index"])
def cross_entropy_kernel(
    logits_ptr,  # [rows, n], overwritten if GRADIENT
    target_ptr,  # int64 [rows]
    loss_ptr,  # float32 [rows], written
    n,
    scale,
    ignore_index,
    BF16: tl.constexpr,
    GRADIENT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    logits_ptr += row * n
    target = tl.load(target_ptr + row)
    valid = target != ignore_index
    picked_ptr = logits_ptr + target + tl.arange(0, 1)
    picked = tl.sum(load_wide(picked_ptr, (target >= 0) & (target < n), False, BF16, tl.float32))
    lane = tl.arange(0, BLOCK)
    largest = tl.full([BLOCK], _LOWEST, tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    # Of rows that do not count, nothing is read.
    for at in range(0, tl.where(valid, n, 0), BLOCK):
        x = load_wide(logits_ptr + at + lane, at + lane < n, True, BF16, tl.float32)
        larger = tl.maximum(largest, x)
        total = total * tl.exp(largest - larger) + tl.exp(x - larger)
        largest = larger
    top = tl.max(largest, axis=0)
    norm = tl.where(valid, tl.sum(total * tl.exp(largest - top), axis=0), 1.0)
    picked = tl.where((target >= 0) & (target < n), picked, float("nan"))
    tl.store(loss_ptr + row, tl.where(valid, tl.log(norm) + top - picked, 0.0))
    if GRADIENT:
        # The target's logit was read by threads that do not write it.
        tl.debug_barrier()
        for at in range(0, n, BLOCK):
            here = at + lane
            x = load_wide(logits_ptr + here, (here < n) & valid, True, BF16, tl.float32)
            gradient = tl.exp(x - top) * (scale / norm) - tl.where(here == target, scale, 0.0)
            store_narrow(logits_ptr + here, tl.where(valid, gradient, 0.0), here < n, BF16)


def cross_entropy_(logits: Tensor, targets: Tensor, *, scale: float, ignore_index: int, gradient: bool) -> Tensor:
    """See `langadapt_kernels.cross_entropy_`."""
    rows, n = logits.shape
    losses = torch.empty(rows, dtype=torch.float32, device=logits.device)
    if rows == 0:
        return losses
    block = min(_BLOCK, max(128, triton.next_power_of_2(n)))
    with torch.cuda.device_of(logits):
        cross_entropy_kernel[(rows,)](
            raw_bits(logits),
            targets.contiguous(),
            losses,
            n,
            float(scale),
            ignore_index,
            BF16=logits.dtype == torch.bfloat16,
            GRADIENT=gradient,
            BLOCK=block,
            num_warps=max(1, block // 512),
        )
    return losses
