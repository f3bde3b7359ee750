"""How tokenizers cut text, side by side: N tokenizers on M corpora, one pass over each corpus.

All figures are ratios of totals over a whole corpus, without special tokens; a document is encoded as a whole. White
space is that of Unicode (Python's ``str.split`` also splits at U+001C to U+001F).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from langadapt import _core
from langadapt.corpus import Inputs, Progress, TextStream, cores, path_names, read_documents
from langadapt.errors import ConfigError, MismatchError
from langadapt.tokenizer import Tokenizer

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

RENYI_ORDER = 2.5
"""Order of the Rényi entropy that predicts translation quality best (Zouhar et al. 2023)."""
BATCH_CHARACTERS = 4_000_000
"""Text held at a time where a tokenizer needs the `tokenizers` package."""


@dataclass(frozen=True)
class Fertility:
    """One tokenizer on one corpus. A figure that is not defined (no words, no reference) is ``None``."""

    tokens: int
    """Tokens of all documents, special tokens left out."""
    tokens_per_word: float | None
    """Tokens by words between white space: the fertility of Rust et al. (2021)."""
    tokens_per_unicode_word: float | None
    """Tokens by words of Unicode UAX #29; for scripts without spaces, where white space says nothing."""
    characters_per_token: float | None
    """Code points of the text by tokens."""
    bytes_per_token: float | None
    """UTF-8 bytes of the text by tokens."""
    continued_words: float | None
    """Share of words between white space that more than one token has a part in (Rust et al. 2021). Words of a document
    whose tokens do not add up to its text, because it is normalized or has unknown characters, are encoded alone."""
    parity: float | None
    """Tokens by tokens of the same tokenizer on the reference, line-aligned, corpus: the premium of Petrov et al.
    (2023). 1 is parity; above 1 this language costs more."""
    renyi_efficiency: float | None
    """Rényi entropy of order 2.5 of the tokens' distribution, by the logarithm of the vocabulary size (Zouhar et al.
    2023, eq. 7); 0 to 1. The size is the tokenizer's, unused tokens included."""
    renyi_entropy: float | None
    """That entropy in bits: log2(sum of p^2.5) / (1 - 2.5)."""
    shannon_entropy: float | None
    """Entropy of the tokens' distribution in bits per token."""
    vocabulary_used: int
    """Distinct tokens that occur."""
    vocabulary_share: float
    """The same by the vocabulary size."""
    rare_tokens: int
    """Vocabulary entries that occur less than ``rare_below`` times, absent ones included: their embeddings see next to
    no training on this text."""
    byte_token_share: float | None
    """Share of tokens that are less than whole characters: ``<0xNN>`` tokens, or byte-level tokens that are not valid
    UTF-8."""
    unknown_share: float | None
    """Share of tokens that are the unknown token; 0 where there is none."""
    mean_token_length: float | None
    """Mean length in characters of the distinct tokens that occur; the mean over occurrences is
    ``characters_per_token``."""


@dataclass(frozen=True)
class CorpusCounts:
    """Size of a corpus, whatever the tokenizer."""

    documents: int
    bytes: int
    """UTF-8 bytes of text."""
    characters: int
    """Code points."""
    words: int
    """Words between white space."""
    unicode_words: int
    """Words of Unicode UAX #29."""
    skipped: int
    """Lines that held no document."""


@dataclass(frozen=True)
class TokenizerSummary:
    """One tokenizer over all corpora."""

    vocab_size: int
    backend: str
    """``"native"``, or ``"tokenizers"`` for the package of that name."""
    gini: float | None
    """Gini coefficient of what text costs over the corpora, 0 (equal) to 1: mean absolute difference of all pairs by
    twice the mean. The cost is tokens per document if there is a reference (line-aligned text), else tokens per byte.
    ``None`` for a single corpus."""


@dataclass(frozen=True)
class FertilityReport:
    """What :func:`measure_fertility` found; prints as a table."""

    corpora: dict[str, CorpusCounts]
    tokenizers: dict[str, TokenizerSummary]
    cells: dict[str, dict[str, Fertility]] = field(repr=False)
    """By tokenizer, then corpus."""
    reference: str | None = None
    rare_below: int = 10

    def to_dict(self) -> dict[str, Any]:
        """Plain values: ``corpora``, ``summary`` by tokenizer, ``tokenizers`` by tokenizer and corpus."""
        return {
            "reference": self.reference,
            "rare_below": self.rare_below,
            "corpora": {name: asdict(counts) for name, counts in self.corpora.items()},
            "summary": {name: asdict(summary) for name, summary in self.tokenizers.items()},
            "tokenizers": {
                name: {corpus: asdict(cell) for corpus, cell in cells.items()} for name, cells in self.cells.items()
            },
        }

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.table import Table

        for corpus, counts in self.corpora.items():
            title = f"{corpus}: {counts.documents:,} documents, {counts.bytes / 1e6:,.2f} MB, {counts.words:,} words"
            table = Table("", *self.tokenizers, title=title, title_justify="left")
            for column in table.columns[1:]:
                column.justify = "right"
            for metric, shown in COLUMNS.items():
                values = [getattr(cells[corpus], metric) for cells in self.cells.values()]
                if any(value is not None for value in values):
                    table.add_row(
                        shown[0], *(format(value, shown[1]) if value is not None else "–" for value in values)
                    )
            yield table
        if any(summary.gini is not None for summary in self.tokenizers.values()):
            table = Table("", *self.tokenizers, title="over all corpora", title_justify="left")
            ginis = [summary.gini for summary in self.tokenizers.values()]
            table.add_row("Gini coefficient", *("–" if gini is None else f"{gini:.4f}" for gini in ginis))
            yield table

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(width=120)
        with console.capture() as capture:
            console.print(self)
        return capture.get()


COLUMNS: dict[str, tuple[str, str]] = {
    "tokens": ("tokens", ",d"),
    "tokens_per_word": ("tokens per word", ".3f"),
    "tokens_per_unicode_word": ("tokens per word (UAX #29)", ".3f"),
    "characters_per_token": ("characters per token", ".3f"),
    "bytes_per_token": ("bytes per token", ".3f"),
    "continued_words": ("continued words", ".1%"),
    "parity": ("parity", ".3f"),
    "renyi_efficiency": ("Rényi efficiency", ".4f"),
    "shannon_entropy": ("Shannon entropy, bits", ".3f"),
    "vocabulary_used": ("vocabulary used", ",d"),
    "vocabulary_share": ("vocabulary used, share", ".1%"),
    "rare_tokens": ("tokens hardly seen", ",d"),
    "byte_token_share": ("byte tokens", ".3%"),
    "unknown_share": ("unknown tokens", ".3%"),
    "mean_token_length": ("mean token length", ".2f"),
}
"""Metric to row title and format."""


def measure_fertility(
    tokenizers: Mapping[str, Any],
    corpora: Mapping[str, Inputs],
    *,
    reference: str | None = None,
    text_field: str = "text",
    rare_below: int = 10,
    threads: int | None = None,
    progress: Progress | None = None,
) -> FertilityReport:
    """Measure all ``tokenizers`` on all ``corpora``, reading each corpus once. The metrics: :class:`Fertility`.

    Args:
        tokenizers: by name: a :class:`langadapt.Tokenizer`, a fast tokenizer of transformers, a
            ``tokenizers.Tokenizer``, or the folder, file or hub id of one. The two BPE families run natively, others
            through the package ``tokenizers``.
        corpora: by name; each as for :func:`langadapt.read_documents`. Pass a list of texts as ``iter(list)``.
        reference: name of the corpus that parity is measured against. All corpora must then be line-aligned: the n-th
            document of each says the same; blank lines count, and a line without a document is an error.
        text_field: JSON key, Parquet column or mapping key that holds the text.
        rare_below: see :attr:`Fertility.rare_tokens`.
        threads: as many as the machine has cores by default; the result does not depend on it.
        progress: called as ``progress(phase, done, total_or_None, unit)``.

    Raises:
        MismatchError: with a ``reference``, the corpora have different numbers of documents.
        ConfigError: no tokenizer, no corpus, an unknown reference.
        FileNotFoundError, DataError: as :func:`langadapt.read_documents`.
    """
    if not tokenizers or not corpora:
        raise ConfigError("nothing to measure: give at least one tokenizer and one corpus")
    if reference is not None and reference not in corpora:
        raise ConfigError(f"reference: {reference!r} is no corpus; there are {', '.join(corpora)}")
    opened = {name: open_tokenizer(tokenizer) for name, tokenizer in tokenizers.items()}
    surfaces = {name: Surface.of(tokenizer) for name, tokenizer in opened.items()}
    counted = {}
    for name, inputs in corpora.items():
        reader = Reader(list(opened.values()), text_field, reference is not None, threads or cores(), progress)
        counted[name] = reader.count(inputs)
    if reference is not None:
        check_aligned({name: corpus.documents for name, (corpus, _) in counted.items()}, reference)
    cells = {}
    for n, name in enumerate(opened):
        base = int(counted[reference][1][n].counts.sum()) if reference is not None else None
        cells[name] = {
            corpus: describe(counts, tallies[n], surfaces[name], base, rare_below)
            for corpus, (counts, tallies) in counted.items()
        }
    sizes = {corpus: counts for corpus, (counts, _) in counted.items()}
    summaries = {
        name: TokenizerSummary(one.vocab_size, one.backend, gini_over(cells[name], sizes, reference is not None))
        for name, one in opened.items()
    }
    return FertilityReport(sizes, summaries, cells, reference, rare_below)


@dataclass
class Tally:
    """Occurrences of each id, int64 ``[vocab_size]``, and the number of continued words."""

    counts: NDArray[np.int64]
    continued_words: int


@dataclass(frozen=True)
class Surface:
    """Per id: characters of its text, and whether it is less than whole characters; and the unknown token."""

    characters: NDArray[np.uint32]
    is_byte: NDArray[np.bool_]
    unknown: int | None

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Surface:
        """The surfaces of a tokenizer's ids."""
        unknown = tokenizer.unk_token_id
        if tokenizer.native is not None:
            return cls(*_core.token_surfaces(tokenizer.native), unknown)
        tokens = [tokenizer.id_to_token(id) or "" for id in range(tokenizer.vocab_size)]
        # Marks of word starts (`▁`, `Ġ`) and of continuations (WordPiece's `##`) are no part of the text, spaces are.
        characters = [len(token.removeprefix("##")) for token in tokens]
        is_byte = [re.fullmatch(r"<0x[0-9A-F]{2}>", token) is not None for token in tokens]
        return cls(np.array(characters, dtype=np.uint32), np.array(is_byte, dtype=np.bool_), unknown)


@dataclass
class Reader:
    """Counts one corpus after the other for the same tokenizers."""

    tokenizers: Sequence[Tokenizer]
    text_field: str
    aligned: bool
    threads: int
    progress: Progress | None

    def count(self, inputs: Inputs) -> tuple[CorpusCounts, list[Tally]]:
        """Size of the corpus and one tally per tokenizer."""
        names = path_names(inputs)
        stream = None if names is not None else TextStream(inputs, self.text_field, self.aligned)  # type: ignore[arg-type]
        source = stream if names is None else names
        if all(tokenizer.native is not None for tokenizer in self.tokenizers):
            found = self.count_natively(source)  # type: ignore[arg-type]
        else:
            found = self.count_in_batches(inputs if stream is None else stream)
        skipped = sum(found["read"]["skipped"].values()) + (stream.skipped if stream is not None else 0)
        sizes = CorpusCounts(
            found["read"]["documents"],
            found["read"]["bytes"],
            found["characters"],
            found["words"],
            found["unicode_words"],
            skipped,
        )
        return sizes, found["tallies"]

    def count_natively(self, source: list[str] | Iterator[str]) -> dict[str, Any]:
        """Native tokenizers, and the sizes of the corpus."""
        natives = [tokenizer.native for tokenizer in self.tokenizers if tokenizer.native is not None]
        found = _core.count_tokens(source, natives, self.text_field, self.aligned, self.threads, self.progress)
        tallies = [Tally(counts.astype(np.int64), continued) for counts, continued in found.pop("tokenizers")]
        return found | {"tallies": tallies}

    def count_in_batches(self, inputs: Inputs) -> dict[str, Any]:
        """All tokenizers on a few megabytes at a time: the package ``tokenizers`` takes Python strings."""
        total: dict[str, Any] | None = None
        documents = read_documents(inputs, text_field=self.text_field, strict=self.aligned)
        quiet = Reader(self.tokenizers, self.text_field, self.aligned, self.threads, None)
        packages = [None if tokenizer.native is not None else package_of(tokenizer) for tokenizer in self.tokenizers]
        for batch in batches(documents):
            found = quiet.count_natively(iter(batch))
            natives = iter(found["tallies"])
            found["tallies"] = [
                next(natives) if package is None else count_with_package(package, tokenizer.vocab_size, batch)
                for package, tokenizer in zip(packages, self.tokenizers, strict=True)
            ]
            total = found if total is None else add(total, found)
            if self.progress is not None:
                self.progress("count tokens", total["characters"], None, "characters")
        if total is None:
            # Says which input is empty.
            return quiet.count_natively(iter(()))
        return total


def add(total: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """Sum of two results of :meth:`Reader.count_in_batches`."""
    for key in ("documents", "bytes"):
        total["read"][key] += found["read"][key]
    for key in ("characters", "words", "unicode_words"):
        total[key] += found[key]
    for mine, more in zip(total["tallies"], found["tallies"], strict=True):
        mine.counts += more.counts
        mine.continued_words += more.continued_words
    return total


def batches(documents: Iterable[str]) -> Iterator[list[str]]:
    """Lists of documents with about :data:`BATCH_CHARACTERS` characters."""
    batch: list[str] = []
    size = 0
    for text in documents:
        batch.append(text)
        size += len(text)
        if size >= BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def package_of(tokenizer: Tokenizer) -> Any:
    """The same tokenizer as an object of the package ``tokenizers``, without truncation and padding."""
    from tokenizers import Tokenizer as Package

    package = Package.from_str(tokenizer.definition.decode())
    package.no_truncation()
    package.no_padding()
    return package


def count_with_package(package: Any, vocab_size: int, texts: Sequence[str]) -> Tally:
    """Counts of a tokenizer that is not native; words are laid beside tokens by the package's offsets."""
    counts = np.zeros(vocab_size, dtype=np.int64)
    continued = 0
    # The package lays the space that a normalizer puts before a text beside the first word, whose part it is not.
    space = package.token_to_id("▁")
    for start in range(0, len(texts), 64):
        block = texts[start : start + 64]
        for text, encoding in zip(block, package.encode_batch(block, add_special_tokens=False), strict=True):
            ids = np.array(encoding.ids, dtype=np.int64)
            counts += np.bincount(ids, minlength=len(counts))
            continued += continued_words(text, np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)[ids != space])
    return Tally(counts, continued)


def continued_words(text: str, offsets: NDArray[np.int64]) -> int:
    """How many words more than one token has a part in; ``offsets`` are start and end of tokens in characters."""
    words = np.array([match.span() for match in re.finditer(r"\S+", text)], dtype=np.int64).reshape(-1, 2)
    offsets = offsets[offsets[:, 1] > offsets[:, 0]]
    # Both lists ascend: a word's tokens end behind its start and start before its end.
    first = np.searchsorted(offsets[:, 1], words[:, 0], side="right")
    last = np.searchsorted(offsets[:, 0], words[:, 1], side="left")
    return int((last - first > 1).sum())


def describe(
    corpus: CorpusCounts, tally: Tally, surface: Surface, reference_tokens: int | None, rare_below: int
) -> Fertility:
    """The metrics of one tokenizer on one corpus; ``reference_tokens`` are its tokens on the reference."""
    counts = tally.counts
    tokens = int(counts.sum())
    used = counts > 0
    shannon, renyi = entropies(counts)
    size = len(counts)
    return Fertility(
        tokens=tokens,
        tokens_per_word=ratio(tokens, corpus.words),
        tokens_per_unicode_word=ratio(tokens, corpus.unicode_words),
        characters_per_token=ratio(corpus.characters, tokens),
        bytes_per_token=ratio(corpus.bytes, tokens),
        continued_words=ratio(tally.continued_words, corpus.words),
        parity=None if reference_tokens is None else ratio(tokens, reference_tokens),
        renyi_efficiency=None if renyi is None or size < 2 else renyi / float(np.log2(size)),
        renyi_entropy=renyi,
        shannon_entropy=shannon,
        vocabulary_used=int(used.sum()),
        vocabulary_share=int(used.sum()) / max(size, 1),
        rare_tokens=int((counts < rare_below).sum()),
        byte_token_share=ratio(int(counts[surface.is_byte].sum()), tokens),
        unknown_share=ratio(0 if surface.unknown is None else int(counts[surface.unknown]), tokens),
        mean_token_length=float(surface.characters[used].mean()) if used.any() else None,
    )


def ratio(above: int, below: int) -> float | None:
    """A quotient, or ``None`` where there is nothing to divide by."""
    return above / below if below else None


def entropies(counts: NDArray[np.int64]) -> tuple[float | None, float | None]:
    """Shannon and Rényi entropy in bits of the distribution that ``counts`` are drawn from."""
    total = counts.sum()
    if not total:
        return None, None
    share = counts[counts > 0] / total
    # `+ 0.0`: no minus zero for a single token.
    shannon = float(-(share * np.log2(share)).sum()) + 0.0
    return shannon, float(np.log2((share**RENYI_ORDER).sum()) / (1 - RENYI_ORDER)) + 0.0


def gini_over(cells: Mapping[str, Fertility], corpora: Mapping[str, CorpusCounts], aligned: bool) -> float | None:
    """See :attr:`TokenizerSummary.gini`."""
    sizes = [corpora[name].documents if aligned else corpora[name].bytes for name in cells]
    if len(cells) < 2 or not all(sizes):
        return None
    return gini([cell.tokens / size for cell, size in zip(cells.values(), sizes, strict=True)])


def gini(values: Sequence[float]) -> float:
    """Gini coefficient: mean absolute difference of all ordered pairs, by twice the mean; 0 where all are 0."""
    array = np.asarray(values, dtype=np.float64)
    mean = array.mean()
    return float(np.abs(array[:, None] - array[None, :]).mean() / (2 * mean)) if mean else 0.0


def check_aligned(documents: Mapping[str, int], reference: str) -> None:
    """Raise unless all corpora have as many documents as the reference."""
    wanted = documents[reference]
    for name, count in documents.items():
        if count != wanted:
            raise MismatchError(
                f"parity needs line-aligned text: {name!r} has {count:,} documents, the reference {reference!r} has "
                f"{wanted:,}; give the same lines in all languages, or no reference"
            )


def open_tokenizer(tokenizer: Any) -> Tokenizer:
    """A :class:`Tokenizer` out of what :func:`measure_fertility` takes."""
    if isinstance(tokenizer, Tokenizer):
        return tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if hasattr(backend, "to_str"):
        unknown = getattr(tokenizer, "unk_token", None)
        companions = {"special_tokens_map.json": json_bytes({"unk_token": str(unknown)})} if unknown else {}
        return Tokenizer(backend.to_str().encode(), companions, getattr(tokenizer, "name_or_path", "") or "tokenizer")
    try:
        return Tokenizer.from_pretrained(tokenizer)
    except TypeError:
        kind = type(tokenizer).__name__
        raise ConfigError(f"tokenizer: {kind}; give a path, a Tokenizer, or a fast tokenizer of transformers") from None


def json_bytes(value: Any) -> bytes:
    """``value`` as JSON in UTF-8."""
    import json

    return json.dumps(value).encode()
