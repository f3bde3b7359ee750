"""Many small tensors stepped as one, on a CPU: a step of theirs is all calls and hardly any arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .modes import ElementIndex, Entry

SMALL = 4096
"""Elements up to which a tensor is small: a scattered element costs eight times the random numbers."""
_CHANGED = ("param", "exp_avg", "exp_avg_sq", "low")


def merge(entries: Sequence[Entry], scalars: Sequence[Tensor]) -> tuple[list[Entry], list[Tensor], list[list[Entry]]]:
    """Join copies of the small tensors that are stepped alike.

    Args:
        entries: the tensors of a step.
        scalars: float32 `[9]` for each, see `modes.SCALARS`.

    Returns:
        Entries and scalars to step instead, and for each entry the small ones that it stands for, if any; `scatter`
        takes its results there.
    """
    groups: dict[Any, list[int]] = {}
    for i, entry in enumerate(entries):
        small = 0 < len(entry.param) <= SMALL
        groups.setdefault((_key(entry), *scalars[i].tolist()) if small else i, []).append(i)
    chosen = [[entries[i] for i in members] for members in groups.values()]
    joined = [_join(members) if len(members) > 1 else members[0] for members in chosen]
    firsts = [scalars[members[0]] for members in groups.values()]
    return joined, firsts, [members if len(members) > 1 else [] for members in chosen]


def _key(entry: Entry) -> tuple[Any, ...]:
    dtypes = (entry.param.dtype, entry.grad.dtype, entry.exp_avg.dtype)
    return (*dtypes, entry.rounding, entry.stochastic_variance, entry.seed)


def _join(members: list[Entry]) -> Entry:
    first = members[0]
    tensors: dict[str, Any] = {
        name: None if getattr(first, name) is None else torch.cat([getattr(entry, name) for entry in members])
        for name in (*_CHANGED, "grad")
    }
    random = first.rounding == "stochastic" or first.stochastic_variance
    places = torch.cat([entry.element_places(0, len(entry.param)) for entry in members]) if random else None
    index = ElementIndex(first.index.base, 1, 1)
    return replace(first, **tensors, index=index, places=places)


def scatter(joined: Entry, members: list[Entry]) -> None:
    """Take the results of a joined entry to the tensors that it stands for."""
    sizes = [len(entry.param) for entry in members]
    for name in _CHANGED:
        result = getattr(joined, name)
        if result is not None:
            torch._foreach_copy_([getattr(entry, name) for entry in members], result.split(sizes))
