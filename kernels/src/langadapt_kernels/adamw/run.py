"""One step over many tensors, by the chosen implementation.

For Triton, tensors are bucketed by dtypes and rounding, and each bucket is one launch over the whole blocks of all
its tensors and, where something is left, one over that. Programs find their tensor through two tables on the device:
`entries` (addresses and places, one row per tensor; uploaded again when an address changes) and `chunks` (one row
per program; depends on sizes alone).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import cpu, reference, small
from .entries import same_objects
from .modes import ROUNDINGS, Entry


@dataclass(frozen=True)
class LaunchConfig:
    """How the kernels are cut; results do not depend on it."""

    block: int = 1024
    """Elements that a program handles at a time: eight per thread with `warps` = 4."""
    chunk: int = 8192
    """Elements per program at most, a multiple of `block`."""
    warps: int = 4
    exact: bool = False
    """IEEE square root and division and no fused multiply-add: the bits of a CPU, at twice the instructions.

    Otherwise results differ from a CPU's by units in the last place of float32, before the rounding."""


class _Kind(NamedTuple):
    """What one launch has in common."""

    weight_wide: bool
    grad_wide: bool
    state_wide: bool
    rounding: str
    stochastic_variance: bool

    @classmethod
    def of(cls, entry: Entry) -> _Kind:
        wide = torch.float32
        state_wide = entry.exp_avg.dtype == wide
        rounding = "nearest" if entry.param.dtype == wide else entry.rounding
        return cls(
            entry.param.dtype == wide,
            entry.grad.dtype == wide,
            state_wide,
            rounding,
            entry.stochastic_variance and not state_wide,
        )

    @property
    def random(self) -> bool:
        return self.rounding == "stochastic" or self.stochastic_variance


@dataclass
class _Table:
    members: tuple[list[Entry], list[int], list[int]]  # entries, rows and places
    layout: list[tuple[int, bool]]
    aligned: bool  # every tensor that may be: gradients can be exchanged for others at multiples of 16 bytes
    rows: Tensor  # on the host, int64 [n_entries, 12]
    grads: list[int]  # addresses
    entries: Tensor  # `rows`, on the device
    whole: Tensor  # int64 [n_chunks, 3]: entry, first element, elements
    ragged: Tensor  # the same, for chunks that need masks


class _Launch(NamedTuple):
    """Entries that are stepped by one launch, by their positions and themselves; `slot` names it."""

    kind: _Kind
    members: list[int]
    entries: list[Entry]
    slot: Any


@dataclass
class StepCache:
    """Tables that steps over the same tensors share."""

    config: LaunchConfig = field(default_factory=LaunchConfig)
    _tables: dict[Any, _Table] = field(default_factory=dict)
    _masks: dict[Any, Tensor] = field(default_factory=dict)
    _planned: tuple[list[Entry], list[torch.dtype]] = field(default_factory=lambda: ([], []))
    _launches: list[_Launch] = field(default_factory=list)

    def upload(self, values: Tensor, device: torch.device) -> Tensor:
        """A copy on `device`, without waiting for it.

        Raises:
            RuntimeError: a CUDA graph is being captured, whose replays would read host memory that is gone by then.
        """
        if device.type != "cuda":
            return values.to(device)
        if torch.cuda.is_current_stream_capturing():
            raise RuntimeError(
                "addresses or settings of the optimizer changed since its last step outside of this CUDA graph\n\n"
                "hint: take one step before the capture, keep gradients with `zero_grad(set_to_none=False)`, and give "
                "`lr` as a tensor if it changes"
            )
        return values.pin_memory().to(device, non_blocking=True)

    def mask(self, device: torch.device, count: int, rows: Sequence[int]) -> Tensor:
        """float32 `[count]`: 1 for the chosen rows, 0 for the others."""
        key = (device, count, *rows)
        if key not in self._masks:
            mask = torch.zeros(count)
            mask[list(rows)] = 1
            self._masks[key] = self.upload(mask, device)
        return self._masks[key]

    def launches(self, entries: Sequence[Entry]) -> list[_Launch]:
        """The launches of a step, one per combination of dtypes and rounding."""
        dtypes = [entry.grad.dtype for entry in entries]
        if not same_objects(entries, self._planned[0]) or dtypes != self._planned[1]:
            kinds: dict[_Kind, list[int]] = {}
            for i, entry in enumerate(entries):
                kinds.setdefault(_Kind.of(entry), []).append(i)
            self._planned, self._launches = (list(entries), dtypes), []
            for kind, members in kinds.items():
                # Named by their places: in gradient release every tensor is row 0 of a launch of its own.
                slot = ("step", kind, *(entries[i].index.base for i in members))
                self._launches.append(_Launch(kind, members, [entries[i] for i in members], slot))
        return self._launches

    def table(
        self,
        slot: Any,
        entries: Sequence[Entry],
        rows: Sequence[int],
        random: bool,
        places: Sequence[int] | None = None,
    ) -> _Table:
        """The tables of a launch; `slot` names the launch, so that the next step finds them.

        `places`: where each entry's results go, for a launch that has some: then no chunk is cut in two.
        """
        unit = self.config.block if places is None else self.config.chunk
        members = list(entries), list(rows), list(places or [0] * len(rows))
        grads = [entry.grad.data_ptr() for entry in entries]
        known, device = self._tables.get(slot), entries[0].param.device
        if known is not None and same_objects(known.members[0], entries) and known.members[1:] == members[1:]:
            if grads == known.grads:
                return known
            if known.aligned and not any(pointer % 16 for pointer in grads):
                # A copy: the last one may still be on its way to the device.
                table = known.rows.clone()
                table[:, 1] = torch.tensor(grads, dtype=torch.int64)
                found = replace(known, rows=table, grads=grads, entries=self.upload(table, device))
                self._tables[slot] = found
                return found
        layout = [(entry.param.numel(), _is_aligned(entry, random)) for entry in entries]
        table = torch.tensor([_row(entry, *more) for entry, *more in zip(*members, strict=True)], dtype=torch.int64)
        if known is None or known.layout != layout:
            whole, ragged = _chunks(layout, self.config.chunk, unit)
            whole, ragged = self.upload(whole, device), self.upload(ragged, device)
        else:
            whole, ragged = known.whole, known.ragged
        aligned = all(done for _, done in layout)
        uploaded = self.upload(table, device)
        self._tables[slot] = _Table(members, layout, aligned, table, grads, uploaded, whole, ragged)
        return self._tables[slot]


def _pointers(entry: Entry) -> list[int]:
    tensors = (entry.param, entry.grad, entry.exp_avg, entry.exp_avg_sq, entry.low)
    return [0 if tensor is None else tensor.data_ptr() for tensor in tensors]


def _row(entry: Entry, row: int, place: int) -> list[int]:
    """A row of the table of entries; `place`: where its results go."""
    index = entry.index
    return [*_pointers(entry), index.base, entry.seed, entry.param.numel(), index.run, index.stride, row, place]


def _is_aligned(entry: Entry, random: bool) -> bool:
    """Whether blocks of it need no masks."""
    aligned = all(pointer % 16 == 0 for pointer in _pointers(entry))
    return aligned and not (random and (entry.index.base % 8 or not entry.contiguous_index()))


def _chunks(layout: Sequence[tuple[int, bool]], chunk: int, unit: int) -> tuple[Tensor, Tensor]:
    """int64 `[n, 3]` of (entry, first element, elements): chunks of whole units of aligned tensors, and the rest."""
    whole, ragged = [torch.zeros(0, 3, dtype=torch.int64)], [torch.zeros(0, 3, dtype=torch.int64)]
    for i, (numel, aligned) in enumerate(layout):
        cut = numel - numel % unit if aligned else 0
        for found, first, end in ((whole, 0, cut), (ragged, cut, numel)):
            starts = torch.arange(first, end, chunk)
            found.append(torch.stack((torch.full_like(starts, i), starts, (end - starts).clamp(max=chunk)), dim=1))
    return torch.cat(whole), torch.cat(ragged)


def run_step(
    entries: Sequence[Entry],
    rows: Sequence[int],
    scalars: Tensor,
    grad_scale: Tensor | None,
    *,
    backend: str,
    cache: StepCache,
    count_stale: bool,
) -> Tensor | None:
    """Update every entry in place with its row of `scalars` (float32 `[n_rows, 9]`, see `modes.SCALARS`).

    Returns:
        int64 `[len(entries)]`: how many stored weights of each entry stayed as they were; None unless `count_stale`.
    """
    if backend == "reference":
        return _run_reference(entries, rows, scalars, grad_scale, count_stale)
    counts: list[Tensor] = [scalars] * len(entries)
    for kind, members, chosen, slot in cache.launches(entries):
        table = cache.table(slot, chosen, [rows[i] for i in members], kind.random)
        stale = _launch_step(kind, table, scalars, grad_scale, cache.config, count_stale)
        for i, count in zip(members, stale.unbind(), strict=False):
            counts[i] = count
    return torch.stack(counts) if count_stale else None


def fast_cpu(tensor: Tensor) -> bool:
    """Whether the reference has its fast form for this tensor."""
    return tensor.device.type == "cpu" and sys.byteorder == "little"


def _run_reference(
    entries: Sequence[Entry], rows: Sequence[int], scalars: Tensor, grad_scale: Tensor | None, count_stale: bool
) -> Tensor | None:
    if not fast_cpu(entries[0].param):
        done = [reference.adamw_step(e, scalars[row], grad_scale) for e, row in zip(entries, rows, strict=True)]
        return torch.stack(done) if count_stale else None
    table, members = [scalars[row] for row in rows], None
    if not count_stale:
        # Counts are wanted per tensor, and seldom.
        entries, table, members = small.merge(entries, table)
    columns = [row.unbind() for row in table]
    counts = cpu.for_each_block(
        [len(entry.param) for entry in entries],
        lambda i, part, scratch: cpu.step_block(entries[i], part, columns[i], grad_scale, scratch, count_stale),
    )
    for entry, parts in zip(entries, members or (), strict=False):
        if parts:
            small.scatter(entry, parts)
    return torch.tensor(counts, dtype=torch.float64).long() if count_stale else None


def _launch_step(
    kind: _Kind, table: _Table, scalars: Tensor, grad_scale: Tensor | None, config: LaunchConfig, count_stale: bool
) -> Tensor:
    from .kernel import adamw_kernel

    counts = torch.zeros(len(table.layout) if count_stale else 0, dtype=torch.int64, device=scalars.device)
    for ragged, chunks in ((False, table.whole), (True, table.ragged)):
        if not len(chunks):
            continue
        stale = torch.empty(len(chunks) if count_stale else 1, dtype=torch.int32, device=scalars.device)
        with torch.cuda.device_of(scalars):
            adamw_kernel[(len(chunks),)](
                table.entries,
                chunks,
                scalars,
                scalars if grad_scale is None else grad_scale,
                stale,
                WEIGHT_WIDE=kind.weight_wide,
                GRAD_WIDE=kind.grad_wide,
                STATE_WIDE=kind.state_wide,
                MODE=ROUNDINGS.index(kind.rounding),
                STOCHASTIC_VARIANCE=kind.stochastic_variance,
                CLIP=grad_scale is not None,
                COUNT_STALE=count_stale,
                EXACT=config.exact,
                RAGGED=ragged,
                BLOCK=config.block,
                num_warps=config.warps,
                enable_fp_fusion=not config.exact,
            )
        if count_stale:
            counts.index_add_(0, chunks[:, 0], stale.long())
    return counts
