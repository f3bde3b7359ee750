"""Rows that were learnt before the swap, as :mod:`langadapt.swap.distill` does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from langadapt.errors import MismatchError


@dataclass(frozen=True)
class LearntRows:
    """Rows of new tokens for the input and the output matrix, one for both where they are tied."""

    target_ids: NDArray[np.int64]
    input: Tensor
    """float32 ``[new, d]``."""
    output: Tensor
    tokens: int = 0
    """That they were learnt from: what it cost, in tokens of training."""

    def rule(self, output: bool) -> LearntRule:
        """For one of the matrices."""
        return LearntRule(self.target_ids, self.output if output else self.input)


@dataclass(frozen=True)
class LearntRule:
    """Learnt rows of one matrix; a :class:`langadapt.swap.rows.plan.RowRule`."""

    target_ids: NDArray[np.int64]
    rows: Tensor

    def combine(self, matrices: Sequence[Tensor]) -> list[Tensor]:
        """The rows themselves.

        Raises:
            MismatchError: they are of another model.
        """
        for matrix in matrices:
            if matrix.shape[1] != self.rows.shape[1]:
                raise MismatchError(f"learnt rows are {self.rows.shape[1]} wide, the model's {matrix.shape[1]}")
        return [self.rows] * len(matrices)
