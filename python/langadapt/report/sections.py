"""Parts of the page as plain values: tiles, tasks, tokenizers, swap, time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langadapt.costs.adapter import Adapter
from langadapt.evaluation import telling
from langadapt.evaluation.bootstrap import ItemDifference, paired_items
from langadapt.evaluation.suites import is_measure
from langadapt.report import words
from langadapt.report.results import Cost, Results
from langadapt.report.run import RunData
from langadapt.report.summary import Cells, Summary, less_is_better, shown

GREY = 5
"""The colour slot that is no colour."""
MAX_LISTED = 20
"""Entries of a list that are shown."""
REASONS = {
    telling.GUESSED: "all models are at chance: it cannot tell them apart",
    telling.WAVERS: "over the training it goes to and fro by as much as it goes anywhere: it cannot tell them apart",
}
SMALL = 0.02
"""Stages of less than this share of the time have no bar of their own, which nobody would see."""


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
    if source is None or trained is None:
        return
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
    if results.main is not None:
        yield Tile("Training time", words.duration(results.main.seconds), results.device)


@dataclass(frozen=True)
class SuiteRow:
    """One metric of one task for all models."""

    task: str
    metric: str
    cells: list[tuple[str, str, bool]]
    """Value, standard error, whether it is the best."""
    gained: str
    """This run's model against the source model on the same items, with its interval."""
    remark: str
    """What the task cannot tell."""
    flag: str
    """The same in a word, beside the task."""


def suites(summary: Summary, course: Sequence[Mapping[str, telling.Metrics]] = ()) -> list[SuiteRow]:
    """Task results, where suites were run; ``course``: what the models of the run's training got, by their steps."""
    wavering = telling.wavering(course)
    names: dict[tuple[str, str], None] = {}
    for row in summary.rows:
        for task, metrics in row.suites.items():
            names |= {(task, metric): None for metric in metrics if is_measure(metric)}
    return [
        SuiteRow(
            task,
            metric,
            suite_cells(summary, task, metric),
            *told_apart(summary, task, metric, over_training=(task, metric) in wavering),
        )
        for task, metric in names
    ]


def told_apart(summary: Summary, task: str, metric: str, *, over_training: bool) -> tuple[str, str, str]:
    """What a run changed in one metric of a task, what the task has too few or too hard items to tell, and a word for
    it; ``over_training``: it wavered over a training."""
    rows = [row for row in summary.rows if task in row.suites]
    found = gained(summary, task, metric)
    change = "" if found is None else f"{found.difference:+.3f} [{found.interval[0]:+.3f}, {found.interval[1]:+.3f}]"
    remarks = [] if found is None else [f"tells {found.detectable:.3f} or more"]
    word = telling.word([row.suites[task] for row in rows], metric, over_training=over_training)
    remarks += [REASONS[word]] if word else []
    return change, "; ".join(remarks), word


def gained(summary: Summary, task: str, metric: str) -> ItemDifference | None:
    """The run's model against the source model on the items of a task."""
    if summary.source is None or summary.trained is None:
        return None
    new, old = (row.suite_items.get(task, {}).get(metric, []) for row in (summary.trained, summary.source))
    return paired_items(new, old)


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
    chart: Metric | None
    """Of running text alone: aligned sentences, and metrics that are each other's inverse, would show it again."""
    table: Facts
    """A row for each metric, a column for each tokenizer on each corpus."""


def fertility(kind: str, cells: Cells, metric: str) -> Fertility:
    """Bars for one metric, a table for all."""
    corpora = list(next(iter(cells.values())))
    measured = [texts[corpus] for texts in cells.values() for corpus in corpora]
    metrics = [name for name in measured[0] if any(found[name] is not None for found in measured)]
    columns = [(corpus, tokenizer) for corpus in corpora for tokenizer in cells]
    rows = [metric_row(name, [cells[tokenizer][corpus][name] for corpus, tokenizer in columns]) for name in metrics]
    table = Facts([f"{corpus}, {tokenizer}" for corpus, tokenizer in columns], rows)
    title = {"text": "Running text", "aligned": "Aligned sentences"}.get(kind, words.title(kind))
    drawn = bars(metric, cells, corpora) if kind == "text" and metric in metrics else None
    return Fertility(title, drawn, table)


def metric_row(name: str, values: Sequence[Any]) -> tuple[str, list[str]]:
    """One metric as `langadapt fertility` names and writes it."""
    from langadapt.fertility.report import COLUMNS

    shown, shape = COLUMNS.get(name, (name, ""))
    if not shape:
        return words.title(name), [words.plain(name, value) for value in values]
    return words.title(shown), [words.DASH if value is None else format(value, shape) for value in values]


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
    prognosis: str
    """From the tokens alone; empty where the outcome is known."""
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


def swap(method: str, report: Mapping[str, Any], known: bool) -> Swap:
    """What became of the rows of the embedding matrices; ``known``: the verdict on this method is."""
    total = sum(report[name] for name, _ in PARTS) or 1
    parts = [
        Bar(text, words.count(report[name]), 100 * report[name] / total, slot)
        for slot, (name, text) in enumerate(PARTS)
        if report[name]
    ]
    told = {"method", "advice", "prognosis", "notes", "ranking", *(name for name, _ in PARTS)}
    others = {name: value for name, value in report.items() if name not in told}
    rows = ranking(report["ranking"]) if report["ranking"] else None
    prognosis = "" if known else str(report.get("prognosis", ""))
    return Swap(shown(method), prognosis, parts, list(facts(others)), report["notes"], rows)


def sources(run: RunData) -> Facts | None:
    """What became of each source: its share, how often it was read, bits per byte before and after; none where the
    recipe has the two languages alone."""
    texts, results = run.recipe.corpus.texts, run.results
    if not run.recipe.corpus.sources:
        return None
    models = {(row.method, row.phase): row.bits_per_byte for row in results.rows}
    before, after = models.get((None, "source"), {}), models.get((results.method, "trained"), {})
    passes = results.main.epochs if results.main else {}
    cells = [
        (
            one.name,
            [
                results.spoken(one.language),
                f"{100 * one.share:.3g} %",
                words.decimals(passes.get(one.name), 2),
                *(words.decimals(bits.get(one.name), 4) for bits in (before, after)),
            ],
        )
        for one in texts
    ]
    return Facts(["language", "share", "passes", "bits per byte before", "after"], cells)


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


def times(taken: Cost) -> list[Bar]:
    """Seconds of each stage, the longest first, those that are too short to be seen in one bar."""
    total = sum(taken.seconds.values()) or 1.0
    large = {name: value for name, value in taken.seconds.items() if value >= SMALL * total}
    small = {name: value for name, value in taken.seconds.items() if name not in large}
    ordered = sorted(large.items(), key=lambda item: -item[1])
    if len(small) == 1:
        ordered += small.items()
    elif small:
        ordered.append((f"{len(small)} other stages", sum(small.values())))
    top = max((value for _, value in ordered), default=1.0) or 1.0
    return [Bar(name, words.duration(value), 100 * value / top) for name, value in ordered]


def layouts(run: RunData) -> Iterator[str]:
    """In what precision, in which passes and on how many processes trainings ran: what their time depends on."""
    settings = run.recipe.train
    window = words.plain("", settings.sequence_length)
    rounding = f", rounding {settings.rounding}" if settings.precision == "pure-bf16" else ""
    adapter = Adapter.of(settings)
    body = "" if adapter is None else f", the body by {adapter.name}"
    rounding += ", int8 states" if settings.states == "int8" else ""
    alike: dict[str, list[str]] = {}
    for method, training in run.results.training.items():
        found = training.layout
        if not found:
            continue
        many = found["processes"]
        parts = [
            f"{settings.precision}{rounding}{body}",
            f"micro-batch {words.count(found['micro_batch'])} of {window} tokens each",
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
    title: str = ""
    """Of the first column."""


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
