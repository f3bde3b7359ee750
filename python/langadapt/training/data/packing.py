"""Documents into windows of equal length: nothing is cut off, almost nothing is padding.

A document of n + 1 tokens (start and end tokens included) makes n pairs of input and next token. Its pairs are cut into
as many full windows as they fill; the rest is one *piece*. Continuations repeat no pair and lose none: the first input
of a piece is the last target of the piece before (where documents have a start token, `batches` gives it the place of
that input, and the pair is not learnt). Pieces go into windows by best fit, longest first ("Fewer Truncations
Improve Language Modeling", arXiv 2404.10830); should windows stay emptier than `FULL` on the whole, the emptiest are
dissolved and their pieces laid end to end, split where a window ends.

Cost: best fit works on counts per length, so it takes time in the number of different lengths; the rest is numpy over
pieces. Ten million documents take seconds. Counts are int64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FULL = 0.998
"""Share of positions that must hold a pair before windows are dissolved."""

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Packing:
    """Windows of up to ``length`` pairs; window w holds pieces ``offsets[w]`` to ``offsets[w + 1]``."""

    length: int
    """Pairs per window."""
    offsets: Integers
    """Bounds of windows in the three arrays below; one more entry than windows."""
    documents: Integers
    """Document that a piece belongs to."""
    starts: Integers
    """Index of the piece's first input in its document, start token included."""
    lengths: Integers
    """Pairs in the piece."""

    def __len__(self) -> int:
        """Number of windows."""
        return len(self.offsets) - 1

    @property
    def fullness(self) -> float:
        """Share of positions that hold a pair."""
        return float(self.lengths.sum()) / (len(self) * self.length) if len(self) else 1.0


def pack(pairs: Integers, length: int, full: float = FULL) -> Packing:
    """Pack documents of ``pairs`` pairs each (0 allowed) into windows of ``length``; no order of windows is meant."""
    pairs = np.asarray(pairs, dtype=np.int64)
    whole, rest = pairs // length, pairs % length
    # Full windows first: document repeated once per window, start counting up inside the document.
    documents = np.repeat(np.arange(len(pairs)), whole)
    first = np.repeat(np.cumsum(whole) - whole, whole)
    starts = (np.arange(len(documents)) - first) * length
    remaining = np.flatnonzero(rest)
    bins, bin_of = best_fit(rest[remaining], length)
    order = np.argsort(bin_of, kind="stable")
    pieces = Pieces(remaining[order], (whole * length)[remaining[order]], rest[remaining[order]], bin_of[order])
    pieces = fill_up(pieces, bins, length, full, full_windows=len(documents))
    used = np.concatenate([np.ones(len(documents), np.int64), np.bincount(pieces.window)])
    return Packing(
        length,
        np.concatenate([[0], np.cumsum(used)]).astype(np.int64),
        np.concatenate([documents, pieces.documents]),
        np.concatenate([starts, pieces.starts]),
        np.concatenate([np.full(len(documents), length, np.int64), pieces.lengths]),
    )


@dataclass(frozen=True)
class Pieces:
    """Pieces sorted by window."""

    documents: Integers
    starts: Integers
    lengths: Integers
    window: Integers

    def take(self, index: NDArray[np.bool_]) -> Pieces:
        """Those under a mask."""
        return Pieces(self.documents[index], self.starts[index], self.lengths[index], self.window[index])


def best_fit(sizes: Integers, capacity: int) -> tuple[int, Integers]:
    """Best fit, longest first: (number of bins, bin of every item), for sizes in [1, capacity].

    Bins with equal room are interchangeable, and so are items of equal size: whole batches are placed at once.
    """
    order = np.argsort(-sizes, kind="stable")
    bin_of = np.empty(len(sizes), np.int64)
    counts = np.bincount(sizes, minlength=capacity + 1) if len(sizes) else np.zeros(capacity + 1, np.int64)
    # open_bins[r]: arrays of bins with room for r more; rooms: bit r is set where there are any, so that the tightest
    # room >= size is one shift and one lowest-bit away.
    open_bins: list[list[Integers]] = [[] for _ in range(capacity + 1)]
    rooms, bins, done = 0, 0, 0
    for size in np.flatnonzero(counts)[::-1].tolist():
        left = int(counts[size])
        while left:
            fitting = rooms >> size
            if fitting:
                room = size + (fitting & -fitting).bit_length() - 1
                batch = open_bins[room].pop()
                if len(batch) > left:
                    open_bins[room].append(batch[left:])
                    batch = batch[:left]
                if not open_bins[room]:
                    rooms &= ~(1 << room)
            else:
                # As many new bins as the rest needs if each takes all it can hold of this size.
                room = capacity
                batch = np.arange(bins, bins + -(-left // (capacity // size)), dtype=np.int64)
                bins += len(batch)
            bin_of[order[done : done + len(batch)]] = batch
            done, left = done + len(batch), left - len(batch)
            if room > size:
                open_bins[room - size].append(batch)
                rooms |= 1 << (room - size)
    return bins, bin_of


def fill_up(pieces: Pieces, bins: int, length: int, full: float, *, full_windows: int) -> Pieces:
    """Dissolve the emptiest of ``bins`` windows until all windows together are ``full``, at the price of splits."""
    filled = np.bincount(pieces.window, weights=pieces.lengths, minlength=bins).astype(np.int64)
    order = np.argsort(-filled, kind="stable")
    kept = np.concatenate([[0], np.cumsum(filled[order])])
    windows = np.arange(bins + 1)
    # Keeping the k fullest and laying the rest end to end wastes only what the k lack, and the end of the last window.
    lacking = windows * length - kept
    allowed = (1 - full) * (full_windows * length + kept[-1])
    keep = int(np.flatnonzero(lacking <= allowed)[-1])
    if keep == bins:
        return pieces
    rank = np.empty(bins, np.int64)
    rank[order] = np.arange(bins)
    place = rank[pieces.window]
    whole = pieces.take(place < keep)
    loose = pieces.take(place >= keep)
    split = lay_end_to_end(loose, length, keep)
    window = np.concatenate([place[place < keep], split.window])
    by_window = np.argsort(window, kind="stable")
    return Pieces(
        np.concatenate([whole.documents, split.documents])[by_window],
        np.concatenate([whole.starts, split.starts])[by_window],
        np.concatenate([whole.lengths, split.lengths])[by_window],
        window[by_window],
    )


def lay_end_to_end(pieces: Pieces, length: int, first_window: int) -> Pieces:
    """Cut the concatenation of ``pieces`` at multiples of ``length``."""
    ends = np.cumsum(pieces.lengths)
    total = int(ends[-1]) if len(ends) else 0
    cuts = np.union1d(ends, np.arange(length, total, length))
    begins = np.concatenate([[0], cuts[:-1]]).astype(np.int64)
    owner = np.searchsorted(ends, begins, side="right")
    starts = pieces.starts[owner] + begins - (ends - pieces.lengths)[owner]
    return Pieces(pieces.documents[owner], starts, cuts - begins, first_window + begins // length)
