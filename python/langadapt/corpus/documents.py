"""Files to documents: reading in bounded memory, filtering, deduplication and the train / validation split."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias

from langadapt import _core
from langadapt.artefacts.folders import check_space, fingerprints, new_folder, write_manifest
from langadapt.artefacts.remote import RemoteFile, is_remote, shown
from langadapt.checks import at_least
from langadapt.corpus.arriving import arriving, bytes_of, files_behind
from langadapt.corpus.streams import Documents, TextStream, is_stream, open_dataset
from langadapt.errors import ConfigError, shorten
from langadapt.machine import thread_count
from langadapt.progress import Progress

logger = logging.getLogger(__name__)

PathName: TypeAlias = "str | os.PathLike[str]"
Paths: TypeAlias = "PathName | list[PathName] | tuple[PathName, ...]"
Inputs: TypeAlias = "Paths | Documents"


LONGEST_NAME = 255
"""Bytes of a file's name; longer strings are texts."""
PACKED = {".gz", ".zst", ".parquet"}
"""Endings of files that are smaller than their text."""
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
    """Documents: strings, or mappings that hold one."""
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
            parts = [] if is_remote(name) else name.split("/")
            if any(len(part.encode("utf-8", "surrogatepass")) > LONGEST_NAME for part in parts):
                raise FileNotFoundError(errno.ENOENT, f"no such file; {FOR_TEXTS}", shorten(name, 80))

    @property
    def source(self) -> Any:
        """What was given."""
        return self.inputs if self.texts is None else self.texts

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
            folder stands for all such files below it; one written by :func:`build_corpus`, for its training split.
            URLs (``s3://``, ``gs://``, ``az://``, ``hf://``, ``https://``) name files, folders and patterns elsewhere.
            Any other iterable is one of documents: strings, or mappings such as a ``datasets`` stream gives. A list
            of strings is always one of paths; for texts pass ``iter(texts)``.
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
    """Lines that held no document, by reason: ``malformed_json``, ``missing_text``, ``invalid_utf8``, ``too_long``."""
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


@dataclass(kw_only=True)
class BuildOptions:
    """What :func:`build_corpus` reads, leaves out and sets aside.

    Filters are off unless asked for and work in the order of the fields.
    """

    text_field: str = "text"
    """JSON key, Parquet column (dotted path) or mapping key that holds the text."""
    text_unit: Literal["line", "file"] = "line"
    """What one document is in a ``.txt`` file."""
    strict: bool = False
    """Stop at the first line without a document instead of counting and skipping it."""
    max_line_bytes: int = LONGEST_LINE
    """Bytes of a line, a row, or a file that is one document; longer ones are counted and skipped."""
    min_chars: int | None = None
    """Documents of fewer characters are left out."""
    max_chars: int | None = None
    """Documents of more characters are left out."""
    keep_pattern: str | None = None
    """Keep only documents in which this regular expression (Rust syntax) finds something."""
    drop_pattern: str | None = None
    """Leave out documents in which this one does."""
    repetition: bool = False
    """Drop documents that repeat themselves, with the rules and limits of Gopher (Rae et al. 2021, table A1): repeated
    lines and paragraphs, the most frequent 2- to 4-gram, repeated 5- to 10-grams, words without letters. Words are
    those of Unicode UAX #29."""
    exact_duplicates: bool = False
    """Keep the first of equal texts (XXH3-128); 16 to 37 bytes of memory per document."""
    near_duplicates: bool = False
    """Drop documents that resemble an earlier kept one: MinHash over lower-cased 5-word shingles in 14 bands of 8. It
    catches 56 % of pairs with a Jaccard similarity of 0.7, 92 % at 0.8; 112 to 260 bytes of memory per document."""
    validation_share: float = 0.02
    """Share of documents set aside, by XXH3 of the text: neither order nor threads matter, and equal texts go the same
    way. Above 0 at least one document of two or more is set aside."""
    validation_bytes: int | None = 1_000_000
    """UTF-8 bytes of text set aside, at most, the smallest hashes first; a larger document stays in training."""
    validation_documents: int | None = None
    """Documents set aside, at most."""
    block_bytes: int = 64 << 20
    """Consecutive files of so many bytes on the disk are compressed together, and read by one shard where the corpus is
    built in shards. Another number makes other bytes of the same documents."""

    @property
    def leaves_out(self) -> bool:
        """Whether documents may be left out, so that nobody knows how much will be left."""
        limits = (self.min_chars, self.max_chars, self.keep_pattern, self.drop_pattern)
        return any(limit is not None for limit in limits) or (
            self.repetition or self.exact_duplicates or self.near_duplicates
        )

    def check(self, where: str = "") -> None:
        """Raise ConfigError for a number out of range; ``where`` is put before its name."""
        at_least(0, where, min_chars=self.min_chars, validation_bytes=self.validation_bytes)
        at_least(0, where, validation_documents=self.validation_documents)
        at_least(1, where, max_line_bytes=self.max_line_bytes, block_bytes=self.block_bytes)
        at_least(self.min_chars or 0, where, max_chars=self.max_chars)


def build_corpus(
    inputs: Inputs | None = None,
    out: PathName | None = None,
    *,
    texts: Documents | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> CorpusReport:
    """Stream, filter, deduplicate and split ``inputs`` into the folder ``out``.

    Writes ``train.jsonl.zst`` and ``validation.jsonl.zst`` (one ``{"text": ...}`` per line) and ``manifest.json``, all
    or nothing. The files are the same bytes for any number of threads.

    Args:
        inputs: as for :func:`read_documents`; also a name ``hf:NAME[:CONFIG[:SPLIT]]``, streamed with ``datasets``.
        out: replaced, once all is written, if it exists.
        texts: documents in place of ``inputs``: any iterable of strings, or of mappings that hold one.
        threads: as many as the machine has cores by default.
        progress: called as ``progress(phase, done, total_or_None, unit)``; ``unit`` is bytes of the files.
        options: fields of :class:`BuildOptions` by name.

    Raises:
        FileNotFoundError, DataError: as :func:`read_documents`.
        ValueError: a share outside 0..1, a broken pattern, filters that leave nothing, a negative number.
    """
    if out is None:
        raise ConfigError("out: name a folder to write")
    chosen = BuildOptions(**options)
    chosen.check()
    settings = asdict(chosen)
    how = ("text_field", "text_unit", "strict", "max_line_bytes")
    reading = Reading(inputs, texts, **{name: settings[name] for name in how})
    source, made_from = source_of(reading)
    if not chosen.leaves_out:
        check_space(Path(out), least_bytes((reading.files() or {}).values()))
    with new_folder(Path(out), made_from if not isinstance(source, TextStream) else ()) as folder:
        with reading.local(folder) if isinstance(source, list) else nullcontext(source) as local:
            found = _core.build_corpus(local, folder, settings | {"threads": thread_count(threads)}, progress)
        read = found.pop("read")
        if isinstance(source, TextStream):
            source.add_to(read)
        report = CorpusReport(**read, **found)
        check_split(report, settings)
        write_manifest(folder, "corpus", settings, made_from, summary=report.to_dict())
    return report


def least_bytes(files: Iterable[Path | RemoteFile]) -> int:
    """What a corpus made of whole ``files`` takes, in bytes, if it packs better and they hold more besides the text
    than they ever do."""
    sizes = ((bytes_of(file), Path(str(file)).suffix in PACKED) for file in files)
    return sum(size // 8 if packed else size // 40 for size, packed in sizes)


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


def source_of(reading: Reading) -> tuple[list[str] | TextStream, dict[str, str]]:
    """What the core reads: names of files, or a stream; and the fingerprints of what it is made from."""
    names = reading.names
    if names is None:
        return reading.stream(), {}
    streams = [name for name in names if is_stream(name)]
    if streams:
        if len(names) > 1:
            raise ConfigError(f"{streams[0]}: a `datasets` stream cannot be mixed with other inputs; build them apart")
        return TextStream(open_dataset(streams[0]), reading.text_field, strict=reading.strict), {"stream": streams[0]}
    return names, fingerprints(reading.files() or {})
