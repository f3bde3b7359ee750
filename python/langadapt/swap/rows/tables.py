"""One plan for each table of a model with a row per token."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from langadapt.errors import MismatchError
from langadapt.models.embeddings import TokenTables
from langadapt.swap.matching import VocabularyMatch
from langadapt.swap.rows.initialize import check_rows, plan_rows
from langadapt.swap.rows.learnt import LearntRule
from langadapt.swap.rows.names import DISTILL
from langadapt.swap.rows.options import SwapOptions
from langadapt.swap.rows.plan import RowPlan


@dataclass(frozen=True)
class TablePlans:
    """Plans of the input matrix, with all further tables by token id, and of the output matrix."""

    input: RowPlan
    output: RowPlan

    @property
    def bias(self) -> RowPlan:
        """An output bias is a matrix of one column; rows without a source get its mean. It is no direction: its size is
        never scaled."""
        rule = None if isinstance(self.output.rule, LearntRule) else self.output.rule
        return replace(self.output, fill="mean", rule=rule)

    def of(self, name: str, tables: TokenTables) -> RowPlan:
        """The plan of one table."""
        if name == tables.bias:
            return self.bias
        return self.output if name == tables.output else self.input


def shifted(rows: Tensor, name: str, tables: TokenTables, swap: SwapOptions) -> Tensor:
    """``rows`` of the table ``name``; where it makes logits, by ``swap.logit_shift``."""
    if swap.logit_shift is None or name != (tables.output or tables.input):
        return rows
    made: Tensor = swap.logit_shift.add_to(rows)
    return made


def plan_tables(
    match: VocabularyMatch, swap: SwapOptions, untied: bool, device: torch.device | str = "cpu"
) -> TablePlans:
    """Plans for a model; one computation where the methods are the same.

    Raises:
        MismatchError: see :func:`langadapt.swap.rows.initialize.plan_rows`; or the shift of logits is another swap's.
    """
    if swap.logit_shift is not None and not np.array_equal(swap.logit_shift.target_ids, match.new_ids):
        raise MismatchError("a shift of logits is of other new tokens than this swap has; it is of other tokenizers")
    plan = plan_rows(match, swap, device)
    method, other = swap.methods
    if not untied or (other == method and method != DISTILL):
        return TablePlans(plan, plan)
    return TablePlans(plan, plan_rows(match, replace(swap, method=other), device, output=True))


def table_matrix(table: Tensor, rows: int, match: VocabularyMatch) -> Tensor:
    """A table as a checked ``[rows, d]`` matrix: a bias as a column; ids behind the end of a shorter one count as the
    mean of its rows."""
    matrix = table[:, None] if table.dim() == 1 else table
    if len(matrix) < rows:
        matrix = torch.cat([matrix, matrix.float().mean(dim=0).to(matrix).expand(rows - len(matrix), -1)])
    check_rows(matrix, match)
    return matrix
