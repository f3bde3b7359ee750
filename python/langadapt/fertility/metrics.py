"""Counts to figures: the metrics and where they come from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from langadapt import _core
from langadapt.tokenizer.encoder import Tokenizer

RENYI_ORDER = 2.5
"""Order of the Rényi entropy that predicts translation quality best (Zouhar et al. 2023)."""


@dataclass(frozen=True)
class Fertility:
    """One tokenizer on one corpus. A figure that is not defined (no words, no reference) is ``None``."""

    tokens: int
    """Tokens of all documents, special tokens left out."""
    tokens_per_word: float | None
    """Tokens by words between white space: the fertility of Rust et al. (2021)."""
    tokens_per_unicode_word: float | None
    """Tokens by words of Unicode UAX #29; for scripts without spaces, where white space says nothing."""
    tokens_per_grapheme: float | None
    """Tokens by extended grapheme clusters of Unicode UAX #29, which readers take for characters."""
    characters_per_token: float | None
    """Code points of the text by tokens."""
    bytes_per_token: float | None
    """UTF-8 bytes of the text by tokens."""
    continued_words: float | None
    """Share of words between white space that more than one token has a part in (Rust et al. 2021). Words of a document
    whose tokens do not add up to its text, because it is normalized or has unknown characters, are encoded alone."""
    torn_words: float | None
    """Share of words between white space with a border between tokens inside a grapheme: before a vowel sign or an
    accent, or within a character. Documents whose tokens do not add up to their text are left out; ``None`` for
    tokenizers outside the native families."""
    parity: float | None
    """Tokens by tokens of the same tokenizer on the reference, line-aligned, corpus: the premium of Petrov et al.
    (2023). 1 is parity; above 1 this language costs more."""
    renyi_efficiency: float | None
    """Rényi entropy of order 2.5 of the tokens' distribution, by the logarithm of the vocabulary size (Zouhar et al.
    2023, eq. 7); 0 to 1. The size is the tokenizer's, unused tokens included."""
    renyi_entropy: float | None
    """That entropy in bits: log2(sum of p^2.5) / (1 - 2.5)."""
    shannon_entropy: float | None
    """Entropy of the tokens' distribution in bits per token."""
    vocabulary_used: int
    """Distinct tokens that occur."""
    vocabulary_share: float
    """The same by the vocabulary size."""
    rare_tokens: int
    """Vocabulary entries that occur less than ``rare_below`` times, absent ones included: their embeddings see next to
    no training on this text."""
    byte_token_share: float | None
    """Share of tokens that are less than whole characters: ``<0xNN>`` tokens, or byte-level tokens that are not valid
    UTF-8."""
    unknown_share: float | None
    """Share of tokens that are the unknown token; 0 where there is none."""
    mean_token_length: float | None
    """Mean length in characters of the distinct tokens that occur; the mean over occurrences is
    ``characters_per_token``."""


@dataclass(frozen=True)
class CorpusCounts:
    """Size of a corpus, whatever the tokenizer."""

    documents: int
    bytes: int
    """UTF-8 bytes of text."""
    characters: int
    """Code points."""
    graphemes: int
    """Extended grapheme clusters of Unicode UAX #29."""
    words: int
    """Words between white space."""
    unicode_words: int
    """Words of Unicode UAX #29."""
    skipped: int
    """Lines that held no document."""


@dataclass
class Tally:
    """Occurrences of each id, int64 ``[vocab_size]``, and numbers of words."""

    counts: NDArray[np.int64]
    continued_words: int
    torn_words: int = 0
    placed_words: int = 0
    """Words that were looked at for torn ones."""


@dataclass(frozen=True)
class Surface:
    """Per id: characters of its text, and whether it is less than whole characters; and the unknown token."""

    characters: NDArray[np.uint32]
    is_byte: NDArray[np.bool_]
    unknown: int | None

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Surface:
        """The surfaces of a tokenizer's ids."""
        unknown = tokenizer.unk_token_id
        if tokenizer.native is not None:
            return cls(*_core.token_surfaces(tokenizer.native), unknown)
        tokens = [tokenizer.id_to_token(id) or "" for id in range(tokenizer.vocab_size)]
        # Marks of word starts (`▁`, `Ġ`) and of continuations (WordPiece's `##`) are no part of the text, spaces are.
        characters = [len(token.removeprefix("##")) for token in tokens]
        is_byte = [re.fullmatch(r"<0x[0-9A-F]{2}>", token) is not None for token in tokens]
        return cls(np.array(characters, dtype=np.uint32), np.array(is_byte, dtype=np.bool_), unknown)


def describe(
    corpus: CorpusCounts, tally: Tally, *, surface: Surface, reference_tokens: int | None, rare_below: int
) -> Fertility:
    """The metrics of one tokenizer on one corpus; ``reference_tokens`` are its tokens on the reference."""
    counts = tally.counts
    tokens = int(counts.sum())
    used = counts > 0
    shannon, renyi = entropies(counts)
    size = len(counts)
    return Fertility(
        tokens=tokens,
        tokens_per_word=ratio(tokens, corpus.words),
        tokens_per_unicode_word=ratio(tokens, corpus.unicode_words),
        tokens_per_grapheme=ratio(tokens, corpus.graphemes),
        characters_per_token=ratio(corpus.characters, tokens),
        bytes_per_token=ratio(corpus.bytes, tokens),
        continued_words=ratio(tally.continued_words, corpus.words),
        torn_words=ratio(tally.torn_words, tally.placed_words),
        parity=None if reference_tokens is None else ratio(tokens, reference_tokens),
        renyi_efficiency=None if renyi is None or size < 2 else renyi / float(np.log2(size)),
        renyi_entropy=renyi,
        shannon_entropy=shannon,
        vocabulary_used=int(used.sum()),
        vocabulary_share=int(used.sum()) / max(size, 1),
        rare_tokens=int((counts < rare_below).sum()),
        byte_token_share=ratio(int(counts[surface.is_byte].sum()), tokens),
        unknown_share=ratio(0 if surface.unknown is None else int(counts[surface.unknown]), tokens),
        mean_token_length=float(surface.characters[used].mean()) if used.any() else None,
    )


def ratio(above: int, below: int) -> float | None:
    """A quotient, or ``None`` where there is nothing to divide by."""
    return above / below if below else None


def entropies(counts: NDArray[np.int64]) -> tuple[float | None, float | None]:
    """Shannon and Rényi entropy in bits of the distribution that ``counts`` are drawn from."""
    total = counts.sum()
    if not total:
        return None, None
    share = counts[counts > 0] / total
    # `+ 0.0`: no minus zero for a single token.
    shannon = float(-(share * np.log2(share)).sum()) + 0.0
    return shannon, float(np.log2((share**RENYI_ORDER).sum()) / (1 - RENYI_ORDER)) + 0.0


def gini_over(cells: Mapping[str, Fertility], corpora: Mapping[str, CorpusCounts], aligned: bool) -> float | None:
    """See :attr:`TokenizerSummary.gini`."""
    sizes = [corpora[name].documents if aligned else corpora[name].bytes for name in cells]
    if len(cells) < 2 or not all(sizes):
        return None
    return gini([cell.tokens / size for cell, size in zip(cells.values(), sizes, strict=True)])


def gini(values: Sequence[float]) -> float:
    """Gini coefficient: mean absolute difference of all ordered pairs, by twice the mean; 0 where all are 0."""
    array = np.asarray(values, dtype=np.float64)
    mean = array.mean()
    return float(np.abs(array[:, None] - array[None, :]).mean() / (2 * mean)) if mean else 0.0
