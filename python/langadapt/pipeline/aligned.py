"""Aligned sentences of two languages, in files of JSON lines ``{"source": ..., "target": ...}``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from langadapt.artefacts.remote import RemoteFile
from langadapt.corpus.arriving import files_behind
from langadapt.corpus.documents import read_documents
from langadapt.errors import ConfigError

SIDES = ("source", "target")


def read_aligned(file: Path) -> dict[str, list[str]]:
    """Both sides of one file that is not compressed."""
    sides: dict[str, list[str]] = {side: [] for side in SIDES}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        try:
            pair = json.loads(line)
            for side, lines in sides.items():
                lines.append(str(pair[side]))
        except (json.JSONDecodeError, KeyError, TypeError):
            raise ConfigError(f'{file}:{number}: expected {{"source": "...", "target": "..."}}') from None
    return sides


def pairs_as_documents(inputs: list[str]) -> Iterator[str]:
    """Each pair as one document of two lines or more, the source language first in every other one; in bounded memory.

    Raises:
        DataError: a line without both sides, or damaged; names file and side.
    """
    number = 0
    for file in (file for name in inputs for file in files_behind(name)):
        place = file.url if isinstance(file, RemoteFile) else str(file)
        sides = (read_documents([place], text_field=side, strict=True) for side in SIDES)
        for source, target in zip(*sides, strict=True):
            first, second = (source, target) if number % 2 == 0 else (target, source)
            number += 1
            yield f"{first}\n{second}"
