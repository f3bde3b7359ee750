"""Replace, extend or trim a model's vocabulary: all ways on one scale.

Each choice gets the same documents to train on, the same bytes of them, and is measured on the same held-out documents:
bits per byte, parameters, and how fast it reads text. Tokens and steps differ, as they must: a tokenizer that needs
fewer tokens takes fewer steps for the same text.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from langadapt.artefacts.folders import scratch_folder
from langadapt.corpus.documents import read_documents
from langadapt.costs.flops import Shape
from langadapt.errors import ConfigError
from langadapt.evaluation.bits_per_byte import measure_bits_per_byte
from langadapt.models.embeddings import count_parameters
from langadapt.models.folder import load_model, read_config, resolve_model
from langadapt.progress import Progress
from langadapt.store import TokenStore
from langadapt.swap.loaded import swap_tokenizer
from langadapt.swap.matching import VocabularyMatch, match_vocabularies
from langadapt.swap.rows.options import DEFAULTS, SwapOptions
from langadapt.tokenizer.editing import extend_tokenizer, trim_tokenizer
from langadapt.tokenizer.encoder import Tokenizer
from langadapt.tokenizer.training import train_bpe
from langadapt.training import TrainSettings
from langadapt.training.model import no_bars
from langadapt.trials.inputs import MethodInputs, ProbeWish, brief_settings, source_documents
from langadapt.trials.probe import ProbeText, probe_settings, sample_text, short_training, split_documents

MOST = 32_768
"""Entries that are learnt by default, at most: of larger vocabularies a comparison's text teaches few rows."""
log = logging.getLogger(__name__)

KEEP, REPLACE, EXTEND, TRIM = "keep", "replace", "extend", "trim"
KINDS = (REPLACE, EXTEND, TRIM)


@dataclass(frozen=True)
class Choice:
    """One way, measured. Bits per byte: lower is better."""

    name: str
    """As it was asked for."""
    kind: str
    """``keep``, ``replace``, ``extend`` or ``trim``: what the vocabularies say."""
    vocabulary: int
    """Entries of the tokenizer."""
    parameters: int
    """Of the whole model."""
    bytes_per_token: float
    """On held-out text of the target language."""
    target: float
    """Bits per byte of the target language, after training."""
    target_before: float | None
    """The same, right after the swap."""
    source: float | None
    """Bits per byte of the source language, after training."""
    source_before: float | None
    """The same, right after the swap."""
    steps: int
    """Of training."""
    trained_bytes: int
    """Text that was trained on, as many bytes for all but for rounding to steps."""
    tokens_per_second: float
    """Reading held-out text (one forward pass)."""
    bytes_per_second: float
    """The same, in bytes of text."""


def kind_of(match: VocabularyMatch) -> str:
    """What a swap does to a vocabulary."""
    if match.target.names == match.source.names:
        return KEEP
    if match.keeps_ids():
        return EXTEND
    return TRIM if len(match.new_ids) == 0 and match.target_size < match.source_size else REPLACE


def make_tokenizer(
    kind: str, inputs: MethodInputs, text: Sequence[str], *, vocab_size: int | None, new_tokens: int | None
) -> Tokenizer:
    """A tokenizer of a kind, made from the user's text, or the one that ``kind`` names.

    Args:
        kind: ``replace`` (trained anew, like the model's own), ``extend``, ``trim``, ``keep``, or a folder.
        inputs: model and source text; a trimmed tokenizer keeps what either language uses.
        text: files of the target language.
        vocab_size: entries of a new tokenizer; none = as many as the model's own, :data:`MOST` at most, or as many as
            the text bears.
        new_tokens: tokens added by extending; none = a quarter as many.
    """
    own = Tokenizer.from_pretrained(inputs.own if kind in (KEEP, *KINDS) else kind)
    if kind not in KINDS:
        return own
    # What is measured on must not shape the tokenizer either.
    seen = (document for document, aside in split_documents(read_documents(text)) if not aside)
    most = min(own.vocab_size, MOST)
    if kind == REPLACE:
        how: dict[str, Any] = {"like": inputs.own, "accept_fewer": vocab_size is None, "progress": inputs.progress}
        return train_bpe(seen, vocab_size or most, **how)
    if kind == EXTEND:
        how = {"accept_fewer": new_tokens is None, "progress": inputs.progress}
        return extend_tokenizer(own, seen, new_tokens or most // 4, **how)
    return trim_tokenizer(own, itertools.chain(seen, source_documents(inputs)), progress=inputs.progress).tokenizer


@dataclass(frozen=True)
class Arm:
    """A way, ready to be measured."""

    name: str
    tokenizer: Tokenizer
    store: Path
    """Its tokens of the text to train on."""
    text: ProbeText
    steps: int
    trained_bytes: int
    flops: dict[str, float]
    """Of a token's training (``tokens``) and of reading a byte (``bytes``)."""

    @property
    def work(self) -> float:
        """FLOPs in all: training, and reading what is held out before, after, and for the speed."""
        target, source = (sum(len(text.encode()) for text in texts) for texts in (self.text.target, self.text.source))
        return self.trained_tokens * self.flops["tokens"] + (3 * target + 2 * source) * self.flops["bytes"]

    @property
    def trained_tokens(self) -> float:
        """In all its steps."""
        return self.trained_bytes / TokenStore.open(self.store).manifest["summary"]["bytes_per_token"]


class Work:
    """One progress over the parts of all arms: FLOPs, since a token of one costs more than of another."""

    def __init__(self, progress: Progress | None, arms: Sequence[Arm]) -> None:
        self.progress, self.total = progress, max(1, round(sum(arm.work for arm in arms) / 1e9))
        self.past = self.now = 0.0

    def of(self, arm: Arm) -> Progress:
        """A listener to the parts of ``arm``, which follow each other."""

        def report(phase: str, done: int, total: int | None, unit: str) -> None:
            flops = done * arm.flops[unit]
            if flops < self.now:
                self.past += self.now
            self.now = flops
            if self.progress is not None:
                self.progress("compare", min(round((self.past + flops) / 1e9), self.total), self.total, "GFLOP")

        return report


def compare_vocabularies(
    inputs: MethodInputs,
    wish: ProbeWish,
    choices: Sequence[str],
    *,
    swap: SwapOptions = DEFAULTS,
    vocab_size: int | None = None,
    new_tokens: int | None = None,
    keep_tokenizers: Path | None = None,
    trust_remote_code: bool = False,
) -> list[Choice]:
    """Try several vocabularies, the model's own first.

    All tokenizers are made before anything is trained, so that the work of all is known, and logged, at the start.

    Args:
        inputs: of the swap; ``tokenizer`` and ``store`` are not used, each choice has its own.
        wish: how much to train on, counted in tokens of the model's own tokenizer, and the text.
        choices: ``replace``, ``extend``, ``trim``, or folders of tokenizers.
        swap: one method for all; vectors, where it needs them, are trained on the text.
        vocab_size: see :func:`make_tokenizer`.
        new_tokens: likewise.
        keep_tokenizers: folder for the tokenizers that are made here.
        trust_remote_code: run model code that comes with the folder.

    Raises:
        ConfigError: no text, or a choice is neither a kind nor a folder.
        DataError: too little text.
    """
    # Long: the arguments are explained.
    if not wish.text:
        raise ConfigError("a comparison trains on your text: give files of the target language with `--text`")
    for name in choices:
        if name not in KINDS and not Path(name).exists():
            raise ConfigError(f"{name!r} is none of {', '.join(KINDS)} and no tokenizer's folder")
    settings = probe_settings(brief_settings(inputs, wish), wish.steps)
    with scratch_folder("langadapt-compare") as folder:
        arms: list[Arm] = []
        for name in (KEEP, *choices):
            tokenizer = make_tokenizer(name, inputs, wish.text, vocab_size=vocab_size, new_tokens=new_tokens)
            if name in KINDS and keep_tokenizers is not None:
                tokenizer.save_pretrained(keep_tokenizers / name)
            how: dict[str, Any] = {"budget": arms[0].trained_bytes if arms else None, "settings": settings}
            arms.append(prepare(name, tokenizer, inputs, wish, store=folder / str(len(arms)), **how))
        work = Work(inputs.progress, arms)
        log.info(
            "compare: %d vocabularies, each trained on %.2f MB of text (%s tokens of the model's own): %s GFLOP in all",
            *(len(arms), arms[0].trained_bytes / 1e6, f"{arms[0].trained_tokens:,.0f}", f"{work.total:,}"),
        )
        how = {"trust_remote_code": trust_remote_code}
        return [measure(arm, inputs, settings, swap, progress=work.of(arm), **how) for arm in arms]


def prepare(
    name: str,
    tokenizer: Tokenizer,
    inputs: MethodInputs,
    wish: ProbeWish,
    *,
    store: Path,
    settings: TrainSettings,
    budget: int | None,
) -> Arm:
    """An arm that trains on ``budget`` bytes of text, or on what ``wish`` comes to where that is none."""
    text = sample_text(read_documents(wish.text), source_documents(inputs), tokenizer, store, progress=inputs.progress)
    per_token = TokenStore.open(store).manifest["summary"]["bytes_per_token"]
    per_step = settings.tokens_per_step * per_token
    steps = wish.steps if budget is None else max(1, round(budget / per_step))
    shape = Shape.of(read_config(resolve_model(str(inputs.model))), vocabulary=tokenizer.vocab_size)
    trained = shape.flops_per_token(settings.window / 2)
    flops = {"tokens": trained, "bytes": trained / 3 / per_token}
    return Arm(name, tokenizer, store, text, steps, round(steps * per_step), flops)


def measure(
    arm: Arm,
    inputs: MethodInputs,
    settings: TrainSettings,
    swap: SwapOptions,
    *,
    progress: Progress,
    trust_remote_code: bool,
) -> Choice:
    """Swap, train and measure one arm; its model is gone afterwards."""
    with no_bars():
        model = load_model(inputs.model, dtype=torch.bfloat16, trust_remote_code=trust_remote_code)
    kind = kind_of(match_vocabularies(inputs.own, arm.tokenizer))
    if kind != KEEP:
        complete = replace(inputs, store=arm.store, tokenizer=str(arm.store)).complete(swap)
        swap_tokenizer(model, inputs.own, arm.tokenizer, swap=complete)
    parameters = count_parameters(model)
    its_settings = replace(settings, steps=arm.steps, validate_every=arm.steps)
    probe = short_training(model, arm.tokenizer, arm.text, its_settings, progress=progress)
    begun = time.perf_counter()
    read = measure_bits_per_byte(model, arm.tokenizer, arm.text.target, window=settings.window, progress=progress)
    seconds = time.perf_counter() - begun
    return Choice(
        name=arm.name,
        kind=kind,
        vocabulary=arm.tokenizer.vocab_size,
        parameters=parameters,
        bytes_per_token=read.bytes / max(read.tokens, 1),
        steps=arm.steps,
        trained_bytes=arm.trained_bytes,
        tokens_per_second=read.tokens / seconds,
        bytes_per_second=read.bytes / seconds,
        **asdict(probe),
    )
