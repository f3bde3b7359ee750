"""The probe of a bake-off: swap by a method, train for a few steps on the user's text, measure both languages.

Every method starts from the same model and reads the same windows in the same order; nothing is written. On a CPU the
same seed gives the same numbers (with the same number of threads).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from langadapt.corpus.samples import first_bytes
from langadapt.errors import ConfigError
from langadapt.evaluation.bits_per_byte import measure_bits_per_byte
from langadapt.models.folder import load_model
from langadapt.progress import Progress
from langadapt.store import tokenize_corpus
from langadapt.swap.frequencies import shift_logits
from langadapt.swap.loaded import swap_tokenizer
from langadapt.swap.rows.learnt import LearntRows
from langadapt.swap.rows.options import DEFAULTS, SwapOptions
from langadapt.tokenizer.encoder import Tokenizer
from langadapt.training import StoreShare, TrainSettings
from langadapt.training.data.mixture import open_store
from langadapt.training.model import no_bars
from langadapt.training.rehearsal import rehearse
from langadapt.trials.bake_off import Probe, Ranking, bake_off


@dataclass(frozen=True)
class ProbeText:
    """What a probe trains on and what it is measured on."""

    stores: Sequence[StoreShare]
    """Text under the new tokenizer, to train on."""
    target: Sequence[str]
    """Documents of the target language that are not in the stores."""
    source: Sequence[str] = ()
    """Documents of the source language."""
    window: int | None = None
    """Tokens per forward pass of the measurement; none = the model's context."""

    def __post_init__(self) -> None:
        if not self.stores:
            raise ConfigError("a bake-off trains on text: no token store was given")
        if not any(self.target):
            raise ConfigError("a bake-off measures on held-out text of the target language: none was given")


def probe_settings(train: TrainSettings, steps: int) -> TrainSettings:
    """The settings of a run, for a probe of its beginning: the same batches, a short warm-up, then its peak rate.

    A decay would end every method at its own best; what is compared is the way into training. Embeddings have the rate
    that they have after a swap, with a vocabulary that is kept for comparison, too.
    """
    if steps < 1:
        raise ConfigError(f"a probe of {steps} steps; at least 1 is needed")
    return replace(
        train,
        steps=steps,
        tokens=None,
        epochs=None,
        hours=None,
        deadline=None,
        schedule="constant",
        warmup=0.1,
        embedding_learning_rate=train.embedding_peak(swapped=True),
        embeddings_first_steps=0,
        validate_every=steps,
        stale_every=0,
    )


HELD_OUT_BYTES = 200_000
"""UTF-8 bytes of each language that probes are measured on."""
HELD_OUT_SHARE = 10
"""One document in so many is held out, until there are enough bytes."""
SAMPLE_BYTES = 64_000_000
"""UTF-8 bytes of text that a probe trains on at most; a hundred steps of 64k tokens see less."""


def sample_text(
    target: Iterable[str],
    source: Iterable[str],
    tokenizer: Tokenizer,
    folder: Path,
    *,
    progress: Progress | None = None,
) -> ProbeText:
    """Split the beginning of a corpus into a store to train on, in ``folder``, and documents to measure on.

    Raises:
        DataError: fewer than two documents.
    """
    held: list[str] = []

    def training_part() -> Iterator[str]:
        for document, aside in split_documents(target):
            if aside:
                held.append(document)
            else:
                yield document

    store = tokenize_corpus(training_part(), tokenizer, folder, progress=progress)
    return ProbeText([StoreShare(store, 1.0, "target")], held, first_bytes(source, HELD_OUT_BYTES))


def split_documents(documents: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """The beginning of a corpus, each document with whether it is held out; the same for every tokenizer."""
    held = trained = 0
    for number, document in enumerate(documents):
        size = len(document.encode())
        aside = number % HELD_OUT_SHARE == 0 and held < HELD_OUT_BYTES
        yield document, aside
        held, trained = (held + size, trained) if aside else (held, trained + size)
        if trained >= SAMPLE_BYTES:
            return


def probe_methods(
    model: str | Path,
    tokenizer: Tokenizer,
    methods: Sequence[str],
    text: ProbeText,
    *,
    settings: TrainSettings,
    swap: SwapOptions = DEFAULTS,
    options: Callable[[str], Mapping[str, Any]] = lambda method: {},
    match_frequencies: bool = False,
    source_tokenizer: Any = None,
    trust_remote_code: bool = False,
    progress: Progress | None = None,
) -> Ranking:
    """Rank methods by what a short training makes of them.

    Args:
        model: folder of the source model; loaded once per method.
        tokenizer: the new one, of which the stores are.
        methods: to try.
        text: to train and to measure on.
        settings: of the training, see :func:`probe_settings`.
        swap: what all swaps have in common.
        options: what a method needs besides the two tokenizers, as fields of ``swap``.
        match_frequencies: shift logits of new tokens to their frequencies in the first store, whatever the method.
        source_tokenizer: the model's own, where it does not lie in its folder.
        trust_remote_code: run model code that comes with the folder.
        progress: called as ``progress(phase, done, total, unit)``.

    Raises:
        ConfigError: no method, one twice, an unknown one, or settings that cannot work here.
        LangadaptError: no method could run; the message has the reason of each.
    """
    swaps = {method: replace(swap, method=method) for method in methods}
    own = source_tokenizer if source_tokenizer is not None else Path(model)

    def probe(method: str) -> Probe:
        dtype = torch.bfloat16 if settings.precision == "pure-bf16" else torch.float32
        with no_bars():
            loaded = load_model(model, dtype=dtype, trust_remote_code=trust_remote_code)
        given = options(method)
        swap_tokenizer(loaded, own, tokenizer, swap=swaps[method], **given)
        if match_frequencies:
            shift_logits(loaded, open_store(text.stores[0]).tokens, own, tokenizer, swap=swaps[method])
        left = after(settings, given.get("learnt_rows"))
        return short_training(loaded, tokenizer, text, left, progress=one_phase(progress, f"probe {method}"))

    return bake_off(methods, probe)


def after(settings: TrainSettings, learnt: LearntRows | None) -> TrainSettings:
    """``settings`` without the steps that as many tokens take as rows were learnt from: at equal time.

    Counted in tokens, not in seconds, so that the same seed gives the same numbers on any machine.
    """
    if learnt is None or settings.steps is None:
        return settings
    left = max(1, settings.steps - round(learnt.tokens / settings.tokens_per_step))
    return replace(settings, steps=left, validate_every=left)


def short_training(
    model: Any, tokenizer: Tokenizer, text: ProbeText, settings: TrainSettings, *, progress: Progress | None
) -> Probe:
    """Train ``model`` in place and measure it before and after."""
    sides = {"target": text.target, "source": text.source}
    measured: dict[int, dict[str, float]] = {}

    def validate(trained: Any, step: int) -> dict[str, float]:
        how: dict[str, Any] = {"window": text.window, "progress": progress}
        measured[step] = {
            side: measure_bits_per_byte(trained, tokenizer, documents, **how).bits_per_byte
            for side, documents in sides.items()
            if any(documents)
        }
        return measured[step]

    rehearse(model, text.stores, settings, tokenizer=tokenizer, validate=validate, progress=progress)
    before, after = measured[min(measured)], measured[max(measured)]
    return Probe(after["target"], after.get("source"), before["target"], before.get("source"))


def one_phase(progress: Progress | None, phase: str) -> Progress | None:
    """``progress`` that hears of one phase only."""
    if progress is None:
        return None
    return lambda _, done, total, unit: progress(phase, done, total, unit)
