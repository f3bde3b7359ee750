"""The paired bootstrap against scipy, against a plain loop, and against what it promises: 95 % means 95 %."""

import math
import random

import numpy as np
import pytest

from langadapt.errors import ConfigError
from langadapt.evaluation import bootstrap
from langadapt.evaluation.bootstrap import paired_difference, paired_items, resampled_sums


def documents(count: int, seed: int, better: float) -> tuple[list[float], list[float], list[int]]:
    """Bits under a new and an old model, and bytes: sizes over two orders of magnitude, models that agree on what is
    hard."""
    chance = np.random.default_rng(seed)
    sizes = np.exp(chance.normal(7, 1, count)).astype(int) + 20
    old = sizes * (2 + 0.5 * chance.normal(size=count).clip(-2, 2))
    new = old * (1 - better + 0.05 * chance.normal(size=count))
    return new.tolist(), old.tolist(), sizes.tolist()


@pytest.mark.parametrize(("count", "seed"), [(12, 1), (80, 2), (400, 3)])
def test_interval_is_that_of_scipy(count: int, seed: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    new, old, sizes = documents(count, seed, 0.02)
    found = paired_difference(new, old, sizes)

    def relative(new: np.ndarray, old: np.ndarray, axis: int = -1) -> np.ndarray:
        return new.sum(axis=axis) / old.sum(axis=axis) - 1

    settings = {"paired": True, "method": "percentile", "n_resamples": 9999, "rng": np.random.default_rng(0)}
    wanted = stats.bootstrap((new, old), relative, **settings).confidence_interval
    assert found.interval is not None
    width = wanted.high - wanted.low
    assert found.interval == pytest.approx((wanted.low, wanted.high), abs=0.04 * width)
    assert found.relative == pytest.approx(sum(new) / sum(old) - 1)
    assert found.bits_per_byte == pytest.approx((sum(new) - sum(old)) / sum(sizes))


def test_interval_is_that_of_a_plain_loop() -> None:
    new, old, sizes = documents(30, 4, 0.01)
    chance, found = random.Random(5), []
    for _ in range(6000):
        drawn = [chance.randrange(30) for _ in range(30)]
        bits = [sum(values[at] for at in drawn) for values in (new, old, sizes)]
        found.append((bits[0] - bits[1]) / bits[2])
    found.sort()
    interval = paired_difference(new, old, sizes).bits_interval
    assert interval == pytest.approx((found[149], found[5850]), abs=0.06 * (found[5850] - found[149]))


def test_interval_holds_the_truth_as_often_as_it_says() -> None:
    held = 0
    for seed in range(400):
        new, old, sizes = documents(60, seed, 0.0)
        low, high = paired_difference(new, old, sizes, resamples=500).interval or (math.nan, math.nan)
        held += low <= 0 <= high
    # 380 are due; a percentile interval of 60 documents of very different sizes is a little narrow.
    assert 352 <= held <= 396


def test_a_difference_of_single_documents_is_not_one_of_models() -> None:
    """What both models find hard cancels: resampled apart, this difference would be lost in the noise."""
    _, old, sizes = documents(60, 6, 0.0)
    new = [bits * 0.99 for bits in old]
    low, high = paired_difference(new, old, sizes).interval or (0.0, 0.0)
    assert (low, high) == pytest.approx((-0.01, -0.01))
    drawn = resampled_sums(np.array([new, sizes]), 2000, 0), resampled_sums(np.array([old, sizes]), 2000, 1)
    apart = drawn[0][0] / drawn[0][1] - drawn[1][0] / drawn[1][1]
    assert np.quantile(apart, 0.025) < 0 < np.quantile(apart, 0.975)


def test_same_seed_same_interval_whatever_is_drawn_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    new, old, sizes = documents(50, 7, 0.0)
    first = paired_difference(new, old, sizes)
    assert paired_difference(new, old, sizes) == first
    assert paired_difference(new, old, sizes, seed=1) != first
    monkeypatch.setattr(bootstrap, "DRAWN_AT_ONCE", 50 * 1000)
    again = paired_difference(new, old, sizes)
    assert again.interval == pytest.approx(first.interval, abs=0.05 * (first.interval[1] - first.interval[0]))  # type: ignore[index]


def test_few_documents_and_none() -> None:
    one = paired_difference([10.0], [20.0], [5])
    assert (one.relative, one.bits_per_byte, one.documents, one.interval) == (-0.5, -2.0, 1, None)
    assert paired_difference([0.0, 8.0], [0.0, 10.0], [0, 5]).interval == pytest.approx((-0.2, -0.2))
    for lists in (([], [], []), ([1.0], [1.0], []), ([1.0], [0.0], [1]), ([1.0], [1.0], [0])):
        with pytest.raises(ConfigError, match="all are to be of the same documents"):
            paired_difference(*lists)


def test_items_of_a_task_are_compared_in_pairs() -> None:
    generator = np.random.default_rng(3)
    old = (generator.random(400) < 0.5).astype(float)
    # One in ten wrong answers becomes right, nothing else changes: apart, 0.05 would be lost in 2 x 0.025.
    new = np.where((old == 0) & (generator.random(400) < 0.1), 1.0, old)
    found = paired_items(new.tolist(), old.tolist())
    assert found is not None and found.difference == pytest.approx(float((new - old).mean()))
    assert 0 < found.interval[0] < found.difference < found.interval[1]
    assert found.detectable == pytest.approx(2.8 * float((new - old).std(ddof=1)) / 20, rel=0.01)
    assert paired_items(old.tolist(), old.tolist()) == bootstrap.ItemDifference(0.0, (0.0, 0.0), 0.0)
    assert paired_items([1.0], [0.0]) is None and paired_items([1.0, 0.0], [0.0]) is None


def test_the_detectable_difference_is_seen_four_times_out_of_five() -> None:
    generator, seen, gain = np.random.default_rng(4), 0, 0.05
    for _ in range(300):
        old = (generator.random(500) < 0.4).astype(float)
        new = np.where(generator.random(500) < 0.3, (generator.random(500) < 0.4 + gain / 0.3).astype(float), old)
        error = float((new - old).std(ddof=1)) / math.sqrt(500)
        seen += float((new - old).mean()) > 1.96 * error
    expected = paired_items(new.tolist(), old.tolist())
    assert expected is not None and expected.detectable == pytest.approx(gain, rel=0.2) and 0.7 < seen / 300 < 0.9
