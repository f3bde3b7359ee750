"""What the methods of a swap need besides the two tokenizers, gathered from files; and a bake-off on files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from langadapt.artefacts.folders import scratch_folder
from langadapt.corpus.documents import read_documents
from langadapt.corpus.samples import first_bytes
from langadapt.errors import ConfigError
from langadapt.models.folder import context_length, resolve_model
from langadapt.progress import Progress
from langadapt.store import TokenStore
from langadapt.swap.distill import distil_rows
from langadapt.swap.files import input_rows
from langadapt.swap.frequencies import fit_frequencies, token_counts
from langadapt.swap.rows.names import DISTILL, VECTOR_METHODS
from langadapt.swap.rows.options import SwapOptions
from langadapt.swap.rows.wechsel import vectors_from_files
from langadapt.tokenizer.encoder import Tokenizer
from langadapt.training import StoreShare, TrainSettings
from langadapt.trials.bake_off import Ranking
from langadapt.trials.probe import HELD_OUT_BYTES, ProbeText, probe_methods, probe_settings, sample_text
from langadapt.vectors.cbow import load_vectors, train_vectors

COUNTED_BYTES = 16_000_000
"""UTF-8 bytes of source text of which tokens are counted: ranks settle long before."""
PROBE_WINDOW = 1024
"""Tokens per window of a probe, where the model's context is not shorter."""
CANDIDATES = ("subword_mean", "mean", "zipf", *VECTOR_METHODS, "wechsel", "clp")
"""What a bake-off tries unless told: no draws, which never win."""


@dataclass(frozen=True, kw_only=True)
class MethodInputs:
    """Files, as a user names them."""

    model: Path
    tokenizer: str
    vectors: Path | None = None
    store: Path | None = None
    words: tuple[Path, Path, Path] | None = None
    """Word vectors of the source and of the target language, and a dictionary."""
    helper: str | None = None
    source_text: Sequence[str] = ()
    seed: int = 0
    match_frequencies: bool = False
    """Whether logits of new tokens are shifted to their frequencies in the store, see `langadapt.swap.frequencies`."""
    progress: Progress | None = None
    source_tokenizer: str | None = None
    """The model's own, where it does not lie in its folder."""

    @property
    def own(self) -> str:
        """Where the model's own tokenizer is."""
        return self.source_tokenizer or str(self.model)

    @cached_property
    def opened(self) -> TokenStore | None:
        """The store, after making sure that it was written with this tokenizer."""
        if self.store is None:
            return None
        store = TokenStore.open(self.store)
        store.check_tokenizer(Tokenizer.from_pretrained(self.tokenizer))
        return store

    @cached_property
    def counts(self) -> dict[str, Any]:
        """``counts`` of target tokens in the store, where there is one."""
        return {} if self.opened is None else {"counts": token_counts(self.opened.tokens, self.opened.vocab_size)}

    @cached_property
    def target_vectors(self) -> dict[str, Any]:
        """``vectors``: from their file, or trained on the store, where there is either.

        One thread trains, so that the same seed gives the same vectors; for large stores train a file with all cores.
        """
        if self.vectors is not None:
            return {"vectors": load_vectors(self.vectors, tokenizer=self.tokenizer)}
        if self.opened is None:
            return {}
        return {"vectors": train_vectors(self.opened, threads=1, seed=self.seed, progress=self.progress)}

    def options(self, method: str) -> dict[str, Any]:
        """Fields of :class:`langadapt.swap.rows.options.SwapOptions` for ``method``, where there are files."""
        if method not in self._options:
            self._options[method] = self._make_options(method)
        return self._options[method]

    @cached_property
    def _options(self) -> dict[str, dict[str, Any]]:
        return {}

    def _make_options(self, method: str) -> dict[str, Any]:
        extra: dict[str, Any] = {}
        if method in VECTOR_METHODS:
            extra = self.target_vectors
        elif method == "zipf" and self.source_text:
            own = Tokenizer.from_pretrained(self.own)
            ids, _ = own.encode_batch(first_bytes(source_documents(self), COUNTED_BYTES))
            extra = {"source_counts": np.bincount(ids, minlength=own.vocab_size)}
        elif method == "wechsel" and self.words is not None:
            target, source = vectors_from_files(self.own, self.tokenizer, self.words)
            extra = {"vectors": target, "source_vectors": source}
        elif method == "clp" and self.helper is not None:
            extra = {"helper_rows": input_rows(resolve_model(self.helper))}
        elif method == DISTILL:
            extra = self.learnt()
        return {**self.counts, **extra}

    def learnt(self) -> dict[str, Any]:
        """``learnt_rows``, and what they began with.

        Raises:
            ConfigError: there is no store to learn from.
        """
        if self.opened is None:
            raise ConfigError("method `distill` reads text of the target language: give its token store as --store")
        start = SwapOptions(seed=self.seed).updated(self.target_vectors)
        rows = distil_rows(self.model, self.opened, self.own, self.tokenizer, swap=start, progress=self.progress)
        return {"learnt_rows": rows, **self.target_vectors}

    def complete(self, swap: SwapOptions, *, trust_remote_code: bool = False) -> SwapOptions:
        """A swap with what its methods need, and what logits lack to the frequencies of text, if they are to match."""
        made = {name: value for method in swap.methods for name, value in self.options(method).items()}
        swap = swap.updated(made)
        if not self.match_frequencies or self.opened is None:
            return swap
        shift = fit_frequencies(
            self.model,
            self.opened,
            self.own,
            self.tokenizer,
            swap=swap,
            trust_remote_code=trust_remote_code,
            progress=self.progress,
        )
        return replace(swap, logit_shift=shift)

    def candidates(self) -> list[str]:
        """Methods worth trying for which there is everything they need."""
        vectors = self.vectors is not None or self.store is not None
        there = {**dict.fromkeys(VECTOR_METHODS, vectors), "wechsel": self.words, "clp": self.helper}
        return [method for method in CANDIDATES if there.get(method, True)]


@dataclass(frozen=True)
class ProbeWish:
    """What a user asks of a bake-off."""

    steps: int = 50
    tokens: int = 8192
    """Per step."""
    learning_rate: float = 1e-4
    candidates: Sequence[str] = ()
    """Methods; none = all that there is everything for."""
    text: Sequence[str] = ()
    """Files of the target language."""


def choose_method(
    inputs: MethodInputs, wish: ProbeWish, swap: SwapOptions, *, trust_remote_code: bool = False
) -> tuple[Ranking, SwapOptions]:
    """A bake-off on files: the ranking, and the swap by the best method with what that needs.

    Trains on the store where there is one, else on nine tenths of the text; measures on the text.

    Args:
        inputs: model, tokenizer and what methods need.
        wish: how long, on what.
        swap: all but the method.
        trust_remote_code: run model code that comes with the folder.

    Raises:
        ConfigError: no text to measure on, or settings that cannot work.
        DataError: too little text.
        LangadaptError: no method could run.
    """
    if not wish.text:
        raise ConfigError(
            "method `auto` trains on your text for a few steps: give files of the target language with `--text`, "
            "and those of the source language with `--source-text` to see what is forgotten"
        )
    tokenizer = Tokenizer.from_pretrained(inputs.tokenizer)
    train = brief_settings(inputs, wish)
    with scratch_folder("langadapt-probe") as folder:
        target, source = read_documents(wish.text), source_documents(inputs)
        if inputs.opened is not None:
            share = StoreShare(inputs.opened, 1.0, "target")
            text = ProbeText([share], first_bytes(target, HELD_OUT_BYTES), first_bytes(source, HELD_OUT_BYTES))
        else:
            text = sample_text(target, source, tokenizer, folder / "store", progress=inputs.progress)
            inputs = replace(inputs, store=folder / "store")
        ranking = probe_methods(
            inputs.model,
            tokenizer,
            list(wish.candidates) or inputs.candidates(),
            text,
            settings=probe_settings(train, wish.steps),
            swap=swap,
            options=inputs.options,
            match_frequencies=inputs.match_frequencies,
            source_tokenizer=inputs.own,
            trust_remote_code=trust_remote_code,
            progress=inputs.progress,
        )
        return ranking, inputs.complete(replace(swap, method=ranking.best), trust_remote_code=trust_remote_code)


def source_documents(inputs: MethodInputs) -> Iterable[str]:
    """Documents of the source language, none where no files are given."""
    return read_documents(inputs.source_text) if inputs.source_text else ()


def brief_settings(inputs: MethodInputs, wish: ProbeWish) -> TrainSettings:
    """Training as a recipe would have it, in windows that the model can read."""
    length = min(PROBE_WINDOW, context_length(inputs.model) or PROBE_WINDOW, wish.tokens)
    if length < 2:
        raise ConfigError(f"a probe of {wish.tokens} tokens per step; at least 2 are needed")
    return TrainSettings(
        sequence_length=length,
        batch_sequences=max(1, wish.tokens // length),
        learning_rate=wish.learning_rate,
        min_learning_rate=min(wish.learning_rate, 2e-6),
        rounding="stochastic",
        seed=inputs.seed,
    )
