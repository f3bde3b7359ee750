"""Orthogonal matching pursuit (arXiv 2506.06607, there with a donor model's embeddings; here without a donor).

A new token's auxiliary vector is written as a sum of a few shared tokens' vectors; the same coefficients over these
tokens' source rows make its row. Unlike FOCUS, coefficients may be negative and need not sum to one.

Coefficients are solved for with a ridge. Auxiliary vectors of tokens that share n-grams are nearly parallel; without
it such anchors get large coefficients of opposite signs, which cancel in the vectors but not in the rows of the model.
On a model of 4M parameters, bits per byte right after a swap to Arabic were 46 without and 5.6 with it, after 50 steps
2.36 and 2.11 (German: 5.67 and 3.13, 2.26 and 2.18).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langadapt.errors import ConfigError
from langadapt.swap.matching import VocabularyMatch
from langadapt.swap.rows.focus import BLOCK_BYTES, split_anchors
from langadapt.swap.rows.plan import RowPlan, copied_entries, plan_of

ATOMS = 16
"""Anchors per new token."""
RIDGE = 1.0
"""Added to the diagonal of the normal equations, as a share of each atom's square."""


def plan_omp(
    match: VocabularyMatch, vectors: NDArray[np.float32], *, atoms: int | None = None, ridge: float = RIDGE
) -> RowPlan:
    """The rows of matching pursuit.

    Args:
        match: the two vocabularies.
        vectors: float32 ``[target, dim]``, zero rows for tokens without a vector.
        atoms: anchors per new token, at most the vectors' width; default: :data:`ATOMS`, or that width where it is
            smaller. Each costs one product of all new with all anchors.
        ridge: see :data:`RIDGE`; 1e-6 is the published method but for equal anchors.

    Raises:
        ConfigError: ``atoms`` or ``ridge`` is out of range.
        MismatchError: see :func:`langadapt.swap.rows.focus.split_anchors`.
    """
    if atoms is None:
        atoms = min(ATOMS, vectors.shape[1])
    if not 1 <= atoms <= vectors.shape[1]:
        raise ConfigError(f"atoms must be between 1 and the vectors' width {vectors.shape[1]}: {atoms}")
    if not ridge > 0:
        raise ConfigError(f"ridge must be above 0, or two equal anchors have no solution: {ridge}")
    tokens = split_anchors(match, vectors)
    anchors = torch.from_numpy(vectors[tokens.anchor_ids])
    new = torch.from_numpy(vectors[tokens.new_ids])
    k = min(atoms, len(anchors))
    chosen, coefficients = [], []
    for block in new.split(max(1, BLOCK_BYTES // (4 * len(anchors)))):
        columns, values = pursue(block, anchors, k, ridge)
        chosen.append(columns.numpy().ravel())
        coefficients.append(values.float().numpy().ravel())
    if not chosen:
        return plan_of([copied_entries(match)], match.target_size)
    entries = (
        np.repeat(tokens.new_ids, k),
        tokens.anchor_sources[np.concatenate(chosen)],
        np.concatenate(coefficients),
    )
    return plan_of([copied_entries(match), entries], match.target_size)


def pursue(targets: Tensor, anchors: Tensor, k: int, ridge: float = RIDGE) -> tuple[Tensor, Tensor]:
    """The ``k`` anchors that OMP chooses for each target, and their coefficients.

    Args:
        targets: float32 ``[n, dim]``.
        anchors: float32 ``[m, dim]``, none zero, ``m >= k``.
        k: anchors per target.
        ridge: share of an atom's square that is added to the diagonal.

    Returns:
        int64 and float64 ``[n, k]``.
    """
    unit = torch.nn.functional.normalize(anchors, dim=1)
    chosen = torch.empty((len(targets), 0), dtype=torch.int64)
    residual = targets.double()
    values = torch.empty((len(targets), 0), dtype=torch.float64)
    for _ in range(k):
        fit = (residual.float() @ unit.T).abs()
        fit.scatter_(1, chosen, -1.0)
        chosen = torch.cat([chosen, fit.argmax(dim=1, keepdim=True)], dim=1)
        atoms = anchors[chosen].double()
        gram = atoms @ atoms.transpose(1, 2)
        gram += torch.diag_embed(gram.diagonal(dim1=1, dim2=2) * ridge)
        wanted = atoms @ targets.double()[:, :, None]
        values = torch.linalg.solve(gram, wanted)[:, :, 0]
        residual = targets.double() - (values[:, None] @ atoms)[:, 0]
    return chosen, values
