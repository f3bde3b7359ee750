"""Adapt a pretrained language model to another language within a budget.

The public names. They are imported on first use, so that ``langadapt --help`` does not wait for torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from langadapt._core import __version__
from langadapt.exports import on_first_use

if TYPE_CHECKING:
    from langadapt.artefacts.upload import download_folder, upload_folder
    from langadapt.corpus.build import CorpusReport, build_corpus
    from langadapt.corpus.documents import expand_inputs, read_documents
    from langadapt.errors import ConfigError, DataError, LangadaptError, MismatchError
    from langadapt.evaluation.bits_per_byte import BitsPerByte, bits_per_byte, measure_bits_per_byte
    from langadapt.evaluation.bootstrap import Difference, paired_difference
    from langadapt.evaluation.suites import evaluate_suites
    from langadapt.fertility import FertilityReport, measure_fertility
    from langadapt.pipeline.generation import generate
    from langadapt.pipeline.measuring import Evaluation, evaluate
    from langadapt.pipeline.run import adapt, train
    from langadapt.planning.foresight import plan
    from langadapt.planning.plan import Plan
    from langadapt.recipe.recipe import Recipe
    from langadapt.report import write_report
    from langadapt.report.outcome import Outcome
    from langadapt.report.verdict import Verdict
    from langadapt.store import TokenStore, tokenize_corpus
    from langadapt.swap.files import swap_folder
    from langadapt.swap.loaded import swap_tokenizer
    from langadapt.swap.matching import VocabularyMatch, match_vocabularies
    from langadapt.swap.report import SwapReport
    from langadapt.swap.rows.initialize import initialize_embeddings
    from langadapt.tokenizer.editing import TrimResult, extend_tokenizer, trim_tokenizer
    from langadapt.tokenizer.encoder import Tokenizer
    from langadapt.tokenizer.training import train_bpe
    from langadapt.vectors.cbow import load_vectors, save_vectors, train_vectors

__all__ = [
    "BitsPerByte",
    "ConfigError",
    "CorpusReport",
    "DataError",
    "Difference",
    "Evaluation",
    "FertilityReport",
    "LangadaptError",
    "MismatchError",
    "Outcome",
    "Plan",
    "Recipe",
    "SwapReport",
    "TokenStore",
    "Tokenizer",
    "TrimResult",
    "Verdict",
    "VocabularyMatch",
    "__version__",
    "adapt",
    "bits_per_byte",
    "build_corpus",
    "download_folder",
    "evaluate",
    "evaluate_suites",
    "expand_inputs",
    "extend_tokenizer",
    "generate",
    "initialize_embeddings",
    "load_vectors",
    "match_vocabularies",
    "measure_bits_per_byte",
    "measure_fertility",
    "paired_difference",
    "plan",
    "read_documents",
    "save_vectors",
    "swap_folder",
    "swap_tokenizer",
    "tokenize_corpus",
    "train",
    "train_bpe",
    "train_vectors",
    "trim_tokenizer",
    "upload_folder",
    "write_report",
]

_HOMES = {
    "langadapt._core": ("__version__",),
    "langadapt.artefacts.upload": ("download_folder", "upload_folder"),
    "langadapt.corpus.build": ("CorpusReport", "build_corpus"),
    "langadapt.corpus.documents": ("expand_inputs", "read_documents"),
    "langadapt.errors": ("ConfigError", "DataError", "LangadaptError", "MismatchError"),
    "langadapt.evaluation.bits_per_byte": ("BitsPerByte", "bits_per_byte", "measure_bits_per_byte"),
    "langadapt.evaluation.bootstrap": ("Difference", "paired_difference"),
    "langadapt.evaluation.suites": ("evaluate_suites",),
    "langadapt.fertility": ("FertilityReport", "measure_fertility"),
    "langadapt.pipeline.generation": ("generate",),
    "langadapt.pipeline.measuring": ("Evaluation", "evaluate"),
    "langadapt.pipeline.run": ("adapt", "train"),
    "langadapt.planning.foresight": ("plan",),
    "langadapt.planning.plan": ("Plan",),
    "langadapt.recipe.recipe": ("Recipe",),
    "langadapt.report": ("write_report",),
    "langadapt.report.outcome": ("Outcome",),
    "langadapt.report.verdict": ("Verdict",),
    "langadapt.store": ("TokenStore", "tokenize_corpus"),
    "langadapt.swap.files": ("swap_folder",),
    "langadapt.swap.loaded": ("swap_tokenizer",),
    "langadapt.swap.matching": ("VocabularyMatch", "match_vocabularies"),
    "langadapt.swap.report": ("SwapReport",),
    "langadapt.swap.rows.initialize": ("initialize_embeddings",),
    "langadapt.tokenizer.editing": ("TrimResult", "extend_tokenizer", "trim_tokenizer"),
    "langadapt.tokenizer.encoder": ("Tokenizer",),
    "langadapt.tokenizer.training": ("train_bpe",),
    "langadapt.vectors.cbow": ("load_vectors", "save_vectors", "train_vectors"),
}
__getattr__, __dir__ = on_first_use(__name__, _HOMES)
