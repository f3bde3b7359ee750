"""The page: sections as plain values, then one template."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from langadapt.report import words
from langadapt.report.curves import curves, shown
from langadapt.report.run import RunData, number, section
from langadapt.report.summary import Cells, Summary, fertility_tables, less_is_better, metric_title, summarize, verdict

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
    templates = environment()
    summary = summarize(run.results)
    style = Markup(templates.get_template("page.css").render())
    return templates.get_template("page.html").render(
        style=style,
        summary=summary,
        texts=[side for side in ("target", "source") if any(row.fertility[side] is not None for row in summary.rows)],
        metric_title=metric_title(summary.metric),
        base=base_name(run),
        method=None if run.method is None else shown(run.method),
        device=run.results.get("device"),
        tiles=list(tiles(summary, run)),
        verdict=verdict(summary, run.results),
        suites=suites(summary),
        charts=curves(run, summary),
        fertility=[fertility(name, cells) for name, cells in fertility_tables(run.results)],
        swaps=list(swaps(run)),
        corpus=facts_table(
            {summary.languages.get(side, side): one for side, one in section(run.results, "corpus").items()}
        ),
        training=facts_table({shown(name): trained(one) for name, one in section(run.results, "training").items()}),
        cost=cost(run),
        layouts=list(layouts(run)),
        recipe=run.recipe_text,
        versions=section(run.results, "versions"),
    )


def trained(values: Any) -> Any:
    """Facts of one training without the folders of the machine that it ran on."""
    return {key: one for key, one in values.items() if key not in ("log", "out")} if isinstance(values, dict) else {}


def base_name(run: RunData) -> str | None:
    """The source model as the recipe names it."""
    name = run.recipe.get("model")
    return str(name) if name else None


@dataclass(frozen=True)
class Tile:
    """A number to see first."""

    title: str
    value: str
    before: str = ""
    change: str = ""
    good: bool | None = None


def tiles(summary: Summary, run: RunData) -> Iterator[Tile]:
    """The four numbers that sum a run up: gain, loss, shorter texts, time."""
    source, trained = summary.source, summary.trained
    for side in summary.sides:
        now = trained.bits[side] if trained else None
        old = source.bits[side] if source else None
        if now is not None:
            yield Tile(
                f"{summary.languages[side]}, bits per byte",
                words.decimals(now),
                f"was {words.decimals(old)}" if old is not None else "",
                words.change(now, old),
                None if old is None else now <= old,
            )
    if source and trained and summary.metric and trained.tokenizer != source.tokenizer:
        old, now = source.fertility["target"], trained.fertility["target"]
        if old is not None and now is not None:
            yield Tile(
                f"{summary.languages['target']}, {metric_title(summary.metric).lower()}",
                words.decimals(now, 2),
                f"was {words.decimals(old, 2)}",
                words.change(now, old),
                (now <= old) is bool(less_is_better(summary.metric)),
            )
    seconds = number(section(section(run.results, "training"), run.method or "").get("seconds"))
    if seconds is not None:
        yield Tile("Training time", words.duration(seconds), str(run.results.get("device") or ""))


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
    found = [section(row.suites, task) for row in summary.rows]
    values = [number(one.get(metric)) for one in found]
    known = [value for value in values if value is not None]
    errors = [number(one.get(f"{metric}_stderr")) for one in found]
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


def fertility(name: str, cells: Cells) -> Fertility:
    """Bars for the metrics that have a direction, a table for all."""
    metrics = list(
        dict.fromkeys(
            key
            for texts in cells.values()
            for found in texts.values()
            for key in found
            if number(found[key]) is not None
        )
    )
    corpora = list(dict.fromkeys(corpus for texts in cells.values() for corpus in texts))
    rows = [
        (corpus, tokenizer, [words.plain(metric, found.get(metric, words.DASH)) for metric in metrics])
        for corpus in corpora
        for tokenizer, texts in cells.items()
        for found in [texts.get(corpus, {})]
        if found
    ]
    drawn = [metric for metric in metrics if less_is_better(metric) is not None and differs(metric, cells)][:4]
    title = {"text": "Running text", "aligned": "Aligned sentences"}.get(name, words.title(name))
    return Fertility(
        title, [bars(metric, cells, corpora) for metric in drawn], [metric_title(m) for m in metrics], rows
    )


def differs(metric: str, cells: Cells) -> bool:
    """Whether there is anything to compare."""
    return len({texts.get(corpus, {}).get(metric) for texts in cells.values() for corpus in texts}) > 1


def bars(metric: str, cells: Cells, corpora: list[str]) -> Metric:
    """One metric drawn: a group per corpus, a bar per tokenizer."""
    values = {
        (corpus, tokenizer): number(texts.get(corpus, {}).get(metric))
        for tokenizer, texts in cells.items()
        for corpus in corpora
    }
    top = max((value for value in values.values() if value is not None), default=1.0) or 1.0
    lower = less_is_better(metric)
    groups = []
    for corpus in corpora:
        known = {name: values[corpus, name] for name in cells if values[corpus, name] is not None}
        best = (min if lower else max)(known.values(), default=None) if len(known) > 1 else None  # type: ignore[type-var]
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
    return Metric(metric_title(metric), "lower is better" if lower else "higher is better", groups)


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
    notes: list[str] = field(default_factory=list)
    ranking: Facts | None = None
    """The bake-off that chose the method."""


PARTS = (
    ("copied", "copied from the source"),
    ("combined", "made of several source rows"),
    ("drawn", "without a source"),
)


def swaps(run: RunData) -> Iterator[Swap]:
    """What became of the rows of the embedding matrices."""
    for method, report in section(run.results, "swap").items():
        if not isinstance(report, Mapping):
            continue
        counts = {name: number(report.get(name)) or 0 for name, _ in PARTS if number(report.get(name)) is not None}
        total = sum(counts.values()) or 1
        parts = [
            Bar(text, words.count(counts[name]), 100 * counts[name] / total, slot)
            for slot, (name, text) in enumerate(PARTS)
            if counts.get(name)
        ]
        notes = report.get("notes")
        hidden = {"method", "advice", "notes", "ranking", *counts}
        yield Swap(
            shown(method),
            str(report.get("advice") or ""),
            parts,
            [(name, value) for name, value in facts(report) if name.split(",")[0].lower() not in hidden],
            [str(note) for note in notes] if isinstance(notes, list) else [],
            ranking(report.get("ranking")),
        )


PROBED = (
    ("target", "target"),
    ("target_before", "target, right after the swap"),
    ("source", "source"),
    ("source_before", "source, right after the swap"),
)


def ranking(rows: Any) -> Facts | None:
    """The table of a bake-off, best first; methods that could not run have their reason in its place."""
    known = [row for row in rows if isinstance(row, Mapping) and "method" in row] if isinstance(rows, list) else []
    if not known:
        return None
    names = [(key, title) for key, title in PROBED if any(number(row.get(key)) is not None for row in known)]
    cells = [
        (
            shown(str(row["method"])),
            [str(row["failed"]), *[words.DASH] * (len(names) - 1)]
            if "failed" in row
            else [words.decimals(number(row.get(key)), 4) for key, _ in names],
        )
        for row in known
    ]
    return Facts([title for _, title in names], cells)


def cost(run: RunData) -> list[Bar]:
    """Seconds of each stage."""
    seconds = {name: number(value) for name, value in section(section(run.results, "cost"), "seconds").items()}
    known = {name: value for name, value in seconds.items() if value is not None}
    top = max(known.values(), default=1.0) or 1.0
    return [Bar(name, words.duration(value), 100 * value / top) for name, value in known.items()]


def layouts(run: RunData) -> Iterator[str]:
    """In what precision, in which passes and on how many processes trainings ran: what their time depends on."""
    settings = section(run.recipe, "train")
    length = number(settings.get("sequence_length"))
    precision = [str(settings["precision"])] if settings.get("precision") else []
    if precision == ["pure-bf16"] and settings.get("rounding"):
        precision.append(f"rounding {settings['rounding']}")
    alike: dict[str, list[str]] = {}
    trainings = section(run.results, "training")
    for method in trainings:
        found = section(section(trainings, method), "layout")
        size, many = number(found.get("micro_batch")), number(found.get("processes")) or 1
        if size is None:
            continue
        parts = [
            *precision,
            f"micro-batch {words.count(size)}" + (f" of {words.count(length)} tokens each" if length else ""),
            f"activation checkpointing {found.get('activation_checkpointing', words.DASH)}",
            "one process" if many == 1 else f"{words.count(many)} processes, sharding {found.get('sharding')}",
        ]
        alike.setdefault(", ".join(parts), []).append(shown(method))
    for text, methods in alike.items():
        yield f"Trained in {text} ({', '.join(methods)})."


@dataclass(frozen=True)
class Facts:
    """A table of values whose meaning is their name."""

    columns: list[str]
    rows: list[tuple[str, list[str]]]


def facts_table(columns: Mapping[str, Any]) -> Facts:
    """Named values side by side, one column per mapping; names in the order of their first appearance."""
    flat = {name: dict(facts(values)) for name, values in columns.items() if isinstance(values, Mapping)}
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
