"""Two models of a run compared: by what each held-out document cost them where that is known, else by their totals."""

from __future__ import annotations

from langadapt.evaluation.bootstrap import Difference, paired_difference
from langadapt.report import words
from langadapt.report.results import Results
from langadapt.report.summary import Row

SAME = 0.005
"""Relative difference below which two models count as alike whatever the interval: another seed of the same training
moved results by up to 0.010 bits of 2 (`docs/runs/embeddings_first.md`)."""
UNMEASURED = 0.05
"""The same where no interval is known, in results of earlier versions."""
TIMES = 9.0
"""Relative changes from here on are told as so many times, not as per cent."""
ENOUGH_DOCUMENTS = 50
"""Fewer held-out documents than this make intervals that are too narrow."""


def difference(results: Results, new: Row, old: Row, side: str) -> Difference | None:
    """``new`` against ``old`` on the tested text of one language; none where one was not measured on it."""
    after, before = new.bits[side], old.bits[side]
    if after is None or not before:
        return None
    held_out = results.held_out.get(side)
    sizes = held_out.document_bytes if held_out else []
    bits = [row.document_bits.get(side, []) for row in (new, old)]
    if sizes and all(len(one) == len(sizes) for one in bits) and sum(bits[1]) > 0:
        return paired_difference(bits[0], bits[1], sizes)
    return Difference(after / before - 1, after - before, 0)


def outcome(found: Difference) -> int:
    """-1 where the new model is better (fewer bits), 1 where it is worse, 0 where that cannot be told."""
    if found.interval is None:
        return 0 if abs(found.relative) < UNMEASURED else sign(found.relative)
    low, high = found.interval
    if low <= 0 <= high or abs(found.relative) < SAME:
        return 0
    return sign(found.relative)


def sign(value: float) -> int:
    """-1, 0 or 1."""
    return (value > 0) - (value < 0)


def compared(found: Difference, to: str) -> str:
    """``32.1 % fewer than before``, where ``to`` is ``before``."""
    if abs(found.relative) < 0.0005:
        return f"as many as {to}"
    return f"{share(found.relative)} {'as' if found.relative >= TIMES else 'than'} {to}"


def share(relative: float) -> str:
    """A relative change in words."""
    size = abs(relative)
    if relative >= TIMES:
        return f"{1 + relative:.3g} times as many"
    return f"{size:.1%} {'fewer' if relative < 0 else 'more'}".replace("%", f"{words.GAP}%")


def between(interval: tuple[float, float]) -> str:
    """An interval in words: ``95 % interval 30.2 % to 34.0 % fewer``."""
    low, high = interval
    if sign(low) != sign(high):
        return f"95{words.GAP}% interval from {share(low)} to {share(high)}"
    near, far = sorted((low, high), key=abs)
    # `1.4 % to 2.6 % fewer`: the word once.
    word = " fewer" if high < 0 else " more"
    first = share(near).removesuffix(word) if share(far).endswith(word) else share(near)
    return f"95{words.GAP}% interval {first} to {share(far)}"


def in_full(found: Difference, to: str) -> str:
    """``32.1 % fewer than before (95 % interval 30.2 % to 34.0 % fewer)``."""
    text = compared(found, to)
    return text if found.interval is None else f"{text} ({between(found.interval)})"
