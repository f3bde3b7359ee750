"""How sure a difference between two models is: a paired bootstrap over the documents that both were measured on.

Documents differ far more from each other than models do, so both models are resampled together: each resample draws as
many documents as there are, with replacement, and compares the two on the same draw (Efron & Tibshirani, *An
Introduction to the Bootstrap*, 1993, chapter 13; Koehn, "Statistical Significance Tests for Machine Translation
Evaluation", 2004). The interval says how far another set of documents of the same kind might move the difference. It
knows nothing of another seed of the training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from langadapt.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

RESAMPLES = 10_000
"""Enough for ends of a 95 % interval that another seed moves by about a fiftieth of its width."""
LEVEL = 0.95
DRAWN_AT_ONCE = 1 << 21
"""Document numbers drawn at a time: 16 MB of them."""


@dataclass(frozen=True)
class Difference:
    """The new model against the old one; below zero the new one is better."""

    relative: float
    """Bits of the new one over bits of the old one, less one; bits per byte give the same."""
    bits_per_byte: float
    """New less old."""
    documents: int
    """That both were measured on; 0 where nothing is known of single documents."""
    interval: tuple[float, float] | None = None
    """Of ``relative``, at :data:`LEVEL`; none for fewer than two documents."""
    bits_interval: tuple[float, float] | None = None
    """Of ``bits_per_byte``."""


def paired_difference(
    new: Sequence[float],
    old: Sequence[float],
    sizes: Sequence[int],
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Difference:
    """Compare two models by what each document cost them.

    Args:
        new: bits of each document under the new model.
        old: the same under the old model.
        sizes: UTF-8 bytes of each document.
        resamples: draws of as many documents as there are.
        level: share of the resamples that lies within the interval, the same share above and below it.
        seed: the same seed, the same interval.

    Raises:
        ConfigError: lists of different lengths, or without a byte or a bit.
    """
    import numpy as np

    table = np.array([new, old, sizes], dtype=np.float64) if len(new) == len(old) == len(sizes) else None
    if table is None or not (table[1:].sum(axis=1) > 0).all():
        raise ConfigError(
            f"bits of {len(new)} and {len(old)} documents, bytes of {len(sizes)}: all are to be of the same documents, "
            "at least one of them not empty"
        )
    whole = table.sum(axis=1)
    count = table.shape[1]
    relative, bits = float(whole[0] / whole[1] - 1), float((whole[0] - whole[1]) / whole[2])
    if count < 2:
        return Difference(relative, bits, count)
    sums = resampled_sums(table, resamples, seed)
    # A draw of empty documents alone compares nothing.
    sums = sums[:, (sums[1] > 0) & (sums[2] > 0)]
    ends = [(1 - level) / 2, (1 + level) / 2]
    low, high = np.quantile(sums[0] / sums[1] - 1, ends)
    lowest, highest = np.quantile((sums[0] - sums[1]) / sums[2], ends)
    return Difference(relative, bits, count, (float(low), float(high)), (float(lowest), float(highest)))


@dataclass(frozen=True)
class ItemDifference:
    """Two models on the same items of a task."""

    difference: float
    """Mean of the new one less mean of the old one."""
    interval: tuple[float, float]
    """Of it, at :data:`LEVEL`."""
    detectable: float
    """The smallest true difference that so many items, which the models answer as differently as these two did, would
    show four times out of five."""


POWERED = 1.96 + 0.84
"""Standard errors of a difference that is seen, at 5 %, with a power of 80 %."""


def paired_items(new: Sequence[float], old: Sequence[float], *, seed: int = 0) -> ItemDifference | None:
    """Compare two models by what each item of a task gave them; none for fewer than two items, or not the same.

    The items are resampled, both models together; the detectable difference is 2.8 standard errors of the paired
    difference (Card et al., "With Little Power Comes Great Responsibility", 2020).
    """
    import numpy as np

    if len(new) != len(old) or len(new) < 2:
        return None
    gained = np.array(new, dtype=np.float64) - np.array(old, dtype=np.float64)
    sums = resampled_sums(gained[None], RESAMPLES, seed)[0] / len(gained)
    low, high = np.quantile(sums, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    error = float(gained.std(ddof=1)) / math.sqrt(len(gained))
    return ItemDifference(float(gained.mean()), (float(low), float(high)), POWERED * error)


def resampled_sums(table: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """float64[rows, resamples]: sums of each row of ``table`` over documents (columns) drawn with replacement."""
    import numpy as np

    generator = np.random.default_rng(seed)
    count = table.shape[1]
    at_once = max(1, DRAWN_AT_ONCE // count)
    parts = []
    for start in range(0, resamples, at_once):
        drawn = generator.integers(count, size=(min(at_once, resamples - start), count))
        parts.append(np.stack([row[drawn].sum(axis=1) for row in table]))
    return np.concatenate(parts, axis=1)
