"""Architectures that can be written as GGUF: what llama.cpp calls them, and what it wants to know of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from langadapt.errors import ConfigError


@dataclass(frozen=True)
class Shape:
    """One architecture."""

    name: str
    """In GGUF."""
    permuted: bool = False
    """Rows of queries and keys interleave the halves that rotary embeddings turn together."""
    norm_shift: float = 0.0
    """What the model adds to the weights of its norms; llama.cpp does not."""
    sliding_period: int | None = None
    """Every so many layers one sees everything; llama.cpp has this built in. None: all do."""


SHAPES = {
    "LlamaForCausalLM": Shape("llama", permuted=True),
    "MistralForCausalLM": Shape("llama", permuted=True),
    "Qwen2ForCausalLM": Shape("qwen2"),
    "Qwen3ForCausalLM": Shape("qwen3"),
    "Gemma2ForCausalLM": Shape("gemma2", norm_shift=1.0, sliding_period=2),
    "Gemma3ForCausalLM": Shape("gemma3", norm_shift=1.0, sliding_period=6),
}
"""By the class that transformers loads."""


def shape_of(skeleton: Any) -> Shape:
    """The architecture of a model.

    Raises:
        ConfigError: one that is not in :data:`SHAPES`.
    """
    name = type(skeleton).__name__
    if name not in SHAPES:
        raise ConfigError(f"{name} cannot be written as GGUF here; there are {', '.join(SHAPES)}")
    return SHAPES[name]


def head_size(config: Any) -> int:
    """Width of one head."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def rope_of(config: Any, kind: str = "full_attention") -> dict[str, Any]:
    """Parameters of the rotary embeddings of one kind of layers."""
    whole = getattr(config, "rope_parameters", None) or {}
    found = whole.get(kind, whole)
    return dict(found) if isinstance(found, dict) else {}


def describe_shape(writer: Any, shape: Shape, config: Any) -> None:
    """Write an architecture's entries.

    Args:
        writer: a ``gguf.GGUFWriter``.
        shape: from :func:`shape_of`.
        config: the text configuration.

    Raises:
        ConfigError: something about the model that llama.cpp computes in another way.
    """
    check_shape(shape, config)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_key_length(head_size(config))
    writer.add_value_length(head_size(config))
    writer.add_rope_dimension_count(head_size(config))
    rope = rope_of(config)
    writer.add_rope_freq_base(float(rope.get("rope_theta", 10_000.0)))
    if rope.get("rope_type") == "linear":
        import gguf

        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(rope["factor"]))
    if shape.sliding_period is not None:
        writer.add_sliding_window(config.sliding_window)
        local = rope_of(config, "sliding_attention").get("rope_theta")
        if local is not None:
            writer.add_rope_freq_base_swa(float(local))
    options: dict[str, Callable[[float], None]] = {
        "attn_logit_softcapping": writer.add_attn_logit_softcapping,
        "final_logit_softcapping": writer.add_final_logit_softcapping,
    }
    for name, add in options.items():
        if getattr(config, name, None):
            add(float(getattr(config, name)))


def check_shape(shape: Shape, config: Any) -> None:
    """Refuse what llama.cpp would compute differently without a word.

    Raises:
        ConfigError: names the entry of the configuration.
    """
    kind = rope_of(config).get("rope_type", "default")
    known = ("default", "linear", "llama3") if shape.name == "llama" else ("default", "linear")
    if kind not in known:
        raise ConfigError(f"rope_type: {kind!r} cannot be written for `{shape.name}`; there are {', '.join(known)}")
    if shape.name == "qwen2" and head_size(config) * config.num_attention_heads != config.hidden_size:
        raise ConfigError(f"head_dim: {head_size(config)}, but llama.cpp has `qwen2` share the hidden size among heads")
    kinds = list(getattr(config, "layer_types", None) or ())
    if shape.sliding_period is not None:
        period = shape.sliding_period
        wanted = ["sliding_attention" if (at + 1) % period else "full_attention" for at in range(len(kinds))]
        if kinds != wanted:
            raise ConfigError(f"layer_types: llama.cpp has every {period}th layer of `{shape.name}` see everything")
        scalar = getattr(config, "query_pre_attn_scalar", head_size(config))
        if not math.isclose(scalar, head_size(config)) and config.num_hidden_layers not in (46, 62):
            raise ConfigError(f"query_pre_attn_scalar: {scalar}, but llama.cpp takes the head's width")
    elif "sliding_attention" in kinds or getattr(config, "sliding_window", None) in range(
        config.max_position_embeddings
    ):
        raise ConfigError(f"sliding_window: {config.sliding_window}; llama.cpp has none for `{shape.name}`")


def rotary_factors(config: Any) -> Tensor | None:
    """Llama 3's divisors of the rotary frequencies, float32 ``[head / 2]``; none for other kinds."""
    rope = rope_of(config)
    if rope.get("rope_type") != "llama3":
        return None
    size, base = head_size(config), float(rope["rope_theta"])
    waves = 2 * math.pi * base ** (torch.arange(0, size, 2, dtype=torch.float64) / size)
    factor, low, high = (float(rope[name]) for name in ("factor", "low_freq_factor", "high_freq_factor"))
    context = float(rope["original_max_position_embeddings"])
    smooth = ((context / waves - low) / (high - low)).clamp(0, 1)
    return (1 / ((1 - smooth) / factor + smooth)).float()


def interleaved(weights: Tensor, heads: int) -> Tensor:
    """Rows of each head from halves to pairs, as llama.cpp's ``llama`` turns them."""
    pairs = weights.reshape(heads, 2, len(weights) // heads // 2, *weights.shape[1:])
    return pairs.transpose(1, 2).reshape(weights.shape)


def transformed(tensor: Tensor, name: str, shape: Shape, config: Any) -> Tensor:
    """A tensor as GGUF wants it, from the model's name and value."""
    if shape.permuted and ".q_proj." in name:
        return interleaved(tensor, config.num_attention_heads)
    if shape.permuted and ".k_proj." in name:
        return interleaved(tensor, config.num_key_value_heads)
    if shape.norm_shift and name.endswith("norm.weight"):
        return tensor.float() + shape.norm_shift
    return tensor
