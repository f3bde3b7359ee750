"""What readers want to know first, as plain values: used by the verdict, the page, the card and the terminal alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from langadapt.report.results import Measurement, Results

LESS_IS_BETTER = ("tokens_per", "parity", "unknown", "continued")
"""Beginnings of names of tokenizer metrics where less is better; of ``bytes_per`` and ``characters_per``, more is."""
SIDES = ("target", "source")


@dataclass(frozen=True)
class Row:
    """One model of the first table."""

    label: str
    method: str | None
    phase: str
    tokenizer: str
    """``source`` or ``new``."""
    vocabulary: int | None
    parameters: int
    fertility: dict[str, float | None]
    """By ``target`` and ``source`` text."""
    bits: dict[str, float | None]
    """Bits per byte by ``target`` and ``source`` text."""
    suites: dict[str, dict[str, float | None]]
    suite_items: dict[str, dict[str, list[float]]]
    document_bits: dict[str, list[float]] = field(default_factory=dict)
    """By ``target`` and ``source``; see :class:`langadapt.report.results.Measurement`."""
    samples: dict[str, list[str]] = field(default_factory=dict)
    """By ``target`` and ``source``."""
    drawn: dict[str, list[str]] = field(default_factory=dict)
    writing: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Summary:
    """The first table and who is who in it."""

    name: str
    languages: dict[str, str]
    sides: tuple[str, ...]
    """``target`` and, where it was measured, ``source``."""
    metric: str
    """What the fertility columns hold."""
    rows: list[Row]
    source: Row | None
    """The source model; none in a run that has not come to it."""
    trained: Row | None
    """The run's own model; none in a run that has not come to it."""
    swapped: Row | None
    """The same before its training; none where there was no swap."""
    kept: Row | None
    """Trained without a swap, where that is a comparison."""

    def best(self, side: str) -> float | None:
        """The lowest bits per byte of one language."""
        return min((value for row in self.rows if (value := row.bits[side]) is not None), default=None)

    def winner(self) -> Row | None:
        """The model with the fewest bits per byte of the target language; one that was given chat is no arm."""
        known = [row for row in self.rows if row.bits["target"] is not None and row.phase != "finished"]
        return min(known, key=lambda row: row.bits["target"] or 0.0, default=None)


def summarize(results: Results) -> Summary:
    """The first table of a run's results."""
    cells = fertility_tables(results).get("text", {})
    measured = [texts["tokens_per_word"] for corpora in cells.values() for texts in corpora.values()]
    metric = "tokens_per_word" if any(value is not None for value in measured) else "bytes_per_token"
    rows = [make_row(row, results, cells, metric) for row in results.rows]
    by_name = {(row.method, row.phase): row for row in rows}
    return Summary(
        name=results.name,
        languages=results.languages,
        sides=tuple(side for side in SIDES if any(row.bits[side] is not None for row in rows)),
        metric=metric,
        rows=rows,
        source=by_name.get((None, "source")),
        trained=by_name.get((results.method, "trained")),
        swapped=by_name.get((results.method, "swapped")),
        kept=by_name.get(("keep", "trained")) if results.method != "keep" else None,
    )


def make_row(row: Measurement, results: Results, cells: Cells, metric: str) -> Row:
    """One row; what was not measured is none."""
    # The new tokenizer is `target` beside the models, `new` where tokenizers are compared.
    tokenizer = "new" if row.tokenizer == "target" else row.tokenizer
    facts, texts = results.tokenizers.get(row.tokenizer), cells.get(tokenizer, {})
    return Row(
        label=row.label,
        method=row.method,
        phase=row.phase,
        tokenizer=tokenizer,
        vocabulary=None if facts is None else facts.vocab_size,
        parameters=row.parameters,
        fertility={side: texts.get(name, {}).get(metric) for side, name in results.languages.items()},
        bits={side: row.bits_per_byte.get(side) for side in SIDES},
        suites=row.suites,
        suite_items=row.suite_items,
        document_bits=row.document_bits,
        samples=row.samples,
        drawn=row.drawn,
        writing=row.writing,
    )


Cells = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Tokenizer, corpus, metric."""


def fertility_tables(results: Results) -> dict[str, Cells]:
    """What was measured about the tokenizers, by kind of text, running text first."""
    return {kind: report["tokenizers"] for kind, report in results.fertility.items()}


def less_is_better(metric: str) -> bool | None:
    """Direction of a tokenizer metric; none where it has none."""
    if metric.startswith(LESS_IS_BETTER):
        return True
    return False if metric.startswith(("bytes_per", "characters_per")) else None


def measured_texts(rows: Sequence[Row]) -> list[str]:
    """Sides on whose text the tokenizers were measured."""
    return [side for side in SIDES if any(row.fertility[side] is not None for row in rows)]


def spoken(row: Row) -> str:
    """A model's name within a sentence."""
    if row.method is None:
        return "the source model"
    name = "training without a swap" if row.method == "keep" else row.method
    return name + {"swapped": " before training", "finished": " with chat"}.get(row.phase, "")


def shown(method: str) -> str:
    """A method's name for readers."""
    return "without a swap" if method == "keep" else method
