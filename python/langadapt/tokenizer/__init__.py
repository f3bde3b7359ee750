"""Tokenizers: opened, trained, extended, trimmed and checked; what a vocabulary's entries stand for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from langadapt.exports import on_first_use

if TYPE_CHECKING:
    from langadapt.tokenizer.editing import TrimResult, extend_tokenizer, trim_tokenizer
    from langadapt.tokenizer.encoder import Tokenizer
    from langadapt.tokenizer.training import train_bpe

__all__ = ["Tokenizer", "TrimResult", "extend_tokenizer", "train_bpe", "trim_tokenizer"]

_HOMES = {
    "langadapt.tokenizer.editing": ("TrimResult", "extend_tokenizer", "trim_tokenizer"),
    "langadapt.tokenizer.encoder": ("Tokenizer",),
    "langadapt.tokenizer.training": ("train_bpe",),
}
__getattr__, __dir__ = on_first_use(__name__, _HOMES)
