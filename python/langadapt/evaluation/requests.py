"""Log-likelihoods of continuations, as tasks ask for them: what requests have in common is computed once.

The choices of a question have a beginning in common. They lie in one row, the beginning first and then each rest, which
sees the beginning and itself alone and stands where it would stand in a text of its own. Logits are made where a
continuation is read and nowhere else. Rows are sorted by length, the longest first, so that padding is short.

Not every model can be told what a token sees: the longest row, one of middling length and the shortest are computed
both ways first, and where the two disagree each request has a row of its own.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import nn

from langadapt.evaluation.scoring import (
    LOGIT_TOKENS,
    WHOLE_LOGIT_BYTES,
    call_if_there,
    read_by_rows,
    split_head,
    text_config,
)
from langadapt.models.attention import in_blocks
from langadapt.models.embeddings import check_largest
from langadapt.progress import Progress

log = logging.getLogger(__name__)

WIDEST = 8192
"""Tokens of a row of several requests: its mask has the square of them."""
CPU_PASS_TOKENS, PASS_TOKENS = 16, 1024
"""Tokens that take as long as a forward pass costs beyond its own; on a GPU not measured: as few passes as can be."""
AGREEMENT = 8
"""Roundings of the model's digits, relative to a token's nats, by which two ways to the same number may differ."""


@dataclass(frozen=True)
class Request:
    """A continuation to be scored."""

    inputs: tuple[int, ...]
    """Ids of context and continuation but for the last one, cut to what the model can read."""
    targets: tuple[int, ...]
    """Ids of the continuation: the last inputs predict them."""


@dataclass(frozen=True)
class Row:
    """Sequences that lie in one row."""

    shared: int
    """Tokens that all of them begin with."""
    sequences: tuple[tuple[int, ...], ...]

    @cached_property
    def length(self) -> int:
        """Tokens of the beginning and of all rests."""
        return self.shared + sum(len(one) - self.shared for one in self.sequences)

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """Where the rest of each sequence begins."""
        start, found = self.shared, []
        for one in self.sequences:
            found.append(start)
            start += len(one) - self.shared
        return tuple(found)

    def place(self, sequence: int, at: int) -> int:
        """Where token ``at`` of a sequence lies."""
        return at if at < self.shared else self.starts[sequence] + at - self.shared


@dataclass(frozen=True)
class Work:
    """What was asked of the model: counts that need no clock."""

    tokens: int = 0
    """Through the layers, padding included."""
    logits: int = 0
    """Positions that met the output matrix."""

    def __add__(self, other: Work) -> Work:
        return Work(self.tokens + other.tokens, self.logits + other.logits)


@dataclass(frozen=True)
class Read:
    """What a forward pass leaves to the output matrix."""

    states: torch.Tensor
    """``[n, d]`` where something is predicted; float32 logits ``[n, entries]`` where the matrix cannot be had apart."""
    back: torch.Tensor
    """For each target which of the states predicts it."""
    targets: torch.Tensor
    asked: list[int]
    """Places of the requests among all."""
    lengths: list[int]
    """Targets of each of them."""


def rows_of(sequences: Sequence[tuple[int, ...]], most: int, attention: float) -> list[Row]:
    """Rows that hold all sequences, the longest row first.

    Args:
        sequences: ids, each of them once.
        most: sequences in a row.
        attention: tokens of a row at which attention over all of it costs as much as the rest of the model.
    """

    def cost(length: int) -> float:
        return length + length * length / attention

    found: list[Row] = []
    # In the order of a dictionary those that begin alike are neighbours.
    for one in sorted(sequences):
        if found and len(found[-1].sequences) < most:
            last = found[-1]
            wider = Row(common(last.sequences[0][: last.shared], one), (*last.sequences, one))
            if wider.length <= WIDEST and cost(wider.length) < cost(last.length) + cost(len(one)):
                found[-1] = wider
                continue
        found.append(Row(len(one), (one,)))
    return sorted(found, key=lambda row: -row.length)


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many ids two sequences begin with in common."""
    for at, (mine, theirs) in enumerate(zip(one, other, strict=False)):
        if mine != theirs:
            return at
    return min(len(one), len(other))


def batches(rows: Sequence[Row], most: int, passes: int = 0) -> Iterator[list[Row]]:
    """Rows of ``most`` sequences together, at least one row, those that need a mask apart from those that do not, so
    that as few tokens as can be go through the layers; ``rows`` are sorted, the longest first.

    Args:
        rows: sorted, the longest first.
        most: sequences.
        passes: tokens that take as long as a forward pass costs beyond its own.
    """
    for alone in (False, True):
        kind = [row for row in rows if (len(row.sequences) == 1) is alone]
        # Tokens of the best way to cut all from a row on, and where its first batch ends; from the last row backwards.
        best = [(0, 0)] * len(kind) + [(0, len(kind))]
        for start in reversed(range(len(kind))):
            ways, sequences = [], 0
            for end in range(start + 1, len(kind) + 1):
                sequences += len(kind[end - 1].sequences)
                if sequences > most and end > start + 1:
                    break
                ways.append((passes + (end - start) * kind[start].length + best[end][0], end))
            # Of equal ways the one with the longest batch.
            best[start] = min(ways, key=lambda way: (way[0], -way[1]))
        start = 0
        while start < len(kind):
            yield kind[start : best[start][1]]
            start = best[start][1]


class Likelihoods:
    """Runs a model over requests."""

    def __init__(self, model: nn.Module, *, batch: int) -> None:
        """``batch``: sequences per forward pass, at most."""
        self.model, self.batch = model, batch
        embeddings: Any = getattr(call_if_there(model, "get_input_embeddings"), "weight", None)
        known = embeddings is not None and embeddings.device.type != "meta"
        weight: torch.Tensor = embeddings if known else next(model.parameters())
        self.device, self.dtype = weight.device, weight.dtype
        self.ids = int(weight.shape[0]) if known else None
        width = getattr(text_config(model), "hidden_size", None) or 1024
        # A layer's matrices have about 12 width^2 entries; all pairs of a row's tokens take 2 length * width products.
        self.attention = 6.0 * width
        self.shares = batch > 1
        self.shares_known = not self.shares
        self.split: tuple[nn.Module, nn.Linear] | None = None
        self.split_known = False
        self.work = Work()
        """Done so far, without the trial."""

    @torch.no_grad()
    def score(self, requests: Sequence[Request], progress: Progress | None = None) -> list[tuple[float, bool]]:
        """log p of each continuation in nats, and whether each of its tokens is the likeliest.

        Args:
            requests: in any order; the results are in theirs.
            progress: called as ``("tasks", done, total, "tokens")``.

        Raises:
            MismatchError: an id that the model has no row for.
        """
        by_inputs: dict[tuple[int, ...], list[int]] = {}
        for at, one in enumerate(requests):
            by_inputs.setdefault(one.inputs, []).append(at)
        if by_inputs:
            self.check_ids(max(max(*one.inputs, *one.targets) for one in requests))
        rows = rows_of(list(by_inputs), self.batch if self.shares else 1, self.attention)
        shared = [row for row in rows if len(row.sequences) > 1]
        if shared and not self.shares_known:
            # Long ones are beyond windows, and what joins tokens by their number does so by lengths.
            trial = {shared[0], shared[len(shared) // 2], shared[-1]}
            self.shares, self.shares_known = all(self.can_share(row, by_inputs, requests) for row in trial), True
            rows = rows if self.shares else rows_of(list(by_inputs), 1, self.attention)
        done, total = 0, sum(row.length for row in rows)
        found: dict[int, tuple[float, bool]] = {}
        waiting: list[Read] = []
        for batch in batches(rows, self.batch, CPU_PASS_TOKENS if self.device.type == "cpu" else PASS_TOKENS):
            if progress:
                progress("tasks", done, total, "tokens")
            with in_blocks():
                waiting.append(self.read(batch, by_inputs, requests))
            done += sum(row.length for row in batch)
            # The output matrix is read once for as many places as share it well; whole logits are too large to wait.
            if self.split is None or sum(len(one.states) for one in waiting) >= LOGIT_TOKENS:
                found |= self.results(waiting)
                waiting = []
        found |= self.results(waiting)
        if progress and total:
            progress("tasks", total, total, "tokens")
        return [found[at] for at in range(len(requests))]

    def check_ids(self, largest: int) -> None:
        """A row that does not exist would be a fault inside a GPU kernel, long after."""
        if self.ids is not None:
            check_largest(largest, self.ids)

    def can_share(self, row: Row, by_inputs: dict[tuple[int, ...], list[int]], requests: Sequence[Request]) -> bool:
        """Whether the model gives a row of several requests what it gives to each of them alone."""
        work = self.work
        try:
            with in_blocks():
                together = self.results([self.read([row], by_inputs, requests)])
            alone = [Row(len(one), (one,)) for one in row.sequences]
            apart = self.results([self.read(alone, by_inputs, requests)])
        except Exception as error:
            # What does not take positions or a mask of four dimensions fails in as many ways as there are models.
            log.debug("requests that begin alike are computed one by one: %s", error)
            return False
        finally:
            self.work = work
        digits = AGREEMENT * torch.finfo(self.dtype).eps
        return all(
            abs(nats - apart[at][0]) <= digits * max(len(requests[at].targets), abs(apart[at][0]))
            for at, (nats, _) in together.items()
        )

    def read(
        self, rows: Sequence[Row], by_inputs: dict[tuple[int, ...], list[int]], requests: Sequence[Request]
    ) -> Read:
        """One forward pass, up to what the output matrix is to be multiplied with."""
        width = max(row.length for row in rows)
        asked: list[int] = []
        places: list[int] = []
        targets: list[int] = []
        lengths: list[int] = []
        for at, row in enumerate(rows):
            for number, one in enumerate(row.sequences):
                for index in by_inputs[one]:
                    wanted = requests[index].targets
                    asked.append(index)
                    places += [at * width + row.place(number, len(one) - back) for back in range(len(wanted), 0, -1)]
                    targets += wanted
                    lengths.append(len(wanted))
        inputs, options = self.inputs_of(rows)
        if not self.split_known:
            self.split = split_head(self.model, inputs[:1, :4])
            self.split_known = True
        # Choices of one letter are read at the same place, whose logits are made once.
        unique, back = torch.tensor(places).unique(return_inverse=True)
        self.work += Work(inputs.numel(), len(unique))
        if self.split is None:
            states = self.logits_of(inputs, options, unique)
        else:
            hidden = self.split[0](input_ids=inputs, use_cache=False, **options)[0]
            states = hidden.flatten(0, 1)[unique.to(self.device)]
        return Read(states, back.to(self.device), torch.tensor(targets, device=self.device), asked, lengths)

    def results(self, reads: Sequence[Read]) -> dict[int, tuple[float, bool]]:
        """log p of the requests of some forward passes, by their place among all, and whether each token is the
        likeliest; of equally likely ones the first counts as that."""
        if not reads:
            return {}
        starts = [0, *accumulate(len(one.states) for one in reads)]
        states = torch.cat([one.states for one in reads])
        back = torch.cat([one.back + start for one, start in zip(reads, starts, strict=False)])
        targets = torch.cat([one.targets for one in reads])
        made = chosen(states, back, targets) if self.split is None else by_head(states, self.split[1], back, targets)
        nats, likeliest = made[0].double().cpu(), made[1].cpu()
        asked = [index for one in reads for index in one.asked]
        ends = [0, *accumulate(length for one in reads for length in one.lengths)]
        return {
            index: (-float(nats[start:end].sum()), bool(likeliest[start:end].all()))
            for index, (start, end) in zip(asked, pairwise(ends), strict=True)
        }

    def inputs_of(self, rows: Sequence[Row]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Ids ``[rows, width]``, and positions and mask where a row has several sequences.

        Padding has id 0 and lies behind all that counts.
        """
        width = max(row.length for row in rows)
        inputs = torch.zeros(len(rows), width, dtype=torch.long)
        if all(len(row.sequences) == 1 for row in rows):
            for at, row in enumerate(rows):
                inputs[at, : row.length] = torch.tensor(row.sequences[0])
            return inputs.to(self.device), {}
        positions = torch.zeros_like(inputs)
        branch = torch.full_like(inputs, -1)
        for at, row in enumerate(rows):
            inputs[at, : row.shared] = torch.tensor(row.sequences[0][: row.shared])
            positions[at, : row.shared] = torch.arange(row.shared)
            branch[at, : row.shared] = 0
            for number, (one, start) in enumerate(zip(row.sequences, row.starts, strict=True), 1):
                rest = slice(start, start + len(one) - row.shared)
                inputs[at, rest] = torch.tensor(one[row.shared :], dtype=torch.long)
                positions[at, rest] = torch.arange(row.shared, len(one))
                branch[at, rest] = number
        inputs, positions, branch = inputs.to(self.device), positions.to(self.device), branch.to(self.device)
        seen = (branch[:, None, :] == 0) | (branch[:, None, :] == branch[:, :, None])
        seen &= torch.ones(width, width, dtype=torch.bool, device=self.device).tril()
        mask = torch.zeros(seen.shape, dtype=self.dtype, device=self.device)
        mask.masked_fill_(~seen, torch.finfo(self.dtype).min)
        return inputs, {"position_ids": positions, "attention_mask": mask[:, None]}

    def logits_of(self, inputs: torch.Tensor, options: dict[str, torch.Tensor], unique: torch.Tensor) -> torch.Tensor:
        """float32 logits ``[n, entries]`` at the flat places ``unique``, where the output matrix cannot be had apart.

        Some rows at a time, and logits of the columns where one of them is read.
        """
        row, column = unique // inputs.shape[1], unique % inputs.shape[1]
        columns, at = column.unique(return_inverse=True)
        some = "logits_to_keep" in inspect.signature(self.model.forward).parameters
        kept: dict[str, Any] = {"logits_to_keep": columns.to(self.device)} if some else {}
        each = 4 * (len(columns) if some else inputs.shape[1]) * (self.ids or 1)
        size = max(1, WHOLE_LOGIT_BYTES // each)
        logits = []
        for start in range(0, len(inputs), size):
            part = {name: value[start : start + size] for name, value in options.items()}
            made = self.model(input_ids=inputs[start : start + size], use_cache=False, **part, **kept).logits
            mine = (row >= start) & (row < start + size)
            logits.append(made[row[mine] - start, (at if some else column)[mine]].float())
        return torch.cat(logits)


def chosen(logits: torch.Tensor, back: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Nats of ``targets`` ``[m]`` by row ``back`` ``[m]`` of float32 ``logits`` ``[n, entries]``, and whether each is
    the likeliest."""
    sums = logits.logsumexp(-1)
    return sums[back] - logits[back, targets], logits.argmax(-1)[back] == targets


def by_head(
    hidden: torch.Tensor, head: nn.Linear, back: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """As :func:`chosen`, of the logits that ``head`` makes of ``hidden`` ``[n, d]``, some at a time."""
    nats = torch.zeros(len(targets), dtype=torch.float32, device=hidden.device)
    first = torch.zeros(len(targets), dtype=torch.bool, device=hidden.device)
    for start in range(0, len(hidden), LOGIT_TOKENS):
        mine = (back >= start) & (back < start + LOGIT_TOKENS)
        part = hidden[start : start + LOGIT_TOKENS]
        nats[mine], first[mine] = read_by_rows(part, head, back[mine] - start, targets[mine], likeliest=True)
    return nats, first
