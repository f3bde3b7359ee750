"""Text out of files: documents streamed, filtered, deduplicated and split, by the Rust core."""

from __future__ import annotations

from langadapt.corpus.build import CorpusReport, build_corpus
from langadapt.corpus.documents import expand_inputs, read_documents

__all__ = ["CorpusReport", "build_corpus", "expand_inputs", "read_documents"]
