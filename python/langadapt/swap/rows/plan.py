"""How target rows are made of source rows: a sparse matrix of weights, computed once and applied to any matrix.

A plan knows nothing of the embedding matrices, so the same plan serves the input matrix, the output matrix and an
output bias. Rows without any source take the plan's fill.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langadapt.swap.matching import VocabularyMatch

Fill = Literal["normal", "mean", "random"]

BLOCK_ROWS = 4096
"""Target rows that are combined at once."""
BLOCK_COLUMNS = 512
"""Columns of a low-precision matrix that are held in float32 at once."""


class RowRule(Protocol):
    """Rows that are not a sparse combination, or whose weights never leave the GPU."""

    @property
    def target_ids(self) -> NDArray[np.int64]:
        """The rows it makes."""
        ...

    def combine(self, matrices: Sequence[Tensor]) -> list[Tensor]:
        """Float32 ``[len(target_ids), d]`` for each source matrix ``[source, d]``."""
        ...


@dataclass(frozen=True)
class RowPlan:
    """Target rows as weighted sums of source rows (compressed sparse rows)."""

    starts: NDArray[np.int64]
    """``[target + 1]``: row ``i`` has the entries ``starts[i]:starts[i + 1]``."""
    ids: NDArray[np.int64]
    """Source id of each entry."""
    weights: NDArray[np.float32]
    """Weight of each entry."""
    fill: Fill = "normal"
    """Rows without entries: drawn from the source's mean and standard deviation by dimension, that mean itself, or
    drawn around zero with the source's overall standard deviation."""
    rule: RowRule | None = None
    """Makes further rows."""

    def __len__(self) -> int:
        """Target rows."""
        return len(self.starts) - 1

    @property
    def copied(self) -> NDArray[np.int64]:
        """Rows that are one source row, unchanged."""
        single = np.flatnonzero(np.diff(self.starts) == 1)
        found = single[self.weights[self.starts[single]] == 1.0]
        return found if self.rule is None else np.setdiff1d(found, self.rule.target_ids)

    @property
    def combined(self) -> NDArray[np.int64]:
        """Rows that are made of source rows but are no copies."""
        made = np.flatnonzero(np.diff(self.starts) > 0)
        made = np.setdiff1d(made, self.copied)
        return made if self.rule is None else np.union1d(made, self.rule.target_ids)

    @property
    def missing(self) -> NDArray[np.int64]:
        """Rows without any source."""
        empty = np.flatnonzero(np.diff(self.starts) == 0)
        return empty if self.rule is None else np.setdiff1d(empty, self.rule.target_ids)

    @torch.no_grad()
    def apply(
        self, *matrices: Tensor, seed: int = 0, rows: int | None = None, scale: bool = False
    ) -> tuple[Tensor, ...]:
        """Target rows for each of ``matrices``.

        Args:
            matrices: ``[source, d]`` of any floating type and device.
            seed: of the draws for rows without a source; the same for each matrix.
            rows: rows of the results, at least the plan's; those behind it are filled like rows without a source.
            scale: give the combined rows the mean norm of the copied ones (of all source rows, where none is copied).
                Means of many rows are shorter than any of them.

        Returns:
            One ``[rows, d]`` per matrix, of its type and on its device. Sums are taken in float32 and rounded once.
        """
        n_rows = max(len(self), rows or 0)
        by_rule = self.rule.combine(matrices) if self.rule is not None else [None] * len(matrices)
        return tuple(
            self._apply(matrix, made, n_rows, seed=seed, scale=scale)
            for matrix, made in zip(matrices, by_rule, strict=True)
        )

    def _apply(self, matrix: Tensor, by_rule: Tensor | None, n_rows: int, *, seed: int, scale: bool) -> Tensor:
        out = torch.empty((n_rows, matrix.shape[1]), dtype=matrix.dtype, device=matrix.device)
        copied = self.copied
        source = torch.from_numpy(self.ids[self.starts[copied]]).to(matrix.device)
        for block in range(0, len(copied), BLOCK_ROWS):
            here = torch.from_numpy(copied[block : block + BLOCK_ROWS]).to(matrix.device)
            out[here] = matrix[source[block : block + BLOCK_ROWS]]
        self._combine(matrix, out)
        if by_rule is not None and self.rule is not None:
            out[torch.from_numpy(self.rule.target_ids).to(out.device)] = by_rule.to(out)
        missing = np.concatenate([self.missing, np.arange(len(self), n_rows)])
        fill_rows(out, missing, matrix, self.fill, seed=seed)
        if scale:
            reference = matrix if len(copied) == 0 else out[torch.from_numpy(copied).to(out.device)]
            scale_rows(out, self.combined, float(row_norms(reference).mean()))
        return out

    def _combine(self, matrix: Tensor, out: Tensor) -> None:
        """Write the weighted sums, in blocks: float32 matrices by rows, others by columns that are widened first."""
        made = np.setdiff1d(np.flatnonzero(np.diff(self.starts) > 0), self.copied)
        lengths = np.diff(self.starts)[made]
        first = np.concatenate([[0], np.cumsum(lengths)[:-1]]) if len(made) else np.zeros(0, dtype=np.int64)
        entries = np.repeat(self.starts[made] - first, lengths) + np.arange(lengths.sum())
        ids, weights = self.ids[entries], self.weights[entries]
        width = matrix.shape[1] if matrix.dtype == torch.float32 else BLOCK_COLUMNS
        for column in range(0, matrix.shape[1], width):
            part = matrix[:, column : column + width].float()
            for block in range(0, len(made), BLOCK_ROWS):
                rows = slice(block, block + BLOCK_ROWS)
                span = slice(first[block], first[block] + lengths[rows].sum())
                sums = torch.nn.functional.embedding_bag(
                    torch.from_numpy(ids[span]).to(matrix.device),
                    part,
                    torch.from_numpy(first[rows] - first[block]).to(matrix.device),
                    mode="sum",
                    per_sample_weights=torch.from_numpy(weights[span]).to(matrix.device),
                )
                out[torch.from_numpy(made[rows]).to(matrix.device), column : column + width] = sums.to(out.dtype)


def moments(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each column, float32 on the CPU."""
    width = matrix.shape[1] if matrix.dtype == torch.float32 else BLOCK_COLUMNS
    means, stds = [], []
    for column in range(0, matrix.shape[1], width):
        part = matrix[:, column : column + width].float()
        means.append(part.mean(dim=0))
        # One row has no spread; torch would answer NaN and warn.
        stds.append(part.std(dim=0) if len(part) > 1 else torch.zeros_like(part[0]))
    return torch.cat(means).cpu(), torch.cat(stds).cpu()


def fill_rows(out: Tensor, rows: NDArray[np.int64], matrix: Tensor, fill: Fill, *, seed: int) -> None:
    """Fill ``rows`` of ``out`` from the distribution of the rows of ``matrix``.

    One draw per row in the order of the rows, from one generator on the CPU: the rows are the same on every device, and
    the same that ``deepfocus`` draws from this seed.
    """
    if len(rows) == 0:
        return
    mean, std = moments(matrix)
    generator = torch.Generator().manual_seed(seed)
    if fill == "random":
        std = torch.full_like(std, float((std.square() + (mean - mean.mean()).square()).mean().sqrt()))
        mean = torch.zeros_like(mean)
    for row in rows:
        value = mean if fill == "mean" else torch.normal(mean, std, generator=generator)
        out[int(row)] = value.to(out)


def row_norms(matrix: Tensor) -> Tensor:
    """Euclidean norms, float32, in blocks."""
    return torch.cat([block.float().norm(dim=1) for block in matrix.split(BLOCK_ROWS)])


def scale_rows(out: Tensor, rows: NDArray[np.int64], norm: float) -> None:
    """Give ``rows`` of ``out`` the norm ``norm``; a zero row stays."""
    for block in range(0, len(rows), BLOCK_ROWS):
        here = torch.from_numpy(rows[block : block + BLOCK_ROWS]).to(out.device)
        values = out[here].float()
        norms = values.norm(dim=1, keepdim=True)
        out[here] = torch.where(norms > 0, values * (norm / norms), values).to(out.dtype)


Entries = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]
"""Target ids, source ids and weights."""


def plan_of(parts: Sequence[Entries], size: int) -> RowPlan:
    """A plan from entries in any order; source ids of a row come out rising."""
    target = np.concatenate([np.zeros(0, np.int64), *(part[0] for part in parts)])
    source = np.concatenate([np.zeros(0, np.int64), *(part[1] for part in parts)])
    weight = np.concatenate([np.zeros(0, np.float32), *(part[2] for part in parts)]).astype(np.float32)
    order = np.lexsort((source, target))
    starts = np.concatenate([[0], np.cumsum(np.bincount(target, minlength=size))]).astype(np.int64)
    return RowPlan(starts, source[order], weight[order])


def copied_entries(match: VocabularyMatch) -> Entries:
    """Entries that copy every matched token's row."""
    overlap = match.overlap_ids
    return overlap, match.source_ids[overlap], np.ones(len(overlap), dtype=np.float32)
