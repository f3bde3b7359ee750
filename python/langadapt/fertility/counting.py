"""Tokens of a corpus, natively or through the package ``tokenizers``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langadapt import _core
from langadapt.corpus.documents import Inputs, TextStream, path_names, read_documents
from langadapt.corpus.samples import batches
from langadapt.fertility.metrics import CorpusCounts, Tally
from langadapt.progress import Progress
from langadapt.tokenizer.encoder import Tokenizer
from langadapt.tokenizer.files import load_package


@dataclass
class Reader:
    """Counts one corpus after the other for the same tokenizers."""

    tokenizers: Sequence[Tokenizer]
    text_field: str
    aligned: bool
    threads: int
    progress: Progress | None

    def count(self, inputs: Inputs) -> tuple[CorpusCounts, list[Tally]]:
        """Size of the corpus and one tally per tokenizer."""
        names = path_names(inputs)
        stream = None if names is not None else TextStream(inputs, self.text_field, self.aligned)  # type: ignore[arg-type]
        source = stream if names is None else names
        if all(tokenizer.native is not None for tokenizer in self.tokenizers):
            found = self.count_natively(source)  # type: ignore[arg-type]
        else:
            found = self.count_in_batches(inputs if stream is None else stream)
        skipped = sum(found["read"]["skipped"].values()) + (stream.skipped if stream is not None else 0)
        sizes = CorpusCounts(
            found["read"]["documents"],
            found["read"]["bytes"],
            found["characters"],
            found["words"],
            found["unicode_words"],
            skipped,
        )
        return sizes, found["tallies"]

    def count_natively(self, source: list[str] | Iterator[str]) -> dict[str, Any]:
        """Native tokenizers, and the sizes of the corpus."""
        natives = [tokenizer.native for tokenizer in self.tokenizers if tokenizer.native is not None]
        found = _core.count_tokens(source, natives, self.text_field, self.aligned, self.threads, self.progress)
        tallies = [Tally(counts.astype(np.int64), continued) for counts, continued in found.pop("tokenizers")]
        return found | {"tallies": tallies}

    def count_in_batches(self, inputs: Inputs) -> dict[str, Any]:
        """All tokenizers on a few megabytes at a time: the package ``tokenizers`` takes Python strings."""
        total: dict[str, Any] | None = None
        documents = read_documents(inputs, text_field=self.text_field, strict=self.aligned)
        quiet = Reader(self.tokenizers, self.text_field, self.aligned, self.threads, None)
        packages = [
            None if tokenizer.native is not None else load_package(tokenizer.definition, tokenizer.name)
            for tokenizer in self.tokenizers
        ]
        for batch in batches(documents):
            found = quiet.count_natively(iter(batch))
            natives = iter(found["tallies"])
            found["tallies"] = [
                next(natives) if package is None else count_with_package(package, tokenizer.vocab_size, batch)
                for package, tokenizer in zip(packages, self.tokenizers, strict=True)
            ]
            total = found if total is None else add(total, found)
            if self.progress is not None:
                self.progress("count tokens", total["characters"], None, "characters")
        if total is None:
            # Says which input is empty.
            return quiet.count_natively(iter(()))
        return total


def add(total: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """Sum of two results of :meth:`Reader.count_in_batches`."""
    for key in ("documents", "bytes"):
        total["read"][key] += found["read"][key]
    for key in ("characters", "words", "unicode_words"):
        total[key] += found[key]
    for mine, more in zip(total["tallies"], found["tallies"], strict=True):
        mine.counts += more.counts
        mine.continued_words += more.continued_words
    return total


def count_with_package(package: Any, vocab_size: int, texts: Sequence[str]) -> Tally:
    """Counts of a tokenizer that is not native; words are laid beside tokens by the package's offsets."""
    counts = np.zeros(vocab_size, dtype=np.int64)
    continued = 0
    # The package lays the space that a normalizer puts before a text beside the first word, whose part it is not.
    space = package.token_to_id("▁")
    for start in range(0, len(texts), 64):
        block = texts[start : start + 64]
        for text, encoding in zip(block, package.encode_batch(block, add_special_tokens=False), strict=True):
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
