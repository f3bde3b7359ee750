"""Real text to measure on: the test data beside the checkout."""

from __future__ import annotations

import json
import random
import string
from collections.abc import Callable, Iterator
from pathlib import Path

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def corpus(language: str, data: Path = SHARED) -> Path:
    """The corpus of ``de``, ``ar`` or ``en``."""
    return data / "corpus" / f"{language}.jsonl.zst"


def first_texts(path: Path, size: float, size_of: Callable[[str], int] = len) -> list[str]:
    """Whole documents from the beginning, ``size`` characters or a little more of them."""
    from langadapt import read_documents

    texts, found = [], 0
    for text in read_documents([str(path)]):
        texts.append(text)
        found += size_of(text)
        if found >= size:
            break
    return texts


def byte_count(text: str) -> int:
    """In UTF-8."""
    return len(text.encode())


def unpacked(path: Path) -> Iterator[str]:
    """Documents of a corpus that is not compressed, as one would write it in Python."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)["text"]


def stream(file: Path, size: int, new_every: int) -> Iterator[bytes]:
    """Documents as lines of text, over and over until they are about ``size`` bytes.

    So that words do not run out, as they would not in real text, the letters of one document in ``new_every`` are
    exchanged by a permutation drawn anew: all its words of two letters or more are then new.
    """
    from langadapt import read_documents

    documents = [text.encode() + b"\n" for text in read_documents([str(file)])]
    letters = string.ascii_lowercase.encode()
    draw = random.Random(0)
    written = number = 0
    while written < size:
        for document in documents:
            number += 1
            if number % new_every == 0:
                exchanged = bytes(draw.sample(letters, len(letters)))
                document = document.translate(bytes.maketrans(letters, exchanged))
            yield document
            written += len(document)
            if written >= size:
                return
