"""Tensors of the finished model. Sums are taken in float32 and rounded once.

With A the adapted model, B its base, I the instruct model and s the scale:

====================  =====================================  ==================================================
method                body                                   rows
====================  =====================================  ==================================================
``residual``          A + s (I - B)                          A + s P (I - B)
``lep``               A + s (I - A)                          A + s P (I - B)
``elchat``            A + s (I - A)                          A; special tokens' rows are I's
====================  =====================================  ==================================================

P are the weights that the swap made the rows with: a shared or special token has the difference of its own source row,
a new one that of its combination. ``residual`` is the chat vector (Huang et al., 2024, arXiv 2310.04799; instruction
residuals: Jindal et al., 2024, arXiv 2410.10739) made aware of rows. ``lep`` is the learnt embeddings' propagation
(Tikhomirov and Chernyshev, 2024, arXiv 2412.21140) at s = 1: for models whose body was not trained it is the same as
``residual``. ``elchat`` is the merging and copying of ElChat (Yamaguchi et al., 2025, arXiv 2412.11704), which needs no
base: it is made for models that were adapted from the instruct model itself.

At s = 0 every tensor is A's, bit by bit; where A is B, s = 1 gives I's, bit by bit.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langadapt.models.weights import Entry, read_elements, read_tensor
from langadapt.swap.rows.plan import RowPlan

BLOCK = 1 << 22
"""Elements that are combined at once."""


def residual(a: Tensor, b: Tensor, i: Tensor, scale: float) -> Tensor:
    """a + scale (i - b) in float32; where a is b this is exact at scale 1, zeros' signs included."""
    moved = i if scale == 1 else torch.lerp(b, i, scale)
    return torch.where(a == b, moved, (a - b) + moved)


def body_tensor(adapted: Entry, base: Entry | None, instruct: Entry, scale: float) -> Tensor:
    """A tensor without a row per token, of the adapted one's type.

    Args:
        adapted, instruct: where the tensors lie.
        base: the base's, for the difference between base and instruct model; none: go towards the instruct model.
        scale: how far.
    """
    out = read_tensor(adapted)
    flat = out.reshape(-1)
    for start in range(0, len(flat), BLOCK):
        stop = min(start + BLOCK, len(flat))
        a, i = flat[start:stop].float(), read_elements(instruct, start, stop).float()
        if base is None:
            made = i if scale == 1 else torch.lerp(a, i, scale)
        else:
            made = residual(a, read_elements(base, start, stop).float(), i, scale)
        flat[start:stop] = made.to(out.dtype)
    return out


def read_columns(entry: Entry, first: int, last: int) -> Tensor:
    """Columns of a matrix as float32 ``[rows, last - first]``; a vector is one column."""
    rows, width = entry.shape[0], entry.size // max(1, entry.shape[0])
    out = torch.empty((rows, last - first))
    step = max(1, BLOCK // width)
    for row in range(0, rows, step):
        end = min(row + step, rows)
        out[row:end] = read_elements(entry, row * width, end * width).view(end - row, width)[:, first:last].float()
    return out


def carry_rows(
    out: Tensor, plan: RowPlan, base: Entry, instruct: Entry, *, counterparts: NDArray[np.int64], scale: float
) -> None:
    """Add the instruct model's difference to rows, in place.

    Args:
        out: ``[rows, d]``, the adapted rows; those behind the plan and those without a source stay.
        plan: how the rows were made of the base's.
        base, instruct: the source matrices.
        counterparts: ``[base rows]``: the instruct model's row of each, -1 for none.
        scale: how much of the difference.
    """
    known = torch.from_numpy(counterparts >= 0)
    rows_of_instruct = torch.from_numpy(np.maximum(counterparts, 0))
    copied, missing = torch.from_numpy(plan.copied), torch.from_numpy(plan.missing)
    sources = torch.from_numpy(plan.ids[plan.starts[plan.copied]])
    width = max(1, 8 * BLOCK // max(len(counterparts), len(plan)))
    for first in range(0, out.shape[1], width):
        last = min(first + width, out.shape[1])
        old = rows_as(read_columns(base, first, last), len(counterparts))
        new = read_columns(instruct, first, last)
        new = torch.where(known[:, None], rows_as(new, int(rows_of_instruct.max()) + 1)[rows_of_instruct], old)
        carried = plan.apply(new - old)[0]
        carried[missing] = 0
        block = out[: len(plan), first:last].float()
        exact = residual(block[copied], old[sources], new[sources], scale)
        block += scale * carried
        block[copied] = exact
        block[missing] = out[: len(plan), first:last][missing].float()
        out[: len(plan), first:last] = block.to(out.dtype)


def rows_as(matrix: Tensor, rows: int) -> Tensor:
    """``matrix`` with as many rows at least; those of shorter tables are zero."""
    if len(matrix) >= rows:
        return matrix
    return torch.cat([matrix, torch.zeros((rows - len(matrix), matrix.shape[1]))])


def copy_rows(out: Tensor, instruct: Entry, pairs: dict[int, int]) -> None:
    """Copy the instruct model's rows, in place; ``pairs``: row of ``out`` to row of ``instruct``."""
    width = instruct.size // max(1, instruct.shape[0])
    for row, source in pairs.items():
        if source < instruct.shape[0]:
            out[row] = read_elements(instruct, source * width, (source + 1) * width).to(out.dtype)
