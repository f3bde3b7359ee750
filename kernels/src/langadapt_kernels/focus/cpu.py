"""The FOCUS combination on a CPU by langadapt's compiled core, where that is installed.

The core takes from a block of similarities the few anchors that can carry weight, given the error of a float32 product,
scores these again exactly and solves the sparsemax of each row, in threads.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..backend import core
from . import reference


def focus_combine(new_vectors: Tensor, anchor_vectors: Tensor, anchor_rows: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """See `langadapt_kernels.focus_combine`; needs the core."""
    anchors = reference.normalized(anchor_vectors)
    outputs = tuple(rows.new_empty(len(new_vectors), rows.shape[1]) for rows in anchor_rows)
    # Of unit rows: each factor and the result are rounded, and float32 sums of `k` products are off by `k` units.
    unit = 2.0**-24
    error = 1.1 * (3 * unit + unit**2 + anchors.shape[1] * unit)
    step = max(1, reference.BLOCK // len(anchors))
    for start in range(0, len(new_vectors), step):
        new = reference.normalized(new_vectors[start : start + step]).contiguous()
        with reference.float32_products():
            similarities = new @ anchors.T
        lengths, members, weights = core().sparsemax_weights(
            similarities.numpy(), error, new.numpy(), anchors.numpy(), threads=torch.get_num_threads()
        )
        counts, anchor = torch.from_numpy(lengths).long(), torch.from_numpy(members).long()
        offsets = counts.cumsum(0) - counts
        for output, rows in zip(outputs, anchor_rows, strict=True):
            part = output[start : start + step]
            reference.combine(anchor, torch.from_numpy(weights), offsets, rows, output=part)
    return outputs
