"""A look at text before anything is done with it: how much, in which scripts, and a sample to measure on."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from langadapt.artefacts.remote import is_remote
from langadapt.corpus.documents import expand_inputs, read_documents
from langadapt.corpus.streams import is_stream
from langadapt.errors import ConfigError, DataError
from langadapt.progress import Progress
from langadapt.swap.overlap import script_of

SAMPLE_BYTES = 16_000_000
"""Of all files together, alike."""
READ_BYTES = 256_000_000
"""Of text that is counted; the rest is estimated from it."""
HELD_OUT = 20
"""Every so many documents of the sample one is measured on and not learnt from."""
LETTERS = 200_000
"""Characters whose scripts are counted."""
COMPRESSED = 4.0
"""Bytes of prose to a byte of a compressed file, where no such file was read to its end."""


@dataclass(frozen=True)
class Survey:
    """What was found."""

    files: int
    bytes: int
    """Of text, UTF-8."""
    documents: int
    counted: bool
    """Whether all was read, so that nothing is estimated."""
    sample: list[str]
    """Documents to learn from."""
    held_out: list[str]
    """Others, to measure on."""
    scripts: dict[str, float]
    """Share of the letters, commonest first."""

    @property
    def sample_bytes(self) -> int:
        """Of the documents to learn from."""
        return sum(len(text.encode()) for text in self.sample)

    def describe(self) -> str:
        """In a line."""
        scripts = ", ".join(f"{name.capitalize()} {100 * share:.0f} %" for name, share in self.scripts.items())
        about = "" if self.counted else "about "
        files = "1 file" if self.files == 1 else f"{self.files:,} files"
        return (
            f"{about}{self.bytes / 1e6:,.1f} MB in {about}{self.documents:,} documents of {files}; letters: {scripts}"
        )


def survey(inputs: Sequence[str], *, progress: Progress | None = None) -> Survey:
    """Read ``inputs``, as of a recipe's ``corpus.target``, up to :data:`READ_BYTES`.

    Raises:
        ConfigError: a `datasets` stream, which has no size, or fewer than two documents.
        FileNotFoundError, DataError: as `langadapt.read_documents`.
    """
    if any(is_stream(name) or is_remote(name) for name in inputs):
        raise ConfigError(
            "init looks at files of this machine; make some first: `langadapt corpus build hf:... --out DIR`"
        )
    files = expand_inputs(list(inputs))
    taken: list[str] = []
    size = documents = seen = 0
    for file in files:
        if size >= READ_BYTES:
            break
        room = SAMPLE_BYTES // len(files)
        for text in whole_or_start(file):
            length = len(text.encode())
            size, documents = size + length, documents + 1
            if room > 0:
                taken.append(text)
                room -= length
            if progress is not None and documents % 1000 == 0:
                progress("read text", size, None, "bytes")
        seen += 1
    if len(taken) < 2:
        raise ConfigError(
            f"{', '.join(inputs)}: {len(taken)} document; at least two are needed, to learn and to measure on"
        )
    known, left = files[:seen], files[seen:]
    ratio = size / max(sum(weight(file) for file in known), 1)
    whole = size + ratio * sum(weight(file) for file in left)
    return Survey(
        files=len(files),
        bytes=int(whole),
        documents=max(round(documents * whole / size), documents),
        counted=not left,
        sample=[text for at, text in enumerate(taken) if at % HELD_OUT != HELD_OUT - 1 and at != 1],
        held_out=[text for at, text in enumerate(taken) if at % HELD_OUT == HELD_OUT - 1 or at == 1],
        scripts=scripts_of(taken),
    )


def whole_or_start(file: Path) -> Iterator[str]:
    """Documents of one file; none of one without any, which another may make up for."""
    try:
        yield from read_documents([str(file)])
    except DataError as error:
        if "no document" not in str(error):
            raise


def weight(file: Path) -> float:
    """Bytes of a file as if it were not compressed."""
    return file.stat().st_size * (COMPRESSED if file.suffix in {".gz", ".zst", ".parquet"} else 1.0)


def scripts_of(texts: Sequence[str], most: int = 3) -> dict[str, float]:
    """Shares of the commonest scripts among the letters of ``texts``, about as much of each."""
    each = max(LETTERS // len(texts), 1)
    letters = itertools.chain.from_iterable(text[:each] for text in texts)
    found = Counter(script for script in map(script_of, letters) if script)
    total = max(found.total(), 1)
    return {name: count / total for name, count in found.most_common(most) if count / total >= 0.005}
