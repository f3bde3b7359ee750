"""Torch references of the narrowing rules; bit-equal to the kernels."""

from __future__ import annotations

import torch
from torch import Tensor

MASK = 0xFFFFFFFF
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)  # of words 0 and 2
WEYL = (0x9E3779B9, 0xBB67AE85)  # added to the two halves of the key in every round


def philox(seed: int, group: Tensor, step: Tensor | int, stream: int, *, rounds: int = 10) -> Tensor:
    """Philox4x32 words for the counters `(group low, group high, step, stream)`.

    Args:
        seed: the 64-bit key.
        group: int64 `[n]`.
        step: an integer below 2**32, or an int64 tensor of no dimensions.
        stream: tells apart the random bits of the weight (0) and of the second moment (1).

    Returns:
        int64 `[n, 4]`, each word in `[0, 2**32)`.

    Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011); the order of operations is Triton's.
    """
    c0, c1 = group & MASK, (group >> 32) & MASK
    c2 = torch.zeros_like(c0) + step
    c3 = torch.full_like(c0, stream)
    k0, k1 = seed & MASK, (seed >> 32) & MASK
    for _ in range(rounds):
        # The product overflows int64, but its 64 bits are right: the upper half is taken through a mask.
        high, low = MULTIPLIERS[1] * c2, MULTIPLIERS[0] * c0
        c0, c2 = ((high >> 32) & MASK) ^ c1 ^ k0, ((low >> 32) & MASK) ^ c3 ^ k1
        c1, c3 = high & MASK, low & MASK
        k0, k1 = (k0 + WEYL[0]) & MASK, (k1 + WEYL[1]) & MASK
    return torch.stack((c0, c1, c2, c3), dim=-1)


def random_bits(seed: int, first: int, count: int, step: Tensor | int, *, stream: int, device: torch.device) -> Tensor:
    """16 random bits (int32 in `[0, 65536)`) for each of `count` elements from the model's element `first` on."""
    group = torch.arange(first // 8, (first + count + 7) // 8, device=device)
    words = philox(seed, group, step, stream)
    halves = torch.stack((words & 0xFFFF, words >> 16), dim=-1).view(-1)
    return halves[first % 8 : first % 8 + count].to(torch.int32)


def random_bits_at(seed: int, index: Tensor, step: Tensor | int, stream: int) -> Tensor:
    """The same bits for scattered elements of the model (int64 `[n]`), at a whole Philox call per element."""
    words = philox(seed, index >> 3, step, stream)
    lane = index & 7
    word = words.gather(-1, (lane >> 1).unsqueeze(-1)).squeeze(-1)
    return ((word >> ((lane & 1) * 16)) & 0xFFFF).to(torch.int32)


def round_stochastic(x: Tensor, bits: Tensor) -> Tensor:
    """float32 to bfloat16 with the given 16 random bits (int32 `[n]`) per element."""
    pattern = x.view(torch.int32)
    # In the last binade a carry would reach infinity: such a value is cut instead, as are infinity and NaN.
    cut = (pattern & 0x7FFFFFFF) >= 0x7F7F0000
    return _upper_half(pattern + torch.where(cut, 0, bits))


def split(x: Tensor, low_bits: int) -> tuple[Tensor, Tensor]:
    """Cut float32 into a bfloat16 weight and the `low_bits` (16 or 8) bits that follow it.

    With 8 low bits the value is first rounded to 24 bits, ties to even. The lower part of infinity and NaN is zero.

    Returns:
        bfloat16 `[n]`, and int16 (16 bits) or uint8 (8 bits) `[n]`.
    """
    pattern = x.view(torch.int32)
    special = (pattern & 0x7FFFFFFF) >= 0x7F800000
    if low_bits == 8:
        pattern = pattern + torch.where(special, 0, 0x7F + ((pattern >> 8) & 1))
    low = torch.where(special, 0, pattern >> (16 - low_bits) & (1 << low_bits) - 1)
    high = _upper_half(pattern + torch.where(special, 0, 0x8000))
    return high, low.to(torch.int16 if low_bits == 16 else torch.uint8)


def _upper_half(pattern: Tensor) -> Tensor:
    """The bfloat16 in the upper halves of int32 patterns."""
    return (pattern >> 16).to(torch.int16).view(torch.bfloat16)


def unsplit(high: Tensor, low: Tensor) -> Tensor:
    """Undo `split`: bfloat16 and int16 or uint8 back to float32."""
    below = low.to(torch.int32) & 0xFFFF if low.dtype == torch.int16 else low.to(torch.int32) << 8
    top = high.float().view(torch.int32)
    # The weight was rounded up where the part below is half a unit or more.
    return (top - ((below & 0x8000) << 1) | below).view(torch.float32)
