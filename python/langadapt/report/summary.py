"""What readers want to know first, as plain values: used by the page, the model card and the terminal alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langadapt.report import words
from langadapt.report.results import Measurement, Results

SAME = 0.005
"""Relative change below which the verdict says "about the same"."""
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
    vocabulary: int
    parameters: int
    fertility: dict[str, float | None]
    """By ``target`` and ``source`` text."""
    bits: dict[str, float | None]
    """Bits per byte by ``target`` and ``source`` text."""
    suites: dict[str, dict[str, float | None]]


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
    source: Row
    trained: Row
    kept: Row | None
    """Trained without a swap, where that is a comparison."""

    def best(self, side: str) -> float | None:
        """The lowest bits per byte of one language."""
        return min((value for row in self.rows if (value := row.bits[side]) is not None), default=None)


def summarize(results: Results) -> Summary:
    """The first table of a run's results."""
    cells = fertility_tables(results)["text"]
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
        source=by_name[None, "source"],
        trained=by_name[results.method, "trained"],
        kept=by_name.get(("keep", "trained")) if results.method != "keep" else None,
    )


def make_row(row: Measurement, results: Results, cells: Cells, metric: str) -> Row:
    """One row; what was not measured is none."""
    # The new tokenizer is `target` beside the models, `new` where tokenizers are compared.
    tokenizer = "new" if row.tokenizer == "target" else row.tokenizer
    return Row(
        label=row.label,
        method=row.method,
        phase=row.phase,
        tokenizer=tokenizer,
        vocabulary=results.tokenizers[row.tokenizer].vocab_size,
        parameters=row.parameters,
        fertility={side: cells[tokenizer].get(name, {}).get(metric) for side, name in results.languages.items()},
        bits={side: row.bits_per_byte.get(side) for side in SIDES},
        suites=row.suites,
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


def verdict(summary: Summary, results: Results) -> list[str]:
    """What was gained and what it cost, in sentences, good news or bad."""
    sentences = [sentence for side in summary.sides for sentence in language_sentences(summary, side)]
    return [*sentences, *token_sentence(summary), cost_sentence(results)]


def language_sentences(summary: Summary, side: str) -> Iterator[str]:
    """How one language fared against the source model and against training without a swap."""
    name, now, before = summary.languages[side], summary.trained.bits[side], summary.source.bits[side]
    if now is None or not before:
        return
    text = f"{name}: {now:.3f} bits per byte, {compared(now, before)} the source model ({before:.3f})"
    if side == "source":
        text += ": so much was forgotten" if (now - before) / before > SAME else ": nothing was forgotten"
    yield text + "."
    kept = summary.kept.bits[side] if summary.kept else None
    if kept:
        yield f"{name}, same training without a swap: {kept:.3f}; the swapped model needs {compared(now, kept)} that."


def compared(new: float, old: float) -> str:
    """``26.5 % fewer than``."""
    relative = (new - old) / old
    if abs(relative) < SAME:
        return "about as many as"
    return f"{abs(relative):.1%} {'fewer' if relative < 0 else 'more'} than".replace("%", f"{words.GAP}%")


def token_sentence(summary: Summary) -> Iterator[str]:
    """What the new tokenizer does to the length of texts."""
    if summary.trained.tokenizer == summary.source.tokenizer:
        return
    parts = []
    for side in SIDES:
        old, new = summary.source.fertility[side], summary.trained.fertility[side]
        if old and new:
            ratio = old / new if summary.metric == "bytes_per_token" else new / old
            parts.append(
                f"{summary.languages[side]} text has {compared(ratio, 1.0)} before".replace(" than", " tokens than")
            )
    if parts:
        yield "With the new tokenizer, " + ", and ".join(parts) + "."


def cost_sentence(results: Results) -> str:
    """Time, tokens and money."""
    training, cost = results.main, results.cost
    parts = [
        f"{words.short_count(training.tokens)} training tokens",
        f"{words.duration(training.seconds)} of training",
        f"{words.duration(sum(cost.seconds.values()))} for all stages and comparisons",
    ]
    if cost.gpu_hours is not None:
        parts.append(f"{cost.gpu_hours:.3g} GPU-hours" + (f" (price: {cost.price:,.2f})" if cost.price else ""))
    return f"Cost: {', '.join(parts)} on {results.device}."


def measured_texts(rows: Sequence[Row]) -> list[str]:
    """Sides on whose text the tokenizers were measured."""
    return [side for side in SIDES if any(row.fertility[side] is not None for row in rows)]
