"""Attention for packed documents on a CPU: a few tokens at a time, each with the keys that one of them can see.

Hardly anything is computed for pairs of tokens that must not see each other, and no mask of a whole window is made. As
in `langadapt.models.attention` the softmax is one of powers of two, and the heads of one key are the rows of one
product, so that gradients of keys need no sum over heads. Everything between bf16 tensors is float32, products too:
some of those in bf16 would be 1.1 to 1.2 times as fast in all, and gradients off by a third to two thirds more. As it
is they are a little nearer to the exact ones than those of torch's flash kernel. Milliseconds of one layer in bf16 on
one core, forward and backward, by that kernel (backward in float32, where it is faster) and here:

| windows, heads, width of a head | documents of | kernel | here |
|---|--:|--:|--:|
| 2 of 512, 4 of 256 on one key | 300 | 56 | 36 |
| the same | 30 | 21 | 19 |
| 2 of 512, 8 of 64 | 300 | 35 | 25 |
| 2 of 512, 8 of 128 on 2 keys | 300 | 60 | 38 |
| 1 of 2,048, 4 of 256 on one key | 2,000 | 414 | 354 |
| the same under a sliding window of 512 | 2,000 | 235 | 179 |
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from langadapt.models import attention
from langadapt.models.products import exactly

LN2 = math.log(2)


class Block(NamedTuple):
    """Some tokens of a window."""

    row: int
    own: slice
    seen: slice
    """All that one of them can see; ends with them."""
    hidden: Tensor
    """Added to the scores ``[own, the last of seen]``: `attention.HIDDEN` for what must not be seen, else 0."""


class Pieces:
    """Where the documents of windows lie."""

    def __init__(self, positions: Tensor) -> None:
        """``positions``: ``[windows, length]``, 0 = a document begins; padding is documents of one token."""
        begins = positions.numpy() == 0
        begins[:, 0] = True
        self.documents, length = np.cumsum(begins, axis=1), positions.shape[1]
        self.bounds = [[*np.flatnonzero(row).tolist(), length] for row in begins]
        self.made: dict[int | None, list[Block]] = {}

    def blocks(self, window: int | None) -> list[Block]:
        """Blocks of all tokens, under a sliding window or none; the same for all layers that have it."""
        if window not in self.made:
            self.made[window] = [
                Block(row, own, seen, self.hidden(row, own, seen, window))
                for row, bounds in enumerate(self.bounds)
                for own, seen in cut(bounds, window)
            ]
        return self.made[window]

    def hidden(self, row: int, own: slice, seen: slice, window: int | None) -> Tensor:
        """The table of a block: without a sliding window all see what is before the block."""
        if window is None or own.stop - seen.start <= window:
            window, seen = len(self.documents[row]), own
        back = np.arange(own.start, own.stop)[:, None] - np.arange(seen.start, seen.stop)
        same = self.documents[row, own, None] == self.documents[row, seen]
        return torch.from_numpy(np.where(same & (back >= 0) & (back < window), 0, np.float32(attention.HIDDEN)))


def cut(bounds: list[int], window: int | None) -> Iterator[tuple[slice, slice]]:
    """Tokens of one window and what they can see; ``bounds``: of its documents. Short neighbours share a block: on its
    own each would cost as many calls as a long one."""
    first = 0
    for start, stop in pairwise(bounds):
        if stop - first <= attention.BLOCK:
            continue
        if first < start:
            yield slice(first, start), slice(first, start)
        first = start
        if stop - start > attention.BLOCK:
            for own, seen in attention.blocks(stop - start, window or stop - start):
                yield slice(start + own.start, start + own.stop), slice(start + seen.start, start + seen.stop)
            first = stop
    if first < bounds[-1]:
        yield slice(first, bounds[-1]), slice(first, bounds[-1])


def flat(found: list[Block]) -> tuple[list[int], list[Tensor]]:
    """Blocks as an operator takes them: window, first and last of own, first of seen, of each; all tables."""
    places = [(block.row, block.own.start, block.own.stop, block.seen.start) for block in found]
    return [number for place in places for number in place], [block.hidden for block in found]


def blocks_of(places: list[int], hidden: list[Tensor]) -> Iterator[Block]:
    """What `flat` was given."""
    of = iter(places)
    for row, start, stop, first, table in zip(of, of, of, of, hidden, strict=True):
        yield Block(row, slice(start, stop), slice(first, stop), table)


def hide(scores: Tensor, block: Block) -> Tensor:
    """``scores`` of a block, ``[key-value heads, heads of each x own, seen]``, with its table added in place."""
    own, some = block.hidden.shape
    scores.view(len(scores), -1, own, scores.shape[-1])[..., -some:] += block.hidden
    return scores


def rows(tensor: Tensor, block: Block, shared: int, dtype: torch.dtype) -> Tensor:
    """A block of ``[windows, heads, length, d]`` as ``[key-value heads, heads of each x own, d]``."""
    return tensor[block.row, :, block.own].to(dtype).reshape(shared, -1, tensor.shape[-1])


# An operator, so that what recomputes activations can keep its results, and does not see the products inside.
@torch.library.custom_op("langadapt::attend_in_pieces", mutates_args=())
def attend(states: list[Tensor], places: list[int], hidden: list[Tensor], scale: float) -> tuple[Tensor, Tensor]:
    """(what `PieceAttention` returns of query, key and value; binary logarithm of the sums of each token's powers
    ``[windows, heads, length, 1]``). ``places`` and ``hidden``: of the blocks, as `flat` gives them."""
    query, key, value = states
    windows, heads, length, _ = query.shape
    shared, wide = key.shape[1], torch.promote_types(query.dtype, torch.float32)
    output = query.new_empty(windows, length, heads, value.shape[-1])
    sums = query.new_empty(windows, heads, length, 1, dtype=wide)
    into, keys, values = output.transpose(1, 2), key.to(wide), value.to(wide)
    for block in blocks_of(places, hidden):
        row, own, seen, _ = block
        asked = rows(query, block, shared, wide) * (scale / LN2)
        scores = hide(torch.bmm(asked, keys[row, :, seen].mT), block)
        most = scores.amax(-1, keepdim=True)
        total = scores.sub_(most).exp2_().sum(-1, keepdim=True)
        mixed = torch.bmm(scores, values[row, :, seen]).div_(total)
        into[row, :, own] = mixed.view(heads, -1, mixed.shape[-1])
        sums[row, :, own] = most.add_(total.log2_()).view(heads, -1, 1)
    return output, sums


class PieceAttention(torch.autograd.Function):
    """Causal attention inside of each document."""

    @staticmethod
    @exactly
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, found: list[Block], scale: float) -> Tensor:
        """query ``[windows, heads, length, d]``, key and value with the key-value heads, which each serve as many
        heads of the query -> ``[windows, length, heads, d]``."""
        output, sums = attend([query, key, value], *flat(found), scale)
        ctx.save_for_backward(query, key, value, output, sums)
        ctx.found, ctx.scale = found, scale
        return output

    @staticmethod
    @exactly
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of query, key and value."""
        query, key, value, output, sums = ctx.saved_tensors
        heads, shared, wide = query.shape[1], key.shape[1], sums.dtype
        keys, values = key.to(wide), value.to(wide)
        # Blocks share keys: their gradients are added before they are rounded.
        dquery, dkeys, dvalues = torch.empty_like(query), torch.zeros_like(keys), torch.zeros_like(values)
        gradient, output = gradient.transpose(1, 2), output.transpose(1, 2)
        for block in ctx.found:
            row, own, seen, _ = block
            asked, given, made, total = (rows(one, block, shared, wide) for one in (query, gradient, output, sums))
            asked = asked * (ctx.scale / LN2)
            chances = hide(torch.baddbmm(-total, asked, keys[row, :, seen].mT), block).exp2_()
            dvalues[row, :, seen] += torch.bmm(chances.mT, given)
            mean = (given * made).sum(-1, keepdim=True)
            dscores = torch.baddbmm(-mean, given, values[row, :, seen].mT).mul_(chances)
            dkeys[row, :, seen] += torch.bmm(dscores.mT, asked)
            of_query = torch.bmm(dscores, keys[row, :, seen]).mul_(ctx.scale)
            dquery[row, :, own] = of_query.view(heads, -1, of_query.shape[-1])
        # `asked` holds the scale, and a power of two where the gradient is of one of e.
        return dquery, dkeys.mul_(LN2).to(key.dtype), dvalues.to(value.dtype), None, None


@torch._disable_dynamo
def forward(query: Tensor, key: Tensor, value: Tensor, found: Pieces, scale: Any, window: Any) -> Tensor:
    """`PieceAttention`, kept out of compiled graphs: its blocks are other ones in every batch. ``scale``: none =
    ``d ** -0.5``; ``window``: tokens that a token sees, itself included, none = all before it."""
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    result: Tensor = PieceAttention.apply(query, key, value, found.blocks(window), scale)
    return result
