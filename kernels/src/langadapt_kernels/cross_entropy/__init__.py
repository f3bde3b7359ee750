"""Cross-entropy of rows of logits, which become their own gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from ..backend import choose_backend
from . import reference

__all__ = ["cross_entropy_"]

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@torch.no_grad()
def cross_entropy_(
    logits: Tensor,
    targets: Tensor,
    *,
    scale: float = 1.0,
    ignore_index: int = -100,
    gradient: bool = True,
    backend: str | None = None,
) -> Tensor:
    """The loss of each row of `logits`, which are overwritten with the gradient of `scale` times the losses' sum.

    Softmax, loss and gradient in one launch that reads the logits twice (the second time from the L2 cache, as far as
    it holds them) and writes them once; nothing of their size is made beside them.

    Args:
        logits: `[n, v]`, contiguous, float32, bfloat16 or float16; computed in float32. Changed.
        targets: int64 `[n]`, each below `v`, or `ignore_index`: then loss and gradient are zero.
        scale: what the gradient is multiplied with (one over the number of tokens, for a mean).
        ignore_index: marks rows that do not count.
        gradient: if False, logits stay as they are.
        backend: "triton", "reference", or None: Triton on CUDA tensors where it is installed, else the reference.

    Returns:
        float32 `[n]`: the losses, not scaled. NaN for a row that holds NaN or +inf, or whose target is out of range.

    Raises:
        ValueError: shapes that do not fit together, an unsupported dtype, logits with gaps, or an unknown backend.
        RuntimeError: the Triton backend was asked for and is not installed.
    """
    if logits.dim() != 2 or targets.shape != logits.shape[:1] or logits.shape[1] == 0:
        raise ValueError(
            "`logits` [n, v] must be a matrix and `targets` [n] its rows' targets, got shapes: "
            f"{tuple(logits.shape)} and {tuple(targets.shape)}"
        )
    if logits.dtype not in _DTYPES or targets.dtype != torch.int64:
        raise ValueError(
            f"`logits` must be one of {_DTYPES} and `targets` torch.int64, got: {logits.dtype} and {targets.dtype}"
        )
    if targets.device != logits.device or not logits.is_contiguous():
        raise ValueError(
            f"`logits` must be contiguous and on the device of `targets` ({targets.device}), got strides "
            f"{logits.stride()} on {logits.device}"
        )
    if choose_backend(backend, logits.device) == "triton":
        from .kernel import cross_entropy_ as run

        return run(logits, targets, scale=scale, ignore_index=ignore_index, gradient=gradient)
    return reference.cross_entropy_(logits, targets, scale=scale, ignore_index=ignore_index, gradient=gradient)
