"""The page: sections as plain values, then one template."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from langadapt.report import words
from langadapt.report.curves import curves, shown
from langadapt.report.results import Cost, Results, Training
from langadapt.report.run import RunData
from langadapt.report.summary import (
    Cells,
    Summary,
    fertility_tables,
    less_is_better,
    measured_texts,
    summarize,
    verdict,
)

GREY = 5
"""The colour slot that is no colour."""
MAX_LISTED = 20
"""Entries of a list that are shown."""


def environment() -> Environment:
    """Templates; text is escaped everywhere in the page."""
    made = Environment(
        loader=PackageLoader("langadapt.report"),
        autoescape=lambda name: name is not None and name.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.globals["words"] = words
    return made


def page(run: RunData) -> str:
    """The whole page as HTML that needs nothing else."""
    templates, results = environment(), run.results
    summary = summarize(results)
    style = Markup(templates.get_template("page.css").render())
    return templates.get_template("page.html").render(
        style=style,
        summary=summary,
        texts=measured_texts(summary.rows),
        metric_title=words.title(summary.metric),
        base=run.recipe.model,
        method=shown(results.method),
        device=results.device,
        tiles=list(tiles(summary, results)),
        verdict=verdict(summary, results),
        suites=suites(summary),
        charts=curves(run, summary),
        fertility=[fertility(kind, cells) for kind, cells in fertility_tables(results).items()],
        swaps=[swap(method, report) for method, report in results.swap.items()],
        corpus=facts_table({summary.languages[side]: report for side, report in results.corpus.items()}),
        training=facts_table({shown(name): trained(one) for name, one in results.training.items()}),
        cost=cost(results.cost),
        layouts=list(layouts(run)),
        recipe=run.recipe.to_yaml(),
        versions=results.versions,
    )


def trained(training: Training) -> dict[str, Any]:
    """Facts of one training without the folders of the machine that it ran on."""
    return {key: value for key, value in asdict(training).items() if key not in ("log", "out")}


@dataclass(frozen=True)
class Tile:
    """A number to see first."""

    title: str
    value: str
    before: str = ""
    change: str = ""
    good: bool | None = None


def tiles(summary: Summary, results: Results) -> Iterator[Tile]:
    """The four numbers that sum a run up: gain, loss, shorter texts, time."""
    source, trained = summary.source, summary.trained
    for side in summary.sides:
        now, old = trained.bits[side], source.bits[side]
        if now is not None and old is not None:
            title = f"{summary.languages[side]}, bits per byte"
            before = f"was {words.decimals(old)}"
            yield Tile(title, words.decimals(now), before, words.change(now, old), now <= old)
    old, now = source.fertility["target"], trained.fertility["target"]
    if trained.tokenizer != source.tokenizer and old is not None and now is not None:
        yield Tile(
            f"{summary.languages['target']}, {words.title(summary.metric).lower()}",
            words.decimals(now, 2),
            f"was {words.decimals(old, 2)}",
            words.change(now, old),
            (now <= old) is bool(less_is_better(summary.metric)),
        )
    yield Tile("Training time", words.duration(results.main.seconds), results.device)


@dataclass(frozen=True)
class SuiteRow:
    """One metric of one task for all models."""

    task: str
    metric: str
    cells: list[tuple[str, str, bool]]
    """Value, standard error, whether it is the best."""


def suites(summary: Summary) -> list[SuiteRow]:
    """Task results, where suites were run."""
    names: dict[tuple[str, str], None] = {}
    for row in summary.rows:
        for task, metrics in row.suites.items():
            names |= {
                (task, metric): None for metric in metrics if metric != "items" and not metric.endswith("_stderr")
            }
    return [SuiteRow(task, metric, suite_cells(summary, task, metric)) for task, metric in names]


def suite_cells(summary: Summary, task: str, metric: str) -> list[tuple[str, str, bool]]:
    """One row of the table of tasks."""
    found = [row.suites.get(task, {}) for row in summary.rows]
    values, errors = [one.get(metric) for one in found], [one.get(f"{metric}_stderr") for one in found]
    known = [value for value in values if value is not None]
    top = (min(known) if "perplexity" in metric else max(known)) if known else None
    return [
        (words.decimals(value), "" if error is None else f"± {error:.3f}", value is not None and value == top)
        for value, error in zip(values, errors, strict=True)
    ]


@dataclass(frozen=True)
class Bar:
    """A value drawn to scale."""

    name: str
    text: str
    share: float
    slot: int = 0
    best: bool = False


@dataclass(frozen=True)
class Metric:
    """One tokenizer metric: groups of bars, one per corpus."""

    title: str
    direction: str
    groups: list[tuple[str, list[Bar]]]


@dataclass(frozen=True)
class Fertility:
    """All that was measured about tokenizers on one kind of text."""

    title: str
    charts: list[Metric]
    metrics: list[str]
    rows: list[tuple[str, str, list[str]]]


def fertility(kind: str, cells: Cells) -> Fertility:
    """Bars for the metrics that have a direction, a table for all."""
    corpora = list(next(iter(cells.values())))
    measured = [texts[corpus] for texts in cells.values() for corpus in corpora]
    metrics = [metric for metric in measured[0] if any(found[metric] is not None for found in measured)]
    rows = [
        (corpus, tokenizer, [words.plain(metric, texts[corpus][metric]) for metric in metrics])
        for corpus in corpora
        for tokenizer, texts in cells.items()
    ]
    drawn = [metric for metric in metrics if less_is_better(metric) is not None and differs(metric, cells)][:4]
    title = {"text": "Running text", "aligned": "Aligned sentences"}[kind]
    return Fertility(title, [bars(metric, cells, corpora) for metric in drawn], [*map(words.title, metrics)], rows)


def differs(metric: str, cells: Cells) -> bool:
    """Whether there is anything to compare."""
    return len({found[metric] for texts in cells.values() for found in texts.values()}) > 1


def bars(metric: str, cells: Cells, corpora: list[str]) -> Metric:
    """One metric drawn: a group per corpus, a bar per tokenizer."""
    values = {(corpus, name): texts[corpus][metric] for name, texts in cells.items() for corpus in corpora}
    top = max((value for value in values.values() if value is not None), default=1.0) or 1.0
    lower = less_is_better(metric)
    groups = []
    for corpus in corpora:
        known = {name: values[corpus, name] for name in cells if values[corpus, name] is not None}
        best = (min if lower else max)(known.values()) if len(known) > 1 else None
        groups.append(
            (
                corpus,
                [
                    Bar(name, words.decimals(value, 2), 100 * max(value, 0) / top, slot, value == best)
                    for slot, name in zip(tokenizer_slots(cells), cells, strict=True)
                    if (value := known.get(name)) is not None
                ],
            )
        )
    return Metric(words.title(metric), "lower is better" if lower else "higher is better", groups)


def tokenizer_slots(cells: Cells) -> list[int]:
    """Colours: grey for the source tokenizer, which is there to compare with."""
    names = iter(range(len(cells)))
    return [GREY if name == "source" else next(names) for name in cells]


@dataclass(frozen=True)
class Swap:
    """One method's swap."""

    method: str
    advice: str
    parts: list[Bar]
    facts: list[tuple[str, str]]
    notes: list[str]
    ranking: Facts | None
    """The bake-off that chose the method."""


PARTS = (
    ("copied", "copied from the source"),
    ("combined", "made of several source rows"),
    ("drawn", "without a source"),
)


def swap(method: str, report: Mapping[str, Any]) -> Swap:
    """What became of the rows of the embedding matrices."""
    total = sum(report[name] for name, _ in PARTS) or 1
    parts = [
        Bar(text, words.count(report[name]), 100 * report[name] / total, slot)
        for slot, (name, text) in enumerate(PARTS)
        if report[name]
    ]
    told = {"method", "advice", "notes", "ranking", *(name for name, _ in PARTS)}
    others = {name: value for name, value in report.items() if name not in told}
    rows = ranking(report["ranking"]) if report["ranking"] else None
    return Swap(shown(method), report["advice"], parts, list(facts(others)), report["notes"], rows)


PROBED = (
    ("target", "target"),
    ("target_before", "target, right after the swap"),
    ("source", "source"),
    ("source_before", "source, right after the swap"),
)


def ranking(rows: Sequence[Mapping[str, Any]]) -> Facts:
    """The table of a bake-off, best first; methods that could not run have their reason in its place."""
    names = [(key, title) for key, title in PROBED if any(row.get(key) is not None for row in rows)]
    cells = [
        (
            shown(row["method"]),
            [row["failed"], *[words.DASH] * (len(names) - 1)]
            if "failed" in row
            else [words.decimals(row[key], 4) for key, _ in names],
        )
        for row in rows
    ]
    return Facts([title for _, title in names], cells)


def cost(taken: Cost) -> list[Bar]:
    """Seconds of each stage."""
    top = max(taken.seconds.values(), default=1.0) or 1.0
    return [Bar(name, words.duration(value), 100 * value / top) for name, value in taken.seconds.items()]


def layouts(run: RunData) -> Iterator[str]:
    """In what precision, in which passes and on how many processes trainings ran: what their time depends on."""
    settings = run.recipe.train
    rounding = f", rounding {settings.rounding}" if settings.precision == "pure-bf16" else ""
    alike: dict[str, list[str]] = {}
    for method, training in run.results.training.items():
        found = training.layout
        if not found:
            continue
        many = found["processes"]
        parts = [
            f"{settings.precision}{rounding}",
            f"micro-batch {words.count(found['micro_batch'])} of {words.count(settings.sequence_length)} tokens each",
            f"activation checkpointing {found['activation_checkpointing']}",
            "one process" if many == 1 else f"{words.count(many)} processes, sharding {found['sharding']}",
        ]
        alike.setdefault(", ".join(parts), []).append(shown(method))
    for text, methods in alike.items():
        yield f"Trained in {text} ({', '.join(methods)})."


@dataclass(frozen=True)
class Facts:
    """A table of values whose meaning is their name."""

    columns: list[str]
    rows: list[tuple[str, list[str]]]


def facts_table(columns: Mapping[str, Mapping[str, Any]]) -> Facts:
    """Named values side by side, one column per mapping; names in the order of their first appearance."""
    flat = {name: dict(facts(values)) for name, values in columns.items()}
    names = dict.fromkeys(name for values in flat.values() for name in values)
    return Facts(list(flat), [(name, [values.get(name, words.DASH) for values in flat.values()]) for name in names])


def facts(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """``(name, value)`` of everything inside nested mappings, nothing left out but what is empty."""
    for key, value in values.items():
        name = f"{prefix}, {key.replace('_', ' ')}" if prefix else words.title(str(key))
        if isinstance(value, Mapping):
            yield from facts(value, name)
        elif isinstance(value, (list, tuple)):
            shown_items = [words.plain("", item) for item in value[:MAX_LISTED] if item is not None]
            if shown_items:
                more = f", and {len(value) - MAX_LISTED} more" if len(value) > MAX_LISTED else ""
                yield name, ", ".join(shown_items) + more
        elif value is not None and value != "":
            yield name, words.plain(str(key), value)
