"""Which tokens a step trains on: a pure function of (seed, step), whatever the number of processes or restarts.

Windows of a source are packed once (`packing`); every epoch visits them in another order. Sources are mixed by share of
tokens (`slots`).
"""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from langadapt.errors import ConfigError, DataError
from langadapt.training.data.packing import Packing, pack
from langadapt.training.data.slots import stretches

IGNORE = -100
"""Label of a position that is not learnt (padding)."""

Integers = NDArray[np.int64]


class Store(Protocol):
    """What training needs of a token store."""

    @property
    def tokens(self) -> NDArray[Any]:
        """All token ids, end to end."""

    @property
    def offsets(self) -> NDArray[Any]:
        """Bounds of documents."""

    @property
    def manifest(self) -> dict[str, Any]:
        """`manifest.json`."""


@dataclass
class StoreShare:
    """A token store with its share of the training tokens."""

    store: Any
    """The store, or its folder."""
    weight: float = 1.0
    """Share of tokens, relative to the other sources'."""
    name: str = ""
    """For logs, such as ``target``; the folder's name if empty."""
    max_repeats: float | None = None
    """Passes over it at most; from then on its share goes to the others in proportion."""

    @property
    def described(self) -> str:
        """For what is compared when a run goes on."""
        limit = "" if self.max_repeats is None else f", {self.max_repeats:g} times at most"
        return f"{self.name} at weight {self.weight:g}{limit}"


@dataclass(frozen=True)
class Batch:
    """Windows of one process for one step; arrays are ``[windows, sequence_length]``, int64."""

    input_ids: Integers
    labels: Integers
    """The next token of the same document, or `IGNORE`."""
    positions: Integers
    """Position inside the piece, from 0."""
    sources: Integers
    """Source of each window, ``[windows]``."""
    documents: tuple[tuple[int, ...], ...]
    """Documents in each window."""
    learnt: int
    """Labels that are not `IGNORE`, over the windows of all processes."""


class Windows:
    """One source's documents, packed, in an order that depends on the seed and the epoch."""

    def __init__(
        self,
        store: Store,
        name: str,
        length: int,
        *,
        start: int | None,
        end: int | None,
        seed: int,
        ids: int | None = None,
    ) -> None:
        """``start`` and ``end``: tokens set before and after every document, or none, as for a store that says which of
        its tokens are learnt. ``ids``: how many there are; a larger one is a DataError as soon as it is read."""
        self.store, self.name, self.length = store, name, length
        self.start, self.end, self.seed, self.ids = start, end, seed, ids
        self.offsets = np.asarray(store.offsets).astype(np.int64)
        tokens = np.diff(self.offsets)
        if len(tokens) and (self.offsets[0] != 0 or tokens.min() < 0 or self.offsets[-1] != len(store.tokens)):
            raise DataError(
                f"store {name}: the bounds of its documents do not fit its {len(store.tokens)} tokens; "
                "tokenize the text again"
            )
        extra = (start is not None) + (end is not None)
        # An empty document teaches nothing but that documents may be empty.
        pairs = np.where(tokens > 0, np.maximum(tokens + extra - 1, 0), 0)
        self.packing: Packing = pack(pairs, length)
        if not len(self.packing):
            raise DataError(f"store {name}: no document with anything to learn; is the corpus empty?")
        # Of each piece: it goes on in the middle of a document, behind a start token that stands for what came before.
        # Models whose every pretraining window began with that token do not work without it: windows of Swahili cost
        # Gemma 3 270M 5.43 nats per token without, 4.05 with.
        self.is_continued = (self.packing.starts > 0) & (start is not None)
        self.learnt: NDArray[np.bool_] | None = getattr(store, "learnt", None)
        self.learnt_per_window = np.add.reduceat(self.learnt_per_piece(), self.packing.offsets[:-1])
        self.orders: dict[int, Integers] = {}

    def __len__(self) -> int:
        """Windows per epoch."""
        return len(self.packing)

    def learnt_per_piece(self) -> Integers:
        """Labels that are not `IGNORE` of each piece."""
        packing = self.packing
        if self.learnt is None:
            return packing.lengths - self.is_continued
        # The label of an input is the token after it.
        before = np.concatenate([[0], np.cumsum(self.learnt, dtype=np.int64)])
        first = self.offsets[packing.documents] + packing.starts + 1
        return before[first + packing.lengths] - before[first]

    def index(self, visits: Integers) -> Integers:
        """The window of each visit, counted from the start of the run."""
        epochs, places = np.divmod(visits, len(self))
        found = np.empty(len(visits), np.int64)
        for epoch in np.unique(epochs).tolist():
            mask = epochs == epoch
            found[mask] = self.order(epoch)[places[mask]]
        return found

    def order(self, epoch: int) -> Integers:
        """All windows in the order of ``epoch``."""
        if epoch not in self.orders:
            # Raw bits of a bit generator are the same in every numpy; its shuffles are not promised to be.
            key = hashlib.sha256(f"{self.seed} {self.name} {epoch}".encode()).digest()
            bits = np.random.Philox(key=np.frombuffer(key[:16], np.uint64)).random_raw(len(self))
            while len(self.orders) > 1:
                self.orders.pop(min(self.orders))
            self.orders[epoch] = np.argsort(bits, kind="stable")
        return self.orders[epoch]

    def fill(self, window: int, inputs: Integers, labels: Integers, positions: Integers) -> tuple[int, ...]:
        """Write one window into three rows and return its documents."""
        packing, place = self.packing, 0
        pieces = range(int(packing.offsets[window]), int(packing.offsets[window + 1]))
        for piece in pieces:
            start, pairs = int(packing.starts[piece]), int(packing.lengths[piece])
            tokens = self.sequence(int(packing.documents[piece]), start, start + pairs + 1)
            inputs[place : place + pairs] = tokens[:-1]
            labels[place : place + pairs] = tokens[1:]
            positions[place : place + pairs] = np.arange(pairs)
            if self.start is not None and self.is_continued[piece]:
                # The pair of a token and nothing before it would teach that texts begin in the middle.
                inputs[place], labels[place] = self.start, IGNORE
            if self.learnt is not None:
                first = int(self.offsets[packing.documents[piece]]) + start + 1
                labels[place : place + pairs][~self.learnt[first : first + pairs]] = IGNORE
            place += pairs
        # Padding at position 0 is a document of its own, token by token: nothing attends to it.
        inputs[place:] = self.end if self.end is not None else 0
        labels[place:] = IGNORE
        positions[place:] = 0
        return tuple(int(packing.documents[piece]) for piece in pieces)

    def sequence(self, document: int, start: int, stop: int) -> Integers:
        """Tokens ``start`` to ``stop`` of a document between its start and end tokens."""
        shift = self.start is not None
        begin, end = int(self.offsets[document]), int(self.offsets[document + 1])
        found = np.empty(stop - start, np.int64)
        low, high = max(start - shift, 0), min(stop - shift, end - begin)
        at = low + shift - start
        stored = self.store.tokens[begin + low : begin + high]
        if self.ids is not None and len(stored) and stored.max() >= self.ids:
            self.refuse(document, low, stored, self.ids)
        found[at : at + high - low] = stored
        if at and self.start is not None:
            found[0] = self.start
        if stop - shift > end - begin and self.end is not None:
            found[-1] = self.end
        return found

    def refuse(self, document: int, first: int, stored: NDArray[Any], ids: int) -> None:
        """Raise DataError for the ids of a document, from its token ``first`` on, of which one does not exist."""
        place = int(np.argmax(stored >= ids))
        raise DataError(
            f"store {self.name}: token {first + place} of document {document} is id {int(stored[place])}, but its "
            f"tokenizer has {ids} entries; the store is damaged, tokenize the text again"
        )


class Mixture:
    """Several sources by share of tokens; makes the batch of any step."""

    def __init__(
        self,
        sources: Sequence[Windows],
        weights: Sequence[float],
        sequences_per_step: int,
        max_repeats: Sequence[float | None] = (),
    ) -> None:
        """Weights are relative; sources of weight 0 are never visited. ``max_repeats``: of each source, none = any."""
        if len(sources) != len(weights) or not sources:
            raise ConfigError(f"{len(sources)} stores, but {len(weights)} weights")
        if min(weights) < 0 or sum(weights) <= 0:
            raise ConfigError(f"weights of stores: {list(weights)}; none may be negative and one must be above 0")
        self.sources, self.sequences_per_step = list(sources), sequences_per_step
        repeats = max_repeats or [None] * len(sources)
        self.stretches = stretches(
            weights,
            [
                None if most is None else max(int(most * len(one)), 1)
                for one, most in zip(sources, repeats, strict=True)
            ],
        )
        self.parts = self.stretches[0].parts
        for windows, parts in zip(self.sources, self.parts, strict=True):
            share = parts / sum(self.parts)
            if len(windows) < int(share * sequences_per_step):
                raise DataError(
                    f"store {windows.name}: its text fills {len(windows)} windows of {windows.length} tokens, fewer "
                    f"than the {int(share * sequences_per_step)} that one step takes from it; lower batch_tokens "
                    "(or batch_sequences) or sequence_length, or add text"
                )

    @property
    def names(self) -> list[str]:
        """Of the sources."""
        return [windows.name for windows in self.sources]

    def visits(self, slots: Integers) -> tuple[Integers, Integers]:
        """(source, how often it was visited before) of each slot."""
        source, visit = self.stretches[0].visits(slots)
        for stretch in self.stretches[1:]:
            later = slots >= stretch.first
            if later.any():
                source[later], visit[later] = stretch.visits(slots[later])
        return source, visit

    def passes(self, steps: int) -> dict[str, float]:
        """How often each source is read in so many steps, by name."""
        slots = steps * self.sequences_per_step
        stretch = [one for one in self.stretches if one.first <= slots][-1]
        counts = zip(self.sources, stretch.counts(slots), strict=True)
        return {windows.name: round(count / len(windows), 4) for windows, count in counts}

    def slots(self, step: int) -> tuple[Integers, Integers]:
        """(source, window) of all windows of a step, over all processes."""
        first = step * self.sequences_per_step
        source, visit = self.visits(np.arange(first, first + self.sequences_per_step, dtype=np.int64))
        window = np.empty_like(visit)
        for number in np.unique(source).tolist():
            mask = source == number
            window[mask] = self.sources[number].index(visit[mask])
        return source, window

    def batch(self, step: int, rank: int = 0, processes: int = 1) -> Batch:
        """This process' windows of a step."""
        source, window = self.slots(step)
        learnt = sum(
            int(self.sources[number].learnt_per_window[window[source == number]].sum())
            for number in np.unique(source).tolist()
        )
        share = self.sequences_per_step // processes
        mine = slice(rank * share, (rank + 1) * share)
        source, window = source[mine], window[mine]
        shape = (len(source), self.sources[0].length)
        inputs, labels, positions = (np.empty(shape, np.int64) for _ in range(3))
        documents = tuple(
            self.sources[number].fill(int(window[row]), inputs[row], labels[row], positions[row])
            for row, number in enumerate(source.tolist())
        )
        return Batch(inputs, labels, positions, source, documents, learnt)

    def documents(self, step: int, most: int = 20) -> str:
        """The documents of a step by source, for people; of each source the first ``most``."""
        batch, found = self.batch(step), dict[str, set[int]]()
        for source, documents in zip(batch.sources.tolist(), batch.documents, strict=True):
            found.setdefault(self.sources[source].name, set()).update(documents)
        return "; ".join(
            f"{name}: {', '.join(map(str, sorted(numbers)[:most]))}{' ...' if len(numbers) > most else ''}"
            for name, numbers in found.items()
        )


def prefetch(make: Callable[[int], Any], steps: Iterator[int], depth: int = 2) -> Generator[Any, None, None]:
    """``make(step)`` for every step, made by a thread up to ``depth`` steps ahead; its errors are raised here."""
    ready: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(depth)
    stop = threading.Event()

    def put(item: tuple[Any, BaseException | None]) -> bool:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for step in steps:
                if not put((make(step), None)):
                    return
        except BaseException as error:
            put((None, error))

    thread = threading.Thread(target=work, name="langadapt-batches", daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            yield item
    finally:
        stop.set()
        thread.join()
