"""What is added to the rows that make logits, as :mod:`langadapt.swap.frequencies` finds it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langadapt.errors import MismatchError


@dataclass(frozen=True)
class LogitShift:
    """One direction for all new tokens, and how far each goes along it."""

    target_ids: NDArray[np.int64]
    amounts: Tensor
    """float32 ``[new]``: what is added to each token's logit, on average."""
    direction: Tensor
    """float32 ``[d]``."""
    tokens: int = 0
    """Of text that it was fitted to."""

    def add_to(self, rows: Tensor) -> Tensor:
        """``rows [target, d]`` of any floating type, changed in place; sums are rounded once.

        Raises:
            MismatchError: it is of another model.
        """
        if rows.shape[1] != len(self.direction):
            raise MismatchError(f"a shift of logits is {len(self.direction)} wide, the model's rows {rows.shape[1]}")
        ids, direction = torch.from_numpy(self.target_ids).to(rows.device), self.direction.to(rows.device)
        for at, amounts in zip(ids.split(4096), self.amounts.to(rows.device).split(4096), strict=True):
            rows[at] = (rows[at].float() + amounts[:, None] * direction).to(rows.dtype)
        return rows
