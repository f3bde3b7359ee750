"""The FOCUS combination in plain torch, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ..sparsemax.reference import sparsemax

# Similarities held at a time (entries), and entries of rows that are held in float32: 16 MB each. Supports of more than
# 64 anchors are looked for in copies of their similarities, one for each doubling.
BLOCK = 1 << 22


def normalized(vectors: Tensor) -> Tensor:
    """float32 rows of length one; a zero row stays zero, so that its similarity to everything is zero."""
    vectors = vectors.float()
    # Scaled first: squares of tiny or huge entries would leave the range of float32.
    largest = vectors.abs().amax(dim=1, keepdim=True)
    vectors = vectors / torch.where(largest > 0, largest, 1.0)
    norm = vectors.square().sum(dim=1, keepdim=True).sqrt()
    return vectors / torch.where(norm > 0, norm, 1.0)


@contextmanager
def float32_products() -> Iterator[None]:
    """Matrix products of float32 in float32, whatever `torch.set_float32_matmul_precision` allows.

    TF32 is off by 1e-3: rows would differ from those that the kernels compute.
    """
    backends = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision


def focus_combine(new_vectors: Tensor, anchor_vectors: Tensor, anchor_rows: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """See `langadapt_kernels.focus_combine`; all of `anchor_rows` are combined with the same weights."""
    anchors = normalized(anchor_vectors)
    outputs = tuple(rows.new_empty(len(new_vectors), rows.shape[1]) for rows in anchor_rows)
    step = max(1, BLOCK // len(anchors))
    for start in range(0, len(new_vectors), step):
        part = slice(start, start + step)
        with float32_products():
            similarities = normalized(new_vectors[part]) @ anchors.T
        weights = sparsemax(similarities)
        row, anchor = weights.nonzero(as_tuple=True)
        counts = (weights > 0).sum(dim=1)
        offsets = counts.cumsum(0) - counts
        for output, rows in zip(outputs, anchor_rows, strict=True):
            combine(anchor, weights[row, anchor], offsets, rows, output=output[part])
    return outputs


def combine(anchor: Tensor, weight: Tensor, offsets: Tensor, rows: Tensor, *, output: Tensor) -> None:
    """Weighted sums in float32 of the rows `anchor`, a sum from each of `offsets` on."""
    if rows.dtype == torch.float32:
        output.copy_(_bags(anchor, weight, offsets, rows))
        return
    # Widened are the rows that are needed, by strips of columns: all at once would take twice the matrix's memory.
    needed, anchor = anchor.unique(return_inverse=True)
    strip = max(1, BLOCK // max(len(needed), 1))
    for columns, sums in zip(rows.split(strip, dim=1), output.split(strip, dim=1), strict=True):
        sums.copy_(_bags(anchor, weight, offsets, columns[needed].float()))


def _bags(anchor: Tensor, weight: Tensor, offsets: Tensor, rows: Tensor) -> Tensor:
    return torch.nn.functional.embedding_bag(anchor, rows, offsets, mode="sum", per_sample_weights=weight)
