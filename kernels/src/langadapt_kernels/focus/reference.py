"""The FOCUS combination in plain torch, block by block."""

from __future__ import annotations

import torch
from torch import Tensor

from ..sparsemax.reference import sparsemax

# Similarities held at a time (entries): 64 MB of float32.
_BLOCK = 1 << 24


def normalized(vectors: Tensor) -> Tensor:
    """float32 rows of length one; a zero row stays zero, so that its similarity to everything is zero."""
    vectors = vectors.float()
    # Scaled first: squares of tiny or huge entries would leave the range of float32.
    largest = vectors.abs().amax(dim=1, keepdim=True)
    vectors = vectors / torch.where(largest > 0, largest, 1.0)
    norm = vectors.square().sum(dim=1, keepdim=True).sqrt()
    return vectors / torch.where(norm > 0, norm, 1.0)


def focus_combine(new_vectors: Tensor, anchor_vectors: Tensor, anchor_rows: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """See `langadapt_kernels.focus_combine`; all of `anchor_rows` are combined with the same weights."""
    anchors = normalized(anchor_vectors)
    outputs = tuple(rows.new_empty(len(new_vectors), rows.shape[1]) for rows in anchor_rows)
    wide = tuple(rows.float() for rows in anchor_rows)
    step = max(1, _BLOCK // len(anchors))
    for start in range(0, len(new_vectors), step):
        part = slice(start, start + step)
        weights = sparsemax(normalized(new_vectors[part]) @ anchors.T)
        row, anchor = weights.nonzero(as_tuple=True)
        counts = (weights > 0).sum(dim=1)
        offsets = counts.cumsum(0) - counts
        for output, rows in zip(outputs, wide, strict=True):
            output[part] = torch.nn.functional.embedding_bag(
                anchor, rows, offsets, mode="sum", per_sample_weights=weights[row, anchor]
            )
    return outputs
