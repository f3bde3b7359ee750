"""Files to documents: reading in bounded memory, filtering, deduplication and the train / validation split."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from langadapt import _core
from langadapt.errors import DataError

logger = logging.getLogger(__name__)

PathName: TypeAlias = "str | os.PathLike[str]"
Documents: TypeAlias = "Iterable[str] | Iterable[Mapping[str, Any]]"
Inputs: TypeAlias = "PathName | list[PathName] | tuple[PathName, ...] | Documents"


def read_documents(
    inputs: Inputs, *, text_field: str = "text", strict: bool = False, text_unit: str = "line"
) -> Iterator[str]:
    """Iterate over the texts of ``inputs`` in a fixed order, in bounded memory.

    Args:
        inputs: a file, folder, pattern or ``"-"`` (standard input), or a list or tuple of them: ``.jsonl``,
            ``.ndjson``, ``.json`` (JSON Lines) and ``.txt``, each also with ``.gz`` or ``.zst``, and ``.parquet``. A
            folder stands for all such files below it; one written by :func:`build_corpus`, for its training split.
            Any other iterable is one of documents: strings, or mappings such as a ``datasets`` stream gives.
        text_field: JSON key, Parquet column (dotted path) or mapping key that holds the text.
        strict: raise at the first line without a document; otherwise such lines are counted and skipped, and a
            warning at the end names the first.
        text_unit: ``"line"`` or ``"file"``: what one document is in a ``.txt`` file. Blank lines are no documents.

    Raises:
        FileNotFoundError: at once, for a name that does not exist.
        DataError: an unknown ending, a damaged or truncated file, no document at all; with ``strict``, the first line
            without a document. The message names file, line and remedy.
    """
    names = path_names(inputs)
    if names is None:
        return _texts_of(inputs, text_field, strict)  # type: ignore[arg-type]
    reader = open_reader(names, text_field=text_field, strict=strict, text_unit=text_unit)
    return _texts_from(reader)


def path_names(inputs: Inputs) -> list[str] | None:
    """``inputs`` as names of files, folders or patterns, or ``None`` if it is an iterable of documents.

    A string, a path, and a list or tuple of them are names. To pass texts as a list, pass ``iter(texts)``.
    """
    if isinstance(inputs, str | os.PathLike):
        return [os.fspath(inputs)]
    if isinstance(inputs, list | tuple) and all(isinstance(name, str | os.PathLike) for name in inputs):
        return [os.fspath(name) for name in inputs]
    if isinstance(inputs, bytes) or not isinstance(inputs, Iterable):
        raise TypeError(f"inputs: {type(inputs).__name__}; pass paths or an iterable of texts")
    return None


def open_reader(names: list[str], *, text_field: str, strict: bool, text_unit: str) -> _core.DocumentReader:
    """Start reading; a missing file among ``names`` that looks like a text is explained."""
    try:
        return _core.DocumentReader(names, text_field=text_field, strict=strict, text_unit=text_unit)
    except OSError as error:
        if error.filename is not None and any(mark in str(error.filename) for mark in "\n "):
            raise type(error)(
                error.errno, f"{error.strerror} (a list holds file names; for texts pass `iter(texts)`)", error.filename
            ) from None
        raise


def _texts_from(reader: _core.DocumentReader) -> Iterator[str]:
    for texts in reader:
        yield from texts
    report = reader.report()
    if report is not None:
        warn_of_skipped(report)


def warn_of_skipped(report: Mapping[str, Any]) -> None:
    """Log how many lines held no document, and the first of them."""
    skipped = sum(report["skipped"].values())
    if skipped:
        first = report["first_problems"][0]
        place = f"{first['path']}:{first['line']}" if first["line"] is not None else first["path"]
        logger.warning("skipped %d lines without a document; the first is %s: %s", skipped, place, first["reason"])


def _texts_of(documents: Documents, text_field: str, strict: bool) -> Iterator[str]:
    """The texts of an iterable of strings or mappings."""
    skipped = 0
    first = None
    for number, document in enumerate(documents, 1):
        text = document if isinstance(document, str) else _field_of(document, text_field, number)
        if isinstance(text, str):
            yield text
            continue
        problem = f"document {number}: field {text_field!r} is {type(text).__name__}, not a string"
        if strict:
            raise DataError(problem)
        skipped += 1
        first = first or problem
    if skipped:
        logger.warning("skipped %d documents without a text; the first is %s", skipped, first)


def _field_of(document: object, text_field: str, number: int) -> Any:
    if not isinstance(document, Mapping):
        raise TypeError(f"document {number}: {type(document).__name__}; pass strings or mappings with a text field")
    if text_field not in document:
        fields = ", ".join(f"`{name}`" for name in list(document)[:5])
        raise DataError(f"document {number}: no field `{text_field}` (fields: {fields}); pass `text_field`")
    return document[text_field]


def expand_inputs(inputs: PathName | list[PathName] | tuple[PathName, ...]) -> list[Path]:
    """The files that names, folders and patterns stand for, in reading order.

    Raises:
        FileNotFoundError: a name does not exist.
        DataError: an unknown ending, or a folder or pattern without files.
    """
    names = path_names(inputs)
    if names is None:
        raise TypeError("inputs: an iterable of documents has no files")
    return [Path(path) for path in _core.expand_inputs(names)]
