"""Learning-rate schedules: pure functions of progress.

`progress` is the share of the run that is done once the step in question is, in (0, 1]: the first step of a warm-up has
a rate above 0, and the last step of the run has the minimum. Steps and clocks are turned into progress elsewhere
(`course`), so that one schedule serves a run of known steps and a run that must end at a moment.

Every schedule starts with (1) a linear warm-up over ``warmup``; then

- ``cosine``: (2) half a cosine from peak to minimum;
- ``linear``: (2) a straight line from peak to minimum;
- ``rex``: (2) ``(1 - t) / (1 - t / 2)`` from peak to minimum, slow first and fast at the end (arXiv 2107.04197);
- ``constant``: (2) the peak, to the end;
- ``wsd``: (2) the peak, (3) over the last ``anneal`` of the run ``1 - sqrt(t)`` down to the minimum (arXiv 2404.06395);
- ``infinite``: (2) half a cosine from peak to ``infinite_learning_rate`` until ``cooldown``, (3) that rate, (4) over
  the last ``anneal`` exponentially down to the minimum (arXiv 2403.08763).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeVar

from langadapt.checks import at_least
from langadapt.errors import ConfigError

Number = TypeVar("Number", int, float)
Schedule = Literal["cosine", "linear", "infinite", "wsd", "rex", "constant"]

SWAPPED_EMBEDDING_FACTOR = 3.0
"""Times the learning rate, for embeddings after a swap: it gained more than a first phase of embeddings alone, for
every language and initialisation that was tried; ten times forgets more (``docs/runs/embeddings_first.md``)."""


@dataclass
class ScheduleSettings:
    """Learning rates, and their shape over the run."""

    learning_rate: float = 4e-5
    """Peak rate of everything but embeddings."""
    min_learning_rate: float = 2e-6
    """Rate at the very end."""
    embedding_learning_rate: float | Literal["auto"] | None = "auto"
    """Peak rate of input and output embeddings, scaled by the same schedule; none = ``learning_rate``; auto = 3 x
    ``learning_rate`` after a swap (of a recipe that swaps: in all arms), else ``learning_rate``."""
    schedule: Schedule = "cosine"
    """Shape of the rate over the run, see ``langadapt.training.schedule``."""
    warmup: float | Literal["auto"] = "auto"
    """Share of the run over which the rate rises linearly from 0; auto = 2 / (1 - beta2) steps (40; arXiv 1910.04209),
    at least 0.01 and at most 0.1 of the run."""
    cooldown: float = 0.6
    """`infinite` only: share of the run, warm-up included, until the cosine reaches ``infinite_learning_rate``."""
    infinite_learning_rate: float | None = None
    """`infinite` only: the constant rate; none = 0.55 of the peak, as in the paper."""
    anneal: float = 0.14
    """`infinite` and `wsd`: share of the run, at its end, over which the rate falls to the minimum."""

    def check(self) -> None:
        """Rates are ordered and phases fit into the run."""
        at_least(0, learning_rate=self.learning_rate)
        if not 0 <= self.min_learning_rate <= self.learning_rate:
            raise ConfigError(
                f"min_learning_rate: {self.min_learning_rate} is not between 0 and learning_rate: {self.learning_rate}"
            )
        # An automatic warm-up takes what the others leave.
        warmup = 0.0 if self.warmup == "auto" else self.warmup
        for name, value in (("warmup", warmup), ("cooldown", self.cooldown), ("anneal", self.anneal)):
            if not 0 <= value <= 1:
                raise ConfigError(f"{name}: {value} is not in [0, 1]")
        if self.schedule == "infinite" and not warmup <= self.cooldown <= 1 - self.anneal:
            raise ConfigError(
                f"cooldown: {self.cooldown} is not between warmup: {warmup} and 1 - anneal: {1 - self.anneal:g}"
            )
        if self.schedule == "wsd" and warmup + self.anneal > 1:
            raise ConfigError(f"warmup: {warmup} and anneal: {self.anneal} together are longer than the run")
        if not self.min_learning_rate <= self.plateau_learning_rate <= self.learning_rate:
            raise ConfigError(
                f"infinite_learning_rate: {self.plateau_learning_rate} is not between min_learning_rate: "
                f"{self.min_learning_rate} and learning_rate: {self.learning_rate}"
            )
        if isinstance(self.embedding_learning_rate, (int, float)):
            at_least(0, embedding_learning_rate=self.embedding_learning_rate)

    @property
    def warmup_share(self) -> float:
        """``warmup`` once it is a number."""
        return settled("warmup", self.warmup)

    @property
    def plateau_learning_rate(self) -> float:
        """The constant rate of the infinite schedule."""
        if self.infinite_learning_rate is not None:
            return self.infinite_learning_rate
        return max(0.55 * self.learning_rate, self.min_learning_rate)

    def embedding_peak(self, swapped: bool) -> float:
        """Peak rate of embeddings; ``swapped``: some of their rows have never been trained."""
        if self.embedding_learning_rate is None:
            return self.learning_rate
        if self.embedding_learning_rate == "auto":
            # Twelve digits, so that a recipe and a model card say 0.00012 and not 0.00012000000000000002.
            return float(f"{self.learning_rate * (SWAPPED_EMBEDDING_FACTOR if swapped else 1.0):.12g}")
        return float(self.embedding_learning_rate)


def settled(name: str, value: Number | Literal["auto"]) -> Number:
    """The number that a setting has come to.

    Raises:
        ConfigError: it is `auto` still: `langadapt.training.choices.settle` was not asked.
    """
    if isinstance(value, str):
        raise ConfigError(f"{name}: auto waits for budget and text, which `choices.settle` is to be given")
    return value


def rate_at(progress: float, settings: ScheduleSettings) -> float:
    """The rate of the step that ends at ``progress`` (clamped to [0, 1])."""
    progress = min(max(progress, 0.0), 1.0)
    peak, low = settings.learning_rate, settings.min_learning_rate
    if progress < settings.warmup_share:
        return peak * progress / settings.warmup_share
    name = settings.schedule
    if name == "constant":
        return peak
    if name == "infinite":
        return infinite(progress, settings)
    if name == "wsd":
        start = 1 - settings.anneal
        return peak if progress < start else anneal(share(progress, start, 1.0), peak, low, "sqrt")
    done = share(progress, settings.warmup_share, 1.0)
    if name == "cosine":
        return half_cosine(done, peak, low)
    if name == "linear":
        return peak + (low - peak) * done
    return low + (peak - low) * (1 - done) / (1 - done / 2)


def infinite(progress: float, settings: ScheduleSettings) -> float:
    """Phases 2 to 4 of the infinite schedule."""
    plateau, start = settings.plateau_learning_rate, 1 - settings.anneal
    if progress < settings.cooldown:
        return half_cosine(share(progress, settings.warmup_share, settings.cooldown), settings.learning_rate, plateau)
    if progress < start:
        return plateau
    return anneal(share(progress, start, 1.0), plateau, settings.min_learning_rate, "exponential")


def anneal(done: float, high: float, low: float, shape: str) -> float:
    """The final decay from ``high`` to ``low``; ``done`` is its own progress. An exponential needs ``low`` > 0."""
    if shape == "exponential" and low > 0 and high > 0:
        return high * (low / high) ** done
    return low + (high - low) * (1 - math.sqrt(done))


def constant_rate(settings: ScheduleSettings) -> float | None:
    """Rate of the constant phase before a final decay; none for schedules that have no such phase."""
    return {"wsd": settings.learning_rate, "infinite": settings.plateau_learning_rate}.get(settings.schedule)


def steady(progress: float, settings: ScheduleSettings) -> bool:
    """Whether a run of this schedule is in a constant phase, from which it may go on for any length."""
    end = 1.0 if settings.schedule == "constant" else 1 - settings.anneal
    start = settings.cooldown if settings.schedule == "infinite" else settings.warmup_share
    return settings.schedule in {"constant", "wsd", "infinite"} and start <= progress <= end


def anneal_shape(settings: ScheduleSettings) -> str:
    """How this schedule decays when told to finish now."""
    return "exponential" if settings.schedule == "infinite" else "sqrt"


def half_cosine(done: float, high: float, low: float) -> float:
    """From ``high`` at 0 to ``low`` at 1."""
    return low + (high - low) * 0.5 * (1 + math.cos(math.pi * done))


def share(progress: float, start: float, end: float) -> float:
    """How much of [start, end] is done; 1 for an empty interval."""
    return 1.0 if end <= start else min(max((progress - start) / (end - start), 0.0), 1.0)


def phases(settings: ScheduleSettings) -> list[tuple[str, float, float]]:
    """Names and bounds, as shares of the run, of the schedule's phases that have a length."""
    if settings.schedule == "infinite":
        bounds = [
            ("warm-up", settings.warmup_share),
            ("cool-down", settings.cooldown),
            ("constant", 1 - settings.anneal),
        ]
        bounds.append(("anneal", 1.0))
    elif settings.schedule == "wsd":
        bounds = [("warm-up", settings.warmup_share), ("stable", 1 - settings.anneal), ("anneal", 1.0)]
    elif settings.schedule == "constant":
        bounds = [("warm-up", settings.warmup_share), ("constant", 1.0)]
    else:
        bounds = [("warm-up", settings.warmup_share), (f"{settings.schedule} decay", 1.0)]
    found, start = [], 0.0
    for name, end in bounds:
        if end > start:
            found.append((name, start, end))
        start = max(start, end)
    return found
