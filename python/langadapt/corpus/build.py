"""Documents to a corpus: filtered, without duplicates, split into training and validation text."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from langadapt import _core
from langadapt.artefacts.folders import fingerprints, new_folder, write_manifest
from langadapt.artefacts.places import check_space
from langadapt.artefacts.remote import RemoteFile
from langadapt.artefacts.stages import check_stage
from langadapt.checks import at_least
from langadapt.corpus.arriving import bytes_of
from langadapt.corpus.documents import LONGEST_LINE, Inputs, PathName, Reading
from langadapt.corpus.language import learn
from langadapt.corpus.streams import Documents, TextStream, is_stream, open_dataset
from langadapt.errors import ConfigError
from langadapt.machine import thread_count
from langadapt.progress import Progress

logger = logging.getLogger(__name__)

READING = ("text_field", "text_unit", "strict", "max_line_bytes")
"""Options that say how text is read."""
PACKED = {".gz", ".zst", ".parquet"}
"""Endings of files that are smaller than their text."""


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
    foreign: list[str] = field(default_factory=list)
    """Files of text in another language, such as the model's own: documents in that one, in a third or in another
    script are left out. Learnt from both texts by their letters (naive Bayes over character n-grams), without a
    download; what it would leave out of a sample is said first. Documents of fewer than 40 letters stay."""
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
    way. Above 0 at least one document is set aside, and one alone is refused."""
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
            self.repetition or self.exact_duplicates or self.near_duplicates or bool(self.foreign)
        )

    def made_from(self, files: Mapping[str, Path | RemoteFile] | None) -> dict[str, Path | RemoteFile] | None:
        """``files``, by name, and those of the other language; none for what cannot be read twice."""
        others = Reading(self.foreign).files() if self.foreign else {}
        return None if files is None or others is None else {**files, **others}

    def for_core(self, reading: Reading, threads: int | None) -> dict[str, Any]:
        """All by name, as the core takes it; the language of all that is in ``reading`` is learnt, and a look logged.

        Raises:
            ConfigError: the languages cannot be told apart.
            FileNotFoundError, DataError: as :func:`langadapt.read_documents`.
        """
        language = None
        if self.foreign:
            language, look = learn(reading, self.foreign)
            logger.info("%s", look)
        return {**asdict(self), "language": language, "threads": thread_count(threads)}

    def check(self, where: str = "") -> None:
        """Raise ConfigError for a number out of range; ``where`` is put before its name."""
        if isinstance(self.foreign, str) or not all(self.foreign):
            raise ConfigError(f"{where}foreign: a list of files is expected, none of them without a name")
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
        ConfigError: ``out`` is what another stage made.
    """
    if out is None:
        raise ConfigError("out: name a folder to write")
    chosen = BuildOptions(**options)
    chosen.check()
    check_stage(Path(out), "corpus")
    settings = asdict(chosen)
    reading = Reading(inputs, texts, **{name: settings[name] for name in READING})
    core = chosen.for_core(reading, threads)
    source, made_from = source_of(reading)
    if not chosen.leaves_out:
        check_space(Path(out), least_bytes((reading.files() or {}).values()))
    made_from |= fingerprints(chosen.made_from({}) or {})
    with new_folder(Path(out), made_from if not isinstance(source, TextStream) else ()) as folder:
        with reading.local(folder) if isinstance(source, list) else nullcontext(source) as local:
            found = _core.build_corpus(local, folder, core, progress)
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
    if share > 0 and report.train["documents"] + report.validation["documents"] == 1:
        raise ConfigError(
            "one document alone cannot be split into text to train on and text to measure on; give more, cut it into "
            "several, or set validation_share to 0"
        )
    if share > 0 and report.train["documents"] and not report.validation["documents"]:
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
