"""Which source a window of the run comes from: a rule that needs no history, so that any step is made from its number.

Slot i of the run, counted over all steps and processes, belongs to a source by error diffusion over the shares. Where a
source may be read so many times at most, a new stretch of slots begins with the slot at which it has been; there, the
others share by the weights that are left. Stretches follow from shares, sizes and limits alone, whatever the budget: a
run that is resumed or extended, on other processes, sees the same windows.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SHARES = 1 << 20
"""Weights are rounded to this many parts."""
LAST_SLOT = 1 << 40
"""Beyond the windows of any run."""

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Stretch:
    """Slots over which the shares stay."""

    first: int
    parts: list[int]
    """Of each source; 0 for one that has been read as often as it may."""
    before: list[int]
    """Visits of each source before this stretch."""

    def visits(self, slots: Integers) -> tuple[Integers, Integers]:
        """(source, how often it was visited before) of each slot: one source against the rest, again and again."""
        used = [number for number, parts in enumerate(self.parts) if parts] or [0]
        source = np.full(len(slots), used[-1], np.int64)
        visit, open_slots = slots - self.first, np.ones(len(slots), bool)
        rest = sum(self.parts)
        for number, parts in enumerate(self.parts[: used[-1]]):
            before = (visit * parts + rest // 2) // rest
            mine = open_slots & (((visit + 1) * parts + rest // 2) // rest > before)
            source[mine] = number
            visit = np.where(mine, before, np.where(open_slots, visit - before, visit))
            open_slots &= ~mine
            rest = max(rest - parts, 1)
        return source, visit + np.asarray(self.before)[source]

    def counts(self, slots: int) -> list[int]:
        """Visits of each source before the slot of this number."""
        found, left, rest = list(self.before), slots - self.first, sum(self.parts)
        for number, parts in enumerate(self.parts):
            mine = (left * parts + rest // 2) // rest if parts < rest else left
            found[number] += mine
            left, rest = left - mine, max(rest - parts, 1)
        return found

    def end_of(self, source: int, limit: int) -> int:
        """The first slot before which a source was visited ``limit`` times."""
        return bisect_left(range(LAST_SLOT), limit, lo=self.first, key=lambda slot: self.counts(slot)[source])


def stretches(weights: Sequence[float], limits: Sequence[int | None]) -> list[Stretch]:
    """All stretches of a run; ``limits``: visits of each source at most.

    The last one is of the sources without a limit or, where each has one, of those that last longest: a run ends with
    its budget.
    """
    parts = [round(weight / sum(weights) * SHARES) for weight in weights]
    found = [Stretch(0, parts, [0] * len(parts))]
    while True:
        last = found[-1]
        ends = {
            number: last.end_of(number, limit)
            for number, limit in enumerate(limits)
            if limit is not None and last.parts[number]
        }
        end = min(ends.values(), default=LAST_SLOT)
        left = [0 if ends.get(number) == end else share for number, share in enumerate(last.parts)]
        if end >= LAST_SLOT or not any(left):
            return found
        found.append(Stretch(end, left, last.counts(end)))
