"""The first table of the report, for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.table import Table

from langadapt.report import words
from langadapt.report.results import results_of
from langadapt.report.summary import Row, Summary, measured_texts, summarize

if TYPE_CHECKING:
    from rich.table import Table


def results_table(results: Mapping[str, Any]) -> Table:
    """Tokenizer, fertility, parameters and bits per byte of all models of a run, the best value of a column in bold.

    Args:
        results: as ``adapt`` returns them and ``results.json`` holds them.
    """
    summary = summarize(results_of(results))
    table = Table(title=summary.name, caption="bits per byte: lower is better; change against the source model")
    table.add_column("model")
    table.add_column("tokenizer")
    table.add_column("parameters", justify="right")
    texts = measured_texts(summary.rows)
    for side in texts:
        table.add_column(f"{words.title(summary.metric).lower()}, {summary.languages[side]}", justify="right")
    for side in summary.sides:
        table.add_column(f"bits per byte, {summary.languages[side]}", justify="right")
    for row in summary.rows:
        cells = [words.decimals(row.fertility[side], 2) for side in texts]
        cells += [bits_cell(summary, row, side) for side in summary.sides]
        tokenizer = f"{row.tokenizer}, {words.count(row.vocabulary)}"
        table.add_row(plain(row.label), tokenizer, words.short_count(row.parameters), *cells)
    return table


def bits_cell(summary: Summary, row: Row, side: str) -> str:
    """A value with its change, in bold where it is the best of its column."""
    value = row.bits[side]
    text = words.decimals(value)
    if value is not None and value == summary.best(side):
        text = f"[bold green]{text}[/]"
    if row is summary.source:
        return text
    return f"{text} {words.change(value, summary.source.bits[side])}".rstrip()


def plain(text: str) -> str:
    """Text that rich takes as it is."""
    return text.replace("[", "\\[")
