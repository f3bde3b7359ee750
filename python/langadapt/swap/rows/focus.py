"""FOCUS (Dobler & de Melo, 2023, arXiv 2305.14481): a new token is a convex combination of tokens that both have.

The weights are the sparsemax of the cosine similarities, in auxiliary vectors of the target tokens, between the new
token and the overlapping tokens (anchors). The result equals the reference implementation (``deepfocus``); the way
there differs. Similarities come from a blocked matrix product, in bfloat16 where the CPU multiplies it natively; the
compiled core takes the few anchors that can carry weight given that product's error, scores these again exactly and
solves the sparsemax. Nothing of size ``new x anchors`` is ever held.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langadapt import _core
from langadapt.errors import MismatchError
from langadapt.machine import multiplies_bfloat16, thread_count
from langadapt.swap.matching import VocabularyMatch
from langadapt.swap.rows.plan import RowPlan, copied_entries, plan_of

BLOCK_BYTES = 64 << 20
"""Size of a block of similarities."""


@dataclass(frozen=True)
class Anchors:
    """The target tokens that take part: those with a vector."""

    new_ids: NDArray[np.int64]
    """Target ids that need a row."""
    anchor_ids: NDArray[np.int64]
    """Target ids that have a source row."""
    anchor_sources: NDArray[np.int64]
    """Source id of each anchor."""


def split_anchors(match: VocabularyMatch, vectors: NDArray[np.float32]) -> Anchors:
    """Split the tokens that have a vector (a row that is not zero).

    Raises:
        MismatchError: no token is both matched and has a vector.
    """
    has_vector = np.any(vectors != 0, axis=1)
    anchors = match.overlap_ids[has_vector[match.overlap_ids]]
    if len(anchors) == 0:
        raise MismatchError(
            f"no anchors: {len(match.overlap_ids)} of {match.target_size} target tokens match a source token and "
            f"{int(has_vector.sum())} have a vector, but none has both; train vectors on more text, or use "
            "`subword_mean`, which needs no overlap"
        )
    return Anchors(match.new_ids[has_vector[match.new_ids]], anchors, match.source_ids[anchors])


def unit_rows(vectors: NDArray[np.float32], rows: NDArray[np.int64]) -> Tensor:
    """``rows`` of ``vectors``, scaled to norm one."""
    return torch.nn.functional.normalize(torch.from_numpy(np.ascontiguousarray(vectors[rows])).double(), dim=1).float()


def plan_focus(match: VocabularyMatch, vectors: NDArray[np.float32], *, threads: int | None = None) -> RowPlan:
    """The rows of FOCUS: anchors and other matched tokens are copied, tokens with a vector are combined.

    Args:
        match: the two vocabularies.
        vectors: float32 ``[target, dim]``, zero rows for tokens without a vector.
        threads: of the sparsemax; default: one per core.

    Raises:
        MismatchError: see :func:`split_anchors`.
    """
    tokens = split_anchors(match, vectors)
    lengths, columns, weights = similarity_weights(
        unit_rows(vectors, tokens.new_ids), unit_rows(vectors, tokens.anchor_ids), threads=threads
    )
    combined = (np.repeat(tokens.new_ids, lengths), tokens.anchor_sources[columns], weights)
    return plan_of([copied_entries(match), combined], match.target_size)


def plan_focus_on_gpu(match: VocabularyMatch, vectors: NDArray[np.float32], device: torch.device) -> RowPlan:
    """The same through ``langadapt_kernels.focus_combine``: the weights stay on the GPU and serve all matrices."""
    tokens = split_anchors(match, vectors)
    rule = FusedFocus(
        tokens.new_ids,
        torch.from_numpy(tokens.anchor_sources).to(device),
        unit_rows(vectors, tokens.new_ids).to(device),
        unit_rows(vectors, tokens.anchor_ids).to(device),
    )
    return replace(plan_of([copied_entries(match)], match.target_size), rule=rule)


@dataclass(frozen=True)
class FusedFocus:
    """FOCUS by one kernel; a :class:`langadapt.swap.rows.plan.RowRule`."""

    target_ids: NDArray[np.int64]
    anchor_sources: Tensor
    new_vectors: Tensor
    anchor_vectors: Tensor

    def combine(self, matrices: Sequence[Tensor]) -> list[Tensor]:
        """Rows of all matrices from one pass over the similarities."""
        from langadapt_kernels import focus_combine

        anchor_rows = tuple(matrix[self.anchor_sources] for matrix in matrices)
        return list(focus_combine(self.new_vectors, self.anchor_vectors, anchor_rows))


def similarity_weights(
    new: Tensor, anchors: Tensor, *, threads: int | None = None, low_precision: bool | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Sparsemax of the rows of ``new @ anchors.T`` without holding the product.

    Args:
        new: float32 ``[n, dim]``, rows of norm one.
        anchors: float32 ``[m, dim]``, likewise.
        threads: of the sparsemax; default: one per core.
        low_precision: take the product in bfloat16; default: where the CPU has instructions for it. Does not change
            the result.

    Returns:
        Entries per row int64 ``[n]``, anchors int64 and weights float32 of all entries, row after row.
    """
    fast = multiplies_bfloat16() if low_precision is None else low_precision
    dtype = torch.bfloat16 if fast else torch.float32
    # Products of unit rows: inputs rounded by a relative half unit each, float32 sums, the result rounded again.
    rounding = 2.0**-9 if fast else 2.0**-24
    error = 1.1 * (3 * rounding + rounding**2 + new.shape[1] * 2.0**-24)
    turned = anchors.to(dtype).T.contiguous()
    rows = max(1, BLOCK_BYTES // (len(anchors) * turned.element_size()))
    anchor_array = anchors.contiguous().numpy()
    parts = []
    for block in new.contiguous().split(rows):
        scores = block.to(dtype) @ turned
        array = scores.view(torch.int16).numpy().view(np.uint16) if fast else scores.numpy()
        parts.append(_core.sparsemax_weights(array, error, block.numpy(), anchor_array, threads=thread_count(threads)))
    if not parts:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32)
    lengths, columns, weights = (np.concatenate(column) for column in zip(*parts, strict=True))
    return lengths.astype(np.int64), columns.astype(np.int64), weights
