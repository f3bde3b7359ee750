"""Tokens of a corpus, natively or through the package ``tokenizers``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langadapt import _core
from langadapt.corpus.documents import Reading
from langadapt.corpus.samples import batches
from langadapt.fertility.metrics import CorpusCounts, Tally
from langadapt.progress import Progress
from langadapt.tokenizer.encoder import Tokenizer
from langadapt.tokenizer.package import CANNOT_ENCODE, load_package, package_errors


@dataclass
class Reader:
    """Counts one corpus after the other for the same tokenizers."""

    tokenizers: Sequence[Tokenizer]
    threads: int
    progress: Progress | None

    def count(self, reading: Reading) -> tuple[CorpusCounts, list[Tally]]:
        """Size of the corpus and one tally per tokenizer."""
        stream = reading.stream() if reading.names is None else None
        if all(tokenizer.native is not None for tokenizer in self.tokenizers):
            with nullcontext(stream) if stream is not None else reading.local() as source:
                found = self.count_natively(source, reading)
        else:
            found = self.count_in_batches(reading.documents() if stream is None else stream, reading)
        read = found["read"]
        skipped = sum(read["skipped"].values()) + (stream.skipped if stream is not None else 0)
        sizes = {key: found[key] for key in ("characters", "graphemes", "words", "unicode_words")}
        return CorpusCounts(read["documents"], read["bytes"], **sizes, skipped=skipped), found["tallies"]

    def count_natively(self, source: Any, reading: Reading, *, quiet: bool = False) -> dict[str, Any]:
        """Native tokenizers, and the sizes of the corpus: names of files, or an iterator of texts."""
        natives = [tokenizer.native for tokenizer in self.tokenizers if tokenizer.native is not None]
        progress = None if quiet else self.progress
        found = _core.count_tokens(source, natives, reading.text_field, reading.strict, self.threads, progress)
        tallies = [Tally(counts.astype(np.int64), *words) for counts, words in found.pop("tokenizers")]
        return found | {"tallies": tallies}

    def count_in_batches(self, documents: Iterator[str], reading: Reading) -> dict[str, Any]:
        """All tokenizers on a few megabytes at a time: the package ``tokenizers`` takes Python strings."""
        total: dict[str, Any] | None = None
        packages = [
            None if tokenizer.native is not None else load_package(tokenizer.definition, tokenizer.name)
            for tokenizer in self.tokenizers
        ]
        for batch in batches(documents):
            found = self.count_natively(iter(batch), reading, quiet=True)
            natives = iter(found["tallies"])
            found["tallies"] = [
                next(natives) if package is None else count_with_package(package, tokenizer, batch)
                for package, tokenizer in zip(packages, self.tokenizers, strict=True)
            ]
            total = found if total is None else add(total, found)
            if self.progress is not None:
                self.progress("count tokens", total["characters"], None, "characters")
        # An empty corpus is named by the core.
        return self.count_natively(iter(()), reading) if total is None else total


def add(total: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """Sum of two results of :meth:`Reader.count_in_batches`."""
    for key in ("documents", "bytes"):
        total["read"][key] += found["read"][key]
    for key in ("characters", "graphemes", "words", "unicode_words"):
        total[key] += found[key]
    for mine, more in zip(total["tallies"], found["tallies"], strict=True):
        mine.counts += more.counts
        mine.continued_words += more.continued_words
        mine.torn_words += more.torn_words
        mine.placed_words += more.placed_words
    return total


def count_with_package(package: Any, tokenizer: Tokenizer, texts: Sequence[str]) -> Tally:
    """Counts of a tokenizer that is not native; words are laid beside tokens by the package's offsets.

    Raises:
        DataError: the package fails on a text.
    """
    counts = np.zeros(tokenizer.vocab_size, dtype=np.int64)
    continued = 0
    # The package lays the space that a normalizer puts before a text beside the first word, whose part it is not.
    space = package.token_to_id("▁")
    for start in range(0, len(texts), 64):
        block = texts[start : start + 64]
        with package_errors(f"{tokenizer.name}: {CANNOT_ENCODE}"):
            encodings = package.encode_batch(block, add_special_tokens=False)
        for text, encoding in zip(block, encodings, strict=True):
            ids = np.array(encoding.ids, dtype=np.int64)
            counts += np.bincount(ids, minlength=len(counts))
            continued += continued_words(text, np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)[ids != space])
    return Tally(counts, continued)


def continued_words(text: str, offsets: NDArray[np.int64]) -> int:
    """How many words more than one token has a part in; ``offsets`` are start and end of tokens in characters."""
    words = np.array([match.span() for match in re.finditer(r"\S+", text)], dtype=np.int64).reshape(-1, 2)
    offsets = offsets[offsets[:, 1] > offsets[:, 0]]
    # Both lists ascend: a word's tokens end behind its start and start before its end.
    first = np.searchsorted(offsets[:, 1], words[:, 0], side="right")
    last = np.searchsorted(offsets[:, 0], words[:, 1], side="left")
    return int((last - first > 1).sum())
