"""WECHSEL (Minixhofer et al., 2022, arXiv 2112.06598): word vectors of both languages, aligned by a dictionary.

Tokens of both vocabularies get vectors in one space; a target token's row is the mean of the rows of its nearest source
tokens, weighted by the softmax of the similarities.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from langadapt.errors import DataError, MismatchError
from langadapt.swap.matching import VocabularyMatch, match_vocabularies
from langadapt.swap.rows.focus import BLOCK_BYTES, unit_rows
from langadapt.swap.rows.plan import RowPlan, copied_entries, plan_of
from langadapt.vectors.published import WordVectors, read_word_vectors, word_model_vectors

MIN_PAIRS = 50
"""A rotation of hundreds of dimensions cannot be learnt from fewer pairs of words."""


def read_dictionary(path: str | Path) -> list[tuple[str, str]]:
    """Pairs of source and target word, one on each line, with a tab or a space between.

    Raises:
        DataError: a line is no pair.
    """
    pairs = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        words = [word.strip() for word in (line.split("\t") if "\t" in line else line.split())]
        if len(words) != 2 or not all(words):
            raise DataError(f"{path}:{number}: not a pair of words: {line[:60]!r}")
        pairs.append((words[0], words[1]))
    return pairs


def align(source: WordVectors, target: WordVectors, pairs: Iterable[tuple[str, str]]) -> NDArray[np.float32]:
    """The rotation that brings source vectors nearest to their translations' (orthogonal Procrustes).

    Words are looked up as they are, in lower case and capitalised, each form with the same form of its translation.

    Returns:
        float32 ``[source dim, target dim]``, with ``vector @ rotation`` in the target's space.

    Raises:
        MismatchError: the spaces differ in width, or too few pairs are known to both.
    """
    if source.dim != target.dim:
        raise MismatchError(f"source vectors are {source.dim} wide, target vectors {target.dim}; they must be the same")
    left, right = [], []
    for a, b in pairs:
        for form in dict.fromkeys(((a, b), (a.lower(), b.lower()), (a.title(), b.title()))):
            known = source.known(form[0]), target.known(form[1])
            if known[0] is not None and known[1] is not None:
                left.append(known[0])
                right.append(known[1])
    if len(left) < MIN_PAIRS:
        raise MismatchError(
            f"only {len(left)} pairs of the dictionary are words of both models; at least {MIN_PAIRS} are needed"
        )
    u, _, v = np.linalg.svd(np.stack(left).T.astype(np.float64) @ np.stack(right).astype(np.float64))
    return (u @ v).astype(np.float32)


def aligned_token_vectors(
    match: VocabularyMatch, source: WordVectors, target: WordVectors, pairs: Iterable[tuple[str, str]]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Vectors of all source and of all target tokens in the target's space; zeros for tokens without one."""
    rotation = align(source, target, pairs)
    return word_model_vectors(source, match.source) @ rotation, word_model_vectors(target, match.target)


def vectors_from_files(
    source_tokenizer: Any, target_tokenizer: Any, words: tuple[Path, Path, Path]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Vectors of all target and of all source tokens in one space, from two files of word vectors and a dictionary."""
    match = match_vocabularies(source_tokenizer, target_tokenizer)
    source, target = read_word_vectors(words[0]), read_word_vectors(words[1])
    of_source, of_target = aligned_token_vectors(match, source, target, read_dictionary(words[2]))
    return of_target, of_source


def plan_wechsel(
    match: VocabularyMatch,
    vectors: NDArray[np.float32],
    source_vectors: NDArray[np.float32],
    *,
    neighbours: int = 10,
    temperature: float = 0.1,
) -> RowPlan:
    """Every target token with a vector is combined, shared ones too, as published; others are copied or drawn.

    Args:
        match: the two vocabularies.
        vectors: float32 ``[target, dim]``, zero rows for tokens without a vector.
        source_vectors: float32 ``[source, dim]``, likewise, in the same space.
        neighbours: source tokens per target token.
        temperature: of the softmax.

    Raises:
        MismatchError: sizes do not fit, or no source token has a vector.
    """
    if source_vectors.shape != (match.source_size, vectors.shape[1]):
        raise MismatchError(
            f"source vectors of shape {list(source_vectors.shape)}; expected [{match.source_size}, {vectors.shape[1]}]"
        )
    sources = np.flatnonzero(np.any(source_vectors != 0, axis=1))
    special = np.array([kind == "special" for kind in match.target.kinds])
    made = np.flatnonzero(np.any(vectors != 0, axis=1) & ~special)
    if len(sources) == 0:
        raise MismatchError(f"none of {match.source_size} source tokens has a vector")
    if match.keeps_ids():
        # An extended tokenizer's old tokens are no new rows.
        made = np.setdiff1d(made, match.overlap_ids)
    k = min(neighbours, len(sources))
    anchors = unit_rows(source_vectors, sources)
    columns, weights = [], []
    for block in unit_rows(vectors, made).split(max(1, BLOCK_BYTES // (4 * len(sources)))):
        nearest = (block @ anchors.T).topk(k, dim=1)
        columns.append(nearest.indices.numpy())
        weights.append(torch.softmax(nearest.values.double() / temperature, dim=1).float().numpy())
    overlap, kept_sources, ones = copied_entries(match)
    rest = ~np.isin(overlap, made)
    others = (overlap[rest], kept_sources[rest], ones[rest])
    if not columns:
        return plan_of([others], match.target_size)
    combined = (np.repeat(made, k), sources[np.concatenate(columns).ravel()], np.concatenate(weights).ravel())
    return plan_of([others, combined], match.target_size)
