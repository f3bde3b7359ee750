"""Files to documents, in bounded memory."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

from langadapt import _core
from langadapt.artefacts.remote import RemoteFile, is_remote, shown
from langadapt.checks import at_least
from langadapt.corpus.arriving import arriving, files_behind
from langadapt.corpus.streams import Documents, TextStream, is_stream
from langadapt.errors import ConfigError, shorten

logger = logging.getLogger(__name__)

PathName: TypeAlias = "str | os.PathLike[str]"
Paths: TypeAlias = "PathName | list[PathName] | tuple[PathName, ...]"
Inputs: TypeAlias = "Paths | Documents"


LONGEST_NAME = 255
"""Bytes of a file's name; longer strings are texts."""
LONGEST_LINE = 64 << 20
"""Bytes of a line, a row or a whole file that is one document, unless asked for otherwise; bounds the memory."""
FOR_TEXTS = "a string names files, for texts pass `iter(texts)`"


@dataclass(frozen=True)
class Reading:
    """Text to read, and how: what public functions make of their arguments and hand on.

    Raises:
        ConfigError: neither ``inputs`` nor ``texts`` is given, or both are.
        TypeError: ``inputs`` is neither paths nor iterable.
    """

    inputs: Inputs | None = None
    """A path or a list of paths; or an iterable of documents that is no list of strings."""
    texts: Documents | None = None
    """Documents: strings, or mappings that hold one, such as a ``ray.data.Dataset`` has."""
    text_field: str = "text"
    """JSON key, Parquet column (dotted path) or mapping key that holds the text."""
    text_unit: str = "line"
    """``"line"`` or ``"file"``: what one document is in a ``.txt`` file."""
    strict: bool = False
    """Whether a line without a document is an error."""
    max_line_bytes: int = LONGEST_LINE
    """Longer lines, rows, and files as a whole, are counted and skipped."""
    allow_empty: bool = False
    """Whether no document at all is a result, as of a shard."""

    def __post_init__(self) -> None:
        if (self.inputs is None) == (self.texts is None):
            raise ConfigError("give either `inputs`, names of files, or `texts`")
        if isinstance(self.texts, str | bytes):
            raise TypeError("texts: a single string; pass an iterable of them")
        if self.names is None and not isinstance(self.source, Iterable):
            raise TypeError(f"inputs: {type(self.inputs).__name__}; pass paths or an iterable of texts")
        for name in self.names or ():
            if not name:
                raise ConfigError("an input has an empty name, as of a variable that is not set; name a file")
            parts = [] if is_remote(name) else name.split("/")
            if any(len(part.encode("utf-8", "surrogatepass")) > LONGEST_NAME for part in parts):
                raise FileNotFoundError(errno.ENOENT, f"no such file; {FOR_TEXTS}", shorten(name, 80))

    @property
    def source(self) -> Any:
        """What was given; of a ``ray.data.Dataset``, which is not iterable itself, its rows."""
        given: Any = self.inputs if self.texts is None else self.texts
        return given.iter_rows() if type(given).__module__.startswith("ray.data.") else given

    @cached_property
    def names(self) -> list[str] | None:
        """Files, folders and patterns; none where documents come from Python."""
        inputs = self.inputs
        if isinstance(inputs, str | os.PathLike):
            return [os.fspath(inputs)]
        if isinstance(inputs, list | tuple) and all(isinstance(name, str | os.PathLike) for name in inputs):
            return [os.fspath(name) for name in inputs]
        return None

    @property
    def how(self) -> dict[str, Any]:
        """All but what is read, by name, as the core takes it."""
        return {
            name: getattr(self, name) for name in ("text_field", "text_unit", "strict", "max_line_bytes", "allow_empty")
        }

    def stream(self) -> TextStream:
        """The documents from Python."""
        return TextStream(self.source, self.text_field, strict=self.strict)

    def documents(self) -> Iterator[str]:
        """All texts in a fixed order, in bounded memory; a warning at the end counts the lines that held none."""
        if self.names is None:
            return _counted(self.stream())
        if any(map(is_remote, self.names)):
            self.files()
            return self.fetched()
        return _texts_from(self.open(self.names))

    def fetched(self) -> Iterator[str]:
        """The same where some of it has to be fetched first."""
        with self.local() as names:
            yield from _texts_from(self.open(names))

    def local(self, beside: Path | None = None) -> AbstractContextManager[list[str]]:
        """The names as the core reads them, see :func:`langadapt.corpus.arriving.arriving`."""
        return arriving(self.names or [], beside)

    def open(self, names: list[str]) -> _core.DocumentReader:
        """Start reading files."""
        try:
            return _core.DocumentReader(names, self.how)
        except OSError as error:
            if error.filename is not None and any(mark in str(error.filename) for mark in "\n "):
                raise type(error)(error.errno, f"{error.strerror}; {FOR_TEXTS}", error.filename) from None
            raise

    def files(self) -> dict[str, Path | RemoteFile] | None:
        """The files that are read, by name; none for what cannot be read twice, or not be told from what it was before:
        standard input, a stream, a file whose server tells no version.

        Raises:
            DataError: a name that is not UTF-8, which no manifest can hold.
        """
        if self.names is None or any(name == "-" or is_stream(name) for name in self.names):
            return None
        # There may be none: of a shard without a file.
        files = [file for name in self.names for file in files_behind(name)]
        known = all(file.version if isinstance(file, RemoteFile) else file.is_file() for file in files)
        return {str(file): file for file in files} if known else None


def read_documents(
    inputs: Inputs,
    *,
    text_field: str = "text",
    strict: bool = False,
    text_unit: str = "line",
    max_line_bytes: int = LONGEST_LINE,
) -> Iterator[str]:
    """Iterate over the texts of ``inputs`` in a fixed order, in bounded memory.

    Args:
        inputs: a file, folder, pattern or ``"-"`` (standard input), or a list or tuple of them: ``.jsonl``,
            ``.ndjson``, ``.json`` (JSON Lines) and ``.txt``, each also with ``.gz`` or ``.zst``, and ``.parquet``. A
            folder stands for all such files below it; one written by :func:`langadapt.build_corpus`, for its training
            split. URLs (``s3://``, ``gs://``, ``az://``, ``hf://``, ``https://``) name files, folders and patterns
            elsewhere. Any other iterable is one of documents: strings, or mappings such as a ``datasets`` stream gives.
            A list of strings is always one of paths; for texts pass ``iter(texts)``.
        text_field: JSON key, Parquet column (dotted path) or mapping key that holds the text.
        strict: raise at the first line without a document; otherwise such lines are counted and skipped, and a
            warning at the end names the first.
        text_unit: ``"line"`` or ``"file"``: what one document is in a ``.txt`` file. Blank lines are no documents.
        max_line_bytes: longer lines and rows, and files that are one document, are counted and skipped.

    Raises:
        FileNotFoundError: at once, for a name that does not exist.
        DataError: an unknown ending, a damaged or truncated file, no document at all; with ``strict``, the first line
            without a document. The message names file, line and remedy.
    """
    at_least(1, max_line_bytes=max_line_bytes)
    how = {"text_field": text_field, "strict": strict, "text_unit": text_unit, "max_line_bytes": max_line_bytes}
    return Reading(inputs, **how).documents()  # type: ignore[arg-type]


def _texts_from(reader: _core.DocumentReader) -> Iterator[str]:
    for texts in reader:
        yield from texts
    report = reader.report()
    if report is not None:
        warn_of_skipped(report)


def _counted(stream: TextStream) -> Iterator[str]:
    yield from stream
    report: dict[str, Any] = {"skipped": {"missing_text": 0}, "first_problems": []}
    stream.add_to(report)
    warn_of_skipped(report)


def warn_of_skipped(report: Mapping[str, Any]) -> None:
    """Log how many lines held no document, and the first of them."""
    skipped = sum(report["skipped"].values())
    if skipped:
        logger.warning("skipped %d lines without a document; the first is %s", skipped, place_of(report))


def place_of(report: Mapping[str, Any]) -> str:
    """File, line and reason of a report's first problem."""
    first = report["first_problems"][0]
    place = f"{first['path']}:{first['line']}" if first["line"] is not None else first["path"]
    return f"{place}: {first['reason']}"


def expand_inputs(inputs: Paths) -> list[Path]:
    """The files that names, folders and patterns stand for, in reading order.

    Raises:
        FileNotFoundError: a name does not exist.
        DataError: an unknown ending, or a folder or pattern without files.
        ConfigError: a URL, which stands for none of this machine.
    """
    names = Reading(inputs).names
    if names is None:
        raise TypeError("inputs: an iterable of documents has no files")
    for name in filter(is_remote, names):
        raise ConfigError(f"{shown(name)}: is not on this machine; copy it here first")
    return [Path(path) for path in _core.expand_inputs(names)]


def files_of(inputs: Inputs) -> dict[str, Path | RemoteFile] | None:
    """See :meth:`Reading.files`."""
    return Reading(inputs).files()
