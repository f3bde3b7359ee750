"""Auxiliary token vectors: CBOW in the Rust core, or derived from published word vectors."""

from __future__ import annotations

from langadapt.vectors.cbow import load_vectors, save_vectors, train_vectors

__all__ = ["load_vectors", "save_vectors", "train_vectors"]
