"""FOCUS: rows for new tokens as sparse convex combinations of the rows of anchor tokens."""

from __future__ import annotations

from typing import overload

import torch
from torch import Tensor

from ..backend import choose_backend
from . import cpu, reference

__all__ = ["focus_combine"]

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@overload
def focus_combine(
    new_vectors: Tensor, anchor_vectors: Tensor, anchor_rows: Tensor, *, backend: str | None = None
) -> Tensor: ...


@overload
def focus_combine(
    new_vectors: Tensor, anchor_vectors: Tensor, anchor_rows: tuple[Tensor, ...], *, backend: str | None = None
) -> tuple[Tensor, ...]: ...


@torch.no_grad()
def focus_combine(
    new_vectors: Tensor,
    anchor_vectors: Tensor,
    anchor_rows: Tensor | tuple[Tensor, ...],
    *,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, ...]:
    """Rows for new tokens: `sparsemax(cosine(new, anchor)) @ anchor_rows`, never holding all similarities.

    Args:
        new_vectors: `[n_new, k]` auxiliary vectors of the new tokens; any floating dtype, compared in float32. A
            vector of zeros is equally similar (0) to every anchor.
        anchor_vectors: `[n_anchor, k]` auxiliary vectors of the tokens whose rows are known, `n_anchor >= 1`.
        anchor_rows: `[n_anchor, d]` rows to combine, float32, bfloat16 or float16; or a tuple of such matrices
            (input and output embeddings; their `d` and dtype may differ), combined with the same weights in one
            go. Sums are float32.
        backend: "triton", "core", "reference", or None: Triton on CUDA tensors where it is installed, the compiled core
            of langadapt on a CPU where that is, else the reference.

    Returns:
        `[n_new, d]` of the dtype of `anchor_rows`, or a tuple of such. Not differentiable.

    Raises:
        ValueError: shapes that do not fit together, no anchor, tensors on several devices, an unsupported dtype,
            or vectors that are not finite.
        RuntimeError: the Triton backend was asked for and is not installed.

    Source: Dobler & de Melo, "FOCUS: Effective Embedding Initialization for Monolingual Specialization of Multilingual
    Models" (2023), equations 1-3.
    """
    matrices = (anchor_rows,) if isinstance(anchor_rows, Tensor) else tuple(anchor_rows)
    _check(new_vectors, anchor_vectors, matrices)
    # Autocast would compute the similarities in bfloat16.
    with torch.autocast(new_vectors.device.type, enabled=False):
        chosen = choose_backend(backend, new_vectors.device, in_core=True)
        if chosen == "triton" and len(new_vectors):
            from .run import focus_combine as run

            outputs = run(new_vectors, anchor_vectors, matrices)
        elif chosen == "core":
            outputs = cpu.focus_combine(new_vectors, anchor_vectors, matrices)
        else:
            outputs = reference.focus_combine(new_vectors, anchor_vectors, matrices)
    return outputs[0] if isinstance(anchor_rows, Tensor) else outputs


def _check(new_vectors: Tensor, anchor_vectors: Tensor, matrices: tuple[Tensor, ...]) -> None:
    if new_vectors.dim() != 2 or anchor_vectors.dim() != 2 or new_vectors.shape[1] != anchor_vectors.shape[1]:
        raise ValueError(
            "`new_vectors` [n_new, k] and `anchor_vectors` [n_anchor, k] must be matrices of one width, got shapes: "
            f"{tuple(new_vectors.shape)} and {tuple(anchor_vectors.shape)}"
        )
    if len(anchor_vectors) == 0 or new_vectors.shape[1] == 0:
        raise ValueError(f"at least one anchor of width one is needed, got: {tuple(anchor_vectors.shape)}")
    if not matrices:
        raise ValueError("`anchor_rows` is empty; give one matrix or a tuple of them")
    for name, tensor in [
        ("anchor_vectors", anchor_vectors),
        *((f"anchor_rows[{i}]", m) for i, m in enumerate(matrices)),
    ]:
        if tensor.device != new_vectors.device:
            raise ValueError(f"`{name}` is on {tensor.device}, `new_vectors` on {new_vectors.device}")
    for name, tensor in (("new_vectors", new_vectors), ("anchor_vectors", anchor_vectors)):
        if not tensor.is_floating_point():
            raise ValueError(f"`{name}` must be floating point, got: {tensor.dtype}")
        if not bool(tensor.isfinite().all()):
            bad = int((~tensor.isfinite()).any(dim=1).nonzero()[0])
            raise ValueError(f"`{name}` must be finite; first bad row: {bad}")
    for i, matrix in enumerate(matrices):
        if matrix.dim() != 2 or len(matrix) != len(anchor_vectors):
            raise ValueError(
                f"`anchor_rows[{i}]` must be [{len(anchor_vectors)}, d], one row per anchor, got: {tuple(matrix.shape)}"
            )
        if matrix.dtype not in _DTYPES:
            raise ValueError(f"`anchor_rows[{i}]` must be one of {_DTYPES}, got: {matrix.dtype}")
