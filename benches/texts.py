"""Real text to measure on: the test data beside the checkout."""

from __future__ import annotations

import json
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
