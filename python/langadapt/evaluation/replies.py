"""How well a model foresees replies: bits per byte of what the assistant says, given all that was said before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from langadapt.evaluation.bits_per_byte import totals, window_and_stride
from langadapt.evaluation.scoring import Scorer, Window
from langadapt.tokenizer.conversations import Example


def reply_bits(model: Any, measured: Sequence[Example], window: int | None = None) -> float:
    """Bits that ``model`` needs for each UTF-8 byte of the replies in ``measured``, each after all that came before it,
    as far as that fits into ``window`` tokens (default: the model's context, 2048 at most)."""
    window, _ = window_and_stride(model, window, None)
    nats: list[tuple[int, float]] = []
    # A template begins every conversation with the same token, but for one that makes a difference of the roles.
    for first in sorted({int(example.ids[0]) for example in measured}):
        own = [(number, example) for number, example in enumerate(measured) if example.ids[0] == first]
        windows = [piece for number, example in own for piece in pieces(example, number, window)]
        for _, found in Scorer(model, first, window, None).score(windows):
            nats += found
    return totals(nats, [example.text_bytes for example in measured], len(nats)).bits_per_byte


def pieces(example: Example, number: int, window: int) -> Iterator[Window]:
    """A window for each run of learnt tokens; several where a run is longer than half of one."""
    ids, at = example.ids.astype("i8"), 1
    while at < len(ids):
        stop = at
        while stop < len(ids) and example.learnt[stop] and stop - at < max(1, window // 2):
            stop += 1
        if stop > at:
            # The window's first input stands in for what is out of it, as in long documents.
            yield Window(ids[max(1, stop - window) : stop], stop - at, number)
        at = max(stop, at + 1)
