"""Train BPE tokenizers: vocabularies identical to Hugging Face or SentencePiece, learnt by the core."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from langadapt import _core
from langadapt.corpus.documents import Documents, Inputs, Reading, warn_of_skipped
from langadapt.corpus.samples import batches
from langadapt.errors import ConfigError, DataError
from langadapt.machine import thread_count
from langadapt.progress import Progress
from langadapt.tokenizer.blueprint import UNMARKED_PATTERN, Blueprint, blueprint_like, new_blueprint
from langadapt.tokenizer.counts import cutting_of, load_counts
from langadapt.tokenizer.encoder import Tokenizer, open_tokenizer
from langadapt.tokenizer.llamacpp import form_of
from langadapt.tokenizer.options import BpeOptions
from langadapt.tokenizer.package import load_package, package_errors
from langadapt.tokenizer.vocabulary import CHARACTER_BYTES

logger = logging.getLogger(__name__)

PRINTABLE = "".join(map(chr, range(33, 127)))
"""Printable ASCII, digits among it."""


def train_bpe(
    inputs: Inputs | None = None,
    vocab_size: int = BpeOptions.vocab_size,
    *,
    texts: Documents | None = None,
    source: Inputs | None = None,
    source_texts: Documents | None = None,
    counts: str | Path | None = None,
    source_counts: str | Path | None = None,
    also: Sequence[tuple[Inputs, float]] = (),
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
        source, source_texts: the same in the language that the model speaks already, for ``source_share`` and
            ``parity``.
        counts, source_counts: words counted before, a folder of ``tokenizer count`` or of its merge, in their place.
        also: more text, each with its share of the bytes that are learnt on, which sum to less than 1; what
            ``source_share`` is short for.
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
    # Long: each argument and each way to fail has its line.
    chosen = BpeOptions(vocab_size=vocab_size, **options)
    chosen.check()
    how = partial(Reading, text_field=text_field, text_unit=text_unit, strict=strict)
    if counts is not None and (inputs is not None or texts is not None):
        raise ConfigError("counts: they stand for text; give no inputs with them")
    first = Path(counts) if counts is not None else how(inputs, texts)
    others: list[tuple[Reading | Path, float]] = [(how(more), share) for more, share in also]
    if chosen.wants_source and not also:
        if source is None and source_texts is None and source_counts is None:
            raise ConfigError("source_share and parity need text of the source language (`source`)")
        second = Path(source_counts) if source_counts is not None else how(source, source_texts)
        others = [(second, chosen.source_share)]
    return train_on(first, others, chosen, threads=threads, progress=progress)


def train_on(
    text: Reading | Path,
    others: Sequence[tuple[Reading | Path, float]],
    chosen: BpeOptions,
    *,
    threads: int | None,
    progress: Progress | None,
) -> Tokenizer:
    """A tokenizer of one text and of others by their shares; see :func:`train_bpe`."""
    shares = [share for _, share in others]
    if min(shares, default=0) < 0 or sum(shares) >= 1:
        raise ConfigError(f"also: shares of {', '.join(f'{share:g}' for share in shares)}; they sum to less than 1")
    blueprint, wanted = blueprint_of(chosen), [text, *(other for other, _ in others)]
    counters = [counted(one, blueprint, chosen, threads=threads, progress=progress) for one in wanted]
    if chosen.cuts_by_default and not any(counter.words_with(r"\p{M}") for counter in counters):
        blueprint = blueprint_of(replace(chosen, pattern=UNMARKED_PATTERN))
    parts = {"normalizer": blueprint.normalizer, "pre_tokenizer": blueprint.pre_tokenizer}
    logger.info("%s", form_of({**parts, "model": {**blueprint.model, "merges": []}}))
    return blueprint.build(learn(counters, shares, blueprint, chosen, progress=progress))


def blueprint_of(chosen: BpeOptions) -> Blueprint:
    """Everything about the tokenizer that is not learnt."""
    if chosen.like is None:
        return new_blueprint(chosen.style, chosen.special_tokens, chosen.pattern, chosen.normalization)
    source = open_tokenizer(chosen.like, "like")
    return blueprint_like(source, chosen.special_tokens, keep_reserved=chosen.keep_reserved)


WEIGHT = 1024
"""How often a word of the new language counts in a mixture, so that the weights of the other are fine enough."""


def learn(
    counters: Sequence[_core.WordCounter],
    shares: Sequence[float],
    blueprint: Blueprint,
    chosen: BpeOptions,
    *,
    progress: Progress | None,
) -> _core.TrainedTokens:
    """Vocabulary and merges of the words that were counted: those of the new language, then those of other texts, which
    are ``shares`` of all bytes."""
    target, *others = counters
    least = chosen.min_frequency
    if least is None:
        least = 2 if blueprint.style == "byte_level" else 1
    if others and not chosen.parity:
        size, own = dict(target.summary())["bytes"], WEIGHT
        for other, share in zip(others, shares, strict=True):
            odds = share / (1 - sum(shares)) * size / max(dict(other.summary())["bytes"], 1)
            # What was absorbed before has its weight already.
            target.absorb_weighted(other, own, max(round(WEIGHT * odds), 1))
            own = 1
        least *= WEIGHT
    settings = {"vocab_size": chosen.vocab_size, "special_tokens": blueprint.special}
    settings |= {"accept_fewer": chosen.accept_fewer, "min_frequency": least}
    settings["given_tokens"] = blueprint.runs if chosen.code_tokens else []
    if blueprint.style == "byte_level":
        settings |= {"max_token_length": chosen.max_token_length, "full_alphabet": True}
        if chosen.parity:
            return target.learn_parity(others, settings, progress)
        return target.learn_byte_level(settings, progress)
    if chosen.parity:
        raise ConfigError("parity: only the byte_level style learns for the language that is worst off")
    settings |= {"max_piece_length": chosen.max_token_length or 16, "character_coverage": chosen.character_coverage}
    settings["byte_fallback"] = bool(blueprint.model["byte_fallback"])
    # What the runs are made of, too.
    settings["required_chars"] = PRINTABLE + "".join({run[0] for run in blueprint.runs}) if chosen.code_tokens else ""
    return target.learn_sentencepiece(settings, progress)


def make_counter(
    blueprint: Blueprint, max_sentence_length: int, max_words: int | None, threads: int
) -> _core.WordCounter:
    """A counter for the words of a blueprint."""
    cutting = blueprint.cutting
    if blueprint.style == "byte_level":
        # What the package cuts is only added up here.
        parts = (None, {"type": "ByteLevel"}) if cutting.foreign else (blueprint.normalizer, blueprint.pre_tokenizer)
        normalizer, pre_tokenizer = map(json.dumps, parts)
        return _core.WordCounter.byte_level(normalizer, pre_tokenizer, max_words, threads)
    reserved = blueprint.special + [f"<0x{byte:02X}>" for byte in range(256) if blueprint.model["byte_fallback"]]
    return _core.WordCounter.sentencepiece(
        reserved, cutting.forms, cutting.space_in_front, max_sentence_length, max_words, threads
    )


def counted(
    text: Reading | Path, blueprint: Blueprint, chosen: BpeOptions, *, threads: int | None, progress: Progress | None
) -> _core.WordCounter:
    """The words of a text, or those in a folder of counts."""
    counter = make_counter(blueprint, chosen.max_sentence_length, chosen.max_words, thread_count(threads))
    if isinstance(text, Path):
        load_counts(counter, text, cutting_of(blueprint, chosen))
    else:
        count(counter, text, blueprint, progress)
    return counter


def count(counter: _core.WordCounter, reading: Reading, blueprint: Blueprint, progress: Progress | None) -> None:
    """Count the words of a text and say what was left out."""
    if reading.names is not None and blueprint.cutting.foreign is None:
        with reading.local() as names:
            report = counter.count_files(names, reading.how, progress)
        warn_of_skipped(report)
    else:
        count_stream(counter, reading.documents(), blueprint, progress)
    seen = dict(counter.summary())
    if not seen["documents"] and not reading.allow_empty:
        raise DataError("no document to train on")
    if seen["lines_too_long"]:
        logger.warning("left out %d lines longer than max_sentence_length", seen["lines_too_long"])
    if seen["prunings"]:
        logger.warning("forgot the rarest words %d times to keep to max_words", seen["prunings"])


def count_stream(
    counter: _core.WordCounter, texts: Iterable[str], blueprint: Blueprint, progress: Progress | None
) -> None:
    """Count texts from Python, a block at a time."""
    package = Package(blueprint) if blueprint.cutting.foreign else None
    if package is not None:
        logger.warning("the `tokenizers` package cuts the text, some 30 times slower: %s", blueprint.cutting.foreign)
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
        with package_errors("pattern: the `tokenizers` package cannot cut this text"):
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
        with package_errors("pattern: the `tokenizers` package cannot normalize this text"):
            return "\n".join(self.normalizer.normalize_str(line) for line in text.split("\n"))
