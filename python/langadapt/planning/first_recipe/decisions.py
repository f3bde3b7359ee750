"""The numbers of a first recipe, each with its reason."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from langadapt.costs.devices import GIB
from langadapt.errors import ConfigError
from langadapt.planning.first_recipe.vocabulary import PASSES, Curve
from langadapt.planning.first_recipe.wish import Findings
from langadapt.planning.plan import Corpus, Plan, plan
from langadapt.training.choices import Facts, settle, usual_rate
from langadapt.training.settings import TrainSettings

KEEP_BELOW = 1.1
"""Times as many bytes per token as the model's own tokenizer makes, below which a new one is not worth its cost."""
REPLAY = 0.25
"""Share of source text: what Ibrahim et al. 2024 (arXiv 2403.08763) mix in for a shift from English to German."""
WINDOWS = (2048, 1024, 512)
"""Tokens of a training window, longest first."""
CPU_WINDOW = 512
PADDING = 128
"""Rows of the embedding matrices are a multiple of this, as the default of ``swap.pad_to_multiple_of``."""


@dataclass(frozen=True)
class Decision:
    """One setting."""

    key: str
    """Dotted, as in ``--set``."""
    value: Any
    reason: str


@dataclass(frozen=True)
class Decisions:
    """All settings of the recipe, in its order, and the plan that they come to."""

    settings: list[Decision]
    plan: Plan


def decide(found: Findings, curve: Curve) -> Decisions:
    """Every number of the recipe."""
    keep = curve.own is not None and curve.own * KEEP_BELOW >= curve.best.bytes_per_token
    size = found.shape.vocabulary if keep else curve.best.size
    rows = size if keep else -(-size // PADDING) * PADDING
    per_token = curve.own if keep and curve.own else curve.best.bytes_per_token
    share = REPLAY if found.source is not None else 0.0
    one_pass = found.target.bytes / per_token / (1 - share)
    train, made = trained(found, rows, one_pass, share=share, per_token=per_token)
    settings = [
        *of_corpus(found, share),
        *of_vocabulary(found, curve, keep),
        *of_training(found, train, made, one_pass),
    ]
    return Decisions(settings, made)


def of_corpus(found: Findings, share: float) -> Iterator[Decision]:
    """Text, what is set aside of it, and replay."""
    yield Decision("corpus.target", list(found.wish.text), found.target.describe())
    if found.source is not None:
        yield Decision("corpus.source", list(found.wish.source_text), found.source.describe())
        yield Decision(
            "corpus.source_share",
            share,
            "Replay, so that the model keeps what it knows: the share that arXiv 2403.08763 found for a new language. "
            "`langadapt plan RECIPE --pilot` measures which share your text wants.",
        )
    # A hundred documents tell models apart; a fiftieth of the text is enough of a large one.
    held = min(max(0.02, 100 / found.target.documents), 0.1)
    yield Decision(
        "corpus.validation_share",
        round(held, 3),
        f"Set aside to measure on: about {held * found.target.documents:,.0f} documents (the fewer, the wider the "
        "intervals of the verdict; 100 are good), at most 1 MB.",
    )


def of_vocabulary(found: Findings, curve: Curve, keep: bool) -> Iterator[Decision]:
    """Tokenizer and swap."""
    own = f"the model's own tokenizer makes {curve.own:.2f} bytes of a token" if curve.own else ""
    measured = "; ".join(f"{point.size:,}: {point.bytes_per_token:.2f}" for point in curve.points)
    if keep:
        yield Decision(
            "swap.method",
            "keep",
            f"No swap: {own} of this text, a new one of {curve.best.size:,} entries {curve.best.bytes_per_token:.2f}, "
            "which is too little gain for new rows to learn.",
        )
        return
    if curve.like:
        yield Decision("tokenizer.like", "source", "Made after the model's own: its special tokens, its chat template.")
    yield Decision(
        "tokenizer.vocab_size",
        curve.best.size,
        f"Bytes per token on held-out text, by size: {measured}{f'; {own}' if own else ''}. Taken: {curve.why}.",
    )
    tokens = found.target.bytes / curve.best.bytes_per_token
    yield Decision(
        "swap.method",
        "focus",
        "New rows as mixtures of those of similar tokens: the best start in docs/runs/initialisers.md.",
    )
    least = 10 if tokens > 1e6 else 3
    if least != 10:
        yield Decision("vectors.min_count", least, f"The text has {tokens:,.0f} tokens: rarer ones get vectors, too.")


def trained(
    found: Findings, rows: int, one_pass: float, *, share: float, per_token: float
) -> tuple[TrainSettings, Plan]:
    """Settings of the training and their plan, with the longest window of which a layout fits.

    Raises:
        ConfigError: none fits; the message says what does.
    """
    most = min(found.context or WINDOWS[0], CPU_WINDOW if found.device.name == "cpu" else WINDOWS[0])
    lengths = [length for length in WINDOWS if length <= most] or [most]
    for length in lengths:
        try:
            return within_hours(found, rows, one_pass, length=length, share=share, per_token=per_token)
        except ConfigError as error:
            if length == lengths[-1] or "nothing fits" not in str(error):
                raise
    raise AssertionError("one of the lengths returns or raises")


def within_hours(
    found: Findings, rows: int, one_pass: float, *, length: int, share: float, per_token: float
) -> tuple[TrainSettings, Plan]:
    """Settings and plan for one window: four passes where the hours have room for them, else as many tokens as fit."""
    rate, hours = rate_of(found.shape.parameters), found.wish.hours
    text = Corpus(int(one_pass * (1 - share)), per_token, True, 1 - share)
    gpus = f"{found.count} x {found.device.name}" if found.device.name != "cpu" else None
    draft = settings_of(rate, length, found.count, steps=1)
    speed = plan(found.config, draft, vocabulary=rows, gpus=gpus, corpus=text).best.tokens_per_second
    possible = hours * 3600 * speed
    tokens = min(PASSES * one_pass, possible)
    budget: dict[str, Any] = {"epochs": float(PASSES)} if tokens < possible else {"hours": hours}
    train = settings_of(rate, length, found.count, tokens=tokens, **budget)
    return train, plan(found.config, train, vocabulary=rows, gpus=gpus, hours=hours, corpus=text)


def settings_of(rate: float, length: int, gpus: int, *, tokens: float = math.inf, **budget: Any) -> TrainSettings:
    """Batch and warm-up for a training on so many tokens."""
    known = tokens < math.inf
    draft = TrainSettings(sequence_length=length, tokens=int(tokens) if known else None, steps=None if known else 1)
    choice = settle(draft, Facts(processes=gpus))
    return TrainSettings(
        sequence_length=length,
        batch_sequences=choice.sequences_per_step,
        learning_rate=rate,
        min_learning_rate=rate / 10,
        warmup=choice.warmup,
        **budget,
    )


def rate_of(parameters: int) -> float:
    """A quarter of the usual peak of pretraining, as Dobler & de Melo's 4e-5 is of 7 B parameters'; two digits."""
    return float(f"{0.25 * usual_rate(parameters):.1e}")


def of_training(found: Findings, train: TrainSettings, made: Plan, one_pass: float) -> Iterator[Decision]:
    """Passes, batch and rates, then the budget."""
    best, passes = made.best, made.tokens / one_pass
    if train.epochs is not None:
        yield Decision(
            "train.epochs",
            train.epochs,
            f"Passes over the text; beyond {PASSES} they teach little (arXiv 2305.16264). They are {made.steps:,} "
            f"steps of {train.tokens_per_step:,} tokens: {duration(made.hours)} of {found.wish.hours:g} hours allowed.",
        )
    cpu = (
        " (on a CPU attention over more would take too long)"
        if train.window < (found.context or 0) and found.device.name == "cpu"
        else ""
    )
    yield Decision(
        "train.sequence_length",
        train.sequence_length,
        f"Tokens of a window; the model was made for {found.context:,}{cpu}."
        if found.context
        else "Tokens of a window.",
    )
    yield Decision(
        "train.batch_sequences",
        train.sequences_per_step,
        f"Windows per step, {train.tokens_per_step:,} tokens: the largest useful batch for {made.tokens:,} tokens "
        "(arXiv 2503.04715) that leaves 500 steps where the text allows.",
    )
    yield Decision(
        "train.learning_rate",
        train.learning_rate,
        f"A quarter of the usual peak of pretraining {found.shape.parameters / 1e6:,.0f} M parameters (arXiv "
        "2005.14165), as the paper's 4e-5 is for 7 B. New rows get three times as much.",
    )
    yield Decision(
        "train.min_learning_rate", float(f"{train.min_learning_rate:.2g}"), "A tenth of the peak, at the end."
    )
    yield Decision("train.warmup", train.warmup, "Share of the run; about 40 steps (arXiv 1910.04209), at least 1 %.")
    yield Decision(
        "train.micro_batch",
        "auto",
        f"Found by trial when training begins. The plan expects `{best.layout.describe()}`, with "
        f"{best.memory.peak / GIB:.1f} of {made.device_memory / GIB:.1f} GiB: {made.reason}.",
    )
    yield from of_budget(found, made, passes)


def of_budget(found: Findings, made: Plan, passes: float) -> Iterator[Decision]:
    """GPUs and hours."""
    if found.device.name != "cpu":
        why = "As asked for." if found.wish.gpus else "Found here."
        yield Decision("budget.gpus", f"{found.count} x {found.device.name}", why)
    yield Decision(
        "budget.hours",
        found.wish.hours,
        f"Of training, at most. Predicted: {made.hours:.2g} hours for {made.steps:,} steps, {made.tokens:,} tokens, "
        f"{passes:.1f} passes, at {made.best.tokens_per_second:,.0f} tokens/s.",
    )


def duration(hours: float) -> str:
    """For people."""
    return f"{hours:.1f} hours" if hours >= 1 else f"{max(60 * hours, 1):.0f} minutes"
