"""Train BPE tokenizers: vocabularies identical to Hugging Face or SentencePiece, learnt by the core."""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from langadapt import _core
from langadapt.checks import at_least
from langadapt.corpus.documents import Inputs, TextStream, path_names, read_documents, warn_of_skipped
from langadapt.corpus.samples import batches
from langadapt.errors import ConfigError, DataError
from langadapt.machine import thread_count
from langadapt.progress import Progress
from langadapt.tokenizer.blueprint import Blueprint, Style, blueprint_like, new_blueprint
from langadapt.tokenizer.encoder import Tokenizer, open_tokenizer
from langadapt.tokenizer.files import load_package
from langadapt.tokenizer.vocabulary import CHARACTER_BYTES

logger = logging.getLogger(__name__)


def train_bpe(
    inputs: Inputs,
    vocab_size: int,
    *,
    style: Style = "byte_level",
    like: str | os.PathLike[str] | Tokenizer | Any | None = None,
    special_tokens: Sequence[str] | Mapping[str, str] = (),
    pattern: str | None = None,
    min_frequency: int | None = None,
    text_field: str = "text",
    text_unit: str = "line",
    strict: bool = False,
    normalization: str | None = None,
    character_coverage: float = 0.9995,
    max_token_length: int | None = None,
    max_sentence_length: int = 8192,
    max_words: int | None = None,
    accept_fewer: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Tokenizer:
    """Train a BPE tokenizer that ``AutoTokenizer`` loads.

    ``style="byte_level"`` (GPT-4, Llama 3): a regex cuts the text, merges are learnt over bytes; merges, ids and
    vocabulary equal Hugging Face ``BpeTrainer``. ``style="sentencepiece"`` (Llama 2, Mistral): spaces are written
    U+2581, digits stay alone, what is not covered is written as bytes; pieces, order and scores equal ``sentencepiece``
    0.2.2 and later (``model_type=bpe``, ``byte_fallback``, ``split_digits``, ``allow_whitespace_only_pieces``,
    ``remove_extra_whitespaces=False``). Both give back any text exactly, unless ``normalization`` is asked for, and in
    the second style but for U+2581 itself and a space after what reads like a special token.

    The result depends on the documents alone: not on their order, the files they lie in or the number of threads
    (except with ``max_words``).

    Args:
        inputs: paths, or an iterable of texts, as for :func:`langadapt.read_documents`.
        vocab_size: entries in all, special tokens and bytes included.
        style: see above; ignored with ``like``.
        like: a tokenizer (folder, hub id, :class:`Tokenizer` or one of transformers) whose normalizer, pre-tokenizer,
            decoder, special tokens (in the order of their ids, first), post-processor (with the new ids), byte fallback
            and chat template are taken over.
        special_tokens: tokens, or a mapping of roles (``"bos_token"``, ...) to tokens; they get the first ids. By
            default begin, end and padding tokens, and ``<unk>`` in the SentencePiece style. With ``like``: more tokens.
        pattern: byte-level style: ``"llama3"`` (default), ``"gpt4"``, ``"gpt2"``, ``"qwen2"``, ``"o200k"`` or a regex;
            one without a scanner is run by the ``tokenizers`` package, much slower.
        min_frequency: pairs that occur less often are not merged; 2 by default in the byte-level style, 1 in the other,
            where 0 makes pieces that no longer occur rather than stop early, as SentencePiece does.
        text_field, text_unit, strict: as for :func:`langadapt.read_documents`.
        normalization: ``None`` (lossless) or a Unicode form such as ``"NFKC"``.
        character_coverage: SentencePiece style: share of all characters that are pieces of their own.
        max_token_length: byte-level style: bytes of the longest token; SentencePiece style: characters (16).
        max_sentence_length: SentencePiece style: longer lines, in bytes, are left out of training.
        max_words: keep at most so many different words per thread by forgetting the rarest. This bounds memory on any
            corpus, but counts become lower bounds and the result depends on ``threads``. Without it memory grows with
            the number of different words, about 400 bytes for each of 16 letters.
        accept_fewer: return a smaller vocabulary where the corpus does not support ``vocab_size``.
        threads: all cores by default.
        progress: called as ``(phase, done, total or None, unit)``.

    Raises:
        ValueError: the corpus supports fewer than ``vocab_size`` entries (the message says how many), or too few are
            asked for to hold the special tokens and the alphabet.
        ConfigError: options that do not go together, or ``like`` is no BPE tokenizer.
        DataError, FileNotFoundError: see :func:`langadapt.read_documents`.
    """
    if vocab_size < 1:
        raise ConfigError(f"vocab_size: {vocab_size} is not a number of entries")
    at_least(0, min_frequency=min_frequency)
    at_least(1, max_token_length=max_token_length, max_sentence_length=max_sentence_length, max_words=max_words)
    if not 0 < character_coverage <= 1:
        raise ConfigError(f"character_coverage: {character_coverage} is not in (0, 1]")
    if like is None:
        blueprint = new_blueprint(style, special_tokens, pattern, normalization)
    else:
        if pattern is not None or normalization is not None:
            raise ConfigError(
                "like: the pattern and the normalization are those of the other tokenizer; leave them out"
            )
        blueprint = blueprint_like(open_tokenizer(like, "like"), special_tokens)
    counter = make_counter(blueprint, max_sentence_length, max_words, thread_count(threads))
    count(counter, inputs, blueprint, text_field, text_unit, strict, progress)
    settings = {"vocab_size": vocab_size, "special_tokens": blueprint.special, "accept_fewer": accept_fewer}
    if blueprint.style == "byte_level":
        settings["min_frequency"] = 2 if min_frequency is None else min_frequency
        settings |= {"max_token_length": max_token_length, "full_alphabet": True}
        trained = counter.learn_byte_level(settings, progress)
    else:
        settings["min_frequency"] = 1 if min_frequency is None else min_frequency
        settings |= {"max_piece_length": max_token_length or 16, "character_coverage": character_coverage}
        settings["byte_fallback"] = bool(blueprint.model["byte_fallback"])
        trained = counter.learn_sentencepiece(settings, progress)
    return blueprint.build(trained)


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


def count(
    counter: _core.WordCounter,
    inputs: Inputs,
    blueprint: Blueprint,
    text_field: str,
    text_unit: str,
    strict: bool,
    progress: Progress | None,
) -> None:
    """Count the words of ``inputs`` and say what was left out."""
    names = path_names(inputs)
    if names is not None and not blueprint.cutting.by_package:
        report = counter.count_files(
            names, {"text_field": text_field, "strict": strict, "text_unit": text_unit}, progress
        )
        warn_of_skipped(report)
    else:
        if names is None:
            stream: Iterable[str] = TextStream(inputs, text_field, strict)  # type: ignore[arg-type]
        else:
            stream = read_documents(inputs, text_field=text_field, text_unit=text_unit, strict=strict)
        count_stream(counter, stream, blueprint, progress)
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
