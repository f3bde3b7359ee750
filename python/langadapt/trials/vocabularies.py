"""Replace, extend or trim a model's vocabulary: all ways on one scale.

Each choice gets the same documents to train on, the same bytes of them, and is measured on the same held-out documents:
bits per byte, parameters, and how fast it reads text. Tokens and steps differ, as they must: a tokenizer that needs
fewer tokens takes fewer steps for the same text.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from langadapt.corpus.documents import read_documents
from langadapt.errors import ConfigError
from langadapt.evaluation.bits_per_byte import measure_bits_per_byte
from langadapt.models.embeddings import count_parameters
from langadapt.models.folder import load_model
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
from langadapt.trials.probe import ProbeText, one_phase, probe_settings, sample_text, short_training, split_documents

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
        vocab_size: entries of a new tokenizer; none = as many as the model's own.
        new_tokens: tokens added by extending; none = a quarter as many.
    """
    own = Tokenizer.from_pretrained(inputs.own if kind in (KEEP, *KINDS) else kind)
    if kind not in KINDS:
        return own
    # What is measured on must not shape the tokenizer either.
    seen = (document for document, aside in split_documents(read_documents(text)) if not aside)
    if kind == REPLACE:
        return train_bpe(seen, vocab_size or own.vocab_size, like=inputs.own, progress=inputs.progress)
    if kind == EXTEND:
        return extend_tokenizer(own, seen, new_tokens or own.vocab_size // 4, progress=inputs.progress)
    return trim_tokenizer(own, itertools.chain(seen, source_documents(inputs)), progress=inputs.progress).tokenizer


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
    # Long: the arguments are explained, and one choice is one turn of the loop; the body has 32 lines.
    if not wish.text:
        raise ConfigError("a comparison trains on your text: give files of the target language with `--text`")
    for name in choices:
        if name not in KINDS and not Path(name).exists():
            raise ConfigError(f"{name!r} is none of {', '.join(KINDS)} and no tokenizer's folder")
    settings = probe_settings(brief_settings(inputs, wish), wish.steps)
    measured: list[Choice] = []
    for name in (KEEP, *choices):
        tokenizer = make_tokenizer(name, inputs, wish.text, vocab_size=vocab_size, new_tokens=new_tokens)
        if name in KINDS and keep_tokenizers is not None:
            tokenizer.save_pretrained(keep_tokenizers / name)
        with tempfile.TemporaryDirectory(prefix="langadapt-compare-") as folder:
            store = Path(folder) / "store"
            documents = read_documents(wish.text), source_documents(inputs)
            text = sample_text(*documents, tokenizer, store, progress=inputs.progress)
            per_step = settings.tokens_per_step * TokenStore.open(store).manifest["summary"]["bytes_per_token"]
            budget = measured[0].trained_bytes if measured else wish.steps * per_step
            steps = max(1, round(budget / per_step))
            its_settings = replace(settings, steps=steps, validate_every=steps)
            with no_bars():
                model = load_model(inputs.model, dtype=torch.bfloat16, trust_remote_code=trust_remote_code)
            kind = kind_of(match_vocabularies(inputs.own, tokenizer))
            if kind != KEEP:
                complete = replace(inputs, store=store, tokenizer=str(store)).complete(swap)
                swap_tokenizer(model, inputs.own, tokenizer, swap=complete)
            progress = one_phase(inputs.progress, f"train {name}")
            row = measure_choice(model, tokenizer, text, its_settings, progress=progress)
            measured.append(Choice(name=name, kind=kind, trained_bytes=round(steps * per_step), **row))
    return measured


def measure_choice(
    model: Any, tokenizer: Tokenizer, text: ProbeText, settings: TrainSettings, *, progress: Progress | None
) -> dict[str, Any]:
    """Train and measure one choice: fields of :class:`Choice`."""
    parameters = count_parameters(model)
    probe = short_training(model, tokenizer, text, settings, progress=progress)
    begun = time.perf_counter()
    read = measure_bits_per_byte(model, tokenizer, text.target, window=settings.sequence_length)
    seconds = time.perf_counter() - begun
    return {
        "vocabulary": tokenizer.vocab_size,
        "parameters": parameters,
        "bytes_per_token": read.bytes / max(read.tokens, 1),
        "steps": settings.steps or 0,
        "tokens_per_second": read.tokens / seconds,
        "bytes_per_second": read.bytes / seconds,
        **asdict(probe),
    }
