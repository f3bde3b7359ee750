"""Which curves of a run are drawn, and from which entries of its logs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from langadapt.report import words
from langadapt.report.charts import Chart, Line, Reference, asks_for_logarithms, line_chart
from langadapt.report.differences import SAME
from langadapt.report.run import AXES, Log, RunData, number
from langadapt.report.summary import SIDES, Summary, shown

OUTSIDE = 1.15
"""A level this many times above or below all curves is told under the chart: drawn, it would press them together."""


def bits_charts(run: RunData, summary: Summary) -> list[Chart]:
    """Bits per byte of each language during training, over tokens, bytes and seconds, all on one kind of axis."""
    arms = ordered_arms(run)
    everything = [value for log in run.logs.values() for _, found in log.validations for value in found.values()]
    logarithmic = asks_for_logarithms(everything)
    charts = (bits_chart(run, summary, arms, side, logarithmic=logarithmic) for side in SIDES)
    return [chart for chart in charts if chart is not None]


def other_charts(run: RunData) -> list[Chart]:
    """All other curves that the logs have something for."""
    arms = ordered_arms(run)
    found = [rate_chart(run, arms)]
    if not any(log.bytes_per_token for log in run.logs.values()):
        note = "Nats per token: comparable only between models with one tokenizer."
        found.append(step_chart(run, arms, "Training loss", "loss", note=note))
    # Bytes compare tokenizers, tokens do not: one chart of speed is enough.
    speed = step_chart(run, arms, "Bytes of text per second", "bytes_per_second", shape=words.size)
    found.append(speed or step_chart(run, arms, "Tokens per second", "tokens_per_second", shape=words.short_count))
    found.append(step_chart(run, arms, "Gradient norm", "grad_norm"))
    found.append(step_chart(run, arms, "Share of weights that a step did not move", "stale_share"))
    return [chart for chart in found if chart is not None]


def ordered_arms(run: RunData) -> dict[str, int]:
    """Methods and their colours, the run's own first."""
    names = sorted(run.logs, key=lambda name: name != run.results.method)
    return {name: slot for slot, name in enumerate(names)}


def bits_chart(
    run: RunData, summary: Summary, arms: Mapping[str, int], side: str, *, logarithmic: bool
) -> Chart | None:
    """Validation and training text of one language, with the source model and a compressor as levels to beat."""
    drawn: dict[str, Chart] = {}
    inside, outside = levels(run, summary, side)
    for axis, title in AXES.items():
        lines = []
        for name, slot in arms.items():
            log = run.logs[name]
            watched = [(step, found[side]) for step, found in log.validations if side in found]
            lines.append(line(name, slot, log, watched, axis=axis, mark=best_step(log)))
            lines.append(replace(line(name, slot, log, log.training_bits(side), axis=axis), faint=True))
        if not any(one.xs for one in lines if not one.faint):
            continue
        chart = line_chart(
            summary.languages[side],
            lines,
            x_title=title,
            references=inside,
            note=note_on(outside, any(one.xs for one in lines if one.faint)),
            logarithmic=logarithmic,
            axis=axis,
        )
        if chart is not None:
            drawn[axis] = chart
    if not drawn:
        return None
    first = next(iter(drawn.values()))
    return replace(first, svgs={axis: chart.svg for axis, chart in drawn.items()})


def note_on(outside: list[Reference], trained: bool) -> str:
    """What a reader of a chart has to know."""
    parts = ["Lower is better; a ring marks the step at which an arm's target language was best."]
    if trained:
        parts.append("Thin lines: the text of the training batches.")
    parts += [f"Off the chart: {level.name}, {words.decimals(level.y)}." for level in outside]
    return " ".join(parts)


def levels(run: RunData, summary: Summary, side: str) -> tuple[list[Reference], list[Reference]]:
    """The source model and xz on the text that training was watched with: those near the curves, and the others."""
    start, facts = level_of_source(run, summary, side), run.results.held_out.get(side)
    found = [] if start is None else [Reference("source model", start)]
    if facts is not None and facts.watched_xz_bits_per_byte is not None:
        found.append(Reference("xz, a compressor", facts.watched_xz_bits_per_byte))
    curves = [points[side] for log in run.logs.values() for _, points in log.validations if side in points]
    if not curves:
        return found, []
    low, high = min(curves) / OUTSIDE, max(curves) * OUTSIDE
    return [one for one in found if low <= one.y <= high], [one for one in found if not low <= one.y <= high]


def level_of_source(run: RunData, summary: Summary, side: str) -> float | None:
    """Bits per byte of the source model, on the text that training was watched with if some arm began there.

    Training may be watched on other text than the first table's, whose number would be unfair here.
    """
    kept = run.logs.get("keep")
    if kept is not None and kept.validations and kept.validations[0][0] == 0:
        value = kept.validations[0][1].get(side)
        if value is not None:
            return value
    return None if summary.source is None else summary.source.bits[side]


def step_chart(
    run: RunData,
    arms: Mapping[str, int],
    title: str,
    key: str,
    *,
    note: str = "",
    shape: Callable[[float], str] = words.decimals,
) -> Chart | None:
    """One entry of the logged steps, for all arms."""
    lines = [
        line(name, slot, run.logs[name], entries(run.logs[name], lambda one: one.get(key)))
        for name, slot in arms.items()
    ]
    return line_chart(title, lines, x_title=AXES["tokens"], note=note, shape=shape)


def rate_chart(run: RunData, arms: Mapping[str, int]) -> Chart | None:
    """Learning rates of the first arm: one line, or one per group of parameters where they differ."""
    log = next((run.logs[name] for name in arms if run.logs[name].steps), None)
    if log is None:
        return None
    found = {
        group: entries(log, lambda one, group=group: one["learning_rate"].get(group))  # type: ignore[misc]
        for group in log.steps[-1]["learning_rate"]
    }
    distinct = {tuple(points): group for group, points in reversed(found.items())}
    named = sorted(distinct.items(), key=lambda item: list(found).index(item[1]))
    lines = [
        line(group if len(named) > 1 else "all parameters", slot, log, list(points))
        for slot, (points, group) in enumerate(named)
    ]
    return line_chart("Learning rate", lines, x_title=AXES["tokens"], shape="{:.3g}".format)


def entries(log: Log, pick: Callable[[Mapping[str, Any]], Any]) -> list[tuple[int, float]]:
    """(step, value) of all lines that have a finite value."""
    found = ((one["step"], number(pick(one))) for one in log.steps)
    return [(step, value) for step, value in found if value is not None]


def line(
    name: str, slot: int, log: Log, points: list[tuple[int, float]], *, axis: str = "tokens", mark: int | None = None
) -> Line:
    """A series over one of the axes, empty where the log does not tell of it; ``mark``: the step to mark."""
    steps = [step for step, _ in points]
    xs = log.places(axis, steps) or []
    best = steps.index(mark) if xs and mark in steps else None
    return Line(shown(name), xs, [value for _, value in points][: len(xs)], slot, best=best)


def best_step(log: Log) -> int | None:
    """Where the target language was best."""
    found = [(bits["target"], step) for step, bits in log.validations if "target" in bits]
    return min(found)[1] if found else None


def course_remarks(run: RunData, summary: Summary) -> Iterator[str]:
    """Trainings whose end was not their best moment, in sentences."""
    for name in ordered_arms(run):
        log, best = run.logs[name], best_step(run.logs[name])
        found = [(step, bits["target"]) for step, bits in log.validations if "target" in bits]
        if best is None or len(found) < 3 or run.so_far:
            continue
        (last, end), bits = found[-1], dict(found)[best]
        if best < last and end > bits * (1 + SAME):
            arm = "Training without a swap" if name == "keep" else f"Training of {name}"
            yield (
                f"{arm} was best at step {best:,} of {last:,}: {bits:.3f} bits per byte of "
                f"{summary.languages['target']}, {end:.3f} at the end. {what_is_kept(run, name, last)}"
            )


def what_is_kept(run: RunData, name: str, last: int) -> str:
    """Which model of a training that got worse is there now."""
    training = run.results.training.get(name)
    kept = training.kept_step if training is not None else None
    if kept is not None and kept < last:
        return f"The model of step {kept:,} is kept."
    return "The model of the end is kept: it went on for too long, or at too high a rate (`train.keep: best`)."
