"""Schedules as functions of progress, and the course that turns steps and clocks into progress."""

from __future__ import annotations

import time
from dataclasses import asdict
from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langadapt.errors import ConfigError
from langadapt.training.course import Course
from langadapt.training.display import Display
from langadapt.training.schedule import phases, rate_at
from langadapt.training.settings import TrainSettings

NAMES = ["cosine", "linear", "infinite", "wsd", "rex", "constant"]


def make(name: str, **changes: object) -> TrainSettings:
    return TrainSettings(**{"steps": 100, "schedule": name, "warmup": 0.01, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
@given(progress=st.floats(0, 1), later=st.floats(0, 1))
def test_rates_stay_in_bounds_rise_in_warmup_and_never_rise_after(name: str, progress: float, later: float) -> None:
    plan = make(name)
    first, second = sorted((progress, later))
    assert 0 <= rate_at(first, plan) <= plan.learning_rate * (1 + 1e-12)
    if first >= plan.warmup:
        assert rate_at(second, plan) <= rate_at(first, plan) * (1 + 1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_rates_at_the_corners(name: str) -> None:
    plan = make(name)
    assert rate_at(plan.warmup, plan) == pytest.approx(plan.learning_rate)
    end = plan.learning_rate if name == "constant" else plan.min_learning_rate
    assert rate_at(1.0, plan) == pytest.approx(end)
    bounds = phases(plan)
    assert bounds[0][1] == 0 and bounds[-1][2] == 1
    # Continuous: no jump anywhere, least of all between phases.
    grid = [rate_at(number / 20000, plan) for number in range(20001)]
    steepest = max(abs(b - a) for a, b in pairwise(grid))
    assert steepest < 0.01 * plan.learning_rate if name != "wsd" else steepest < 0.02 * plan.learning_rate


def test_the_papers_infinite_schedule() -> None:
    plan = TrainSettings(
        steps=7680,
        warmup=0.01,
        schedule="infinite",
        learning_rate=3e-5,
        min_learning_rate=2e-6,
        infinite_learning_rate=1.65e-5,
    )
    assert rate_at(4608 / 7680, plan) == pytest.approx(1.65e-5)
    assert rate_at(6604 / 7680, plan) == pytest.approx(1.65e-5)
    assert rate_at(1 - 0.07, plan) == pytest.approx((1.65e-5 * 2e-6) ** 0.5)


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 10, 333, 7680])
def test_a_course_of_n_steps_takes_n_steps_and_ends_at_one(steps: int) -> None:
    course = Course.start(make("cosine", steps=steps), steps)
    while not course.finished:
        last = course.rate(make("cosine", steps=steps))
        course.advance()
    assert course.step == steps and course.done == 1.0 and last == pytest.approx(2e-6)


@given(st.floats(0.01, 3.0), st.lists(st.floats(0.2, 5.0), min_size=1, max_size=30))
def test_under_hours_the_decay_is_complete_before_time_is_up(base: float, factors: list[float]) -> None:
    """Steps of changing speed; the pace adapts, progress never falls, and the end comes in time."""
    plan = make("infinite", steps=None, hours=300 * base / 3600)
    course, number, shown = Course.start(plan, None), 0, 0.0
    while not course.finished:
        seconds = base * factors[number // 20 % len(factors)]
        rate = course.rate(plan)
        course.advance()
        course.measure(seconds, 1)
        course.replan(plan, reserve=5 * base)
        assert course.done >= shown
        shown, number = course.done, number + 1
    assert rate <= plan.plateau_learning_rate
    # A step may come out up to five times slower than any before it; that, and no more, can be late.
    assert course.seconds <= 300 * base + 5 * base * max(factors)


def test_what_the_first_step_compiles_is_time_but_no_pace() -> None:
    plan = make("cosine", steps=None, hours=200 / 3600)
    course = Course.start(plan, None)
    before = course.per_step
    course.advance()
    course.measure(120.0, 1, cold=True)
    course.replan(plan, reserve=10.0)
    assert course.step_seconds is None and course.per_step == before and course.seconds == 120.0
    course.advance()
    course.measure(1.0, 1)
    course.replan(plan, reserve=10.0)
    assert course.step_seconds == 1.0 and course.steps_left == 69
    # On going on, compiling takes its time again.
    course.measure(60.0, 1, cold=True)
    course.replan(plan, reserve=10.0)
    assert course.step_seconds == 1.0 and course.steps_left == 9
    late = Course.start(plan, None)
    late.measure(195.0, 1, cold=True)
    late.replan(plan, reserve=10.0)
    late.advance()
    assert late.finished


def test_a_clock_promises_no_number_of_steps_before_one_was_timed(capsys: pytest.CaptureFixture[str]) -> None:
    plan = make("wsd", steps=None, hours=1)
    course = Course.start(plan, None)
    course.advance()
    Display(True).show(1, {"loss": 2.0}, course)
    assert capsys.readouterr().err == "training 0 %  step 1  loss 2.0000\n"
    course.measure(4.0, 1)
    course.replan(plan, 0.0)
    Display(True).show(1, {"loss": 2.0}, course)
    assert capsys.readouterr().err.endswith("step 1/900  loss 2.0000  59:56 left\n")


def test_a_stall_costs_its_time_and_no_more() -> None:
    """A process that was stopped for half an hour, in the middle of two hours of steps of half a second."""
    plan = make("cosine", steps=None, hours=2)
    course, before = Course.start(plan, None), None
    while not course.finished:
        course.advance()
        stalled = before is None and course.seconds > 3600
        course.measure(0.5 + 1800 * stalled, 1)
        course.replan(plan, reserve=1.0)
        if stalled:
            before, at = course.done, course.step
        if before is not None and course.step == at + 60:
            # A quarter of the time is gone; a minute's steps are not a third of what is left, as they once were.
            assert course.done - before < 0.02
    assert before is not None and course.seconds <= 7200
    # Steps that really have become forty times slower are believed after a few.
    slow = Course.start(plan, None)
    for seconds in [0.5] * 20 + [20.0] * 14:
        slow.advance()
        slow.measure(seconds, 1)
    assert slow.step_seconds is not None and slow.step_seconds > 8


def test_a_deadline_shortens_a_run_of_steps_but_never_lengthens_it() -> None:
    soon = (datetime.now() + timedelta(seconds=50)).isoformat()
    plan = make("cosine", steps=1000, deadline=soon)
    course = Course.start(plan, 1000)
    for _ in range(5):
        course.advance()
        course.measure(1.0, 1)
    course.replan(plan, reserve=0.0)
    assert course.steps_left <= 50
    relaxed = make("cosine", steps=1000, deadline=(datetime.now() + timedelta(days=9)).isoformat())
    course = Course.start(relaxed, 1000)
    course.advance()
    course.measure(1.0, 1)
    course.replan(relaxed, reserve=0.0)
    assert course.per_step == pytest.approx(1 / 1000)
    limited = make("cosine", steps=1000, limit_hours=55 / 3600)
    course = Course.start(limited, 1000)
    for _ in range(5):
        course.advance()
        course.measure(1.0, 1)
    course.replan(limited, reserve=0.0)
    assert 45 <= course.steps_left <= 50
    with pytest.raises(ConfigError, match="already past"):
        Course.start(make("cosine", deadline="2020-01-01T00:00"), 100)


@pytest.mark.parametrize("name", NAMES)
def test_anneal_now_goes_from_the_present_rate_to_the_minimum(name: str) -> None:
    plan = make(name, steps=1000)
    course = Course.start(plan, 1000)
    for _ in range(400):
        course.advance()
    before = course.rate(plan)
    steps = course.anneal_now(plan)
    assert 50 <= steps <= 80 and course.anneal_now(plan) == steps
    rates = []
    while not course.finished:
        rates.append(course.rate(plan))
        course.advance()
    assert len(rates) == steps and rates == sorted(rates, reverse=True)
    assert rates[0] <= before and rates[-1] == pytest.approx(plan.min_learning_rate)


def test_an_extension_rises_again_and_ends_at_the_minimum() -> None:
    plan = make("cosine", steps=100)
    course = Course.start(plan, 100)
    while not course.finished:
        course.advance()
    longer = make("cosine", steps=160, warmup=0.1)
    course.extend(longer, 160, plan)
    rates = []
    while not course.finished:
        rates.append(course.rate(longer))
        course.advance()
    assert len(rates) == 60 and course.step == 160
    assert rates[0] < max(rates) == pytest.approx(longer.learning_rate) and rates[-1] == pytest.approx(2e-6)
    with pytest.raises(ConfigError, match="160 are done"):
        course.extend(longer, 160, longer)


def test_course_survives_json() -> None:
    import json

    course = Course.start(make("rex", steps=7), 7)
    course.advance()
    course.measure(time.perf_counter(), 1)
    assert Course(**json.loads(json.dumps(asdict(course)))) == course


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 5, "hours": 1.0}, "steps and hours are both set"),
        ({"steps": 0}, "steps: 0 is not positive"),
        ({"batch_tokens": 100, "sequence_length": 64}, "batch_tokens: 100 is not a multiple of sequence_length: 64"),
        ({"batch_tokens": 64, "batch_sequences": 1, "sequence_length": 64}, "batch_tokens and batch_sequences"),
        ({"micro_batch": 9, "batch_sequences": 8}, "micro_batch: 9 .* 8 windows"),
        ({"min_learning_rate": 1.0}, "min_learning_rate: 1.0 .* learning_rate"),
        ({"embedding_learning_rate": -1e-5}, "embedding_learning_rate: -1e-05, but at least 0"),
        ({"schedule": "infinite", "cooldown": 0.95}, "cooldown: 0.95 .* warmup: .* anneal"),
        ({"precision": "mixed-bf16", "rounding": "kahan"}, "rounding: kahan .* precision is mixed-bf16"),
        ({"deadline": "tomorrow"}, "deadline: 'tomorrow' is not a time"),
        ({"optimizer": "adamw-8bit", "rounding": "split"}, "rounding: split needs `optimizer: adamw`"),
    ],
)
def test_settings_that_exclude_each_other_name_both(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainSettings(**changes)  # type: ignore[arg-type]


def test_rounding_is_stochastic_where_nothing_else_is_asked_for() -> None:
    assert TrainSettings(steps=1).rounding == "stochastic"
    assert TrainSettings(steps=1, rounding="nearest").rounding == "nearest"
    for other in ({"precision": "mixed-bf16"}, {"precision": "fp32"}, {"optimizer": "adamw-8bit"}):
        assert TrainSettings(steps=1, **other).rounding == "nearest"  # type: ignore[arg-type]
