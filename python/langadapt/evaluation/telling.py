"""Whether a task can tell models of this size apart: one word for each reason why not."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from langadapt.errors import DataError
from langadapt.evaluation.suites import CHANCE, is_measure

GUESSED = "guessed"
"""Every model gets what guessing may get."""
WAVERS = "wavers"
"""Over a training the scores go to and fro by as much as they go anywhere."""
FEWEST = 3
"""Models of one training from which that can be seen."""
OVER_TRAINING = "tasks-over-training.json"
"""In a run's folder: what its training's models got, in the order of their steps."""

Metrics = Mapping[str, float | None]


def at_chance(metrics: Metrics, metric: str) -> bool:
    """Whether a model's share of right answers is what guessing may give, two standard errors apart at most."""
    value, chance, error = (metrics.get(name) for name in (metric, CHANCE, f"{metric}_stderr"))
    if metric != "acc" or value is None or chance is None or error is None:
        return False
    return value <= chance + 2 * error


def wavers(scores: Sequence[float]) -> bool:
    """Whether scores of one training's models, in the order of their steps, are not monotone.

    They are not where, between an earlier and a later model, they went against the way from the first to the last by as
    much as that whole way. A task that falls steadily, as one of the language that is forgotten does, tells models
    apart as well as one that rises. Fewer than three models show nothing.
    """
    if len(scores) < FEWEST:
        return False
    way = scores[-1] - scores[0]
    forward = 1.0 if way >= 0 else -1.0
    against, furthest = 0.0, forward * scores[0]
    for score in scores:
        furthest = max(furthest, forward * score)
        against = max(against, furthest - forward * score)
    return against >= abs(way)


def wavering(course: Sequence[Mapping[str, Metrics]]) -> set[tuple[str, str]]:
    """Tasks and metrics that waver over the models of one training, each given as its metrics by task."""
    if not course:
        return set()
    found = set()
    for task, metrics in course[0].items():
        for metric in filter(is_measure, metrics):
            scores = [one.get(task, {}).get(metric) for one in course]
            known = [score for score in scores if score is not None]
            if len(known) == len(scores) and wavers(known):
                found.add((task, metric))
    return found


def word(models: Sequence[Metrics], metric: str, *, over_training: bool) -> str:
    """What to say beside a task: :data:`GUESSED`, :data:`WAVERS` or nothing."""
    if models and all(at_chance(one, metric) for one in models):
        return GUESSED
    return WAVERS if over_training else ""


def write_course(run: Path, course: Mapping[str, Mapping[str, Metrics]]) -> str:
    """The content of :data:`OVER_TRAINING`: metrics by model and task."""
    return json.dumps({"run": run.name, "models": course}, indent=2, ensure_ascii=False) + "\n"


def read_course(run: Path) -> list[dict[str, dict[str, Any]]]:
    """What was measured over a run's training; empty where nothing was.

    Raises:
        DataError: the file is damaged.
    """
    file = run / OVER_TRAINING
    if not file.is_file():
        return []
    try:
        models = json.loads(file.read_text(encoding="utf-8"))["models"]
        course = [{str(task): dict(metrics) for task, metrics in tasks.items()} for tasks in models.values()]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DataError(
            f"{file}: cannot be read; `langadapt evaluate RUN --checkpoints` writes it anew, or delete it"
        ) from None
    return course
