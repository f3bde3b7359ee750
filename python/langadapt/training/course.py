"""How far a run is, and how fast it may go on: steps, hours and deadlines become one progress in [0, 1].

A run is a sequence of segments, each with its own progress: the main one, perhaps an anneal that was asked for early,
perhaps an extension. An extension of a run that is in the constant phase of its schedule goes on in that phase
(``stable``); any other rises to the peak once more and follows the schedule anew (``extension``). Every step adds
``per_step``. Under a clock ``per_step`` is set again and again from measured step times, so that progress reaches 1,
and with it the decay its end, before time is up; progress never jumps or falls.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from langadapt.errors import ConfigError
from langadapt.training import schedule
from langadapt.training.settings import TrainSettings

FIRST_GUESS = 1e-3
"""Progress per step under an `hours` budget before any step was measured."""

STALL = 5.0
"""Times the mean of a step's seconds; what is longer counts as this much for the pace. Steps that really are slower
change it fast enough: the mean grows by up to two fifths with each."""


@dataclass
class Course:
    """State of a run's progress; plain values, saved with each checkpoint: floats survive JSON bit by bit."""

    steps_wanted: int | None
    """Steps of the current segment; none = as many as time allows."""
    kind: str = "main"
    """``main``, ``anneal``, ``extension`` or ``stable``."""
    done: float = 0.0
    """Progress of the current segment."""
    per_step: float = FIRST_GUESS
    """Progress that the next step adds."""
    high: float = 0.0
    """Rate at which an anneal or an extension took over."""
    step: int = 0
    """Steps done in all segments."""
    seconds: float = 0.0
    """Training time of all processes that worked on this run so far."""
    step_seconds: float | None = None
    """Running mean of a step's wall-clock time, validations and checkpoints included."""
    until: float | None = None
    """Training time at which the run must be over, from `hours`."""
    decay: float = 0.0
    """Share of a ``stable`` segment, at its end, over which the rate falls."""
    origin: int = 0
    """Steps in all after which the present budget and rates took over; 0 for a run that was never extended."""

    @classmethod
    def start(cls, settings: TrainSettings, steps: int | None) -> Course:
        """The course of a new run; ``steps`` is what the budget comes to, none under `hours`.

        Raises:
            ConfigError: the deadline is past.
        """
        check_deadline(settings)
        until = settings.hours * 3600 if settings.hours is not None else None
        return cls(steps, per_step=1 / steps if steps else FIRST_GUESS, until=until)

    def rate(self, settings: TrainSettings) -> float:
        """Learning rate of the next step."""
        return self.rate_of(self.next_done(), settings)

    def rate_of(self, done: float, settings: TrainSettings) -> float:
        """Learning rate of the step of this segment that ends at ``done``."""
        low, shape = settings.min_learning_rate, schedule.anneal_shape(settings)
        if self.kind == "anneal":
            return schedule.anneal(done, self.high, low, shape)
        if self.kind == "main":
            return schedule.rate_at(done, settings)
        level = schedule.constant_rate(settings) if self.kind == "stable" else None
        top = settings.learning_rate if level is None else level
        if done < settings.warmup_share:
            top = self.high + (top - self.high) * done / settings.warmup_share
        if self.kind == "stable":
            falling = schedule.share(done, 1 - self.decay, 1.0)
            return top if done <= 1 - self.decay else schedule.anneal(falling, top, low, shape)
        return top if done < settings.warmup_share else schedule.rate_at(done, settings)

    def turn(self, settings: TrainSettings) -> float | None:
        """Progress of this segment at which the rate leaves the constant phase; none where there is no such moment."""
        if self.kind == "stable":
            return 1 - self.decay
        if self.kind == "anneal" or schedule.constant_rate(settings) is None:
            return None
        return 1 - settings.anneal

    def falling(self, settings: TrainSettings) -> bool:
        """Whether the final decay has begun."""
        turn = self.turn(settings)
        return self.kind == "anneal" or (turn is not None and self.done > turn)

    def steady(self, settings: TrainSettings) -> bool:
        """Whether the last step was in a constant phase; ``settings``: those that it was done with."""
        if self.kind == "stable":
            return self.done <= 1 - self.decay
        return self.kind != "anneal" and schedule.steady(self.done, settings)

    def next_done(self) -> float:
        """Progress once the next step is done; the last one lands on 1 exactly."""
        done = self.done + self.per_step
        return 1.0 if done > 1 - self.per_step / 2 else done

    def advance(self) -> None:
        """Count one step."""
        self.done, self.step = self.next_done(), self.step + 1

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.done >= 1.0

    @property
    def steps_left(self) -> int:
        """Steps to the end of the segment at the present pace."""
        return 0 if self.finished else max(1, round((1 - self.done) / self.per_step))

    @property
    def seconds_to_go(self) -> float | None:
        """Of the steps that are left, once it is known how long one takes."""
        return None if self.step_seconds is None else self.steps_left * self.step_seconds

    @property
    def is_paced(self) -> bool:
        """Whether it is known how many steps there will be: a clock alone says so once one was timed."""
        return self.step_seconds is not None or self.steps_wanted is not None

    def measure(self, seconds: float, steps: int, cold: bool = False) -> None:
        """Take in the wall-clock time of the last ``steps`` steps and of what was done between them.

        ``cold``: the first ones of a process, which load, compile and warm up. That is time, but not the pace.
        """
        self.seconds += seconds
        if cold:
            return
        if self.step_seconds is None:
            self.step_seconds = seconds / steps
        else:
            # A stall (a stopped process, a disk that hangs) is time, but the steps after it are no slower.
            each = min(seconds / steps, STALL * self.step_seconds)
            self.step_seconds += (each - self.step_seconds) * (1 - 0.9**steps)

    def replan(self, settings: TrainSettings, reserve: float) -> None:
        """Set the pace so that the end comes ``reserve`` seconds before time is up (no clock, no change)."""
        left = self.seconds_left(settings)
        if left is None or self.finished:
            return
        if self.step_seconds is None:
            if left <= reserve:
                self.per_step = 1.0
            return
        affordable = max(1, math.floor((left - reserve) / max(self.step_seconds, 1e-6)))
        pace = (1 - self.done) / affordable
        if self.steps_wanted is not None:
            # Steps are the budget and the clock is only a limit: never slower than the steps ask for.
            pace = max(pace, 1 / self.steps_wanted)
        self.per_step = min(pace, 1.0)

    def seconds_left(self, settings: TrainSettings) -> float | None:
        """Until hours, their limit or the deadline are over, whichever is first."""
        limits = []
        if self.until is not None:
            limits.append(self.until - self.seconds)
        if settings.limit_hours is not None:
            limits.append(settings.limit_hours * 3600 - self.seconds)
        deadline = settings.deadline_timestamp()
        if deadline is not None:
            limits.append(deadline - time.time())
        return min(limits) if limits else None

    def anneal_now(self, settings: TrainSettings) -> int:
        """Begin the final decay at the present rate; returns how many steps it takes."""
        if self.kind == "anneal" or self.finished:
            return self.steps_left
        wanted = max(1, round(self.step * settings.anneal / max(1 - settings.anneal, 0.01)))
        steps = min(wanted, self.steps_left)
        self.high = self.rate(settings) if self.step else settings.learning_rate
        self.kind, self.done, self.per_step, self.steps_wanted = "anneal", 0.0, 1 / steps, steps
        return steps

    def extend(self, settings: TrainSettings, steps: int | None, before: TrainSettings) -> None:
        """Go on until ``steps`` steps in all (or `hours` in all) are done.

        From within a constant phase: constant, until the last ``anneal`` of the whole run. From anywhere else: from the
        last rate up again to the peak over the warm-up, then along the schedule. ``before``: settings until now.

        Raises:
            ConfigError: the new budget is no larger than what is done.
        """
        more = None if steps is None else steps - self.step
        if more is not None and more <= 0:
            raise ConfigError(f"cannot extend to {steps} steps: {self.step} are done; set a larger budget")
        if settings.hours is not None and settings.hours * 3600 <= self.seconds:
            raise ConfigError(f"cannot extend to hours: {settings.hours}: {self.seconds / 3600:.2f} are used; set more")
        until = settings.hours * 3600 if settings.hours is not None else None
        stable = self.steady(before) and schedule.constant_rate(settings) is not None
        # A rate that was lowered for a reason does not come back.
        self.high = min(self.rate_of(self.done, before), settings.learning_rate) if self.step else 0.0
        grown = 1.0
        if more is not None:
            grown = (self.step + more) / more
        elif until is not None:
            grown = until / (until - self.seconds)
        self.decay = min(settings.anneal * grown, 1.0)
        self.kind, self.done, self.steps_wanted = "stable" if stable else "extension", 0.0, more
        self.per_step = 1 / more if more else FIRST_GUESS
        self.until, self.origin = until, self.step


def check_deadline(settings: TrainSettings) -> None:
    """Raise ConfigError for a deadline that is past."""
    deadline = settings.deadline_timestamp()
    if deadline is not None and deadline <= time.time():
        raise ConfigError(f"deadline: {settings.deadline} is already past")


def parts(done: float, count: int) -> int:
    """Whole ``count``-ths of a progress that is a sum of rounded steps."""
    return int(done * count + 1e-6)
