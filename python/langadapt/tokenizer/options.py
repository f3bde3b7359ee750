"""What may be chosen about the training of a tokenizer; light, because recipes are made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langadapt.checks import at_least, number
from langadapt.errors import ConfigError
from langadapt.tokenizer.cutting import AUTO, Style, regex_of


@dataclass(kw_only=True)
class BpeOptions:
    """How :func:`langadapt.train_bpe` learns.

    ``style="byte_level"`` (GPT-4, Llama 3): a regex cuts the text, merges are learnt over bytes; merges, ids and
    vocabulary equal Hugging Face ``BpeTrainer``. ``style="sentencepiece"`` (Llama 2, Mistral): spaces are written
    U+2581, digits stay alone, what is not covered is written as bytes; pieces, order and scores equal ``sentencepiece``
    0.2.2 and later (``model_type=bpe``, ``byte_fallback``, ``split_digits``, ``allow_whitespace_only_pieces``,
    ``remove_extra_whitespaces=False``). Both give back any text exactly, unless ``normalization`` is asked for, and in
    the second style but for U+2581 itself and a space after what reads like a special token.
    """

    vocab_size: int = 32_768
    """Entries in all, special tokens and bytes included."""
    style: Style = "byte_level"
    """``byte_level`` (GPT-4, Llama 3) or ``sentencepiece`` (Llama 2, Mistral); not used with ``like``."""
    like: Any = None
    """A tokenizer (folder, hub id or object) whose normalizer, pre-tokenizer, decoder, special tokens (in the order of
    their ids, first), post-processor (with the new ids), byte fallback and chat template are taken over."""
    special_tokens: Sequence[str] | Mapping[str, str] = ()
    """Tokens, or roles (``bos_token``, ...) and their tokens, which get the first ids; none = begin, end and padding
    tokens, and ``<unk>`` in the SentencePiece style. With ``like``: more tokens."""
    pattern: str | None = None
    """Byte-level style: ``llama3-marks``, ``llama3``, ``gpt4``, ``gpt2``, ``qwen2``, ``qwen35``, ``o200k``, ``tekken``
    or a regex; none or ``auto`` = ``llama3-marks`` where the text has combining marks, else ``llama3``, which cuts text
    without marks alike. A regex that looks behind or refers to groups is run by the ``tokenizers`` package, much
    slower."""
    min_frequency: int | None = None
    """Pairs that occur less often are not merged; none = 2 in the byte-level style, 1 in the other, where 0 makes
    pieces that no longer occur rather than stop early, as SentencePiece does."""
    normalization: str | None = None
    """A Unicode form such as ``NFKC``; none = lossless."""
    character_coverage: float = 0.9995
    """SentencePiece style: share of all characters that are pieces of their own."""
    max_token_length: int | None = None
    """Byte-level style: bytes of the longest token, none = any; SentencePiece style: characters, none = 16."""
    max_sentence_length: int = 8192
    """SentencePiece style: longer lines, in bytes, are left out of training."""
    max_words: int | None = None
    """Keep at most so many different words per thread by forgetting the rarest. This bounds memory on any corpus, but
    counts become lower bounds and the result depends on the number of threads. Without it memory grows with the number
    of different words, 130 to 180 bytes for each."""
    code_tokens: bool = False
    """Give every printable character of ASCII a token, and runs of spaces, tabs and line feeds one each: those that
    ``like`` has, else up to 16, 8 and 4. Text in the new language is short of both, code is full of them."""
    keep_reserved: bool = False
    """With ``like``: take over its reserved and unused tokens, too (``<unused0>``, ``<|reserved_special_token_0|>``);
    they count towards ``vocab_size``."""
    source_share: float = 0.0
    """Share of the text that is learnt on, by bytes, taken from the source language, in [0, 1): one vocabulary for
    both. 0 = the new language alone, in which the source language costs more tokens than before."""
    parity: bool = False
    """Byte-level style: learn on both languages, each merge chosen for the one that needs more tokens per character at
    that point (parity-aware BPE, ACL 2026.342); ``source_share`` does not count then."""
    accept_fewer: bool = False
    """Be content with a smaller vocabulary where the corpus does not support ``vocab_size``."""

    @property
    def cuts_by_default(self) -> bool:
        """Whether the pattern is chosen by the text."""
        return self.like is None and self.style == "byte_level" and self.pattern in (None, AUTO)

    @property
    def wants_source(self) -> bool:
        """Whether text of the source language is learnt on."""
        return self.parity or self.source_share > 0

    def check(self, where: str = "") -> None:
        """Raise ConfigError for what cannot work; ``where`` is put before the name of the option."""
        number(where, vocab_size=self.vocab_size)
        if self.vocab_size < 1 or self.vocab_size != int(self.vocab_size):
            raise ConfigError(f"{where}vocab_size: {self.vocab_size} is not a number of entries")
        at_least(0, where, min_frequency=self.min_frequency)
        at_least(1, where, max_token_length=self.max_token_length, max_words=self.max_words)
        at_least(1, where, max_sentence_length=self.max_sentence_length)
        if self.pattern not in (None, AUTO):
            regex_of(str(self.pattern))
        if not 0 <= self.source_share < 1:
            raise ConfigError(f"{where}source_share: {self.source_share} is not in [0, 1)")
        if not 0 < self.character_coverage <= 1:
            raise ConfigError(f"{where}character_coverage: {self.character_coverage} is not in (0, 1]")
        if self.like is not None and (self.pattern not in (None, AUTO) or self.normalization is not None):
            raise ConfigError(
                f"{where}like: the pattern and the normalization are those of the other tokenizer; leave them out"
            )
