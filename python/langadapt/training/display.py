"""What a person sees while training: a bar on a terminal, plain lines elsewhere, always on stderr."""

from __future__ import annotations

import time
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn

from langadapt.terminal import Terminal
from langadapt.training.course import Course

PLAIN_INTERVAL = 10.0
"""Seconds between plain lines, at least."""


class Display:
    """Progress of one run."""

    def __init__(self, active: bool) -> None:
        """``active``: show anything at all."""
        self.console = Terminal(stderr=True, soft_wrap=True, highlight=False)
        self.active = active
        self.bar: Progress | None = None
        self.last = 0.0
        if active and self.console.is_terminal:
            columns = (
                TextColumn("training"),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f} %"),
                TextColumn("{task.fields[text]}", markup=False),
            )
            self.bar = Progress(*columns, console=self.console)
            self.task = self.bar.add_task("training", total=1.0, text="")
            self.bar.start()

    def show(self, step: int, line: dict[str, Any], course: Course, *, state: str = "") -> None:
        """``line`` is a line of the log, ``state`` what is unusual."""
        if not self.active:
            return
        done, left = course.done, course.seconds_to_go
        text = f"step {step}/{step + course.steps_left}" if course.is_paced else f"step {step}"
        text += f"  loss {line.get('loss') or float('nan'):.4f}"
        if line.get("tokens_per_second"):
            text += f"  {line['tokens_per_second']:,.0f} tokens/s"
        if left is not None:
            text += f"  {clock(left)} left"
        if state:
            text += f"  {state}"
        if self.bar is not None:
            self.bar.update(self.task, completed=done, text=text)
        elif time.monotonic() - self.last >= PLAIN_INTERVAL or course.finished:
            self.last = time.monotonic()
            self.console.print(f"training {100 * done:.0f} %  {text}")

    def say(self, text: str, style: str = "") -> None:
        """One line."""
        if self.active:
            self.console.print(text, style=style)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self.bar is not None:
            self.bar.stop()


def clock(seconds: float) -> str:
    """``1:02:03`` or ``2:03``."""
    whole = max(round(seconds), 0)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"
