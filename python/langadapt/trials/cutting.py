"""What a recipe's tokenizer will do to both languages, tried on a megabyte of each before anything is spent."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langadapt.corpus.documents import read_documents
from langadapt.corpus.samples import first_bytes
from langadapt.corpus.streams import is_stream
from langadapt.errors import DataError
from langadapt.fertility import measure_fertility
from langadapt.recipe.recipe import Recipe
from langadapt.recipe.sources import SIDES
from langadapt.swap.rows.names import KEEP
from langadapt.tokenizer.encoder import Tokenizer
from langadapt.tokenizer.training import train_bpe

SAMPLE_BYTES = 1_000_000
"""Text of each language that is learnt on; a quarter as much more is measured."""
SHARES = (0.0, 0.1, 0.25, 0.5)
"""Shares of source text that are tried beside the recipe's own."""
MODELS_OWN = "the model's own"
SMALL_VOCABULARY = 8192
"""Entries at most: a megabyte supports no more."""


@dataclass(frozen=True)
class Trial:
    """A tokenizer on text behind the sample: learnt on a sample of both languages, or the model's own."""

    name: str
    """For people."""
    is_chosen: bool
    """Whether the recipe asks for this one."""
    tokens_per_word: dict[str, float | None]
    """By ``target`` and, where the recipe names text of it, ``source``."""
    torn_words: float | None
    """Share of target words with a border inside a grapheme."""
    bytes_per_token: dict[str, float | None]
    """As ``tokens_per_word``."""


def try_cutting(recipe: Recipe) -> list[Trial]:
    """Trials of the recipe's tokenizer over the share of source text, behind the model's own where that is here; of one
    that is not trained, that one alone; none where text is streamed or drawn from several sources.

    What is learnt here compares with itself alone: a megabyte and 8,192 entries give more tokens per word than the run
    will.

    Raises:
        ConfigError, DataError, OSError: what would stop the training of the tokenizer, too.
    """
    settings = recipe.tokenizer
    names = {side: recipe.corpus.paths_of(side) for side in SIDES}
    is_streamed = any(is_stream(name) for inputs in names.values() for name in inputs)
    if settings.weights or is_streamed:
        return []
    samples = {language: sample(recipe, inputs) for language, inputs in names.items() if inputs}
    if recipe.swap.method == KEEP or settings.path is not None:
        return ready_made(recipe, {name: texts for name, (_, texts) in samples.items()})
    options = settings.training(recipe.model if settings.like == "source" else settings.like)
    options |= {"vocab_size": min(settings.vocab_size, SMALL_VOCABULARY), "accept_fewer": True}
    held = {name: texts for name, (_, texts) in samples.items()}
    found = [measured(own, held, MODELS_OWN)] if (own := own_tokenizer(recipe.model)) is not None else []
    source = samples["source"][0] if "source" in samples else None
    for wish in wishes(recipe, source is not None):
        with quietly():
            learnt = train_bpe(texts=samples["target"][0], source_texts=source, **{**options, **wish})
        name = "parity" if wish["parity"] else f"{wish['source_share']:.0%}"
        chosen = wish["parity"] if settings.parity else wish["source_share"] == settings.source_share
        found.append(measured(learnt, held, name, is_chosen=chosen))
    return found


def ready_made(recipe: Recipe, held: dict[str, list[str]]) -> list[Trial]:
    """The trial of a tokenizer that a recipe takes as it is, where that is here."""
    path = recipe.tokenizer.path
    if recipe.swap.method == KEEP or path is None:
        own = own_tokenizer(recipe.model)
        return [] if own is None else [measured(own, held, MODELS_OWN, is_chosen=True)]
    return [measured(Tokenizer.from_pretrained(path), held, path, is_chosen=True)]


@contextmanager
def quietly() -> Iterator[None]:
    """What is to be said of a tokenizer is not said again for each that is tried."""
    logger = logging.getLogger("langadapt.tokenizer")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def own_tokenizer(model: str) -> Tokenizer | None:
    """Of a folder that has one; hubs are not asked."""
    if not Path(model).is_dir():
        return None
    try:
        return Tokenizer.from_pretrained(model)
    except (DataError, OSError):
        return None


def measured(tokenizer: Tokenizer, held: dict[str, list[str]], name: str, *, is_chosen: bool = False) -> Trial:
    """Of one tokenizer."""
    cells = measure_fertility({"it": tokenizer}, texts=held).cells["it"]
    per_word = {language: cell.tokens_per_word for language, cell in cells.items()}
    per_token = {language: cell.bytes_per_token for language, cell in cells.items()}
    return Trial(name, is_chosen, per_word, cells["target"].torn_words, per_token)


def wishes(recipe: Recipe, has_source: bool) -> Iterator[dict[str, Any]]:
    """What is tried: the recipe's own way, and other shares beside it."""
    settings = recipe.tokenizer
    if settings.parity:
        yield {"parity": True}
    shares = {*SHARES, settings.source_share} if has_source else {0.0}
    yield from ({"parity": False, "source_share": share} for share in sorted(shares))


def sample(recipe: Recipe, inputs: list[str]) -> tuple[list[str], list[str]]:
    """Texts to learn on and texts to measure."""
    texts = first_bytes(read_documents(inputs, text_field=recipe.corpus.text_field), 1.25 * SAMPLE_BYTES)
    if len(texts) == 1:
        middle = texts[0].find("\n", len(texts[0]) * 4 // 5)
        texts = [texts[0][:middle], texts[0][middle:]]
    aside = max(len(texts) // 5, 1)
    return texts[:-aside], texts[-aside:]


def lines_of(trials: list[Trial]) -> Iterator[str]:
    """The trials for people, the recipe's own marked."""
    if trials:
        yield f"tokens per word of a sample{', by tokenizer.source_share' if len(trials) > 1 else ''}:"
    width = max((len(one.name) for one in trials), default=0)
    for one in trials:
        per_word = ", ".join(f"{name} {value:.2f}" for name, value in one.tokens_per_word.items() if value is not None)
        torn = f"; {one.torn_words:.1%} of target words cut inside a grapheme" if one.torn_words else ""
        yield f"{'>' if one.is_chosen else ' '} {one.name:>{width}}: {per_word}{torn}"
