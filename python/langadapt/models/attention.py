"""Causal attention on a CPU, without gradients: a few tokens at a time, each with the keys that one of them can see.

torch's kernel for a CPU computes every pair of tokens of a masked row, and of a short row that needs no mask, and
throws half of them away, or most where a window slides; its exponents take as long as its products, and heads that
share their keys each read them again. Here scores and their softmax are float32, powers of two instead of e, and the
heads of one key are one product. Milliseconds of one layer in bf16 on one core, by torch's kernel whole, by it in
blocks, and here:

| tokens, heads, width of a head | whole | in blocks | here |
|---|--:|--:|--:|
| 4 rows of 412, 10 of 64, a mask | 27 | 19 | 20 |
| 1,579, 10 of 64 | 57 | 56 | 51 |
| 1,024, 32 of 128 on 8 keys | 150 | 140 | 102 |
| 1,579, 4 of 256 on one key | 76 | 76 | 52 |
| the same with a window of 512 | 130 | 46 | 33 |
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from langadapt.models.products import widens

BLOCK = 64
"""Tokens at a time: fewer read keys and values too often, more compute pairs that are out of sight."""
HIDDEN = -1e30
"""Score of what is not seen: rows that see nothing stay finite."""
NOT_HERE = ("position_bias", "softcap", "cache")
"""Arguments of transformers' attention interface that are left to SDPA there."""


def blocks(length: int, window: int) -> list[tuple[slice, slice]]:
    """Tokens of a row, and the tokens that one of them can see: ``window`` of them, itself included."""
    ends = [(at, min(at + BLOCK, length)) for at in range(0, length, BLOCK)]
    return [(slice(at, end), slice(max(0, at + 1 - window), end)) for at, end in ends]


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """SDPA behind transformers' attention interface, in blocks wherever they give what the whole row gives.

    query ``[rows, heads, length, d]``, key and value with the key-value heads, mask ``[rows, 1, length, length]``, bool
    (True = seen) or added to the scores -> ``[rows, length, heads, d]``. A mask that shows anything outside of the
    blocks is obeyed: then the row is computed whole.
    """
    # By position: the order of transformers' attention interface.
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    length = query.shape[2]
    causal = is_causal if is_causal is not None else getattr(module, "is_causal", True)
    plain = query.device.type == "cpu" and not dropout and BLOCK < length == key.shape[2]
    plain = plain and not torch.is_grad_enabled() and query.dtype != torch.float64
    plain = plain and all(kwargs.get(name) is None for name in NOT_HERE)
    # Where a window is shorter than the row there is a mask.
    window = None if attention_mask is None else sliding_window
    parts = blocks(length, window or length)
    if not plain or not (causal if attention_mask is None else inside(attention_mask, parts)):
        result: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, is_causal, **kwargs
        )
        return result
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return by_blocks(query, key, value, parts, mask=attention_mask, scale=scale), None


def by_blocks(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    parts: list[tuple[slice, slice]],
    *,
    mask: Tensor | None,
    scale: float,
) -> Tensor:
    """What the tokens of each block make of what they see; without a mask, of all before them and themselves."""
    rows, heads, _, width = query.shape
    # [rows x key heads, d, length]: all queries of a key are one product.
    keys = key.float().contiguous().flatten(0, 1).mT
    values = (value.float() if widens(value) else value).contiguous().flatten(0, 1)
    queries = (query.float() * (scale / math.log(2))).unflatten(1, (key.shape[1], -1))
    later = torch.full((BLOCK, BLOCK), HIDDEN).triu_(1)
    made = []
    for own, seen in parts:
        asked = queries[:, :, :, own]
        size = asked.shape[3]
        scores = torch.bmm(asked.reshape(len(keys), -1, width), keys[:, :, seen])
        # [rows, heads, own, seen], in the same memory.
        table = scores.view(rows, heads, size, -1)
        if mask is None:
            table[..., -size:] += later[:size, :size]
        elif mask.dtype == torch.bool:
            table.masked_fill_(~mask[..., own, seen], HIDDEN)
        else:
            table += (mask[..., own, seen].float() * (1 / math.log(2))).clamp_min_(HIDDEN)
        scores.sub_(scores.amax(-1, keepdim=True)).exp2_()
        # Before the product, whose result would be rounded twice.
        scores.mul_(scores.sum(-1, keepdim=True).reciprocal_())
        mixed = torch.bmm(scores.to(values.dtype), values[:, seen])
        made.append(mixed.view(rows, heads, size, -1).transpose(1, 2))
    return torch.cat(made, dim=1).to(value.dtype)


def inside(mask: Tensor, parts: list[tuple[slice, slice]]) -> bool:
    """Whether all that ``mask`` shows lies in the blocks."""
    shown = mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
    return bool(shown.count_nonzero() == sum(shown[..., own, seen].count_nonzero() for own, seen in parts))


@contextmanager
def in_blocks() -> Iterator[None]:
    """Inside, models that have SDPA compute it by `attend`.

    It stands under SDPA's own name: models ask for that name, and see later tokens or refuse where they find another.
    """
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    before = ALL_ATTENTION_FUNCTIONS["sdpa"]
    ALL_ATTENTION_FUNCTIONS["sdpa"] = attend
    try:
        yield
    finally:
        ALL_ATTENTION_FUNCTIONS["sdpa"] = before
