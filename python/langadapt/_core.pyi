"""The compiled core. Use the documented wrappers in the modules beside this file."""

from collections.abc import Callable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Progress = Callable[[str, int, int | None, str], None]

__version__: str

def hash_file(path: str | PathLike[str]) -> str: ...
def hash_bytes(data: bytes) -> str: ...
def pretokenize(text: str, regex: str) -> list[str]: ...
def pretokenize_patterns() -> list[tuple[str, str]]: ...
def build_corpus(
    source: list[str] | Iterator[str],
    folder: str | PathLike[str],
    settings: dict[str, Any],
    progress: Callable[[str, int, int | None, str], object] | None,
) -> dict[str, Any]: ...
def count_tokens(
    source: list[str] | Iterator[str],
    tokenizers: list[NativeTokenizer],
    text_field: str,
    aligned: bool,
    threads: int,
    progress: Callable[[str, int, int | None, str], object] | None,
) -> dict[str, Any]: ...
def token_surfaces(tokenizer: NativeTokenizer) -> tuple[NDArray[np.uint32], NDArray[np.bool_]]: ...
def expand_inputs(names: list[str]) -> list[Path]: ...

class DocumentReader:
    def __new__(cls, names: list[str], *, text_field: str, strict: bool, text_unit: str) -> DocumentReader: ...
    def __iter__(self) -> Iterator[list[str]]: ...
    def __next__(self) -> list[str]: ...
    def report(self) -> dict[str, Any] | None: ...

class NativeTokenizer:
    @staticmethod
    def load(json: bytes, path: str | PathLike[str]) -> tuple[NativeTokenizer | None, str | None]: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def is_byte_level(self) -> bool: ...
    def encode(self, text: str, add_special_tokens: bool) -> NDArray[np.uint32]: ...
    def encode_batch(
        self, texts: Sequence[str], add_special_tokens: bool, threads: int, progress: Progress | None
    ) -> tuple[NDArray[np.uint32], NDArray[np.uint64]]: ...
    def decode(self, ids: NDArray[np.uint32], skip_special_tokens: bool) -> str: ...
    def token_to_id(self, token: str) -> int | None: ...
    def id_to_token(self, id: int) -> str | None: ...
    def added_tokens(self) -> list[tuple[int, str, bool, bool]]: ...
    def unreachable(self) -> list[int]: ...
    def template(self) -> tuple[list[int], list[int]]: ...

class StoreWriter:
    def __new__(cls, folder: str | PathLike[str], vocab_size: int) -> StoreWriter: ...
    def append(self, ids: NDArray[np.uint32], offsets: NDArray[np.uint64]) -> None: ...
    def tokenize_files(
        self,
        tokenizer: NativeTokenizer,
        names: list[str],
        text_field: str,
        strict: bool,
        threads: int,
        progress: Progress | None,
    ) -> dict[str, Any]: ...
    def finish(self) -> tuple[int, int]: ...

def train_cbow(
    tokens: NDArray[np.uint16] | NDArray[np.uint32],
    offsets: NDArray[np.uint64],
    surfaces: list[str],
    *,
    dim: int,
    epochs: int,
    window: int,
    negatives: int,
    min_count: int,
    learning_rate: float,
    subsample: float,
    ngrams: tuple[int, int],
    threads: int,
    seed: int,
    progress: Progress | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.uint64]]: ...
def sparsemax_weights(
    scores: NDArray[np.float32] | NDArray[np.uint16],
    error: float,
    new: NDArray[np.float32],
    anchors: NDArray[np.float32],
    *,
    threads: int,
) -> tuple[NDArray[np.uint32], NDArray[np.uint32], NDArray[np.float32]]: ...
def byte_characters() -> str: ...

class TrainedTokens:
    def __len__(self) -> int: ...
    def tokens(self) -> list[str]: ...
    def scores(self) -> list[float]: ...
    def kinds(self) -> list[str]: ...
    def merges(self) -> list[tuple[int, int]]: ...
    def vocab_json(self) -> str: ...
    def merges_json(self) -> str: ...

class WordCounter:
    @staticmethod
    def byte_level(
        regex: str, normalization: list[str], add_prefix_space: bool, max_words: int | None, threads: int
    ) -> WordCounter: ...
    @staticmethod
    def sentencepiece(
        reserved: list[str],
        normalization: list[str],
        space_in_front: bool,
        max_sentence_length: int,
        max_words: int | None,
        threads: int,
    ) -> WordCounter: ...
    def count_files(
        self, inputs: list[str], text_field: str, strict: bool, text_unit: str, progress: Callable[..., object] | None
    ) -> dict[str, Any]: ...
    def count_texts(self, texts: list[str], progress: Callable[..., object] | None) -> None: ...
    def add_words(self, words: list[tuple[bytes, int]], documents: int, bytes: int) -> None: ...
    def summary(self) -> list[tuple[str, int]]: ...
    def learn_byte_level(
        self,
        vocab_size: int,
        min_frequency: int,
        special_tokens: list[str],
        max_token_length: int | None,
        full_alphabet: bool,
        accept_fewer: bool,
        progress: Callable[..., object] | None,
    ) -> TrainedTokens: ...
    def learn_sentencepiece(
        self,
        vocab_size: int,
        min_frequency: int,
        special_tokens: list[str],
        character_coverage: float,
        byte_fallback: bool,
        max_piece_length: int,
        accept_fewer: bool,
        progress: Callable[..., object] | None,
    ) -> TrainedTokens: ...
    def extend(
        self,
        tokens: list[str],
        merges: list[tuple[int, int, int]],
        byte_level: bool,
        ignore_merges: bool,
        apart: list[int],
        new_tokens: int,
        min_frequency: int,
        max_token_length: int,
        accept_fewer: bool,
        progress: Callable[..., object] | None,
    ) -> list[tuple[str, tuple[int, int] | None]]: ...

def token_derivations(tokens: list[str], merges: list[tuple[int, int, int]], wanted: list[int]) -> list[list[int]]: ...
