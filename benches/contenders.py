"""Contenders: each in a process of its own, in turns, timed by the clock and by the processor time of all threads."""

from __future__ import annotations

import json
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]


class Failed(Exception):
    """A contender did not come to its end; the last line of its stderr."""


def timed(work: Callable[[], Any], children: bool = False) -> tuple[Any, dict[str, float]]:
    """What ``work`` returns, and its ``wall_s`` and ``cpu_s``, those of finished child processes included if asked."""
    wall, cpu, below = time.perf_counter(), time.process_time(), children_seconds()
    result = work()
    seconds = time.perf_counter() - wall, time.process_time() - cpu
    return result, {"wall_s": seconds[0], "cpu_s": seconds[1] + (children_seconds() - below if children else 0.0)}


def children_seconds() -> float:
    """Processor time of the children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def peak_mb() -> int:
    """Largest resident size of this process, MiB. `ru_maxrss` would be the parent's, if larger: it survives fork."""
    status = Path("/proc/self/status").read_text()
    return round(int(status.split("VmHWM:")[1].split()[0]) / 1024)


def turns(names: Sequence[str], rounds: int, seed: str | None = None) -> Iterator[tuple[int, str]]:
    """Every contender once in every round, so that a busy machine is busy for all; with a seed in orders that are
    drawn."""
    draw = random.Random(seed)
    for number in range(rounds):
        for name in names if seed is None else draw.sample(list(names), len(names)):
            yield number, name


def answer(script: str, *arguments: str, environment: Mapping[str, str] | None = None) -> Row:
    """What a script of ours, in a process of its own, tells on the last line of its stdout.

    Raises:
        Failed: it has another end than it should.
    """
    done = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        raise Failed((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
    row: Row = json.loads(done.stdout.strip().splitlines()[-1])
    return row


def rounds_of(
    names: Sequence[str], rounds: int, measure: Callable[[str], Row], seed: str | None = None
) -> dict[str, list[Row]]:
    """Rows by contender, each with its round; one that fails says so and costs its own rows alone."""
    found: dict[str, list[Row]] = {name: [] for name in names}
    for number, name in turns(names, rounds, seed):
        try:
            found[name].append({"round": number, **measure(name)})
        except Failed as reason:
            print(f"{name}: {reason}", file=sys.stderr)
    return found
