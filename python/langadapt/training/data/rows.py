"""A row for each document: windows taken apart for models that would mix the documents of one.

A recurrent state runs on from one document to the next, and a model without position ids does not know where one
begins. The windows of a step stay what they are; their documents go, longest first, into forward passes whose rows
begin with a document each and are as long as the longest of them. No document of a pass is shorter than three quarters
of another: of 64 windows of 512 tokens with six documents each, in passes of eight, 13 % of the positions are padding,
and 8 passes become 17.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from langadapt.training.data.batches import IGNORE, Batch, Integers

MULTIPLE = 8
"""Of which rows are as long: few shapes for compilers, whole tiles for matrix products."""


@dataclass(frozen=True)
class Part:
    """What one forward pass sees; arrays are ``[rows, length]``, int64, and ``sources`` ``[rows]``."""

    input_ids: Integers
    labels: Integers
    positions: Integers
    sources: Integers

    def on(self, device: torch.device) -> list[Tensor]:
        """All four, on their way to the device."""
        tensors = [torch.tensor(array) for array in (self.input_ids, self.labels, self.positions, self.sources)]
        gpu = device.type == "cuda"
        return [tensor.pin_memory().to(device, non_blocking=True) if gpu else tensor for tensor in tensors]

    @property
    def documents(self) -> int:
        """That begin in it."""
        return int(np.count_nonzero(self.positions == 0))


def windows(batch: Batch, size: int) -> list[Part]:
    """``size`` windows at a time, as they are packed."""
    arrays = (batch.input_ids, batch.labels, batch.positions, batch.sources)
    cuts = range(0, len(batch.sources), size)
    return [Part(*(array[start : start + size] for array in arrays)) for start in cuts]


def rows(batch: Batch, size: int) -> list[Part]:
    """The documents of a batch, each in a row of its own; a part has at most as many tokens as ``size`` windows."""
    length = batch.input_ids.shape[1]
    begins = batch.positions == 0
    begins[:, 0] = True
    first = np.flatnonzero(begins)
    lengths = np.diff(np.append(first, begins.size))
    # Padding is a row of single tokens that nobody learns.
    learnt = (lengths > 1) | (batch.labels.reshape(-1)[first] != IGNORE)
    first, lengths = first[learnt], lengths[learnt]
    order = np.argsort(-lengths, kind="stable")
    return [part(batch, first[some], lengths[some]) for some in passes(lengths[order], length, size, order)]


def passes(lengths: Integers, length: int, size: int, order: Integers) -> Iterator[Integers]:
    """``order`` in pieces, each for a pass; ``lengths`` fall, none is above ``length``."""
    place = 0
    while place < len(lengths):
        longest = int(lengths[place])
        most = max(size * length // min(padded(longest), length), 1)
        alike = int(np.searchsorted(-lengths, -(longest * 3 // 4), side="right"))
        stop = min(place + most, max(alike, place + 1))
        yield order[place:stop]
        place = stop


def padded(length: int) -> int:
    """``length`` rounded up."""
    return -(-length // MULTIPLE) * MULTIPLE


def part(batch: Batch, first: Integers, lengths: Integers) -> Part:
    """Documents that begin at ``first``, counted over all windows, padded on the right: nothing before looks there."""
    width = min(padded(int(lengths.max())), batch.input_ids.shape[1])
    inside = np.arange(width) < lengths[:, None]
    index = np.where(inside, first[:, None] + np.arange(width), first[:, None])
    ids, labels = batch.input_ids.reshape(-1)[index], batch.labels.reshape(-1)[index]
    positions = np.broadcast_to(np.arange(width), ids.shape)
    return Part(ids, np.where(inside, labels, IGNORE), positions, batch.sources[first // batch.input_ids.shape[1]])


def idle(like: Part) -> Part:
    """A pass that teaches nothing, for processes that have fewer of them than others."""
    return Part(like.input_ids[:1], np.full_like(like.labels[:1], IGNORE), like.positions[:1], like.sources[:1])
