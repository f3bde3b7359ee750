"""Files to documents: reading in bounded memory, filtering, deduplication and the train / validation split."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from langadapt import _core
from langadapt.artefacts.folders import fingerprint, new_folder, write_manifest
from langadapt.checks import at_least
from langadapt.errors import ConfigError, DataError
from langadapt.machine import thread_count
from langadapt.progress import Progress

logger = logging.getLogger(__name__)

PathName: TypeAlias = "str | os.PathLike[str]"
Documents: TypeAlias = "Iterable[str] | Iterable[Mapping[str, Any]]"
Inputs: TypeAlias = "PathName | list[PathName] | tuple[PathName, ...] | Documents"


ENDINGS = tuple(
    ending + packed for ending in (".jsonl", ".ndjson", ".json", ".txt", ".parquet") for packed in ("", ".gz", ".zst")
)
"""How names of corpora end."""
LONGEST_PATH = 4096
"""Characters; longer strings are no names."""


def read_documents(
    inputs: Inputs, *, text_field: str = "text", strict: bool = False, text_unit: str = "line"
) -> Iterator[str]:
    """Iterate over the texts of ``inputs`` in a fixed order, in bounded memory.

    Args:
        inputs: a file, folder, pattern or ``"-"`` (standard input), or a list or tuple of them: ``.jsonl``,
            ``.ndjson``, ``.json`` (JSON Lines) and ``.txt``, each also with ``.gz`` or ``.zst``, and ``.parquet``. A
            folder stands for all such files below it; one written by :func:`build_corpus`, for its training split.
            Any other iterable is one of documents: strings, or mappings such as a ``datasets`` stream gives. A list
            of strings, too, if it reads like texts (see :func:`are_texts`); ``iter(texts)`` leaves no doubt.
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
        return _counted(TextStream(inputs, text_field, strict))  # type: ignore[arg-type]
    reader = open_reader(names, text_field=text_field, strict=strict, text_unit=text_unit)
    return _texts_from(reader)


def path_names(inputs: Inputs) -> list[str] | None:
    """``inputs`` as names of files, folders or patterns, or ``None`` if it is an iterable of documents.

    A string, a path, and a list or tuple of them are names, but for a list of strings that :func:`are_texts`.
    """
    if isinstance(inputs, str | os.PathLike):
        return [os.fspath(inputs)]
    if isinstance(inputs, list | tuple) and all(isinstance(name, str | os.PathLike) for name in inputs):
        if not isinstance(inputs, FileNames) and are_texts(inputs):
            return None
        return [os.fspath(name) for name in inputs]
    if isinstance(inputs, bytes) or not isinstance(inputs, Iterable):
        raise TypeError(f"inputs: {type(inputs).__name__}; pass paths or an iterable of texts")
    return None


class FileNames(list[str]):
    """Names of files, folders or patterns, whatever they look like: a command line and a recipe hold no texts."""


def are_texts(strings: Sequence[PathName]) -> bool:
    """Whether a list holds texts and not names: white space between words, and nothing that is or looks like a name.

    Only the first hundred are looked at.
    """
    first = strings[:100]
    spaced = any(len(text.split(maxsplit=1)) > 1 for text in first if isinstance(text, str))
    return spaced and not any(isinstance(name, os.PathLike) or is_like_name(name) for name in first)


def is_like_name(name: str) -> bool:
    """Whether a string is the name of something here, or is written like the name of a corpus."""
    if not name or "\n" in name or len(name) > LONGEST_PATH:
        return False
    if name == "-" or is_stream(name) or name.startswith(("/", "./", "../", "~")) or name.lower().endswith(ENDINGS):
        return True
    try:
        return Path(name).exists() or bool(_core.expand_inputs([name]))
    except (OSError, ValueError, DataError):  # no such file, a pattern without one, too long for a name, a NUL in it
        return False


def open_reader(names: list[str], *, text_field: str, strict: bool, text_unit: str) -> _core.DocumentReader:
    """Start reading; a missing file among ``names`` that looks like a text is explained."""
    try:
        return _core.DocumentReader(names, {"text_field": text_field, "strict": strict, "text_unit": text_unit})
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


class TextStream:
    """Iterator over the texts of strings or mappings that counts what held no text."""

    def __init__(self, documents: Documents, text_field: str, strict: bool) -> None:
        self.documents = enumerate(documents, 1)
        self.text_field = text_field
        self.strict = strict
        self.skipped = 0
        self.first_problems: list[dict[str, Any]] = []

    def __iter__(self) -> TextStream:
        return self

    def __next__(self) -> str:
        for number, document in self.documents:
            text = document if isinstance(document, str) else field_of(document, self.text_field, number)
            if isinstance(text, str):
                return text
            self.note(number, f"field `{self.text_field}` is {type(text).__name__}, not a string")
        raise StopIteration

    def note(self, number: int, reason: str) -> None:
        """Count a document without a text, or raise if the reading is strict."""
        if self.strict:
            raise DataError(f"document {number}: {reason}")
        self.skipped += 1
        if len(self.first_problems) < 10:
            self.first_problems.append({"path": "documents", "line": number, "reason": reason})

    def add_to(self, report: dict[str, Any]) -> None:
        """Add what was skipped here to the report of what was read behind."""
        report["skipped"]["missing_text"] += self.skipped
        report["first_problems"] = (self.first_problems + report["first_problems"])[:10]


def field_of(document: object, text_field: str, number: int) -> Any:
    """The text field of a mapping.

    Raises:
        TypeError: ``document`` is no mapping.
        DataError: it has no such field; every document of a stream has the same fields, so none has.
    """
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
    names = path_names(FileNames(inputs) if isinstance(inputs, list | tuple) else inputs)  # type: ignore[arg-type]
    if names is None:
        raise TypeError("inputs: an iterable of documents has no files")
    return [Path(path) for path in _core.expand_inputs(names)]


def files_of(inputs: Inputs) -> dict[str, Path] | None:
    """The files that ``inputs`` stand for, by name; none for what cannot be read twice: standard input, a stream."""
    names = path_names(inputs)
    if names is None or any(name == "-" or is_stream(name) for name in names):
        return None
    files = {str(path): Path(path) for path in _core.expand_inputs(names)}
    return files if all(file.is_file() for file in files.values()) else None


@dataclass(frozen=True)
class CorpusReport:
    """What :func:`build_corpus` read, left out and wrote. Bytes are UTF-8 bytes of text."""

    files: int
    """Files read; 0 for an iterable of documents."""
    documents: int
    """Documents read, before any filter."""
    bytes: int
    """Their text."""
    skipped: dict[str, int]
    """Lines that held no document, by reason: ``malformed_json``, ``missing_text``, ``invalid_utf8``."""
    first_problems: list[dict[str, Any]] = field(repr=False)
    """The first ten of those: ``path``, ``line`` (1-based; row in Parquet, number in a stream) and ``reason``."""
    dropped: dict[str, int]
    """Documents left out, by the first filter that spoke."""
    train: dict[str, int]
    """``documents`` and ``bytes`` of ``train.jsonl.zst``."""
    validation: dict[str, int]
    """``documents`` and ``bytes`` of ``validation.jsonl.zst``."""

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self)


def build_corpus(
    inputs: Inputs,
    out: PathName,
    *,
    text_field: str = "text",
    text_unit: str = "line",
    strict: bool = False,
    min_chars: int | None = None,
    max_chars: int | None = None,
    keep_pattern: str | None = None,
    drop_pattern: str | None = None,
    repetition: bool = False,
    exact_duplicates: bool = False,
    near_duplicates: bool = False,
    validation_share: float = 0.01,
    validation_bytes: int | None = None,
    validation_documents: int | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> CorpusReport:
    """Stream, filter, deduplicate and split ``inputs`` into the folder ``out``.

    Writes ``train.jsonl.zst`` and ``validation.jsonl.zst`` (one ``{"text": ...}`` per line) and ``manifest.json``, all
    or nothing. The files are the same bytes for any number of threads. Filters are off unless asked for and work in
    the order of the arguments.

    Args:
        inputs: as for :func:`read_documents`; also a name ``hf:NAME[:CONFIG[:SPLIT]]``, streamed with ``datasets``.
        out: replaced, once all is written, if it exists.
        text_field, text_unit, strict: as for :func:`read_documents`.
        min_chars, max_chars: characters of the shortest and the longest document kept.
        keep_pattern: keep documents in which this regular expression (Rust syntax) finds something.
        drop_pattern: drop documents in which this one does.
        repetition: drop documents that repeat themselves, with the rules and limits of Gopher (Rae et al. 2021, table
            A1): repeated lines and paragraphs, the most frequent 2- to 4-gram, repeated 5- to 10-grams, words without
            letters. Words are those of Unicode UAX #29.
        exact_duplicates: keep the first of equal texts (XXH3-128); 16 to 37 bytes of memory per document.
        near_duplicates: drop a document that resembles an earlier kept one: MinHash over lower-cased 5-word shingles
            in 14 bands of 8, which catches 56 % of pairs with a Jaccard similarity of 0.7, 92 % at 0.8; 112 to 260
            bytes of memory per document.
        validation_share: share of documents set aside, by XXH3 of the text: neither order nor threads matter, and equal
            texts go the same way. Above 0 at least one document of two or more is set aside; 0 sets none aside.
        validation_bytes, validation_documents: set aside at most so much, the smallest hashes first; a document larger
            than ``validation_bytes`` stays in training.
        threads: as many as the machine has cores by default.
        progress: called as ``progress(phase, done, total_or_None, unit)``; ``unit`` is bytes of the files.

    Raises:
        FileNotFoundError, DataError: as :func:`read_documents`.
        ValueError: a share outside 0..1, a broken pattern, filters that leave nothing, a negative number.
    """
    settings = {
        "text_field": text_field,
        "text_unit": text_unit,
        "strict": strict,
        "min_chars": min_chars,
        "max_chars": max_chars,
        "keep_pattern": keep_pattern,
        "drop_pattern": drop_pattern,
        "repetition": repetition,
        "exact_duplicates": exact_duplicates,
        "near_duplicates": near_duplicates,
        "validation_share": validation_share,
        "validation_bytes": validation_bytes,
        "validation_documents": validation_documents,
    }
    at_least(0, min_chars=min_chars, validation_bytes=validation_bytes, validation_documents=validation_documents)
    at_least(min_chars or 0, max_chars=max_chars)
    source, made_from = source_of(inputs, text_field, strict)
    with new_folder(Path(out), made_from if not isinstance(source, TextStream) else ()) as folder:
        found = _core.build_corpus(source, folder, settings | {"threads": thread_count(threads)}, progress)
        read = found.pop("read")
        if isinstance(source, TextStream):
            source.add_to(read)
        report = CorpusReport(**read, **found)
        check_split(report, settings)
        write_manifest(folder, "corpus", settings, made_from, report.to_dict())
    return report


def check_split(report: CorpusReport, settings: Mapping[str, Any]) -> None:
    """Raise ConfigError where the limits of the validation text leave one of the two parts empty."""
    limits = ("validation_bytes", "validation_documents")
    named = ", ".join(f"{name} = {settings[name]}" for name in limits if settings[name] is not None)
    share = settings["validation_share"]
    if share > 0 and report.train["documents"] > 1 and not report.validation["documents"]:
        raise ConfigError(
            f"nothing was set aside to measure on: no document chosen by validation_share = {share} fits into {named}; "
            "raise one of them, or set validation_share to 0"
        )
    if not report.train["documents"]:
        raise ConfigError(f"no document is left to train on; lower validation_share = {share}")


def source_of(inputs: Inputs, text_field: str, strict: bool) -> tuple[list[str] | TextStream, dict[str, str]]:
    """What the core reads: names of files, or a stream; and the fingerprints of what it is made from."""
    names = path_names(inputs)
    if names is None:
        return TextStream(inputs, text_field, strict), {}  # type: ignore[arg-type]
    streams = [name for name in names if is_stream(name)]
    if streams:
        if len(names) > 1:
            raise ConfigError(f"{streams[0]}: a `datasets` stream cannot be mixed with other inputs; build them apart")
        return TextStream(open_dataset(streams[0]), text_field, strict), {"stream": streams[0]}
    return names, {name: fingerprint(file) for name, file in (files_of(inputs) or {}).items()}


def is_stream(name: str) -> bool:
    """Whether an input is the name of a ``datasets`` stream, not of files."""
    return name.startswith("hf:")


def open_dataset(name: str) -> Iterable[Mapping[str, Any]]:
    """A ``datasets`` stream for ``hf:NAME[:CONFIG[:SPLIT]]``; the split is ``train`` by default.

    Raises:
        ConfigError: ``datasets`` is not installed, or the name has too many parts.
    """
    parts = name.removeprefix("hf:").split(":")
    if not parts[0] or len(parts) > 3:
        raise ConfigError(f"{name}: expected `hf:NAME[:CONFIG[:SPLIT]]`")
    try:
        from datasets import load_dataset
    except ImportError:
        raise ConfigError(f"{name}: needs the package `datasets`; install `langadapt[datasets]`") from None
    config = parts[1] if len(parts) > 1 and parts[1] else None
    split = parts[2] if len(parts) > 2 else "train"
    stream: Iterable[Mapping[str, Any]] = load_dataset(parts[0], config, split=split, streaming=True)
    return stream
