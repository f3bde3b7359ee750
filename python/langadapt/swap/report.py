"""What a swap does, in numbers, and a prognosis from them; whether it pays, only training and measuring tell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from langadapt.corpus.samples import first_bytes
from langadapt.swap.matching import VocabularyMatch
from langadapt.swap.overlap import overlap_report
from langadapt.swap.rows.options import SwapOptions
from langadapt.swap.rows.plan import RowPlan

MIN_GAIN = 0.1
"""Fewer tokens by less than this share do not pay for the retraining."""
MAX_MISSING = 0.5
"""With more rows than this share drawn at random, the start is hardly better than none."""
AS_WELL = 1.25
"""A model whose bits per byte of a language, by those of xz, come to no more than this many times what they come to in
its own language speaks both: one that has never seen the language needs as much as xz or more."""
SAMPLE_BYTES = 4_000_000
"""Text of which fertility is taken."""


@dataclass(frozen=True)
class TextCost:
    """Tokens of one text under both tokenizers."""

    bytes: int
    """UTF-8 bytes of the sample."""
    tokens_before: int
    """Under the source tokenizer."""
    tokens_after: int
    """Under the target tokenizer."""

    @property
    def saved(self) -> float:
        """Share of tokens saved; negative where the text gets longer."""
        return 1 - self.tokens_after / self.tokens_before if self.tokens_before else 0.0


@dataclass(frozen=True)
class SwapReport:
    """A swap in numbers."""

    method: str
    """How the rows of the input matrix were made."""
    output_method: str
    """How the rows of the output matrix were made."""
    tied: bool
    """Whether input and output are one matrix."""
    rows_before: int
    """Rows of the embedding matrices."""
    rows_after: int
    """The same, padded."""
    width: int
    """Columns of the input matrix."""
    parameters_before: int
    """Of the whole model."""
    parameters_after: int
    """Of the whole model."""
    copied: int
    """Target tokens whose row is a source row."""
    combined: int
    """Target tokens whose row is made of several source rows."""
    drawn: int
    """Target tokens without any source, padding rows not counted."""
    overlap: dict[str, Any] = field(default_factory=dict)
    """See :func:`langadapt.swap.overlap.overlap_report`."""
    target_text: TextCost | None = None
    """Cost of a sample of the target language, where given."""
    source_text: TextCost | None = None
    """Cost of a sample of the source language, where given."""
    notes: list[str] = field(default_factory=list)
    """What else a user should know."""
    ranking: list[dict[str, Any]] = field(default_factory=list)
    """Rows of the bake-off that chose the method, best first; empty where the method was given."""
    known: dict[str, float] = field(default_factory=dict)
    """What the source model can do already, by ``target`` and ``source``, where measured: its bits per byte over those
    of xz on the same text."""

    @property
    def prognosis(self) -> str:
        """What may be expected of the swap, in a sentence with its reasons; no verdict, which only training gives."""
        total = self.copied + self.combined + self.drawn
        missing = self.drawn / total if total else 1.0
        if self.target_text is None:
            word = "poor" if missing > MAX_MISSING else "open"
            rows = f"{missing:.1%} of the rows have no anchor"
            return f"Prognosis {word}: {rows}; give a sample of the target language to see what the swap saves."
        cost = None if self.source_text is None else -self.source_text.saved
        return prognosis(self.target_text.saved, cost, self.known, missing=missing)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "prognosis": self.prognosis}


def prognosis(
    saved: float, cost: float | None, known: Mapping[str, float], *, missing: float | None = None, about: str = ""
) -> str:
    """What may be expected of another tokenizer, from fertility and from what the model can do already.

    Args:
        saved: share of tokens saved on the target language.
        cost: share of tokens more on the source language, where measured.
        known: see :attr:`SwapReport.known`.
        missing: share of rows without an anchor, where known.
        about: what the shares are of, in brackets behind them.
    """
    facts = f"{abs(saved):.1%} {'fewer' if saved >= 0 else 'more'} tokens on the target language"
    if cost is not None:
        facts += f", {abs(cost):.1%} {'more' if cost >= 0 else 'fewer'} on the source language"
    facts += about if missing is None else f"{about}, {missing:.1%} of the rows have no anchor"
    word = "good" if saved >= MIN_GAIN and (missing or 0.0) <= MAX_MISSING else "poor"
    speaks = len(known) == 2 and known["target"] <= AS_WELL * known["source"]
    if speaks and word == "good":
        word = "open"
    if "target" in known:
        facts += f"; the model needs {known['target']:.2f} times the bits of xz for the target language as it is"
    if "source" in known:
        facts += f", {known['source']:.2f} times for the source language"
    facts += ", so that there is less to win and more to lose" if speaks else ""
    return f"Prognosis {word}: {facts}. Whether it pays, only training tells."


@dataclass(frozen=True)
class Sizes:
    """Fields of :class:`SwapReport` that the model alone says."""

    tied: bool
    rows_before: int
    rows_after: int
    width: int
    parameters_before: int
    parameters_after: int


def make_report(
    match: VocabularyMatch,
    plan: RowPlan,
    swap: SwapOptions,
    sizes: Sizes,
    *,
    notes: Iterable[str] = (),
    target_text: Iterable[str] | None = None,
    source_text: Iterable[str] | None = None,
) -> SwapReport:
    """The report of one swap; texts are documents of which a sample is tokenized."""
    # An id that no token has is neither copied nor drawn.
    tokens = np.array([bool(kind) for kind in match.target.kinds])
    drawn, total = int(tokens[plan.missing].sum()), int(tokens.sum())
    notes = list(notes)
    if drawn > MAX_MISSING * total:
        notes.append(
            f"{drawn:,} of {total:,} rows have no source; where no other method will do, train them alone first: "
            "`train.embeddings_first_steps` of 5 % of the run's steps"
        )
    return SwapReport(
        method=swap.method,
        output_method=swap.methods[0 if sizes.tied else 1],
        copied=int(tokens[plan.copied].sum()),
        combined=int(tokens[plan.combined].sum()),
        drawn=drawn,
        overlap=overlap_report(match, swap.counts),
        target_text=text_cost(target_text, match) if target_text is not None else None,
        source_text=text_cost(source_text, match) if source_text is not None else None,
        notes=notes,
        **asdict(sizes),
    )


def text_cost(documents: Iterable[str], match: VocabularyMatch) -> TextCost:
    """Tokens of the first :data:`SAMPLE_BYTES` of ``documents`` under both tokenizers."""
    sample = first_bytes(documents, SAMPLE_BYTES)
    counts = [int(side.tokenizer.encode_batch(sample)[1][-1]) for side in (match.source, match.target)]
    return TextCost(sum(len(text.encode()) for text in sample), *counts)
