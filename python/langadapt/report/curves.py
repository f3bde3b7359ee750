"""Which curves of a run are drawn, and from which entries of its logs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from langadapt.report import words
from langadapt.report.charts import Chart, Line, Reference, line_chart
from langadapt.report.run import Log, RunData, number
from langadapt.report.summary import Summary

X_TITLE = "training tokens"


def curves(run: RunData, summary: Summary) -> list[Chart]:
    """All curves that the logs have something for, the most telling first."""
    arms = ordered_arms(run)
    found: list[Chart | None] = [bits_curve(run, summary, arms, side) for side in ("target", "source")]
    found.append(
        step_curve(
            run,
            arms,
            "Training loss",
            "loss",
            note="Nats per token: comparable only between models with one tokenizer.",
        )
    )
    found.append(rate_curve(run, arms))
    found.append(step_curve(run, arms, "Tokens per second", "tokens_per_second", shape=words.short_count))
    found.append(step_curve(run, arms, "Bytes of text per second", "bytes_per_second", shape=words.size))
    found.append(step_curve(run, arms, "Gradient norm", "grad_norm"))
    found.append(step_curve(run, arms, "Share of weights that a step did not move", "stale_share"))
    return [chart for chart in found if chart is not None]


def ordered_arms(run: RunData) -> dict[str, int]:
    """Methods and their colours, the run's own first."""
    names = sorted(run.logs, key=lambda name: name != run.results.method)
    return {name: slot for slot, name in enumerate(names)}


def shown(name: str) -> str:
    """A method's name for readers."""
    return "without a swap" if name == "keep" else name


def bits_curve(run: RunData, summary: Summary, arms: Mapping[str, int], side: str) -> Chart | None:
    """Bits per byte of one language during training, with the source model as the level to beat."""
    lines = []
    for name, slot in arms.items():
        points = [(step, found[side]) for step, found in run.logs[name].validations if side in found]
        lines.append(line(name, slot, run.logs[name], points))
    start = level_of_source(run, summary, side)
    references = [] if start is None else [Reference("source model", start)]
    title = f"{summary.languages[side]}: bits per byte"
    return line_chart(title, lines, x_title=X_TITLE, references=references, note="Lower is better.")


def level_of_source(run: RunData, summary: Summary, side: str) -> float | None:
    """Bits per byte of the source model, on the text that training was watched with if some arm began there.

    Training may be watched on a part of the validation text, on which the first table's number would be unfair.
    """
    kept = run.logs.get("keep")
    if kept is not None and kept.validations and kept.validations[0][0] == 0:
        value = kept.validations[0][1].get(side)
        if value is not None:
            return value
    return summary.source.bits[side]


def step_curve(
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
    return line_chart(title, lines, x_title=X_TITLE, note=note, shape=shape)


def rate_curve(run: RunData, arms: Mapping[str, int]) -> Chart | None:
    """Learning rates of the first arm: one line, or one per group of parameters where they differ."""
    log = next((run.logs[name] for name in arms), None)
    if log is None or not log.steps:
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
    return line_chart("Learning rate", lines, x_title=X_TITLE, shape="{:.3g}".format, may_be_logarithmic=False)


def entries(log: Log, pick: Callable[[Mapping[str, Any]], Any]) -> list[tuple[int, float]]:
    """(step, value) of all lines that have a finite value."""
    found = ((one["step"], number(pick(one))) for one in log.steps)
    return [(step, value) for step, value in found if value is not None]


def line(name: str, slot: int, log: Log, points: list[tuple[int, float]]) -> Line:
    """A series over training tokens."""
    xs = [step * log.tokens_per_step for step, _ in points]
    return Line(shown(name), xs, [value for _, value in points], slot)
