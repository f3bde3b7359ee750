"""The reference's random bits for CPU tensors: the same numbers, without temporaries, by numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from .reference import MASK, MULTIPLIERS, WEYL

_MULTIPLIERS = np.array(MULTIPLIERS, np.uint64)
_HALF, _LOWER = np.uint64(32), np.uint64(MASK)


class Philox:
    """Philox4x32-10 for runs of consecutive elements, in memory of its own."""

    def __init__(self, most: int) -> None:
        """`most`: the longest run of elements that will be asked for."""
        self._memory = np.empty((4, 2 * (most // 8 + 2)), np.uint64)

    def random_bits(self, seed: int, first: int, step: int, stream: int, *, out: Tensor) -> None:
        """Fill `out`, int32 `[n]`, with 16 random bits for each of `n` elements from the model's element `first` on.

        See `reference.random_bits`. Words are kept in 64 bits. A product's upper half is no part of its word; it is
        cut where the word has been mixed in, once instead of twice.
        """
        group = first // 8
        calls = (first + len(out) + 7) // 8 - group
        even, product, odd = (memory[: 2 * calls].reshape(2, calls) for memory in self._memory[:3])
        even[0] = np.arange(group, group + calls, dtype=np.uint64)
        np.right_shift(even[0], _HALF, out=odd[1])
        np.bitwise_and(even[0], _LOWER, out=even[0])
        even[1], odd[0] = step, stream
        for keys in _round_keys(seed):
            # Row by row: numpy has no fast path for a column or for rows in reverse.
            for row in (0, 1):
                np.multiply(even[row], _MULTIPLIERS[row], out=product[row])
            for row in (0, 1):
                # A word is made of the other product's upper half.
                np.right_shift(product[1 - row], _HALF, out=even[row])
                np.bitwise_xor(even[row], odd[1 - row], out=even[row])
                np.bitwise_xor(even[row], keys[row], out=even[row])
            np.bitwise_and(even, _LOWER, out=even)
            product, odd = odd, product
        words = self._memory[3, : 2 * calls].reshape(calls, 2)
        np.left_shift(odd, _HALF, out=odd)
        for row in (0, 1):
            # Words 0 and 1, then 2 and 3: in memory (little-endian) the sixteen-bit pieces stand in their order.
            np.bitwise_or(odd[1 - row], even[row], out=words[:, row])
        out.numpy()[...] = words.reshape(-1).view(np.uint16)[first % 8 :][: len(out)]


def _round_keys(seed: int) -> Any:
    """uint64 `[10, 2]`."""
    keys = (seed & MASK, (seed >> 32) & MASK)
    return np.array(
        [[(key + i * add) & MASK for key, add in zip(keys, WEYL, strict=True)] for i in range(10)], np.uint64
    )
