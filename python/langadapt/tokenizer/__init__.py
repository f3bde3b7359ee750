"""Tokenizers: opened, trained, extended, trimmed and checked; what a vocabulary's entries stand for."""

from __future__ import annotations

from langadapt.tokenizer.editing import TrimResult, extend_tokenizer, trim_tokenizer
from langadapt.tokenizer.encoder import Tokenizer
from langadapt.tokenizer.training import train_bpe

__all__ = ["Tokenizer", "TrimResult", "extend_tokenizer", "train_bpe", "trim_tokenizer"]
