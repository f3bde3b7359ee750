"""Adapt a pretrained language model to another language within a budget.

The public names. They are imported on first use, so that ``langadapt --help`` does not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from langadapt._core import __version__

if TYPE_CHECKING:
    from langadapt.corpus import CorpusReport, build_corpus, expand_inputs, read_documents
    from langadapt.errors import ConfigError, DataError, LangadaptError, MismatchError
    from langadapt.evaluate import BitsPerByte, bits_per_byte, evaluate_suites, measure_bits_per_byte
    from langadapt.fertility import FertilityReport, measure_fertility
    from langadapt.initialize import initialize_embeddings
    from langadapt.pipeline import adapt, train
    from langadapt.recipe import Recipe
    from langadapt.report import write_report
    from langadapt.store import TokenStore, tokenize_corpus
    from langadapt.swap import SwapReport, swap_folder, swap_tokenizer
    from langadapt.tokenizer import Tokenizer
    from langadapt.tokenizer_editing import TrimResult, extend_tokenizer, trim_tokenizer
    from langadapt.tokenizer_training import train_bpe
    from langadapt.vectors import load_vectors, save_vectors, train_vectors
    from langadapt.vocabulary import VocabularyMatch, match_vocabularies

_HOMES = {
    "langadapt.corpus": ("CorpusReport", "build_corpus", "expand_inputs", "read_documents"),
    "langadapt.errors": ("ConfigError", "DataError", "LangadaptError", "MismatchError"),
    "langadapt.evaluate": ("BitsPerByte", "bits_per_byte", "evaluate_suites", "measure_bits_per_byte"),
    "langadapt.fertility": ("FertilityReport", "measure_fertility"),
    "langadapt.pipeline": ("adapt", "train"),
    "langadapt.recipe": ("Recipe",),
    "langadapt.report": ("write_report",),
    "langadapt.store": ("TokenStore", "tokenize_corpus"),
    "langadapt.tokenizer": ("Tokenizer",),
    "langadapt.tokenizer_editing": ("TrimResult", "extend_tokenizer", "trim_tokenizer"),
    "langadapt.tokenizer_training": ("train_bpe",),
    "langadapt.initialize": ("initialize_embeddings",),
    "langadapt.swap": ("SwapReport", "swap_folder", "swap_tokenizer"),
    "langadapt.vectors": ("load_vectors", "save_vectors", "train_vectors"),
    "langadapt.vocabulary": ("VocabularyMatch", "match_vocabularies"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "BitsPerByte",
    "ConfigError",
    "CorpusReport",
    "DataError",
    "FertilityReport",
    "LangadaptError",
    "MismatchError",
    "Recipe",
    "SwapReport",
    "TokenStore",
    "Tokenizer",
    "TrimResult",
    "VocabularyMatch",
    "__version__",
    "adapt",
    "bits_per_byte",
    "build_corpus",
    "evaluate_suites",
    "expand_inputs",
    "extend_tokenizer",
    "initialize_embeddings",
    "load_vectors",
    "match_vocabularies",
    "measure_bits_per_byte",
    "measure_fertility",
    "read_documents",
    "save_vectors",
    "swap_folder",
    "swap_tokenizer",
    "tokenize_corpus",
    "train",
    "train_bpe",
    "train_vectors",
    "trim_tokenizer",
    "write_report",
]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'langadapt' has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted(__all__)
