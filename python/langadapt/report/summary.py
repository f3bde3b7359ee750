"""What readers want to know first, as plain values: used by the page, the model card and the terminal alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langadapt.report import words
from langadapt.report.run import BITS, number, section

SAME = 0.005
"""Relative change below which the verdict says "about the same"."""
FERTILITY_METRICS = ("tokens_per_word", "fertility", "bytes_per_token")
"""For the first table: the first one that was measured."""
LESS_IS_BETTER = ("fertility", "tokens_per", "parity", "unknown", "unk", "continued", "premium")
"""Beginnings of names of tokenizer metrics where less is better; of ``bytes_per`` and ``chars_per``, more is."""


@dataclass(frozen=True)
class Row:
    """One model of the first table."""

    label: str
    method: str | None
    phase: str
    tokenizer: str
    """``source`` or ``new``."""
    vocabulary: int | None
    parameters: float | None
    fertility: dict[str, float | None]
    """By ``target`` and ``source`` text."""
    bits: dict[str, float | None]
    """Bits per byte by ``target`` and ``source`` text."""
    suites: dict[str, dict[str, float]]


@dataclass(frozen=True)
class Summary:
    """The first table and who is who in it."""

    name: str
    languages: dict[str, str]
    sides: tuple[str, ...]
    """``target`` and, where it was measured, ``source``."""
    metric: str | None
    """What the fertility columns hold."""
    rows: list[Row]
    source: Row | None
    swapped: Row | None
    trained: Row | None
    kept: Row | None

    def best(self, side: str) -> float | None:
        """The lowest bits per byte of one language."""
        return min((value for row in self.rows if (value := row.bits[side]) is not None), default=None)


def summarize(results: Mapping[str, Any]) -> Summary:
    """The first table of a run's results."""
    names = section(results, "languages")
    languages = {side: str(names.get(side, side)) for side in ("target", "source")}
    tables = fertility_tables(results)
    cells = tables[0][1] if tables else {}
    metric = next((name for name in FERTILITY_METRICS if any_has(cells, name)), None)
    rows = [make_row(row, results, languages, cells, metric) for row in results.get("rows", [])]
    method = results.get("method")
    measured = [side for side in ("target", "source") if any(row.bits[side] is not None for row in rows)]
    return Summary(
        name=str(results.get("name", "run")),
        languages=languages,
        sides=tuple(measured),
        metric=metric,
        rows=rows,
        source=first(rows, phase="source"),
        swapped=first(rows, phase="swapped", method=method),
        trained=first(rows, phase="trained", method=method),
        kept=first(rows, phase="trained", method="keep") if method != "keep" else None,
    )


def first(rows: Sequence[Row], **wanted: Any) -> Row | None:
    """The first row with these attributes."""
    return next((row for row in rows if all(getattr(row, key) == value for key, value in wanted.items())), None)


def make_row(
    row: Mapping[str, Any], results: Mapping[str, Any], languages: Mapping[str, str], cells: Any, metric: str | None
) -> Row:
    """One row, whatever is missing in it left empty."""
    tokenizer = str(row.get("tokenizer", ""))
    described = section(section(results, "tokenizers"), tokenizer)
    bits, suites = section(row, BITS), section(row, "suites")
    texts = fertility_of(cells, tokenizer, str(described.get("name", "")))
    vocabulary = number(described.get("vocab_size"))
    return Row(
        label=str(row.get("label", row.get("method", "?"))),
        method=row.get("method"),
        phase=str(row.get("phase", "")),
        tokenizer="new" if tokenizer == "target" else tokenizer,
        vocabulary=None if vocabulary is None else int(vocabulary),
        parameters=number(row.get("parameters")),
        fertility={
            side: number((texts.get(name) or texts.get(side) or {}).get(metric or ""))
            for side, name in languages.items()
        },
        bits={side: number(bits.get(side)) for side in ("target", "source")},
        suites={task: metrics for task, metrics in suites.items() if isinstance(metrics, dict)},
    )


Cells = dict[str, dict[str, dict[str, Any]]]
"""Tokenizer, corpus, metric."""


def fertility_tables(results: Mapping[str, Any]) -> list[tuple[str, Cells]]:
    """``(section, cells)`` of everything that was measured about the tokenizers, running text first."""
    return list(find_cells("", section(results, "fertility")))


def find_cells(name: str, value: Any) -> Iterator[tuple[str, Cells]]:
    """Look for tokenizer / corpus / metric at any depth: a bare report, or one with sections around it."""
    if not isinstance(value, dict):
        return
    if is_cells(value):
        yield name, value
        return
    for key, inner in value.items():
        yield from find_cells(key, inner)


def is_cells(value: Mapping[str, Any]) -> bool:
    """Mappings of mappings of mappings that hold numbers."""
    corpora = [corpus for tokenizer in value.values() if isinstance(tokenizer, dict) for corpus in tokenizer.values()]
    return bool(corpora) and all(
        isinstance(corpus, dict) and any(number(metric) is not None for metric in corpus.values()) for corpus in corpora
    )


def fertility_of(cells: Cells, tokenizer: str, name: str) -> dict[str, dict[str, Any]]:
    """One tokenizer's measurements by corpus; runs call the target tokenizer ``new``."""
    for known in (tokenizer, name, "new" if tokenizer == "target" else ""):
        if known in cells:
            return cells[known]
    return {}


def any_has(cells: Cells, metric: str) -> bool:
    """Whether the metric was measured anywhere."""
    return any(number(corpus.get(metric)) is not None for texts in cells.values() for corpus in texts.values())


def less_is_better(metric: str) -> bool | None:
    """Direction of a tokenizer metric; none where it has none."""
    if metric.startswith(LESS_IS_BETTER):
        return True
    return False if metric.startswith(("bytes_per", "chars_per", "characters_per")) else None


def metric_title(metric: str | None) -> str:
    """Heading of a fertility column."""
    return "Tokens per word" if metric == "fertility" else words.title(metric or "")


def verdict(summary: Summary, results: Mapping[str, Any]) -> list[str]:
    """What was gained and what it cost, in sentences, good news or bad."""
    sentences: list[str] = []
    for side in summary.sides:
        sentences.extend(language_sentences(summary, side))
    sentences.extend(token_sentence(summary))
    cost = cost_sentence(summary, results)
    return [*sentences, cost] if cost else sentences


def language_sentences(summary: Summary, side: str) -> Iterator[str]:
    """How one language fared against the source model and against training without a swap."""
    name = summary.languages[side]
    now = summary.trained.bits[side] if summary.trained else None
    before = summary.source.bits[side] if summary.source else None
    if now is None:
        return
    if before:
        text = f"{name}: {now:.3f} bits per byte, {compared(now, before)} the source model ({before:.3f})"
        if side == "source":
            worse = (now - before) / before
            text += ": so much was forgotten" if worse > SAME else ": nothing was forgotten"
        yield text + "."
    else:
        yield f"{name}: {now:.3f} bits per byte."
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
    if not (summary.source and summary.trained) or summary.trained.tokenizer == summary.source.tokenizer:
        return
    parts = []
    for side in ("target", "source"):
        old, new = summary.source.fertility[side], summary.trained.fertility[side]
        if old and new:
            ratio = old / new if summary.metric == "bytes_per_token" else new / old
            parts.append(
                f"{summary.languages[side]} text has {compared(ratio, 1.0)} before".replace(" than", " tokens than")
            )
    if parts:
        yield "With the new tokenizer, " + ", and ".join(parts) + "."


def cost_sentence(summary: Summary, results: Mapping[str, Any]) -> str:
    """Time, text and money."""
    training = section(section(results, "training"), str(results.get("method")))
    cost = section(results, "cost")
    parts = []
    tokens, seconds = number(training.get("tokens")), number(training.get("seconds"))
    if tokens is not None:
        read = number(training.get("bytes_of_text"))
        parts.append(
            f"{words.short_count(tokens)} training tokens" + (f" ({words.size(read)} of text)" if read else "")
        )
    if seconds is not None:
        parts.append(f"{words.duration(seconds)} of training")
    stages = [value for value in map(number, section(cost, "seconds").values()) if value is not None]
    if stages:
        parts.append(f"{words.duration(sum(stages))} for all stages and comparisons")
    hours, price = number(cost.get("gpu_hours")), number(cost.get("price"))
    if hours is not None:
        parts.append(f"{hours:.3g} GPU-hours" + (f" (price: {price:,.2f})" if price is not None else ""))
    if not parts:
        return ""
    where = f" on {results['device']}" if results.get("device") else ""
    return f"Cost: {', '.join(parts)}{where}."
