"""The report for a terminal: the verdict, and a table that fits 80 columns without breaking a word."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from langadapt.report import words
from langadapt.report.differences import ENOUGH_DOCUMENTS
from langadapt.report.results import Results, results_of
from langadapt.report.summary import Row, Summary, summarize
from langadapt.report.verdict import verdict
from langadapt.terminal import literal, visible

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

COLOURS = {"yes": "bold green", "no": "bold red", "undecided": "bold yellow"}


def results_table(results: Mapping[str, Any]) -> Group:
    """The verdict, then bits per byte of all models of a run, the best value of a column in bold.

    Args:
        results: as ``adapt`` returns them and ``results.json`` holds them.
    """
    known = results_of(results)
    summary = summarize(known)
    found = verdict(summary, known)
    answer, _, reasons = found.line.partition(":")
    line = Text.assemble((f"{answer}:", COLOURS[found.answer]), visible(reasons))
    return Group(line, table(summary, known), *(literal(text, style="dim") for text in captions(summary, known)))


def table(summary: Summary, results: Results) -> Table:
    """A row for each model: what it is, bits per byte of each language, and their change."""
    made = Table(title=literal(f"{summary.name}: bits per byte, lower is better"))
    made.add_column("model", no_wrap=True)
    for side in summary.sides:
        made.add_column(literal(summary.languages[side]), justify="right", no_wrap=True)
        made.add_column("change", justify="right", no_wrap=True)
    for row in summary.rows:
        cells = [cell for side in summary.sides for cell in bits_cells(summary, row, side)]
        made.add_row(literal(row.label), *cells)
    levels = {side: facts.xz_bits_per_byte for side, facts in results.held_out.items()}
    if any(levels.get(side) is not None for side in summary.sides):
        made.add_section()
        cells = [cell for side in summary.sides for cell in (words.decimals(levels.get(side)), "")]
        made.add_row("xz, a compressor", *cells, style="dim")
    return made


def bits_cells(summary: Summary, row: Row, side: str) -> tuple[str | Text, str]:
    """A value, in bold where it is the best of its column, and its change against the source model."""
    value = row.bits[side]
    text: str | Text = words.decimals(value)
    if value is not None and value == summary.best(side):
        text = Text(words.decimals(value), style="bold green")
    before = summary.source.bits[side] if summary.source and row is not summary.source else None
    return text, words.change(value, before)


def captions(summary: Summary, results: Results) -> Iterator[str]:
    """What the verdict rests on, where that is little; what changed with the tokenizer and the model's size."""
    for side in summary.sides:
        facts = results.held_out.get(side)
        if facts is not None and (count := len(facts.document_bytes)) < ENOUGH_DOCUMENTS:
            yield (
                f"{summary.languages[side]}: {count} held-out documents; fewer than {ENOUGH_DOCUMENTS} make intervals "
                "that are too narrow"
            )
    metric = words.title(summary.metric).lower()
    old, new = summary.source, summary.trained
    if old is None or new is None or old.tokenizer == new.tokenizer:
        return
    for side in ("target", "source"):
        before, after = old.fertility[side], new.fertility[side]
        if before is not None and after is not None:
            yield f"{summary.languages[side]}: {before:.2f} {metric} before, {after:.2f} with the new tokenizer"
    yield (
        f"vocabulary {words.count(old.vocabulary)} before, {words.count(new.vocabulary)} now; "
        f"parameters {words.short_count(old.parameters)} before, {words.short_count(new.parameters)} now"
    )
