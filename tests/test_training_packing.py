"""Windows hold every pair of every document once, in order, and are full; batches are a function of the step."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training_kit import MemoryStore

from langadapt.errors import ConfigError, DataError
from langadapt.training.data.batches import IGNORE, Mixture, Windows, prefetch
from langadapt.training.data.packing import best_fit, pack
from langadapt.training.data.slots import stretches


def naive_best_fit(sizes: list[int], capacity: int) -> int:
    """Bins of best fit, longest first, one item at a time."""
    rooms: list[int] = []
    for size in sorted(sizes, reverse=True):
        fitting = [room for room in rooms if room >= size]
        if fitting:
            rooms[rooms.index(min(fitting))] -= size
        else:
            rooms.append(capacity - size)
    return len(rooms)


@given(st.lists(st.integers(1, 16), max_size=60), st.integers(16, 24))
def test_best_fit_needs_as_many_bins_as_the_naive_one(sizes: list[int], capacity: int) -> None:
    bins, bin_of = best_fit(np.array(sizes, np.int64), capacity)
    filled = np.bincount(bin_of, weights=sizes, minlength=bins) if sizes else np.zeros(0)
    assert (filled <= capacity).all() and (filled > 0).all()
    assert bins == naive_best_fit(sizes, capacity)


@given(st.lists(st.integers(0, 200), min_size=1, max_size=80), st.integers(1, 64))
@settings(deadline=None)
def test_every_pair_is_packed_once_and_pieces_are_contiguous(pairs: list[int], length: int) -> None:
    packing = pack(np.array(pairs), length)
    seen: list[list[tuple[int, int]]] = [[] for _ in pairs]
    for window in range(len(packing)):
        pieces = range(packing.offsets[window], packing.offsets[window + 1])
        assert 0 < sum(packing.lengths[piece] for piece in pieces) <= length
        for piece in pieces:
            seen[packing.documents[piece]].append((int(packing.starts[piece]), int(packing.lengths[piece])))
    for count, parts in zip(pairs, seen, strict=True):
        place = 0
        for start, size in sorted(parts):
            assert start == place
            place += size
        assert place == count


@pytest.mark.parametrize("longest", [40, 300, 3000])
def test_windows_are_full_even_where_best_fit_alone_is_poor(longest: int) -> None:
    random = np.random.default_rng(0)
    pairs = random.integers(longest // 2 + 1, longest, 3000)
    packing = pack(pairs, 64 if longest < 64 else 256)
    assert packing.fullness >= 0.995
    # Splits are the exception where best fit does the job.
    assert len(packing.lengths) < 2 * len(pairs) + pairs.sum() / packing.length


def windows(store: MemoryStore, length: int = 32, start: int | None = 1, end: int | None = 2, seed: int = 0) -> Windows:
    return Windows(store, "target", length, start=start, end=end, seed=seed)


@pytest.mark.parametrize(("start", "end"), [(1, 2), (None, 2), (1, None), (None, None)])
def test_windows_give_back_the_documents(start: int | None, end: int | None) -> None:
    store = MemoryStore(longest=90)
    made = windows(store, start=start, end=end)
    pairs: dict[int, dict[int, tuple[int, int]]] = {}
    begun = zip(made.packing.documents.tolist(), made.packing.starts.tolist(), strict=True)
    continued = {(document, place) for document, place in begun if place}
    for window in range(len(made)):
        rows = [np.empty(32, np.int64) for _ in range(3)]
        documents = made.fill(window, *rows)
        packing = made.packing
        pieces = range(packing.offsets[window], packing.offsets[window + 1])
        begins = [place for place in range(32) if rows[2][place] == 0][: len(pieces)]
        assert len(documents) == len(pieces)
        assert made.learnt_per_window[window] == np.count_nonzero(rows[1] != IGNORE)
        for piece in pieces:
            begin = begins[piece - packing.offsets[window]]
            for offset in range(packing.lengths[piece]):
                assert rows[2][begin + offset] == offset
                pair = (int(rows[0][begin + offset]), int(rows[1][begin + offset]))
                pairs.setdefault(int(packing.documents[piece]), {})[int(packing.starts[piece]) + offset] = pair
    for document in range(len(store.offsets) - 1):
        text = store.tokens[int(store.offsets[document]) : int(store.offsets[document + 1])].tolist()
        whole = ([start] if start is not None else []) + text + ([end] if end is not None else [])
        got = pairs.get(document, {})
        expected = list(pairwise(whole))
        cuts = {place for place in continued if start is not None and place[0] == document}
        for _, place in cuts:
            expected[place] = (start, IGNORE)
        assert [got[place] for place in sorted(got)] == expected
    assert continued


def test_epochs_visit_every_window_once_and_differ() -> None:
    made = windows(MemoryStore())
    count = len(made)
    first, second = made.index(np.arange(count)), made.index(np.arange(count, 2 * count))
    assert sorted(first) == sorted(second) == list(range(count))
    assert (first != second).any()
    assert (windows(MemoryStore(), seed=1).index(np.arange(count)) != first).any()
    # The order of an epoch is fixed for good: runs of other versions resume with it.
    assert first[:4].tolist() == [59, 124, 130, 153]


def test_batches_depend_on_the_step_alone_and_divide_among_processes() -> None:
    def mixture() -> Mixture:
        return Mixture(
            [windows(MemoryStore(0)), Windows(MemoryStore(1), "source", 32, start=1, end=2, seed=0)], [3, 1], 8
        )

    one, other = mixture(), mixture()
    for step in (50, 3, 200):
        other.batch(step + 7)
        whole, again = one.batch(step), other.batch(step)
        assert (whole.input_ids == again.input_ids).all() and (whole.labels == again.labels).all()
        parts = [one.batch(step, rank, 4) for rank in range(4)]
        assert (np.concatenate([part.input_ids for part in parts]) == whole.input_ids).all()
        assert {part.learnt for part in parts} == {whole.learnt} == {int((whole.labels != IGNORE).sum())}


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=4), st.integers(0, 1000))
@settings(deadline=None, max_examples=30)
def test_shares_hold_over_any_stretch(weights: list[float], start: int) -> None:
    made = [Windows(MemoryStore(number), f"s{number}", 32, start=1, end=2, seed=0) for number in range(len(weights))]
    mixture = Mixture(made, weights, 4)
    source, visit = mixture.visits(np.arange(start, start + 400))
    for number, weight in enumerate(weights):
        mine = source == number
        assert abs(mine.sum() - 400 * weight / sum(weights)) <= len(weights)
        assert (np.diff(visit[mine]) == 1).all()


@given(
    st.lists(st.tuples(st.floats(0.01, 1), st.none() | st.integers(1, 60)), min_size=1, max_size=4),
    st.integers(0, 300),
)
@settings(deadline=None, max_examples=40)
def test_no_source_is_visited_more_often_than_it_may(shares: list[tuple[float, int | None]], stop: int) -> None:
    weights, limits = [weight for weight, _ in shares], [limit for _, limit in shares]
    found = stretches(weights, limits)
    source = [
        next(int(one.visits(np.array([slot]))[0][0]) for one in reversed(found) if one.first <= slot)
        for slot in range(300)
    ]
    last = next(one for one in reversed(found) if one.first <= stop)
    assert last.counts(stop) == [source[:stop].count(number) for number in range(len(shares))]
    for number, limit in enumerate(limits):
        if limit is not None and None in limits:
            assert source.count(number) <= limit


def test_a_share_goes_to_the_others_once_a_source_is_used_up() -> None:
    made = [Windows(MemoryStore(number), f"s{number}", 32, start=1, end=2, seed=0) for number in range(3)]
    mixture = Mixture(made, [0.5, 0.3, 0.2], 4, [0.5, None, None])
    used = int(0.5 * len(made[0]))
    steps = used  # of 4 windows: twice as many as the source lasts for
    source, visit = mixture.visits(np.arange(4 * steps))
    assert (source == 0).sum() == used and (source[mixture.stretches[1].first :] != 0).all()
    assert mixture.passes(steps)["s0"] == pytest.approx(0.5, abs=0.01)
    later = source[mixture.stretches[1].first :]
    assert (later == 1).mean() == pytest.approx(0.6, abs=0.01)
    for number in range(3):
        assert (np.diff(visit[source == number]) == 1).all()


def test_too_little_text_is_an_error_that_names_the_remedy() -> None:
    with pytest.raises(DataError, match="fewer than the 64 that one step takes from it; lower batch_tokens"):
        Mixture([windows(MemoryStore(documents=2))], [1], 64)
    empty = MemoryStore(documents=1)
    empty.offsets, empty.tokens = np.array([0, 0, 0], np.uint64), empty.tokens[:0]
    with pytest.raises(DataError, match="is the corpus empty"):
        windows(empty)
    with pytest.raises(ConfigError, match="none may be negative"):
        Mixture([windows(MemoryStore())], [-1], 1)


def test_prefetch_passes_errors_on_and_stops() -> None:
    def make(step: int) -> int:
        if step == 2:
            raise DataError("broken")
        return step

    batches = prefetch(make, iter(range(10)))
    assert [next(batches), next(batches)] == [0, 1]
    with pytest.raises(DataError, match="broken"):
        next(batches)
