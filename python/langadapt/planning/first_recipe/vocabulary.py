"""How large a new vocabulary should be: tokenizers of several sizes, learnt on a sample and measured on other text.

A larger vocabulary makes fewer tokens of a text, but each costs more arithmetic in the output matrix, and its rare rows
are seen too seldom to be learnt. Of the sizes whose rows occur often enough in the whole text, that is chosen which
trains on a byte of text with the least arithmetic. Often enough: training meets 95 % of the entries at least 100 times
(Gowda & May 2020, arXiv 2004.02334, who find the best vocabularies for translation so), in up to four passes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from langadapt.costs.flops import Shape
from langadapt.errors import ConfigError, DataError
from langadapt.planning.first_recipe.survey import Survey
from langadapt.progress import Progress
from langadapt.tokenizer.encoder import Tokenizer
from langadapt.tokenizer.options import BpeOptions
from langadapt.tokenizer.training import blueprint_of, train_bpe
from langadapt.trials.cutting import quietly

SIZES = (512, 1024, 2048, 4096, 8192, 16384, 24576, 32768, 49152, 65536, 98304, 131072)
OFTEN, SHARE = 100, 0.95
"""Occurrences that teach a row, and the share of rows that should have as many."""
PASSES = 4
"""Over the text, at most: more teach little (arXiv 2305.16264)."""
ALIKE = 1.02
"""Sizes whose arithmetic differs by less are alike: the smallest of them is taken."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Point:
    """One size."""

    size: int
    bytes_per_token: float
    """On text that it was not learnt from."""
    learnable: float
    """Share of its entries that training should meet :data:`OFTEN` times."""
    flops_per_byte: float
    """Of training, forward and backward."""


@dataclass(frozen=True)
class Curve:
    """All sizes that the sample bears, and the one to take."""

    points: list[Point]
    best: Point
    own: float | None
    """Bytes per token of the model's own tokenizer on the same text; none where it is not here."""
    like: bool
    """Whether a new tokenizer can be made after the model's own."""
    why: str
    """The choice, in a sentence."""


def curve(text: Survey, shape: Shape, window: int, *, tokenizer: str | None, progress: Progress | None = None) -> Curve:
    """Measure :data:`SIZES` on a sample of the text.

    Args:
        text: its sample is learnt from, its held-out documents are measured on.
        shape: the model's.
        window: tokens of a training window.
        tokenizer: folder of the model's own; none where that is not here.
    """
    own = None if tokenizer is None else Tokenizer.from_pretrained(tokenizer)
    like = own is not None and can_be_copied(own)
    with quietly():
        points = list(measured(text, shape, window, BpeOptions(like=own if like else None), progress=progress))
    if not points:
        raise ConfigError(f"{text.bytes / 1e3:,.0f} kB of text bear no vocabulary of {SIZES[0]:,} entries; add text")
    best, why = choose(points)
    mine = None if own is None else bytes_per_token(own, text.held_out)
    return Curve(points, best, mine, like, why)


def can_be_copied(own: Tokenizer) -> bool:
    """Whether new tokenizers can be made after the model's own: it is a BPE tokenizer."""
    try:
        blueprint_of(BpeOptions(like=own))
    except (ConfigError, DataError) as error:
        log.info("the model's tokenizer is no pattern for a new one: %s", error)
        return False
    return True


def measured(
    text: Survey, shape: Shape, window: int, chosen: BpeOptions, *, progress: Progress | None
) -> Iterator[Point]:
    """Points of growing size, to the second whose rows are too rare."""
    met = PASSES * text.bytes / max(text.sample_bytes, 1)
    too_rare = 0
    for size in SIZES:
        try:
            made = train_bpe(texts=text.sample, vocab_size=size, like=chosen.like)
        except ValueError:
            # Too few entries for the special tokens and the alphabet, or more than the sample has merges for.
            continue
        if progress is not None:
            progress("try vocabularies", size, SIZES[-1], "entries")
        counts = np.bincount(made.encode_batch(text.sample)[0], minlength=made.vocab_size)
        # Bytes and added tokens, of which some models' tokenizers hand on hundreds, are there whatever the text is.
        counts = np.sort(counts)[min(made.vocab_size - 1, len(made.added_tokens()) + 256) :]
        learnable = float((counts * met >= OFTEN).mean())
        per_token = bytes_per_token(made, text.held_out)
        flops = replace(shape, vocabulary=size).flops_per_token(window / 2) / per_token
        yield Point(size, per_token, learnable, flops)
        too_rare += learnable < SHARE
        if too_rare == 2:
            break


def bytes_per_token(tokenizer: Tokenizer, texts: Sequence[str]) -> float:
    """On ``texts``."""
    return sum(len(text.encode()) for text in texts) / max(len(tokenizer.encode_batch(texts)[0]), 1)


def choose(points: Sequence[Point]) -> tuple[Point, str]:
    """The size to take, and why."""
    learnable = [point for point in points if point.learnable >= SHARE]
    if not learnable:
        return points[0], "the smallest that was tried: the text is too short to teach the rows of more"
    least = min(point.flops_per_byte for point in learnable)
    best = next(point for point in learnable if point.flops_per_byte <= ALIKE * least)
    larger = next((point for point in points if point.size > best.size), None)
    if larger is None:
        return best, "the largest that was tried, and the cheapest per byte of text"
    saved = 100 * (1 - best.bytes_per_token / larger.bytes_per_token)
    if larger.learnable < SHARE:
        return best, (
            f"the largest of which training should meet {100 * SHARE:.0f} % of the entries {OFTEN} times; "
            f"{larger.size:,} would save {saved:.0f} % of the tokens, and {100 * (1 - larger.learnable):.0f} % of its "
            "entries would be rarer than that"
        )
    return best, (
        f"trains on a byte of text with the least arithmetic, within 2 %: {larger.size:,} would save {saved:.0f} % of "
        "the tokens and cost more for each"
    )
