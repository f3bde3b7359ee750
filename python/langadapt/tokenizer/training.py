"""Train BPE tokenizers: vocabularies identical to Hugging Face or SentencePiece, learnt by the core."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable
from typing import Any

from langadapt import _core
from langadapt.corpus.documents import Documents, Inputs, Reading, warn_of_skipped
from langadapt.corpus.samples import batches
from langadapt.errors import ConfigError, DataError
from langadapt.machine import thread_count
from langadapt.progress import Progress
from langadapt.tokenizer.blueprint import Blueprint, blueprint_like, new_blueprint
from langadapt.tokenizer.encoder import Tokenizer, open_tokenizer
from langadapt.tokenizer.files import load_package
from langadapt.tokenizer.options import BpeOptions
from langadapt.tokenizer.vocabulary import CHARACTER_BYTES

logger = logging.getLogger(__name__)


def train_bpe(
    inputs: Inputs | None = None,
    vocab_size: int = BpeOptions.vocab_size,
    *,
    texts: Documents | None = None,
    text_field: str = "text",
    text_unit: str = "line",
    strict: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Tokenizer:
    """Train a BPE tokenizer that ``AutoTokenizer`` loads.

    The result depends on the documents alone: not on their order, the files they lie in or the number of threads
    (except with ``max_words``).

    Args:
        inputs: a path or a list of paths, as for :func:`langadapt.read_documents`.
        vocab_size: entries in all, special tokens and bytes included.
        texts: documents in place of ``inputs``: any iterable of strings, or of mappings that hold one.
        text_field, text_unit, strict: as for :func:`langadapt.read_documents`.
        threads: all cores by default.
        progress: called as ``(phase, done, total or None, unit)``.
        options: fields of :class:`BpeOptions` by name, such as ``style``, ``like`` and ``special_tokens``.

    Raises:
        ValueError: the corpus supports fewer than ``vocab_size`` entries (the message says how many), or too few are
            asked for to hold the special tokens and the alphabet.
        ConfigError: options that do not go together, or ``like`` is no BPE tokenizer.
        DataError, FileNotFoundError: see :func:`langadapt.read_documents`.
    """
    chosen = BpeOptions(vocab_size=vocab_size, **options)
    chosen.check()
    reading = Reading(inputs, texts, text_field=text_field, text_unit=text_unit, strict=strict)
    blueprint = blueprint_of(chosen)
    counter = make_counter(blueprint, chosen.max_sentence_length, chosen.max_words, thread_count(threads))
    count(counter, reading, blueprint, progress)
    return blueprint.build(learn(counter, blueprint, chosen, progress))


def blueprint_of(chosen: BpeOptions) -> Blueprint:
    """Everything about the tokenizer that is not learnt."""
    if chosen.like is None:
        return new_blueprint(chosen.style, chosen.special_tokens, chosen.pattern, chosen.normalization)
    return blueprint_like(open_tokenizer(chosen.like, "like"), chosen.special_tokens)


def learn(
    counter: _core.WordCounter, blueprint: Blueprint, chosen: BpeOptions, progress: Progress | None
) -> _core.TrainedTokens:
    """The vocabulary and merges of the words that were counted."""
    settings = {"vocab_size": chosen.vocab_size, "special_tokens": blueprint.special}
    settings |= {"accept_fewer": chosen.accept_fewer, "min_frequency": chosen.min_frequency}
    if blueprint.style == "byte_level":
        if chosen.min_frequency is None:
            settings["min_frequency"] = 2
        settings |= {"max_token_length": chosen.max_token_length, "full_alphabet": True}
        return counter.learn_byte_level(settings, progress)
    if chosen.min_frequency is None:
        settings["min_frequency"] = 1
    settings |= {"max_piece_length": chosen.max_token_length or 16, "character_coverage": chosen.character_coverage}
    settings["byte_fallback"] = bool(blueprint.model["byte_fallback"])
    return counter.learn_sentencepiece(settings, progress)


def make_counter(
    blueprint: Blueprint, max_sentence_length: int, max_words: int | None, threads: int
) -> _core.WordCounter:
    """A counter for the words of a blueprint."""
    cutting = blueprint.cutting
    if blueprint.style == "byte_level":
        regex = cutting.regex or dict(_core.pretokenize_patterns())["gpt2"]
        return _core.WordCounter.byte_level(regex, cutting.forms, cutting.space_in_front, max_words, threads)
    reserved = blueprint.special + [f"<0x{byte:02X}>" for byte in range(256) if blueprint.model["byte_fallback"]]
    return _core.WordCounter.sentencepiece(
        reserved, cutting.forms, cutting.space_in_front, max_sentence_length, max_words, threads
    )


def count(counter: _core.WordCounter, reading: Reading, blueprint: Blueprint, progress: Progress | None) -> None:
    """Count the words of a text and say what was left out."""
    if reading.names is not None and not blueprint.cutting.by_package:
        report = counter.count_files(reading.names, reading.how, progress)
        warn_of_skipped(report)
    else:
        count_stream(counter, reading.documents(), blueprint, progress)
    seen = dict(counter.summary())
    if not seen["documents"]:
        raise DataError("no document to train on")
    if seen["lines_too_long"]:
        logger.warning("left out %d lines longer than max_sentence_length", seen["lines_too_long"])
    if seen["prunings"]:
        logger.warning("forgot the rarest words %d times to keep to max_words", seen["prunings"])


def count_stream(
    counter: _core.WordCounter, texts: Iterable[str], blueprint: Blueprint, progress: Progress | None
) -> None:
    """Count texts from Python, a block at a time."""
    package = Package(blueprint) if blueprint.cutting.by_package else None
    if package is not None:
        logger.info("the `tokenizers` package prepares the text, much slower: no fast path for this pre-tokenizer")
    for block in batches(texts):
        if package is None:
            counter.count_texts(block, progress)
        elif blueprint.style == "sentencepiece":
            counter.count_texts([package.normalized_lines(text) for text in block], progress)
        else:
            size = sum(len(text.encode("utf-8", "replace")) for text in block)
            counter.add_words(list(package.words(block).items()), len(block), size)
        if progress is not None:
            # A block may be over before the core looks up to report.
            progress("count words", dict(counter.summary())["documents"], None, "documents")


class Package:
    """Normalizer and pre-tokenizer of a blueprint, run by the ``tokenizers`` package."""

    def __init__(self, blueprint: Blueprint) -> None:
        parts = {"normalizer": blueprint.normalizer, "pre_tokenizer": blueprint.pre_tokenizer}
        definition = {"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": []}, **parts}
        try:
            tokenizer = load_package(json.dumps(definition).encode(), "pattern")
        except DataError as error:
            raise ConfigError(f"cannot read the normalizer or pre-tokenizer: {error}") from None
        self.normalizer = tokenizer.normalizer
        self.pre_tokenizer = tokenizer.pre_tokenizer

    def words(self, texts: Iterable[str]) -> dict[bytes, int]:
        """How often each piece occurs, as bytes.

        Raises:
            ConfigError: the pre-tokenizer gives characters that stand for no byte.
        """
        pieces: Counter[str] = Counter()
        for text in texts:
            normal = self.normalizer.normalize_str(text) if self.normalizer is not None else text
            pieces.update(piece for piece, _ in self.pre_tokenizer.pre_tokenize_str(normal))
        try:
            return {bytes(map(CHARACTER_BYTES.__getitem__, piece)): times for piece, times in pieces.items()}
        except KeyError as error:
            raise ConfigError(f"the pre-tokenizer gives {error.args[0]!r}, which stands for no byte") from None

    def normalized_lines(self, text: str) -> str:
        """The text with each line as the model would see it."""
        if self.normalizer is None:
            return text
        return "\n".join(self.normalizer.normalize_str(line) for line in text.split("\n"))
