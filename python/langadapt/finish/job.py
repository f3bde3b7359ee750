"""One finishing: its models, how rows go together, and any tensor of the result."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langadapt.errors import ConfigError
from langadapt.finish.arithmetic import body_tensor, carry_rows, copy_rows
from langadapt.finish.members import Member, check_kin, check_width, open_member
from langadapt.finish.options import METHODS, Method
from langadapt.finish.tokens import FinishedTokens, counterpart_ids, finished_tokens
from langadapt.models.embeddings import padded_size
from langadapt.models.weights import read_tensor
from langadapt.swap.matching import VocabularyMatch, match_vocabularies
from langadapt.swap.rows.initialize import plan_subword_mean
from langadapt.swap.rows.kept import read_plans
from langadapt.swap.rows.plan import RowPlan
from langadapt.swap.rows.tables import TablePlans

PADDING = 128
"""Rows are rounded up to this where markers do not fit into those there are."""


@dataclass(frozen=True)
class FinishJob:
    """Everything that is known before a tensor is read."""

    adapted: Member
    instruct: Member
    base: Member | None
    method: Method
    tokens: FinishedTokens
    swapped: Path
    """Folder of the swap that began the adapted model."""

    @cached_property
    def spoken(self) -> VocabularyMatch:
        """Instruct tokenizer to finished tokenizer."""
        return match_vocabularies(self.instruct.tokenizer, self.tokens.tokenizer)

    @cached_property
    def plans(self) -> TablePlans:
        """How rows were made of the base's: kept by the swap; what it has no weights for is made of its pieces."""
        assert self.base is not None
        kept = read_plans(self.swapped)
        if kept is not None and all(len(plan.missing) == 0 for plan in (kept.input, kept.output)):
            return kept
        pieces = plan_subword_mean(match_vocabularies(self.base.tokenizer, self.adapted.tokenizer))
        if kept is None:
            return TablePlans(pieces, pieces)
        both = {id(plan): filled(plan, pieces) for plan in (kept.input, kept.output)}
        return TablePlans(both[id(kept.input)], both[id(kept.output)])

    @cached_property
    def counterparts(self) -> NDArray[np.int64]:
        """``[base rows]``: the instruct model's row of each, -1 for none."""
        assert self.base is not None
        sides = [read_names(member) for member in (self.base, self.instruct)]
        table = np.full(max(self.base.stored.tables.rows, self.base.tokenizer.vocab_size), -1, dtype=np.int64)
        for row, other in counterpart_ids(*sides).items():
            table[row] = other if other < self.instruct.stored.tables.rows else -1
        return table

    @property
    def rows(self) -> int:
        """Of the finished tables."""
        have, need = self.adapted.stored.tables.rows, self.tokens.tokenizer.vocab_size
        return have if need <= have else padded_size(need, PADDING)

    def table(self, name: str, scale: float) -> Tensor:
        """A tensor with a row per token."""
        out = read_tensor(self.adapted.entry(name))
        shape = out.shape[1:]
        matrix = out.reshape(len(out), -1)
        if len(matrix) < self.rows:
            mean = matrix.float().mean(dim=0).to(matrix.dtype)
            matrix = torch.cat([matrix, mean.expand(self.rows - len(matrix), -1)])
        instruct = self.instruct.entry(name)
        # Markers that nobody has trained in the adapted model are the instruct model's, whatever the scale.
        pairs = {id: self.spoken.source_ids[id] for id in self.tokens.added.values()}
        if scale and self.method == "elchat":
            kinds = self.spoken.target.kinds
            shared = np.flatnonzero(self.spoken.source_ids >= 0)
            pairs |= {int(id): self.spoken.source_ids[id] for id in shared if kinds[id] == "special"}
        elif scale and self.base is not None:
            tables = self.base.stored.tables
            plan, base = self.plans.of(name, tables), self.base.entry(name)
            carry_rows(matrix, plan, base, instruct, counterparts=self.counterparts, scale=scale)
        copy_rows(matrix, instruct, {id: int(source) for id, source in pairs.items() if source >= 0})
        return matrix.reshape(-1, *shape)

    def tensor(self, name: str, scale: float) -> Tensor:
        """Any tensor that changes, by its name in the model."""
        if name in self.adapted.stored.tables.names:
            return self.table(name, scale)
        base = self.base.entry(name) if self.base is not None and self.method == "residual" else None
        return body_tensor(self.adapted.entry(name), base, self.instruct.entry(name), scale)


def read_names(member: Member) -> dict[str, int]:
    """Token to id."""
    tokenizer = member.tokenizer
    named = ((tokenizer.id_to_token(id), id) for id in range(tokenizer.vocab_size))
    return {name: id for name, id in named if name is not None}


def filled(plan: RowPlan, other: RowPlan) -> RowPlan:
    """``plan`` with the rows of ``other`` where it has none."""
    lengths, more = np.diff(plan.starts), np.diff(other.starts)
    parts = [
        (one.ids[one.starts[row] : one.starts[row + 1]], one.weights[one.starts[row] : one.starts[row + 1]])
        for row in range(len(plan))
        for one in [plan if lengths[row] or row >= len(more) else other]
    ]
    starts = np.concatenate([[0], np.cumsum([len(ids) for ids, _ in parts])]).astype(np.int64)
    ids, weights = (np.concatenate([part[side] for part in parts]) for side in (0, 1))
    return RowPlan(starts, ids, weights)


def prepare(
    model: Path, instruct: Path, base: Path | None, swapped: Path | None, *, method: Method, trust_remote_code: bool
) -> FinishJob:
    """Open the models and make sure that they belong together.

    Raises:
        ConfigError: they do not (names the tensors), there is no template, or the base is needed and not given.
    """
    if method not in METHODS:
        raise ConfigError(f"method: {method!r}; there are {', '.join(METHODS)}")
    if base is None and method != "elchat":
        raise ConfigError(
            f"method `{method}` needs the model that the adapted and the instruct model were made from: give `base`"
        )
    adapted, tuned = (open_member(folder, trust_remote_code=trust_remote_code) for folder in (model, instruct))
    origin = open_member(base, trust_remote_code=trust_remote_code) if base is not None else None
    tokens = finished_tokens(adapted.tokenizer, tuned.tokenizer, None if origin is None else origin.tokenizer)
    if origin is not None:
        check_kin(origin, tuned, "instruct")
        check_kin(origin, adapted, "adapted")
        check_width(origin, tuned)
    else:
        check_kin(tuned, adapted, "adapted")
    check_width(tuned, adapted)
    return FinishJob(adapted, tuned, origin, method, tokens, swapped or model)
