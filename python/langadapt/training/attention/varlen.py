"""Attention for packed documents in one row, on a GPU: FlashAttention where it is installed, else torch's own kernel.

All take tokens of all documents in a row and the documents' bounds, and compute nothing for pairs of tokens that must
not see each other.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# Without the word `flash`, by which transformers knows its own.
TORCH, FLASH3, FLASH2 = "langadapt_varlen", "langadapt_fa3", "langadapt_fa2"
PLACES = {
    FLASH3: ("flash_attn_interface", "flash_attn_varlen_func"),
    TORCH: ("torch.nn.attention.varlen", "varlen_attn"),
    FLASH2: ("flash_attn", "flash_attn_varlen_func"),
}
"""Where the kernels are found. FlashAttention 3 is for Hopper alone; torch's own is FlashAttention 2 or later."""
HOPPER = 9
"""Major compute capability."""

KERNELS: dict[str, Callable[..., Any]] = {}
"""Those that are here; looked for once, which compiled blocks could not."""
TAKES = [frozenset[str]()]
"""Names of the parameters of this torch's kernel."""


def find() -> None:
    """Fill `KERNELS`."""
    KERNELS.clear()
    for name, (module, function) in PLACES.items():
        try:
            KERNELS[name] = getattr(importlib.import_module(module), function)
        except Exception:
            # Not installed; or built for another torch, which fails in many ways.
            continue
    TAKES[0] = frozenset(inspect.signature(KERNELS[TORCH]).parameters) if TORCH in KERNELS else frozenset()


def candidates(device: torch.device) -> list[str]:
    """Kernels worth trying on a GPU, the fastest first."""
    names = [name for name in PLACES if name in KERNELS]
    if FLASH3 in names and torch.cuda.get_device_capability(device)[0] != HOPPER:
        names.remove(FLASH3)
    return names


def forward(
    name: str,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bounds: Tensor,
    longest: int,
    scale: float | None,
    window: int | None,
) -> Tensor:
    """Causal attention inside of each document.

    Args:
        name: of the kernel.
        query: bf16 or fp16 ``[tokens, heads, d]``; ``key`` and ``value`` with the key-value heads.
        bounds: int32, first tokens of all documents, and the end.
        longest: tokens that a document has at most.
        scale: of the scores; none = ``d ** -0.5``.
        window: tokens that a token sees, itself included; none = all before it.

    Returns:
        ``[tokens, heads, d]``.
    """
    tensors = (query, key, value)
    run = through_torch if name == TORCH else through_flash
    output = run(KERNELS[name], tensors, (bounds, bounds, longest, longest), scale, window=window)
    result: Tensor = output[0] if isinstance(output, tuple) else output
    return result


def through_flash(
    kernel: Callable[..., Any],
    tensors: tuple[Tensor, Tensor, Tensor],
    lengths: tuple[Any, ...],
    scale: float | None,
    *,
    window: int | None,
) -> Any:
    """The packages' common interface."""
    seen = (-1, -1) if window is None else (window - 1, 0)
    return kernel(*tensors, *lengths, softmax_scale=scale, causal=True, window_size=seen)


def through_torch(
    kernel: Callable[..., Any],
    tensors: tuple[Tensor, Tensor, Tensor],
    lengths: tuple[Any, ...],
    scale: float | None,
    *,
    window: int | None,
) -> Any:
    """torch's function is young: releases differ in what they take.

    Raises:
        ValueError: a sliding window, and this release has none.
    """
    query, key, value = tensors
    known = TAKES[0]
    extra: dict[str, Any] = {}
    if "window_size" in known:
        extra["window_size"] = (-1, 0) if window is None else (window - 1, 0)
    elif window is None:
        extra["is_causal"] = True
    else:
        raise ValueError("this torch's variable-length attention has no sliding windows")
    if "enable_gqa" in known:
        extra["enable_gqa"] = query.shape[1] != key.shape[1]
    elif "window_size" not in known and query.shape[1] != key.shape[1]:
        # The first release; the second one shares keys and values among heads without being asked.
        key, value = (tensor.repeat_interleave(query.shape[1] // key.shape[1], dim=1) for tensor in (key, value))
    if "scale" in known:
        extra["scale"] = scale
    elif scale is not None:
        query = query * (scale * query.shape[-1] ** 0.5)
    return kernel(query, key, value, *lengths, **extra)
