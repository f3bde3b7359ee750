"""Texts a few at a time: the first ones of a corpus, or all in lists of bounded size."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

BATCH_CHARACTERS = 4_000_000
"""Text from Python that is worked on at a time: enough for all threads, little to hold."""


def batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """All ``texts`` in lists of about :data:`BATCH_CHARACTERS` each."""
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def split_evenly(texts: list[str], limit: float) -> tuple[list[str], list[str]]:
    """``texts`` in two: about ``limit`` UTF-8 bytes of them, at most half, evenly spread; and all others, in order.

    Documents stand by source and date: the first ones of a corpus are often of one kind.
    """
    share = min(0.5, limit / max(1, sum(len(text.encode()) for text in texts)))
    # A document is of the first part wherever the running share steps over a whole number.
    steps = [math.floor((at + 1) * share) - math.floor(at * share) for at in range(len(texts))]
    parts: tuple[list[str], list[str]] = ([], [])
    for text, first in zip(texts, steps, strict=True):
        parts[0 if first else 1].append(text)
    return parts


def first_bytes(texts: Iterable[str], limit: float = math.inf) -> list[str]:
    """The first of ``texts``, up to ``limit`` UTF-8 bytes but at least one."""
    found: list[str] = []
    size = 0
    for text in texts:
        size += len(text.encode())
        if found and size > limit:
            break
        found.append(text)
    return found


class Beginning:
    """Documents up to so many UTF-8 bytes, at least one; all of them where that is 0."""

    def __init__(self, texts: Iterable[str], limit: int) -> None:
        self.texts, self.limit = texts, limit
        self.cut = False
        """Whether something was left out, once read."""

    def __iter__(self) -> Iterator[str]:
        size = 0
        for text in self.texts:
            size += len(text.encode("utf-8", "surrogatepass"))
            if self.limit and size > self.limit and size > len(text.encode("utf-8", "surrogatepass")):
                self.cut = True
                return
            yield text
