"""A model with another tokenizer: vocabularies matched, rows planned, weights rewritten."""

from __future__ import annotations

from typing import TYPE_CHECKING

from langadapt.exports import on_first_use

if TYPE_CHECKING:
    from langadapt.swap.files import swap_folder
    from langadapt.swap.loaded import swap_tokenizer
    from langadapt.swap.matching import VocabularyMatch, match_vocabularies
    from langadapt.swap.report import SwapReport
    from langadapt.swap.rows.initialize import initialize_embeddings

__all__ = [
    "SwapReport",
    "VocabularyMatch",
    "initialize_embeddings",
    "match_vocabularies",
    "swap_folder",
    "swap_tokenizer",
]

_HOMES = {
    "langadapt.swap.files": ("swap_folder",),
    "langadapt.swap.loaded": ("swap_tokenizer",),
    "langadapt.swap.matching": (
        "VocabularyMatch",
        "match_vocabularies",
    ),
    "langadapt.swap.report": ("SwapReport",),
    "langadapt.swap.rows.initialize": ("initialize_embeddings",),
}
__getattr__, __dir__ = on_first_use(__name__, _HOMES)
