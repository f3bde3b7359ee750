"""Change the vocabulary of an existing BPE tokenizer: add tokens learnt on new text, or drop those never used."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langadapt import _core
from langadapt.corpus.documents import Documents, Inputs, Reading
from langadapt.corpus.samples import batches
from langadapt.errors import ConfigError
from langadapt.machine import thread_count
from langadapt.progress import Progress
from langadapt.tokenizer.blueprint import Blueprint, blueprint_like, templates_of, with_ids
from langadapt.tokenizer.encoder import Tokenizer, open_tokenizer
from langadapt.tokenizer.files import CONFIG_FILE, ID_MAP, json_bytes, write_files
from langadapt.tokenizer.training import count, make_counter
from langadapt.tokenizer.widening import widened

LONGEST = {"byte_level": 64, "sentencepiece": 16}
"""Longest new token by style: bytes, or characters as in SentencePiece."""


def extend_tokenizer(
    tokenizer: str | os.PathLike[str] | Tokenizer | Any,
    inputs: Inputs | None = None,
    new_tokens: int = 0,
    *,
    texts: Documents | None = None,
    widen: bool = False,
    min_frequency: int = 2,
    max_token_length: int | None = None,
    text_field: str = "text",
    text_unit: str = "line",
    strict: bool = False,
    max_sentence_length: int = 8192,
    max_words: int | None = None,
    accept_fewer: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Tokenizer:
    """Go on with BPE where a tokenizer's merges end, on new text.

    All old tokens keep their ids. New ones follow, most frequent first; their merges rank behind the old ones, so an
    encoder goes through the same steps as learning did and every new token is reached. In the byte-level style the old
    regex goes on cutting words. In the SentencePiece style new tokens stay within a script and hold no digit, and
    letters that the vocabulary lacks come first, until 99.95 % of the text's characters are tokens.

    Args:
        tokenizer: a folder, hub id, :class:`Tokenizer` or tokenizer of transformers; BPE of either style.
        inputs, texts: see :func:`langadapt.train_bpe`, also for the options that are not named here.
        new_tokens: how many.
        widen: exchange the pattern for one whose words go on over combining marks. Text without marks is cut as before;
            without this, scripts that write vowels as marks stay in pieces whatever is added.
        min_frequency: pairs that occur less often are not merged.
        max_token_length: 64 bytes in the byte-level style, 16 characters in the other by default.

    Raises:
        ValueError: the corpus supports fewer new tokens.
        ConfigError: it is no BPE tokenizer.
        DataError, FileNotFoundError: see :func:`langadapt.read_documents`.
    """
    if new_tokens < 1:
        raise ConfigError(f"new_tokens: {new_tokens}; ask for at least 1")
    source = open_tokenizer(tokenizer)
    source = widened(source) if widen else source
    blueprint = blueprint_like(source)
    counter = make_counter(blueprint, max_sentence_length, max_words, thread_count(threads))
    reading = Reading(inputs, texts, text_field=text_field, text_unit=text_unit, strict=strict)
    count(counter, reading, blueprint, progress)
    limits = {"new_tokens": new_tokens, "min_frequency": min_frequency, "accept_fewer": accept_fewer}
    limits["max_token_length"] = max_token_length or LONGEST[blueprint.style]
    return extended(source, blueprint, counter, limits, progress=progress)


def extended(
    source: Tokenizer,
    blueprint: Blueprint,
    counter: _core.WordCounter,
    limits: Mapping[str, int],
    *,
    progress: Progress | None,
) -> Tokenizer:
    """The source with tokens learnt from the words that were counted, within ``limits``."""
    model = BpeModel(source)
    settings = {**limits, "byte_level": blueprint.style == "byte_level", "apart": sorted(model.apart)}
    settings["ignore_merges"] = bool(blueprint.model["ignore_merges"])
    learnt = counter.extend(model.tokens, model.merges, settings, progress)
    tokens = model.tokens + [token for token, _ in learnt]
    pairs = [(left, right) for left, right, _ in model.merges] + [pair for _, pair in learnt if pair]
    return rebuilt(source, blueprint, tokens, pairs)


@dataclass(frozen=True)
class TrimResult:
    """A smaller tokenizer and where the old ids went."""

    tokenizer: Tokenizer
    """The tokenizer without the tokens that were dropped."""
    id_map: NDArray[np.int64]
    """New id of each old one, -1 where it was dropped; ``[old vocab_size]``."""
    counts: NDArray[np.int64]
    """How often each old token came out on the corpus; ``[old vocab_size]``."""

    def save_pretrained(self, folder: str | Path) -> None:
        """The tokenizer's files and, as ``id_map.json``, the new id of each old one."""
        write_files({**self.tokenizer.files(), ID_MAP: json.dumps(self.id_map.tolist()).encode()}, Path(folder))


def trim_tokenizer(
    tokenizer: str | os.PathLike[str] | Tokenizer | Any,
    inputs: Inputs | None = None,
    *,
    texts: Documents | None = None,
    min_count: int = 1,
    vocab_size: int | None = None,
    text_field: str = "text",
    text_unit: str = "line",
    strict: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> TrimResult:
    """Drop the tokens that a corpus never uses.

    Kept are the tokens that come out at least ``min_count`` times, all tokens that they are made of on the way (so
    every kept token is still reached), added tokens and the alphabet of bytes. With ``min_count=1`` the corpus is
    encoded as before, but for the numbers; other text may need more tokens, and nothing becomes unknown that was not.

    Args:
        tokenizer: a folder, hub id, :class:`Tokenizer` or tokenizer of transformers; BPE of either style.
        inputs, texts: see :func:`langadapt.train_bpe`.
        min_count: keep what comes out so often.
        vocab_size: keep at most so many entries, the most used ones.
        text_field, text_unit, strict: see :func:`langadapt.read_documents`.
        threads: all cores by default.
        progress: called as ``(phase, done, total or None, unit)``.

    Raises:
        ValueError: ``vocab_size`` is too small for added tokens and bytes.
        ConfigError: it is no BPE tokenizer.
        DataError, FileNotFoundError: see :func:`langadapt.read_documents`.
    """
    if min_count < 1:
        raise ConfigError(f"min_count: {min_count}; at least 1, or nothing is dropped")
    source = open_tokenizer(tokenizer)
    blueprint = blueprint_like(source)
    model = BpeModel(source)
    reading = Reading(inputs, texts, text_field=text_field, text_unit=text_unit, strict=strict)
    counts = count_tokens(source, reading.documents(), threads, progress)
    kept = choose(model, counts, min_count, vocab_size)
    id_map = np.full(len(model.tokens), -1, dtype=np.int64)
    id_map[kept] = np.arange(len(kept))
    merges = [
        (int(id_map[left]), int(id_map[right]))
        for left, right, result in model.merges
        if min(id_map[left], id_map[right], id_map[result]) >= 0
    ]
    trimmed = rebuilt(source, blueprint, [model.tokens[id] for id in kept], merges)
    return TrimResult(trimmed, id_map, counts)


class BpeModel:
    """Tokens by id, with added tokens; merges as ids."""

    def __init__(self, source: Tokenizer) -> None:
        definition = json.loads(source.definition)
        model = definition["model"]
        ids: dict[str, int] = dict(model["vocab"])
        found = ((token["content"], source.token_to_id(token["content"])) for token in definition["added_tokens"])
        added = {token: id for token, id in found if id is not None}
        ids |= added
        self.tokens = [""] * source.vocab_size
        for token, id in ids.items():
            self.tokens[id] = token
        pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"])
        self.merges = [(ids[left], ids[right], ids[left + right]) for left, right in pairs]
        self.added = set(added.values())
        byte_pieces = {f"<0x{byte:02X}>" for byte in range(256)} if model.get("byte_fallback") else set()
        byte_level = source.native.is_byte_level if source.native is not None else not byte_pieces
        characters = set(_core.byte_characters()) if byte_level else {token for token in ids if len(token) == 1}
        alphabet = byte_pieces or characters
        self.alphabet = {ids[token] for token in alphabet if token in ids}
        """Tokens that any text may need."""
        self.apart = self.added | {ids[token] for token in byte_pieces if token in ids}
        """Tokens that never join others."""


def rebuilt(source: Tokenizer, blueprint: Blueprint, tokens: list[str], merges: Iterable[tuple[int, int]]) -> Tokenizer:
    """The source with another vocabulary; what names an id is made new.

    Added tokens stand in the vocabulary too: otherwise readers number them behind it, whatever the file says.
    """
    definition = json.loads(source.definition)
    ids = {token: id for id, token in enumerate(tokens) if token}
    definition["added_tokens"] = [token for token in definition["added_tokens"] if token["content"] in ids]
    for token in definition["added_tokens"]:
        token["id"] = ids[token["content"]]
    definition["added_tokens"].sort(key=lambda token: token["id"])
    definition["post_processor"] = with_ids(definition.get("post_processor"), ids)
    definition["truncation"] = definition["padding"] = None
    definition["model"]["vocab"] = ids
    definition["model"]["merges"] = [[tokens[left], tokens[right]] for left, right in merges]
    content = json.dumps(definition, ensure_ascii=False, separators=(",", ":")).encode()
    return Tokenizer(content, {**templates_of(source), CONFIG_FILE: json_bytes(blueprint.config)}, source.name)


def count_tokens(
    tokenizer: Tokenizer, texts: Iterator[str], threads: int | None, progress: Progress | None
) -> NDArray[np.int64]:
    """How often each token comes out."""
    counts = np.zeros(tokenizer.vocab_size, dtype=np.int64)
    done = 0
    for block in batches(texts):
        ids, _ = tokenizer.encode_batch(block, threads=threads)
        counts += np.bincount(ids, minlength=tokenizer.vocab_size)
        done += len(block)
        if progress is not None:
            progress("count tokens", done, None, "documents")
    return counts


def choose(model: BpeModel, counts: NDArray[np.int64], min_count: int, vocab_size: int | None) -> list[int]:
    """Ids to keep, ascending.

    Raises:
        ValueError: what must be kept is more than ``vocab_size``.
    """
    kept = model.added | model.alphabet
    limit = len(model.tokens) if vocab_size is None else vocab_size
    if len(kept) > limit:
        raise ValueError(f"vocab_size: {vocab_size}; added tokens and bytes alone take {len(kept)} entries")
    order = np.argsort(-counts, kind="stable")
    wanted = [int(id) for id in order if counts[id] >= min_count]
    for parts in _core.token_derivations(model.tokens, model.merges, wanted):
        new = {id for id in parts if id not in kept}
        if len(kept) + len(new) <= limit:
            kept |= new
    return sorted(kept)


def summary_of(result: TrimResult) -> dict[str, int]:
    """Numbers for people: entries before and after, and how many tokens were never used."""
    return {
        "before": len(result.id_map),
        "after": result.tokenizer.vocab_size,
        "never_used": int((result.counts == 0).sum()),
    }
