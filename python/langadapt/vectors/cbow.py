"""Auxiliary token vectors: CBOW over a token store, and the files that hold them.

A file is safetensors with one float32 tensor ``vectors`` ``[vocabulary, dim]`` and, as metadata, the identity of the
vocabulary that it belongs to. A zero row means that the token has no vector.
"""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from langadapt import _core
from langadapt.artefacts.folders import whole_file
from langadapt.artefacts.places import check_file, check_space
from langadapt.checks import seed_fits
from langadapt.errors import ConfigError, DataError, MismatchError
from langadapt.machine import thread_count
from langadapt.progress import Progress
from langadapt.store import TokenStore
from langadapt.tokenizer.vocabulary import read_vocabulary
from langadapt.vectors.published import read_word_vectors, token_model_vectors

TENSOR = "vectors"


def train_vectors(
    store: Any,
    *,
    dim: int = 300,
    epochs: int = 3,
    window: int = 5,
    negative: int = 10,
    min_count: int = 10,
    threads: int | None = None,
    seed: int = 0,
    learning_rate: float = 0.05,
    subsample: float = 1e-4,
    ngrams: tuple[int, int] = (3, 6),
    tokenizer: Any = None,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """One vector per token, by CBOW with character n-grams as fastText trains it (Bojanowski et al., 2017).

    The defaults are fastText's, with the dimension, epochs, negatives and minimum count that FOCUS uses.

    Args:
        store: a ``TokenStore`` or its folder.
        dim: width of a vector.
        epochs: passes over the store.
        window: largest distance of a context token; each target draws its own.
        negative: noise tokens per target.
        min_count: tokens seen less often get no vector, that is a zero row.
        threads: workers; one gives the same bits every time, more do not. Default: one per core.
        seed: of all draws.
        learning_rate: at the start; falls linearly to zero.
        subsample: tokens more frequent than this share are thinned; 0 keeps all.
        ngrams: shortest and longest character n-gram of a token's surface; ``(0, 0)`` for none.
        tokenizer: names the tokens; default: the one that the store keeps.
        progress: called as ``progress(phase, done, total, unit)``.

    Returns:
        float32 ``[vocabulary, dim]``; memory is bounded by the vocabulary, whatever the size of the store.

    Raises:
        ValueError: a setting is out of range, or too few tokens reach ``min_count``.
        MismatchError: the tokenizer is not the store's.
    """
    # Long: a public function, whose arguments are explained; the body has 17 lines.
    seed_fits(seed)
    store = open_store(store)
    settings: dict[str, Any] = {"dim": dim, "epochs": epochs, "window": window, "negatives": negative, "seed": seed}
    settings |= {"min_count": min_count, "learning_rate": learning_rate, "subsample": subsample, "ngrams": ngrams}
    settings["threads"] = thread_count(threads)
    vectors, _ = _core.train_cbow(
        # A store in parts is copied into memory here.
        np.asarray(store.tokens),
        np.ascontiguousarray(store.offsets, dtype=np.uint64),
        token_surfaces(store, tokenizer),
        settings,
        progress,
    )
    return vectors


def open_store(store: Any) -> Any:
    """``store``, or the store in that folder."""
    if isinstance(store, (str, Path)):
        return TokenStore.open(store)
    return store


def token_surfaces(store: Any, tokenizer: Any = None) -> list[str]:
    """A readable string per id, of which the n-grams are made."""
    vocabulary = read_vocabulary(tokenizer if tokenizer is not None else store_tokenizer(store))
    size = int(store.manifest["summary"]["vocab_size"])
    if len(vocabulary) > size or (tokenizer is None and len(vocabulary) != size):
        raise MismatchError(
            f"the tokenizer has {len(vocabulary)} ids but the store was written with {size}; they do not belong "
            "together"
        )
    # Special tokens never occur in a store; their names hold no character of the language.
    surfaces = [vocabulary.surface(token) if vocabulary.texts[token] else "" for token in range(len(vocabulary))]
    return surfaces + [""] * (size - len(surfaces))


def store_tokenizer(store: Any) -> Path:
    """The ``tokenizer.json`` that a store keeps."""
    file = Path(store.folder) / "tokenizer.json"
    if not file.is_file():
        raise DataError(f"{file}: missing; pass the tokenizer that the store was written with")
    return file


def save_vectors(vectors: NDArray[np.float32], path: str | Path, *, store: Any = None, tokenizer: Any = None) -> None:
    """Write ``vectors`` to a safetensors file, whole or not at all.

    Args:
        vectors: float32 ``[vocabulary, dim]``.
        path: the file; folders above it are made.
        store: that they were trained on; names the vocabulary they belong to.
        tokenizer: the same, where there is no store.
    """
    path = Path(path)
    check_place(path, vectors.nbytes)
    # One entry at most: safetensors writes several in an order that differs from process to process.
    metadata = {}
    if tokenizer is not None or store is not None:
        vocabulary = read_vocabulary(tokenizer if tokenizer is not None else store_tokenizer(open_store(store)))
        metadata["vocabulary"] = vocabulary.identity
    with whole_file(path) as file:
        try:
            save_file({TENSOR: np.ascontiguousarray(vectors, dtype=np.float32)}, file, metadata=metadata)
        except SafetensorError as error:
            raise OSError(errno.ENOSPC, f"cannot be written ({error})", str(path)) from None


def check_place(path: Path, size: int) -> None:
    """Try the place of a file of ``size`` bytes, before the work for it is done.

    Raises:
        OSError: a folder or somebody's file is in the way, nothing may be written there, or the disk is too full.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder; name a file such as vectors.safetensors", str(path))
    check_file(path, holds_vectors)
    check_space(path, size)


def holds_vectors(path: Path) -> bool:
    """Whether a file is one of :func:`save_vectors`."""
    try:
        with safe_open(path, framework="np") as file:
            return list(file.keys()) == [TENSOR]
    except SafetensorError:
        return False


def load_vectors(path: str | Path, *, tokenizer: Any = None) -> NDArray[np.float32]:
    """Read a file of :func:`save_vectors`, any safetensors file with one matrix, or a fastText model of tokens.

    Args:
        path: the file; ``.bin`` and ``.vec`` files are read as fastText's, trained on tokenized text.
        tokenizer: must be the one that the vectors were made for, where the file says so; names the rows of a
            fastText model.

    Raises:
        DataError: the file holds no single float matrix.
        MismatchError: the vectors belong to another vocabulary.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(2, "No such file or directory", str(path))
    if path.suffix in (".bin", ".vec"):
        return load_token_model(path, tokenizer)
    try:
        with safe_open(path, framework="np") as file:
            names = list(file.keys())
            name = TENSOR if TENSOR in names else names[0] if len(names) == 1 else None
            vectors = file.get_tensor(name) if name is not None else None
            identity = (file.metadata() or {}).get("vocabulary")
    except SafetensorError as error:
        raise DataError(f"{path}: not a safetensors file of vectors: {error}") from None
    if vectors is None or vectors.ndim != 2:
        raise DataError(f"{path}: holds {', '.join(names) or 'nothing'}, not one matrix `{TENSOR}`")
    if tokenizer is not None and identity is not None:
        check_identity(path, identity, vectors, tokenizer)
    return np.ascontiguousarray(vectors, dtype=np.float32)


def load_token_model(path: Path, tokenizer: Any) -> NDArray[np.float32]:
    """Vectors of tokens from a fastText model that was trained on tokenized text."""
    if tokenizer is None:
        raise ConfigError(f"{path}: a fastText model holds words, not ids; pass the tokenizer that it was trained with")
    model, vocabulary = read_word_vectors(path), read_vocabulary(tokenizer)
    vectors = token_model_vectors(model, vocabulary)
    if not vectors.any():
        raise MismatchError(
            f"{path}: none of its {len(model.index)} words is one of the {len(vocabulary)} tokens of "
            f"{vocabulary.tokenizer.name}; it was trained with another tokenizer, or on words"
        )
    return vectors


def check_identity(path: Path, identity: str, vectors: NDArray[Any], tokenizer: Any) -> None:
    """Refuse vectors of another vocabulary."""
    vocabulary = read_vocabulary(tokenizer)
    if vocabulary.identity != identity:
        raise MismatchError(
            f"{path}: {len(vectors)} vectors of another tokenizer than {vocabulary.tokenizer.name} with "
            f"{len(vocabulary)} ids; train vectors on a store written with this tokenizer"
        )
