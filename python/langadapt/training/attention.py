"""Keeping documents of one window apart, for any architecture.

Position ids that restart say where documents begin. With no attention mask given, transformers' mask interface turns
them into the block-diagonal mask of whichever attention is set (SDPA, FlexAttention), sliding windows included. On a
GPU `torch.nn.attention.varlen` needs no mask at all; it is registered with transformers' attention interface under
the name `VARLEN` and chosen only where it agrees with SDPA; on a CPU `PIECES` is, which needs none either (see
`piece_attention`). `leaks` tests the model in hand: an architecture with a recurrence, or one that ignores position
ids, would mix documents without a word.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from langadapt.training import piece_attention

VARLEN = "langadapt_varlen"
PIECES = "langadapt_pieces"
DROPOUTS = ("attention_dropout", "attn_pdrop", "attention_probs_dropout_prob")


def packed_inputs(input_ids: Tensor, positions: Tensor, attention: str) -> dict[str, Any]:
    """Arguments for a model's ``forward`` from ``[windows, length]`` ids and positions (0 = a document begins).

    For `VARLEN` all windows become one row: its kernel knows no batches, and a document never crosses windows.
    """
    if attention == PIECES:
        return {
            "input_ids": input_ids,
            "position_ids": positions,
            "document_pieces": piece_attention.pieces(positions),
        }
    if attention != VARLEN:
        return {"input_ids": input_ids, "position_ids": positions}
    length = positions.shape[1]
    flat = positions.reshape(-1)
    # One bound per token position and a fixed count of them: neither a host sync nor a new shape for the compiler.
    begins = torch.where(flat == 0, 1, 0).cumsum(0)
    bounds = torch.full((len(flat) + 1,), len(flat), dtype=torch.int32, device=flat.device)
    bounds.scatter_(
        0,
        (begins - 1) * (flat == 0) + len(flat) * (flat != 0),
        torch.arange(len(flat), dtype=torch.int32, device=flat.device),
    )
    bounds[-1] = len(flat)
    return {
        "input_ids": input_ids.reshape(1, -1),
        "position_ids": flat[None],
        "document_bounds": bounds,
        "longest_document": length,
    }


def varlen_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface: query ``[1, heads, tokens, d]``, key and value with the key-value heads.

    Raises:
        ValueError: soft caps, sinks or dropout, which the kernel lacks.
    """
    from torch.nn.attention.varlen import varlen_attn

    if "document_bounds" not in kwargs:
        return plain(module, query, key, value, attention_mask, scaling, dropout, sliding_window, **kwargs)
    refuse(dropout, kwargs)
    bounds, longest = kwargs["document_bounds"], kwargs["longest_document"]
    q, k, v = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    if torch.is_autocast_enabled(q.device.type):
        # Rotary embeddings leave fp32 under autocast, and custom operators are not cast.
        q, k, v = q.to(torch.bfloat16), k.to(torch.bfloat16), v.to(torch.bfloat16)
    # The function is young: releases differ in what they take.
    known = inspect.signature(varlen_attn).parameters
    extra: dict[str, Any] = {}
    if "window_size" in known:
        extra["window_size"] = (-1, 0) if sliding_window is None else (sliding_window - 1, 0)
    elif sliding_window is None:
        extra["is_causal"] = True
    else:
        raise ValueError("this torch's variable-length attention has no sliding windows")
    if "enable_gqa" in known:
        extra["enable_gqa"] = q.shape[1] != k.shape[1]
    elif q.shape[1] != k.shape[1]:
        k, v = (tensor.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for tensor in (k, v))
    if "scale" in known:
        extra["scale"] = scaling
    elif scaling is not None:
        q = q * (scaling * q.shape[-1] ** 0.5)
    output = varlen_attn(q, k, v, bounds, bounds, longest, longest, **extra)
    return (output[0] if isinstance(output, tuple) else output)[None], None


def pieces_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface: query ``[windows, heads, tokens, d]``, key and value with their heads.

    Raises:
        ValueError: soft caps, sinks or dropout, which the kernel lacks.
    """
    if "document_pieces" not in kwargs:
        return plain(module, query, key, value, attention_mask, scaling, dropout, sliding_window, **kwargs)
    refuse(dropout, kwargs)
    if torch.is_autocast_enabled(query.device.type):
        query, key, value = (tensor.to(torch.bfloat16) for tensor in (query, key, value))
    return piece_attention.forward(query, key, value, kwargs["document_pieces"], scaling, sliding_window), None


def refuse(dropout: float, kwargs: dict[str, Any]) -> None:
    """Raise ValueError for what the kernels for packed documents lack."""
    if dropout or kwargs.get("softcap") is not None or kwargs.get("s_aux") is not None:
        raise ValueError("attention for packed documents has no dropout, soft caps or sinks; set `attention: sdpa`")


def plain(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float | None,
    dropout: float,
    window: int | None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """SDPA, for a model that is used, in the middle of its training, on windows that are not packed."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    length = query.shape[2]
    if mask is None and window is not None and window < length == key.shape[2]:
        mask = torch.ones(length, length, dtype=torch.bool, device=query.device).tril().triu(1 - window)[None, None]
    result: tuple[Tensor, None] = sdpa_attention_forward(
        module, query, key, value, mask, dropout=dropout, scaling=scaling, **kwargs
    )
    return result


def padding_mask(*args: Any, **kwargs: Any) -> Tensor | None:
    """transformers' mask interface: packed windows need no mask, padded ones (in a validation) that of SDPA."""
    from transformers.masking_utils import sdpa_mask

    if kwargs.get("attention_mask") is None:
        return None
    mask: Tensor | None = sdpa_mask(*args, **kwargs)
    return mask


def register() -> None:
    """Make `VARLEN` and `PIECES` known to transformers."""
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    for name, function in ((VARLEN, varlen_forward), (PIECES, pieces_forward)):
        ALL_ATTENTION_FUNCTIONS.register(name, function)
        ALL_MASK_ATTENTION_FUNCTIONS.register(name, padding_mask)


def example(vocabulary: int, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids and positions ``[1, 2 * length]`` of two documents of ``length`` tokens."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(vocabulary, (1, 2 * length), generator=generator).to(device)
    return ids, torch.arange(length, device=device).repeat(2)[None]


@torch.no_grad()
def leaks(model: nn.Module, vocabulary: int, attention: str, device: torch.device, length: int = 24) -> bool:
    """Whether the first document of a window changes what the model says about the second.

    Raises:
        TypeError: the model takes no position ids.
    """
    ids, positions = example(vocabulary, length, device)
    other = ids.clone()
    other[:, :length] = (other[:, :length] + 1) % vocabulary
    first, second = (
        model(**packed_inputs(some, positions, attention), use_cache=False).logits.float()[0, length:]
        for some in (ids, other)
    )
    # Grouped kernels of experts may round otherwise in other company; a leak is a hundred times larger.
    return bool((first - second).norm() > 1e-2 * first.norm())


def choose(model: Any, wanted: str, device: torch.device, autocast: bool = False) -> str:
    """Set the model's attention to the fastest that works here and return its name.

    ``wanted`` other than ``auto`` is taken or is an error; ``auto`` tries varlen, then FlexAttention, then SDPA, and
    of them only SDPA for models with dropout in their attention.
    ``autocast``: the model's fp32 weights compute in bf16.
    """
    vocabulary = model.config.get_text_config().vocab_size
    gpu = device.type == "cuda"
    names = {"varlen": VARLEN if gpu else PIECES, "flex": "flex_attention", "sdpa": "sdpa"}
    if wanted != "auto":
        candidates = [names[wanted]]
    else:
        half = next(model.parameters()).dtype != torch.float32 or autocast
        candidates = ([VARLEN] if half else []) + ["flex_attention"] if gpu else [PIECES]
        if any(getattr(model.config.get_text_config(), name, None) for name in DROPOUTS):
            candidates = []
        candidates.append("sdpa")
    register()
    was_training = model.training
    model.eval()
    try:
        for candidate in candidates:
            try:
                model.set_attn_implementation(candidate)
                if candidate in {"sdpa", "eager"} or agrees(model, candidate, vocabulary, device):
                    return candidate
            except Exception:
                # Kernels fail in many ways on devices they were not made for; that is what `auto` is for.
                if wanted != "auto":
                    raise
        if wanted != "auto":
            raise RuntimeError(f"attention: {wanted} disagrees with sdpa on this machine")
        # Architectures without SDPA keep what transformers gave them.
        return str(model.config._attn_implementation)
    finally:
        model.train(was_training)


@torch.no_grad()
def agrees(model: Any, candidate: str, vocabulary: int, device: torch.device) -> bool:
    """Whether ``candidate`` gives SDPA's logits on two packed documents, up to bf16 noise."""
    ids, positions = example(vocabulary, 128, device)
    with torch.autocast(device.type, torch.bfloat16):
        got = model(**packed_inputs(ids, positions, candidate), use_cache=False).logits.float()
        model.set_attn_implementation("sdpa")
        want = model(**packed_inputs(ids, positions, "sdpa"), use_cache=False).logits.float()
    model.set_attn_implementation(candidate)
    return bool((got - want).norm() <= 0.02 * want.norm())
