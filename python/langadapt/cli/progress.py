"""Progress of long calls: a bar on a terminal, a plain line every few seconds elsewhere; always on stderr."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from langadapt.progress import Progress
from langadapt.report.words import duration
from langadapt.terminal import Terminal, visible

console = Terminal(stderr=True)

PLAIN_INTERVAL = 5.0
"""Seconds between two lines where there is no terminal."""


def say(line: str) -> None:
    """Print a line beside the results, as it is."""
    console.print(line, highlight=False, soft_wrap=True)


def next_step(command: str) -> None:
    """Say what to type next; on stderr, so that a command's data stay its own."""
    say(f"Next: {command}")


@contextmanager
def progress(title: str) -> Iterator[Progress]:
    """A callback for one long call; every new phase gets a bar of its own."""
    if console.is_terminal:
        with Bars(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[rate]}", markup=False),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        ) as bars:
            yield bar_callback(bars, title)
    else:
        yield plain_callback(title)


def bar_callback(bars: Bars, title: str) -> Progress:
    """Draw into ``bars``."""
    tasks: dict[str, tuple[int, float]] = {}

    def report(phase: str, done: int, total: int | None, unit: str) -> None:
        if phase in tasks and not done:
            # Begun again: the old start says nothing of its speed.
            bars.remove_task(bars.task_ids[[int(known) for known in bars.task_ids].index(tasks.pop(phase)[0])])
        if phase not in tasks:
            task = bars.add_task(
                visible(f"{title}: {phase}" if phase not in ("", title) else title), total=total, rate=""
            )
            tasks[phase] = (int(task), time.monotonic())
        identity, started = tasks[phase]
        task_id = bars.task_ids[[int(known) for known in bars.task_ids].index(identity)]
        rate = speed(done, time.monotonic() - started, unit)
        bars.update(task_id, completed=done, total=total, rate=rate)

    return report


def plain_callback(title: str) -> Progress:
    """Print a line every :data:`PLAIN_INTERVAL` seconds."""
    started: dict[str, float] = {}
    last = time.monotonic()

    def report(phase: str, done: int, total: int | None, unit: str) -> None:
        nonlocal last
        now = time.monotonic()
        if not done or phase not in started:
            started[phase] = now
        if now - last < PLAIN_INTERVAL:
            return
        last = now
        elapsed = now - started[phase]
        share = f" {100 * done / total:.0f} %" if total else ""
        left = f"{duration(elapsed * (total - done) / done)} left" if total and done else ""
        known = ", ".join(part for part in (speed(done, elapsed, unit), left) if part)
        name = f"{title}: {phase}" if phase != title else title
        console.print(f"{name}{share} ({known})" if known else f"{name}{share}", highlight=False)

    return report


def speed(done: int, seconds: float, unit: str) -> str:
    """A rate for people, such as ``31.4 MB/s``."""
    if seconds <= 0:
        return ""
    rate = done / seconds
    if unit == "bytes":
        return f"{rate / 1e6:.1f} MB/s" if rate >= 1e5 else f"{rate / 1e3:.1f} kB/s"
    return f"{rate:,.0f} {unit}/s"
