"""Published word vectors: fastText models (``.bin``) and text files (``.vec``), without fastText."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from langadapt.errors import DataError
from langadapt.tokenizer.vocabulary import Vocabulary

MAGIC = 793712314
"""First four bytes of a fastText model."""
VERSION = 12
END_OF_LINE = "</s>"
"""fastText's own word at the end of a line; the only one without n-grams."""


@dataclass(frozen=True)
class WordVectors:
    """Words with vectors; a fastText model makes vectors of unknown words from their character n-grams."""

    index: dict[str, int]
    """Word to row, most frequent first."""
    rows: NDArray[np.float32]
    """``[words (+ buckets), dim]``, memory-mapped for a model."""
    buckets: int = 0
    """Rows of hashed n-grams behind the words' rows."""
    ngrams: tuple[int, int] = (0, 0)
    """Shortest and longest n-gram."""

    @property
    def dim(self) -> int:
        """Width of a vector."""
        return int(self.rows.shape[1])

    def vector(self, word: str) -> NDArray[np.float32] | None:
        """The vector of ``word``; none where nothing is known of it."""
        row = self.index.get(word)
        rows = [] if row is None else [row]
        if self.buckets and word != END_OF_LINE:
            n_words = len(self.rows) - self.buckets
            rows += [n_words + ngram_hash(ngram) % self.buckets for ngram in ngrams_of(word, *self.ngrams)]
        if not rows:
            return None
        return np.asarray(self.rows[rows], dtype=np.float32).mean(axis=0)

    def known(self, word: str) -> NDArray[np.float32] | None:
        """The vector of a word of the vocabulary; none for any other, whatever its n-grams."""
        return self.vector(word) if word in self.index else None


def ngrams_of(word: str, shortest: int, longest: int) -> Iterator[bytes]:
    """Character n-grams of ``<word>`` as fastText takes them, UTF-8."""
    if longest == 0:
        return
    marked = f"<{word}>"
    for start in range(len(marked)):
        for length in range(max(1, shortest), min(longest, len(marked) - start) + 1):
            lone_marker = length == 1 and start in (0, len(marked) - 1)
            if not lone_marker:
                yield marked[start : start + length].encode()


def ngram_hash(ngram: bytes) -> int:
    """fastText's FNV-1a, which takes bytes as signed: a byte above 127 flips all higher bits too."""
    value = 2166136261
    for byte in ngram:
        value = ((value ^ (byte if byte < 128 else byte | 0xFFFFFF00)) * 16777619) & 0xFFFFFFFF
    return value


def read_word_vectors(path: str | Path) -> WordVectors:
    """Read a fastText model (``.bin``, as published, not quantised) or a text file of vectors (``.vec``, ``.txt``).

    Raises:
        DataError: the file is neither, or is damaged; the message names the line of a text file.
    """
    path = Path(path)
    with path.open("rb") as file:
        is_model = file.read(4) == struct.pack("<i", MAGIC)
    return read_model(path) if is_model else read_text(path)


def read_model(path: Path) -> WordVectors:
    """A fastText model."""
    try:
        with path.open("rb") as file:
            return read_model_file(file, path)
    except (struct.error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: a damaged fastText model ({error}); get the file again") from None


def read_model_file(file: BinaryIO, path: Path) -> WordVectors:
    """The parts of a model that make vectors: arguments, dictionary, input matrix."""
    _, version = read(file, "<2i")
    if version not in (11, VERSION):
        raise DataError(f"{path}: a fastText model of version {version}; versions 11 and {VERSION} can be read")
    dim, _, _, _, _, _, _, _, buckets, shortest, longest, _, _ = read(file, "<12id")
    size, n_words, _, _, n_pruned = read(file, "<3i2q")
    words = []
    for _ in range(size):
        word = read_word(file)
        _, kind = read(file, "<qb")
        if kind == 0:
            words.append(word)
    if n_pruned > 0:
        file.seek(8 * n_pruned, 1)
    (quantised,) = read(file, "<?")
    if quantised:
        raise DataError(f"{path}: a quantised fastText model; langadapt reads models that were not compressed")
    n_rows, width = read(file, "<2q")
    start = file.tell()
    if width != dim or n_rows not in (n_words, n_words + buckets) or start + 4 * n_rows * dim > path.stat().st_size:
        raise DataError(f"{path}: {n_rows} rows of {width} do not fit {n_words} words of {dim}; get the file again")
    rows = np.memmap(path, dtype="<f4", mode="r", offset=start, shape=(n_rows, dim))
    index = {word: row for row, word in enumerate(words)}
    return WordVectors(index, rows, n_rows - n_words, (shortest, longest) if n_rows > n_words else (0, 0))


def read(file: BinaryIO, layout: str) -> tuple[int, ...]:
    """Little-endian numbers."""
    return struct.unpack(layout, file.read(struct.calcsize(layout)))


def read_word(file: BinaryIO) -> str:
    """A string that ends with a zero byte."""
    text = bytearray()
    while True:
        byte = file.read(1)
        if not byte:
            raise struct.error("the dictionary has no end")
        if byte == b"\0":
            return text.decode("utf-8", "replace")
        text += byte


def read_text(path: Path) -> WordVectors:
    """A word and its numbers on each line; a first line of two numbers is skipped."""
    index: dict[str, int] = {}
    values: list[NDArray[np.float32]] = []
    try:
        with path.open(encoding="utf-8", newline="\n") as file:
            for number, line in enumerate(file, 1):
                word, *numbers = line.rstrip("\n ").split(" ")
                if number == 1 and len(numbers) == 1:
                    continue
                vector = np.array(numbers, dtype=np.float32)
                if not len(vector) or (values and len(vector) != len(values[0])):
                    wanted = len(values[0]) if values else "some"
                    raise DataError(f"{path}:{number}: {len(vector)} numbers instead of {wanted}")
                if word not in index:
                    index[word] = len(values)
                    values.append(vector)
    except (ValueError, UnicodeDecodeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: neither a fastText model nor a text file of vectors: {error}") from None
    if not values:
        raise DataError(f"{path}: holds no vectors")
    return WordVectors(index, np.stack(values))


def token_model_vectors(model: WordVectors, vocabulary: Vocabulary) -> NDArray[np.float32]:
    """Vectors of tokens from a model that was trained on tokenized text, as ``deepfocus`` makes them.

    A token is looked up by the tokenizer's own string, then by its readable form; tokens that the model does not know
    get zeros, even where it could make something of their n-grams (``deepfocus`` takes them as missing, too).
    """
    out = np.zeros((len(vocabulary), model.dim), dtype=np.float32)
    for token, name in enumerate(vocabulary.names):
        vector = model.known(name) if name else None
        if vector is None and vocabulary.texts[token]:
            vector = model.known(vocabulary.surface(token))
        if vector is not None:
            out[token] = vector
    return out


def word_model_vectors(model: WordVectors, vocabulary: Vocabulary) -> NDArray[np.float32]:
    """Vectors of tokens in the space of a model of *words*: a token is taken as the word that it spells.

    Tokens without letters or digits, and those that a model without n-grams does not know, get zeros.
    """
    out = np.zeros((len(vocabulary), model.dim), dtype=np.float32)
    for token, text in enumerate(vocabulary.texts):
        word = text.decode("utf-8", "ignore").strip()
        vector = model.vector(word) if word and vocabulary.kinds[token] != "byte" else None
        if vector is not None:
            out[token] = vector
    return out
