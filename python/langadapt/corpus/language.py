"""Which documents of a corpus are in its language: what is learnt from the run's own text, and a look before anything
is left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from langadapt import _core
from langadapt.artefacts.remote import RemoteFile
from langadapt.corpus.documents import Reading
from langadapt.corpus.samples import first_bytes
from langadapt.corpus.streams import TextStream, is_stream, open_dataset
from langadapt.errors import ConfigError, shorten

SAMPLE_BYTES = 2_000_000
"""UTF-8 bytes of each of the two texts that are learnt from: more changes no verdict in a thousand."""
SAMPLED_FILES = 64
"""Files that a sample is taken from, evenly spread over all."""
LEFT_OUT = {"foreign": "of another language", "script": "in another script"}
"""Verdicts that leave a document out, for readers."""
SHOWN = 3
"""Documents that a look shows."""


@dataclass(frozen=True)
class LanguageLook:
    """What a filter would do to a sample of documents."""

    documents: int
    left_out: dict[str, int]
    """By verdict: ``foreign``, ``script``."""
    examples: list[tuple[str, str]]
    """Verdict and beginning of the first few."""

    def __str__(self) -> str:
        total = sum(self.left_out.values())
        told = ", ".join(f"{count:,} {LEFT_OUT[name]}" for name, count in self.left_out.items() if count)
        share = f"{100 * total / max(self.documents, 1):.1f} %"
        shown = "".join(f"\n  {name}: {text!r}" for name, text in self.examples)
        return f"language: {total:,} of {self.documents:,} sampled documents would be left out ({share})" + (
            f": {told}{shown}" if total else ""
        )


def sample(reading: Reading) -> list[str]:
    """Documents out of all files of ``reading``, up to :data:`SAMPLE_BYTES`; the same ones for every shard of them.

    Raises:
        ConfigError: what is read can be read once only.
    """
    names = reading.names
    if names is None or "-" in names:
        raise ConfigError("foreign: what is read once cannot be learnt from first; give files, or `hf:NAME`")
    if is_stream(names[0]):
        return first_bytes(TextStream(open_dataset(names[0]), reading.text_field, strict=False), SAMPLE_BYTES)
    files = reading.files()
    if not files:
        # What a server tells no version of, and so cannot be counted on to be the same for every shard.
        return first_bytes(reading.documents(), SAMPLE_BYTES)
    every = [*files.values()][:: -(-len(files) // SAMPLED_FILES)]
    places = (file.url if isinstance(file, RemoteFile) else str(file) for file in every)
    parts = (replace(reading, inputs=[place], allow_empty=True).documents() for place in places)
    return [text for part in parts for text in first_bytes(part, SAMPLE_BYTES / len(every))]


def learn(reading: Reading, foreign: Sequence[str]) -> tuple[_core.Language, LanguageLook]:
    """What most of ``reading`` is in, told apart from the text in the files ``foreign``; and a look at the sample.

    Raises:
        ConfigError: too little text, or texts that cannot be told apart.
        FileNotFoundError, DataError: as :func:`langadapt.read_documents`.
    """
    own = sample(reading)
    others = sample(replace(reading, inputs=[*foreign], texts=None))
    language = language_of(own, others)
    return language, look(language, own)


def language_of(own: list[str], foreign: list[str]) -> _core.Language:
    """The language that most of ``own`` is in and ``foreign`` is not.

    Raises:
        ConfigError: too little text, or texts that cannot be told apart.
    """
    try:
        return _core.Language(own, foreign)
    except ValueError as error:
        raise ConfigError(f"foreign: {error}") from None


def look(language: _core.Language, texts: list[str]) -> LanguageLook:
    """What ``language`` would leave out of ``texts``."""
    verdicts = language.judge(texts)
    counts = Counter(verdicts)
    out = [(name, shorten(" ".join(text.split()), 60)) for name, text in zip(verdicts, texts, strict=True)]
    examples = [(name, text) for name, text in out if name in LEFT_OUT][:SHOWN]
    return LanguageLook(len(texts), {name: counts[name] for name in LEFT_OUT}, examples)
