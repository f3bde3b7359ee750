"""Attention for packed documents on a CPU: each piece of a document by itself, by torch's flash kernel.

Nothing is computed for pairs of tokens that must not see each other, and no mask is made. The backward pass runs in
fp32: torch's bf16 one takes 190 ms for 8,192 tokens in eight heads of 32 where fp32 takes 18 ms (pieces of 32) to
120 ms (pieces of 512) on one core, casts included.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from langadapt.models.attention import blocks

Piece = tuple[int, int, int]
"""Window, first token, one past the last token."""


def pieces(positions: Tensor) -> list[Piece]:
    """Where the documents of windows lie: ``positions`` ``[windows, length]``, 0 = a document begins.

    Documents of one token are left out, and with them the padding.
    """
    begins = positions.numpy() == 0
    begins[:, 0] = True
    length = positions.shape[1]
    first = np.flatnonzero(begins)
    stops = np.append(first[1:], begins.size)
    rows = first // length
    found = np.stack((rows, first - rows * length, stops - rows * length), axis=1)[stops - first > 1]
    return [tuple(piece) for piece in found.tolist()]


class PieceAttention(torch.autograd.Function):
    """Causal attention inside of each piece."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        found: list[Piece],
        scale: float | None,
        window: int | None,
    ) -> Tensor:
        """query ``[windows, heads, length, d]``, key and value with the key-value heads, which each serve as many
        heads of the query -> ``[windows, length, heads, d]``. ``window``: tokens that a token sees, itself included."""
        windows, heads, length, _ = query.shape
        # A token that is alone sees its own value; the pieces overwrite the rest.
        output = value.repeat_interleave(heads // value.shape[1], dim=1).transpose(1, 2).contiguous()
        sums = torch.empty(windows, heads, length, dtype=torch.float32)
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        for piece in found:
            q, k, v = groups(query, key, piece), spread(key, query, piece), spread(value, query, piece)
            into, totals = groups(output.transpose(1, 2), key, piece), groups(sums[..., None], key, piece)
            for own, seen, mask in parts(piece, window, q.dtype):
                given = q[:, :, own], k[:, :, seen], v[:, :, seen]
                result, total = kernel(*given, 0.0, mask is None, attn_mask=mask, scale=scale)
                into[:, :, own].copy_(result)
                totals[:, :, own].copy_(total[..., None])
        ctx.save_for_backward(query, key, value, output, sums)
        ctx.found, ctx.scale, ctx.window = found, scale, window
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of query, key and value."""
        query, key, value, output, sums = ctx.saved_tensors
        dquery, dkey = torch.zeros_like(query), torch.zeros_like(key)
        dvalue = gradient.transpose(1, 2).unflatten(1, (key.shape[1], -1)).sum(dim=2)
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
        for piece in ctx.found:
            row, start, stop = piece
            q, k, v = groups(query, key, piece), spread(key, query, piece), spread(value, query, piece)
            total = groups(sums[..., None], key, piece)[..., 0]
            grad, out = (groups(tensor.transpose(1, 2), key, piece) for tensor in (gradient, output))
            grad, q, k, v, out = (tensor.float() for tensor in (grad, q, k, v, out))
            # Blocks share keys: their gradients are added in fp32.
            of_keys, of_values = torch.zeros(k.shape[1:]), torch.zeros(v.shape[1:])
            for own, seen, mask in parts(piece, ctx.window, torch.float32):
                given = grad[:, :, own], q[:, :, own], k[:, :, seen], v[:, :, seen], out[:, :, own], total[:, :, own]
                dq, dk, dv = kernel(*given, 0.0, mask is None, attn_mask=mask, scale=ctx.scale)
                groups(dquery, key, piece)[:, :, own].copy_(dq)
                of_keys[:, seen] += dk.sum(dim=0)
                of_values[:, seen] += dv.sum(dim=0)
            dkey[row, :, start:stop], dvalue[row, :, start:stop] = of_keys, of_values
        return dquery, dkey, dvalue, None, None, None


def groups(tensor: Tensor, key: Tensor, piece: Piece) -> Tensor:
    """A piece of ``[windows, heads, length, d]`` as ``[heads per key-value head, key-value heads, tokens, d]``."""
    row, start, stop = piece
    return tensor[row, :, start:stop].unflatten(0, (key.shape[1], -1)).transpose(0, 1)


def spread(tensor: Tensor, query: Tensor, piece: Piece) -> Tensor:
    """A piece of keys or values, the same for all heads that they serve."""
    row, start, stop = piece
    part = tensor[row, :, start:stop]
    return part.expand(query.shape[1] // len(part), -1, -1, -1)


def parts(piece: Piece, window: int | None, dtype: torch.dtype) -> Iterator[tuple[slice, slice, Tensor | None]]:
    """Some tokens of a piece, those that one of them can see, and the mask of a sliding window (none = causal).

    Blocks where a window is shorter than the piece: for 2,048 tokens under a window of 512, forward and backward, they
    take less than half of what the whole piece under a mask does.
    """
    length = piece[2] - piece[1]
    if window is None or length <= window:
        yield slice(0, length), slice(0, length), None
        return
    for own, seen in blocks(length, window):
        back = torch.arange(own.start, own.stop)[:, None] - torch.arange(seen.start, seen.stop)
        allowed = (back >= 0) & (back < window)
        yield own, seen, torch.zeros(allowed.shape, dtype=dtype).masked_fill_(~allowed, -torch.inf)


@torch._disable_dynamo
def forward(query: Tensor, key: Tensor, value: Tensor, found: list[Piece], scale: Any, window: Any) -> Tensor:
    """`PieceAttention`, kept out of compiled graphs: its list of pieces is another one in every batch."""
    result: Tensor = PieceAttention.apply(query, key, value, found, scale, window)
    return result
