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
