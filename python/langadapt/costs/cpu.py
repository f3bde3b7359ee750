"""How fast this CPU trains a model: a decoder layer and a part of the head, of the same widths, timed for a second."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from langadapt.costs.flops import Shape

SECONDS = 0.4
"""For which each of both parts is repeated, after a pass that is not counted."""
TRIED_FLOPS = 2e10
"""Of one pass, about: fewer tokens of wide models are tried."""
TRIED_ROWS = 8192
"""Of the head's rows, at most; its time grows with them."""


def trained_flops(shape: Shape, length: int, *, pure_bf16: bool) -> float:
    """FLOP/s that forward and backward passes over windows of ``length`` tokens reach, by `Shape.flops_per_token`.

    Widths decide: a matrix product of a small model is over before its call has paid. Layers are those of Llama, with
    attention; what other architectures do beside their matrix products takes more.
    """
    dtype = torch.bfloat16 if pure_bf16 else torch.float32
    layer = shape.attention_parameters + shape.active_experts * shape.expert_parameters
    rows = min(shape.vocabulary, TRIED_ROWS)
    tokens = int(max(32, min(length, TRIED_FLOPS / (6 * (layer + rows * shape.width)))))
    with torch.random.fork_rng(devices=[]):
        hidden = torch.randn(1, tokens, shape.width, dtype=dtype, requires_grad=True)
        layer_seconds = seconds_of(decoder_layer(shape, hidden, dtype))
        head_seconds = seconds_of(head(rows, hidden, dtype))
    total = shape.layers * layer_seconds + shape.vocabulary / rows * head_seconds
    return tokens * shape.flops_per_token(length / 2) / total


def decoder_layer(shape: Shape, hidden: Tensor, dtype: torch.dtype) -> Callable[[], Tensor]:
    """A forward pass through one layer."""
    width, inner = shape.width, shape.active_experts * shape.inner
    keys, queries = shape.kv_heads * shape.head_dim, shape.heads * shape.head_dim
    q, k, v, o = (
        matrix(out, into, dtype) for out, into in ((queries, width), (keys, width), (keys, width), (width, queries))
    )
    gate, up, down = (matrix(out, into, dtype) for out, into in ((inner, width), (inner, width), (width, inner)))
    scale = torch.ones(width, dtype=dtype, requires_grad=True)

    def forward() -> Tensor:
        normed = F.rms_norm(hidden, (width,), scale)
        asked, keyed, valued = (
            F.linear(normed, each).unflatten(-1, (-1, shape.head_dim)).transpose(1, 2) for each in (q, k, v)
        )
        mixed = F.scaled_dot_product_attention(
            asked, keyed, valued, is_causal=True, enable_gqa=shape.heads != shape.kv_heads
        )
        after = hidden + F.linear(mixed.transpose(1, 2).flatten(-2), o)
        normed = F.rms_norm(after, (width,), scale)
        opened = F.silu(F.linear(normed, gate)) if shape.gated else F.gelu(F.linear(normed, gate))
        return after + F.linear(opened * F.linear(normed, up) if shape.gated else opened, down)

    return forward


def head(rows: int, hidden: Tensor, dtype: torch.dtype) -> Callable[[], Tensor]:
    """Logits and loss over so many rows."""
    weight = matrix(rows, hidden.shape[-1], dtype)
    targets = torch.randint(rows, (hidden.shape[1],))
    return lambda: F.cross_entropy(F.linear(hidden[0], weight).float(), targets)


def matrix(out: int, into: int, dtype: torch.dtype) -> Tensor:
    """A weight."""
    return (torch.randn(out, into) / into**0.5).to(dtype).requires_grad_()


def seconds_of(forward: Callable[[], Tensor]) -> float:
    """Of one pass, forward and backward: the median of those that fit into :data:`SECONDS`."""
    forward().sum().backward()
    times: list[float] = []
    while not times or sum(times) < SECONDS:
        begun = time.perf_counter()
        forward().sum().backward()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)
