"""The figures of all tokenizers on all corpora, as values and as tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table

from langadapt.fertility.metrics import CorpusCounts, Fertility
from langadapt.terminal import Terminal, literal


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
        for corpus, counts in self.corpora.items():
            size = f"{counts.documents:,} documents, {counts.bytes / 1e6:,.2f} MB, {counts.words:,} words"
            yield literal(f"{corpus}: {size}")
            rows = []
            for metric, (shown, shape) in COLUMNS.items():
                values = [getattr(cells[corpus], metric) for cells in self.cells.values()]
                if any(value is not None for value in values):
                    rows.append((shown, ["–" if value is None else format(value, shape) for value in values]))
            yield from tables(list(self.tokenizers), rows, options.max_width)
        ginis = [summary.gini for summary in self.tokenizers.values()]
        if any(gini is not None for gini in ginis):
            yield "over all corpora"
            cells = ["–" if gini is None else f"{gini:.4f}" for gini in ginis]
            yield from tables(list(self.tokenizers), [("Gini coefficient", cells)], options.max_width)

    def __str__(self) -> str:
        console = Terminal(width=120)
        with console.capture() as capture:
            console.print(self)
        return capture.get()


def tables(names: list[str], rows: list[tuple[str, list[str]]], width: int) -> Iterator[Table]:
    """A table of all columns, or as many tables as a terminal of ``width`` needs so that none breaks a word."""
    first = max(len(title) for title, _ in rows) + BORDER
    wide = [max(len(name), *(len(cells[at]) for _, cells in rows)) + BORDER for at, name in enumerate(names)]
    start = 0
    while start < len(names):
        end, used = start + 1, first + wide[start] + 1
        while end < len(names) and used + wide[end] <= width:
            used += wide[end]
            end += 1
        table = Table("")
        for name in names[start:end]:
            table.add_column(literal(name), justify="right", overflow="fold")
        for title, cells in rows:
            table.add_row(title, *cells[start:end])
        yield table
        start = end


BORDER = 3
"""Characters that a table puts around a column."""
COLUMNS: dict[str, tuple[str, str]] = {
    "tokens": ("tokens", ",d"),
    "tokens_per_word": ("tokens per word", ".3f"),
    "tokens_per_unicode_word": ("tokens per word (UAX #29)", ".3f"),
    "tokens_per_grapheme": ("tokens per grapheme", ".3f"),
    "characters_per_token": ("characters per token", ".3f"),
    "bytes_per_token": ("bytes per token", ".3f"),
    "continued_words": ("continued words", ".1%"),
    "torn_words": ("words cut inside a grapheme", ".1%"),
    "parity": ("parity", ".3f"),
    "renyi_efficiency": ("Rényi efficiency", ".4f"),
    "renyi_entropy": ("Rényi entropy, bits", ".3f"),
    "shannon_entropy": ("Shannon entropy, bits", ".3f"),
    "vocabulary_used": ("vocabulary used", ",d"),
    "vocabulary_share": ("vocabulary used, share", ".1%"),
    "rare_tokens": ("tokens hardly seen", ",d"),
    "byte_token_share": ("byte tokens", ".3%"),
    "unknown_share": ("unknown tokens", ".3%"),
    "mean_token_length": ("mean token length", ".2f"),
}
"""Metric to row title and format."""
