"""Cross-entropy in Triton: a program has a row, reads it twice and writes its gradient in its place.

The first pass keeps the largest entry and the sum of exponentials for each eight neighbours of a block, which one
thread holds, and puts these together once: a reduction per block would have all warps wait. Instructions are nearly as
scarce as bytes: the target's share of the gradient is put right at the end instead of being looked for at each entry.
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
    inside = (target >= 0) & (target < n)
    # Masks come from blocks: Triton 3.9's interpreter makes integers of a scalar one that it spreads over a block.
    place = target + tl.arange(0, 1)
    at_target, counts = logits_ptr + place, (place >= 0) & (place < n) & (place != ignore_index)
    picked = tl.sum(load_wide(at_target, counts, True, BF16, tl.float32))
    lane = tl.arange(0, BLOCK)
    largest = tl.full([BLOCK // 8], _LOWEST, tl.float32)
    total = tl.zeros([BLOCK // 8], tl.float32)
    # Of rows that do not count, nothing is read.
    read = tl.where(valid, n, 0)
    for at in range(0, read, BLOCK):
        x = load_wide(logits_ptr + at + lane, at + lane < n, True, BF16, tl.float32)
        x = tl.reshape(x, [BLOCK // 8, 8])
        larger = tl.maximum(largest, tl.max(x, axis=1))
        total = total * tl.exp(largest - larger) + tl.sum(tl.exp(x - larger[:, None]), axis=1)
        largest = larger
    top = tl.max(largest, axis=0)
    norm = tl.where(valid, tl.sum(total * tl.exp(largest - top), axis=0), 1.0)
    loss = tl.where(inside, tl.log(norm) + top - picked, float("nan"))
    tl.store(loss_ptr + row, tl.where(valid, loss, 0.0))
    if GRADIENT:
        # The target's logit was read by threads that do not write it, and will be written by others again.
        tl.debug_barrier()
        factor = tl.where(valid, scale / norm, 0.0)
        for at in range(0, n, BLOCK):
            here = at + lane
            x = load_wide(logits_ptr + here, here < read, True, BF16, tl.float32)
            store_narrow(logits_ptr + here, tl.exp(x - top) * factor, here < n, BF16)
        tl.debug_barrier()
        gradient = tl.full([1], 0.0, tl.float32) + (tl.exp(picked - top) * factor - scale)
        store_narrow(at_target, gradient, counts, BF16)


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
