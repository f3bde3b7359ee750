"""One step over many tensors, by the chosen implementation.

For Triton, tensors are bucketed by dtypes and rounding, and each bucket is one launch over the whole blocks of all
its tensors and, where something is left, one over that; whole blocks with gradients at odd addresses are a third.
Programs find their tensor through two tables on the device: `entries` (addresses and places, one row per tensor;
uploaded again when an address changes) and `chunks` (one row per program; depends on sizes and alignment alone).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import cpu, reference
from .entries import same_objects
from .modes import ROUNDINGS, ChunkRow, Entry, EntryRow

_GRAD, _ENTRY = EntryRow._fields.index("grad"), ChunkRow._fields.index("entry")


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
    frozen: bool
    state_coded: bool

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
            entry.frozen is not None,
            entry.exp_avg_scale is not None,
        )

    @property
    def random(self) -> bool:
        return self.rounding == "stochastic" or self.stochastic_variance


class Fit(IntEnum):
    """How the blocks of a tensor are accessed."""

    RAGGED = 0
    """With masks, element by element."""
    SHIFTED = 1
    """At multiples of 16 bytes, but for the gradient."""
    WHOLE = 2


class Slot(NamedTuple):
    """Names a launch, so that the next step finds its tables: what it is for, and which tensors it takes."""

    purpose: str
    kind: Any
    members: tuple[int, ...]


@dataclass(frozen=True)
class _Table:
    """The tables of one launch.

    They hold as long as the entries are the same objects in the same rows and places, for an entry whose parameter or
    state moves is made anew. Gradients may be exchanged for others that are `shifted` as these.
    """

    members: tuple[list[Entry], list[int], list[int]]  # entries, rows and places
    layout: list[tuple[int, Fit]]  # elements of each; decides on the chunks
    grads: list[int]  # addresses
    shifted: list[bool]  # whether they are no multiples of 16
    host: Tensor  # int64 [n_entries, len(EntryRow)]
    entries: Tensor  # the same on the device
    chunks: dict[Fit, Tensor]  # int64 [n_chunks, len(ChunkRow)]


class _Launch(NamedTuple):
    """Entries that are stepped by one launch, by their positions and themselves."""

    kind: _Kind
    members: list[int]
    entries: list[Entry]
    slot: Slot


@dataclass
class StepCache:
    """Tables that steps over the same tensors share."""

    config: LaunchConfig = field(default_factory=LaunchConfig)
    _tables: dict[Slot, _Table] = field(default_factory=dict)
    _masks: dict[tuple[torch.device, int, tuple[int, ...]], Tensor] = field(default_factory=dict)
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
        key = (device, count, tuple(rows))
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
                slot = Slot("step", kind, tuple(entries[i].index.base for i in members))
                self._launches.append(_Launch(kind, members, [entries[i] for i in members], slot))
        return self._launches

    def table(
        self,
        slot: Slot,
        entries: Sequence[Entry],
        rows: Sequence[int],
        *,
        random: bool,
        places: Sequence[int] | None = None,
    ) -> _Table:
        """The tables of a launch.

        `places`: where each entry's results go, for a launch that has some: then no chunk is cut in two.
        """
        members = list(entries), list(rows), list(places or [0] * len(rows))
        grads = [entry.grad.data_ptr() for entry in entries]
        known, device = self._tables.get(slot), entries[0].param.device
        if known is not None and same_objects(known.members[0], entries) and known.members[1:] == members[1:]:
            if grads == known.grads:
                return known
            if [_shifted(pointer) for pointer in grads] == known.shifted:
                # A copy: the last one may still be on its way to the device.
                host = known.host.clone()
                host[:, _GRAD] = torch.tensor(grads, dtype=torch.int64)
                found = replace(known, host=host, grads=grads, entries=self.upload(host, device))
                self._tables[slot] = found
                return found
        unit = self.config.block if places is None else self.config.chunk
        layout = [(entry.param.numel(), _fit(entry, random)) for entry in entries]
        if known is not None and known.layout == layout:
            chunks = known.chunks
        else:
            cut = _chunks(layout, self.config.chunk, unit)
            chunks = {fit: self.upload(table, device) for fit, table in cut.items()}
        host = torch.tensor([_row(entry, *more) for entry, *more in zip(*members, strict=True)], dtype=torch.int64)
        shifted = [_shifted(pointer) for pointer in grads]
        found = _Table(members, layout, grads, shifted, host, self.upload(host, device), chunks)
        self._tables[slot] = found
        return found


def _row(entry: Entry, row: int, place: int) -> EntryRow:
    return EntryRow(
        weight=entry.param.data_ptr(),
        grad=entry.grad.data_ptr(),
        exp_avg=entry.exp_avg.data_ptr(),
        exp_avg_sq=entry.exp_avg_sq.data_ptr(),
        low=0 if entry.low is None else entry.low.data_ptr(),
        base=entry.index.base,
        run=entry.index.run,
        stride=entry.index.stride,
        seed=entry.seed,
        scalars=row,
        place=place,
        frozen=0 if entry.frozen is None else entry.frozen.data_ptr(),
        columns=entry.columns,
        exp_avg_scale=0 if entry.exp_avg_scale is None else entry.exp_avg_scale.data_ptr(),
        exp_avg_sq_scale=0 if entry.exp_avg_sq_scale is None else entry.exp_avg_sq_scale.data_ptr(),
    )


def _shifted(pointer: int) -> bool:
    return pointer % 16 != 0


def _fit(entry: Entry, random: bool) -> Fit:
    if random and (entry.index.base % 8 or not entry.contiguous_index()):
        return Fit.RAGGED
    written = (
        entry.param,
        entry.exp_avg,
        entry.exp_avg_sq,
        entry.low,
        entry.exp_avg_scale,
        entry.exp_avg_sq_scale,
    )
    if any(tensor is not None and _shifted(tensor.data_ptr()) for tensor in written):
        return Fit.RAGGED
    return Fit.SHIFTED if _shifted(entry.grad.data_ptr()) else Fit.WHOLE


def _chunks(layout: Sequence[tuple[int, Fit]], chunk: int, unit: int) -> dict[Fit, Tensor]:
    """int64 `[n, len(ChunkRow)]` for each fit that has chunks; where it is not RAGGED, these are of whole units."""
    found: dict[Fit, list[Tensor]] = {}
    for i, (numel, fit) in enumerate(layout):
        cut = 0 if fit == Fit.RAGGED else numel - numel % unit
        for kind, first, end in ((fit, 0, cut), (Fit.RAGGED, cut, numel)):
            if first < end:
                starts = torch.arange(first, end, chunk)
                columns = {
                    "entry": torch.full_like(starts, i),
                    "start": starts,
                    "elements": (end - starts).clamp(max=chunk),
                }
                found.setdefault(kind, []).append(torch.stack([columns[name] for name in ChunkRow._fields], dim=1))
    return {fit: torch.cat(tables) for fit, tables in found.items()}


def run_step(
    entries: Sequence[Entry],
    rows: Sequence[int],
    scalars: Tensor,
    grad_scale: Tensor | None,
    *,
    backend: str,
    cache: StepCache,
    count_stale: bool,
    exact: bool = False,
) -> Tensor | None:
    """Update every entry in place with its row of `scalars` (float32 `[n_rows, 9]`, see `modes.SCALARS`).

    `exact`: as `LaunchConfig.exact`, for this step.

    Returns:
        int64 `[len(entries)]`: how many stored weights of each entry stayed as they were; None unless `count_stale`.
    """
    if backend == "core":
        unmoved = cpu.step(entries, rows, scalars, grad_scale)
        return torch.tensor(unmoved, dtype=torch.int64) if count_stale else None
    if backend == "reference":
        done = [reference.adamw_step(e, scalars[row], grad_scale) for e, row in zip(entries, rows, strict=True)]
        return torch.stack(done) if count_stale else None
    counts: list[Tensor] = [scalars] * len(entries)
    for kind, members, chosen, slot in cache.launches(entries):
        table = cache.table(slot, chosen, [rows[i] for i in members], random=kind.random)
        config = replace(cache.config, exact=True) if exact else cache.config
        stale = _launch_step(kind, table, scalars, grad_scale, config=config, count_stale=count_stale)
        for i, count in zip(members, stale.unbind(), strict=False):
            counts[i] = count
    return torch.stack(counts) if count_stale else None


def _launch_step(
    kind: _Kind, table: _Table, scalars: Tensor, grad_scale: Tensor | None, *, config: LaunchConfig, count_stale: bool
) -> Tensor:
    from .kernel import adamw_kernel

    counts = torch.zeros(len(table.layout) if count_stale else 0, dtype=torch.int64, device=scalars.device)
    for fit, chunks in table.chunks.items():
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
                STATE_CODED=kind.state_coded,
                MODE=ROUNDINGS.index(kind.rounding),
                STOCHASTIC_VARIANCE=kind.stochastic_variance,
                FROZEN=kind.frozen,
                CLIP=grad_scale is not None,
                COUNT_STALE=count_stale,
                EXACT=config.exact,
                RAGGED=fit == Fit.RAGGED,
                SHIFTED=fit == Fit.SHIFTED,
                BLOCK=config.block,
                num_warps=config.warps,
                enable_fp_fusion=not config.exact,
            )
        if count_stale:
            counts.index_add_(0, chunks[:, _ENTRY], stale.long())
    return counts
