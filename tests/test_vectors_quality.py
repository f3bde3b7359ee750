"""Token vectors against gensim's FastText on one store: they must agree as well as two seeds of gensim's do."""

from __future__ import annotations

import numpy as np
import pytest

from langadapt import Tokenizer, read_documents, tokenize_corpus
from langadapt.vectors.cbow import token_surfaces, train_vectors

TOKENS = 600_000
SETTINGS = {"dim": 60, "epochs": 3}


def neighbours(vectors: np.ndarray, queries: np.ndarray, pool: np.ndarray) -> np.ndarray:
    """The ten nearest of `pool` for each query, itself left out."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    scores = unit[queries] @ unit[pool].T
    scores[queries[:, None] == pool[None, :]] = -2
    return np.argpartition(-scores, 10, axis=1)[:, :10]


def agreement(a: np.ndarray, b: np.ndarray) -> float:
    """Mean share of common neighbours."""
    return float(np.mean([len(set(x) & set(y)) / 10 for x, y in zip(a, b, strict=True)]))


def gensim_vectors(gensim, sentences: list[list[str]], surfaces: list[str], seed: int) -> np.ndarray:
    """gensim with fastText's settings; its defaults differ in the noise exponent and the learning rate."""
    model = gensim.models.FastText(
        sentences,
        vector_size=SETTINGS["dim"],
        epochs=SETTINGS["epochs"],
        sg=0,
        window=5,
        negative=10,
        ns_exponent=0.5,
        sample=1e-4,
        min_count=10,
        alpha=0.05,
        min_alpha=0.0,
        min_n=3,
        max_n=6,
        workers=1,
        seed=seed,
    )
    vectors = np.zeros((len(surfaces), SETTINGS["dim"]), dtype=np.float32)
    for token, surface in enumerate(surfaces):
        if surface in model.wv.key_to_index:
            vectors[token] = model.wv[surface]
    return vectors


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_neighbours_agree_with_gensims(shared, tmp_path) -> None:
    models = pytest.importorskip("gensim.models", reason="gensim is not installed")
    tokenizer = Tokenizer.from_pretrained(shared / "tokenizers" / "paper-de")
    texts, size = [], 0
    for text in read_documents([str(shared / "corpus" / "de.jsonl.zst")]):
        texts.append(text)
        size += len(text)
        if size > TOKENS * 4:
            break
    store = tokenize_corpus(iter(texts), tokenizer, tmp_path / "store")
    surfaces = token_surfaces(store)
    # fastText's line of 1,024 tokens, which is also ours.
    sentences = [
        [surfaces[token] for token in ids[start : start + 1024]] for ids in store for start in range(0, len(ids), 1024)
    ]
    counts = np.bincount(store.tokens, minlength=len(surfaces))
    order = np.argsort(-counts, kind="stable")
    pool, queries = order[: int((counts >= 20).sum())], order[100:1500]
    own = [neighbours(train_vectors(store, **SETTINGS, threads=1, seed=seed), queries, pool) for seed in (0, 1)]
    gensim = type("gensim", (), {"models": models})
    theirs = [neighbours(gensim_vectors(gensim, sentences, surfaces, seed), queries, pool) for seed in (1, 2)]
    among_theirs = agreement(*theirs)
    assert agreement(*own) > among_theirs - 0.03
    assert agreement(own[0], theirs[0]) > among_theirs - 0.03
    assert agreement(own[1], theirs[1]) > among_theirs - 0.03
