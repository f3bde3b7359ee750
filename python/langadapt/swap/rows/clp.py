"""CLP-Transfer (Ostendorff & Rehm, 2023, arXiv 2301.09626): a small model of the target language shows who is alike.

A new token's row is the mean of all shared tokens' rows, weighted by the cosine similarity of the helper model's
embeddings. With unit helper rows ``n`` (new) and ``A`` (shared) and source rows ``E``, that is
``(n A^T E) / (n A^T 1)``: one small matrix ``A^T E`` instead of all similarities, exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langadapt.swap.matching import VocabularyMatch
from langadapt.swap.rows.focus import split_anchors, unit_rows
from langadapt.swap.rows.plan import BLOCK_COLUMNS, RowPlan, copied_entries, plan_of


@dataclass(frozen=True)
class SimilarityMean:
    """Rows weighted by similarity; a :class:`langadapt.swap.rows.plan.RowRule`."""

    target_ids: NDArray[np.int64]
    anchor_sources: NDArray[np.int64]
    new: Tensor
    anchors: Tensor

    def combine(self, matrices: Sequence[Tensor]) -> list[Tensor]:
        """The closed form, in float64 over blocks of columns."""
        return [self._combine(matrix) for matrix in matrices]

    def _combine(self, matrix: Tensor) -> Tensor:
        out = torch.empty((len(self.new), matrix.shape[1]), dtype=torch.float32)
        new, anchors = self.new.double(), self.anchors.double()
        total = (new @ anchors.sum(dim=0))[:, None]
        source = torch.from_numpy(self.anchor_sources).to(matrix.device)
        for column in range(0, matrix.shape[1], BLOCK_COLUMNS):
            part = matrix[:, column : column + BLOCK_COLUMNS][source].double().cpu()
            out[:, column : column + BLOCK_COLUMNS] = (new @ (anchors.T @ part) / total).float()
        return out.to(matrix.device)


def plan_clp(match: VocabularyMatch, helper_rows: NDArray[np.float32]) -> RowPlan:
    """The rows of CLP-Transfer.

    Args:
        match: the two vocabularies.
        helper_rows: float32 ``[target, dim]``: input embeddings of a model with the target tokenizer.

    A token whose similarities do not sum to something positive has no mean and is drawn.

    Raises:
        MismatchError: see :func:`langadapt.swap.rows.focus.split_anchors`.
    """
    tokens = split_anchors(match, helper_rows)
    new, anchors = unit_rows(helper_rows, tokens.new_ids), unit_rows(helper_rows, tokens.anchor_ids)
    # A mean similarity this close to zero would blow rounding errors up to rows.
    positive = (new.double() @ anchors.double().mean(dim=0) > 1e-4).numpy()
    rule = SimilarityMean(tokens.new_ids[positive], tokens.anchor_sources, new[torch.from_numpy(positive)], anchors)
    return replace(plan_of([copied_entries(match)], match.target_size), rule=rule)
