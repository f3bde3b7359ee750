"""Processes that are to die, and what is left behind: the parts of `kills.py`."""

from __future__ import annotations

import builtins
import contextlib
import faulthandler
import io
import itertools
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from langadapt.cli.main import main as command_line

FOREIGN = {".out.cache.tmp/notes": "precious", ".draft.tmp": "mine", "out.notes": "too", ".out.12.tmpx": "and this"}
"""What lies beside the output and is somebody else's."""
VOLATILE = re.compile(
    r"log\.jsonl|results\.json|.*\.html|.*\.md|.*stamp\.json|state\.json|stages/.*|evaluation/.*|run\.json|manifest\.json"
    r"|comparison\.json"
)
"""Files that keep times: compared without them, where they are JSON, else by their names."""
TIMES = re.compile("seconds?|hours|time|mfu")
LONGEST = 200.0
"""Seconds after which a command hangs."""
LOOK = 0.005
"""Seconds between two looks after a command."""
INTERRUPTED = 130
"""What a command says that was interrupted."""
DEATHS = {
    "kill": [signal.SIGKILL],
    "term": [signal.SIGTERM],
    "interrupt": [signal.SIGINT],
    "interrupt twice": [signal.SIGINT, signal.SIGINT],
}


@dataclass
class Child:
    """A command in a process of its own."""

    pid: int
    said: Path


def start(arguments: list[str], folder: Path, prepare: Callable[[], None] | None = None) -> Child:
    """Run a command in a forked child, in ``folder``; ``prepare`` is called there first."""
    said = Path(tempfile.mkstemp(prefix="kills-said-")[1])
    (folder / "tmp").mkdir(exist_ok=True)
    pid = os.fork()
    if pid == 0:
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.chdir(folder)
            os.environ["TMPDIR"] = tempfile.tempdir = str(folder / "tmp")
            descriptor = os.open(said, os.O_WRONLY)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            sys.stdout, sys.stderr = io.TextIOWrapper(io.FileIO(1, "w")), io.TextIOWrapper(io.FileIO(2, "w"))
            torch.set_num_threads(1)
            faulthandler.register(signal.SIGALRM, file=2, chain=True)
            try:
                if prepare is not None:
                    prepare()
            except KeyboardInterrupt:
                # Before the command began.
                os._exit(INTERRUPTED)
            command_line(arguments)
        except SystemExit as left:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            sys.stdout.flush()
            sys.stderr.flush()
            # No hook of the interpreter's end, no timer that still waits.
            os._exit(left.code if isinstance(left.code, int) else 1)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(99)
    return Child(pid, said)


def wait(child: Child) -> tuple[int, str]:
    """Exit code (negative: signal) and what was said; a child that hangs is one that was ended by SIGALRM.

    Looks are counted, not seconds: a clock goes on while this process is stopped or waits for a core.
    """
    for look in itertools.count():
        pid, status = os.waitpid(child.pid, os.WNOHANG)
        if pid:
            break
        if look == round(LONGEST / LOOK):
            os.kill(child.pid, signal.SIGALRM)
        time.sleep(LOOK)
    text = child.said.read_text("utf-8", "replace")
    child.said.unlink()
    return os.waitstatus_to_exitcode(status), text


def counting(hit: Callable[[], None]) -> None:
    """Call ``hit`` before each opening for writing, flushing and renaming of this process."""

    def counted(call: Callable[..., Any], changes: Callable[..., bool]) -> Callable[..., Any]:
        def calling(*arguments: Any, **named: Any) -> Any:
            if changes(*arguments, **named):
                hit()
            return call(*arguments, **named)

        return calling

    for name in ("replace", "rename", "fsync", "mkdir", "rmdir", "unlink"):
        setattr(os, name, counted(getattr(os, name), lambda *_, **__: True))
    builtins.open = counted(open, lambda _, mode="r", *__, **___: mode[0] != "r")
    io.open = builtins.open


def doom(draw: random.Random, seconds: float, steps: int) -> tuple[Callable[[], None], str]:
    """A death, after a while or at some change of files, and its name."""
    name = draw.choice(list(DEATHS))
    moments = sorted(draw.uniform(0, seconds) for _ in DEATHS[name])
    counts = sorted(draw.randint(1, max(steps, 1)) for _ in DEATHS[name])
    deaths, seen = DEATHS[name], [0]

    def by_time() -> None:
        for number, moment in zip(deaths, moments, strict=True):
            timer = threading.Timer(moment, os.kill, (os.getpid(), number))
            timer.daemon = True
            timer.start()

    def hit() -> None:
        seen[0] += 1
        for number, count in zip(deaths, counts, strict=True):
            if count == seen[0]:
                os.kill(os.getpid(), number)

    return (
        (by_time, f"{name} after {moments}") if draw.random() < 0.5 else (lambda: counting(hit), f"{name} at {counts}")
    )


def measure(arguments: list[str], folder: Path) -> tuple[float, int]:
    """Seconds and changes of files of an undisturbed run."""
    note, begun = folder.with_name(f"{folder.name}-count"), time.monotonic()
    note.write_bytes(b"")
    status, said = wait(start(arguments, folder, lambda: counting(lambda: os.close(append(note)))))
    assert status == 0, said
    return time.monotonic() - begun, note.stat().st_size


def append(note: Path) -> int:
    descriptor = os.open(note, os.O_WRONLY | os.O_APPEND)
    os.write(descriptor, b".")
    return descriptor


def snapshot(folder: Path) -> dict[str, Any]:
    """What lies in ``folder``, times left out."""
    found: dict[str, Any] = {}
    # A run that was asked to stop has a checkpoint of where it stood; the last one is at the same step always.
    passed = {one for root in folder.rglob("checkpoints") for one in sorted(root.glob("step-*"))[:-1]}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name.endswith(("/.lock", "/.hashes.json")) or passed.intersection([path, *path.parents]):
            continue
        if path.is_dir():
            found[name] = "folder"
        elif not VOLATILE.fullmatch(name.removeprefix("out/")) and not VOLATILE.fullmatch(path.name):
            found[name] = path.read_bytes()
        elif path.suffix == ".json":
            found[name] = without_times(path)
        else:
            found[name] = "a file"
    return found


def without_times(file: Path) -> str:
    """A JSON file's content; one that a killed command had only begun is none, and nobody may find it in its place."""
    try:
        return json.dumps(timeless(json.loads(file.read_text("utf-8"))), indent=1)
    except ValueError:
        return "no JSON"


def results(folder: Path) -> dict[str, Any]:
    """What a reader finds below the output's name; where a folder was caught between two renames, the old one."""
    found, moved = snapshot(folder), [path.name for path in folder.glob(".out.*.old")]
    if moved and "out" not in found:
        found = {name.replace(moved[0], "out", 1): value for name, value in found.items() if name.startswith(moved[0])}
    return {name: value for name, value in found.items() if name.partition("/")[0] == "out" and "/." not in name}


def timeless(value: Any) -> Any:
    """A JSON value without times, and without hashes, which may be of files that keep times."""
    if isinstance(value, dict):
        return {key: timeless(inner) for key, inner in value.items() if not TIMES.search(key)}
    if isinstance(value, list):
        return [timeless(inner) for inner in value]
    if isinstance(value, str):
        return "a hash" if re.fullmatch("[0-9a-f]{32}", value) else re.sub(r"\d[\d.,]*\s(s|min|h)\b", "", value)
    return value


def differences(folder: Path, right: dict[str, Any]) -> list[str]:
    """What is not as in an undisturbed run."""
    found = snapshot(folder)
    lost = [f"{name} is missing" for name in right.keys() - found.keys()]
    more = [f"{name} was left" for name in found.keys() - right.keys()]
    changed = [name for name in right.keys() & found.keys() if right[name] != found[name]]
    return lost + more + [f"{name} differs{where(right[name], found[name])}" for name in changed]


def where(right: Any, found: Any) -> str:
    """The place at which a text begins to differ."""
    if not isinstance(right, str) or not isinstance(found, str):
        return ""
    at = next((at for at, (one, other) in enumerate(zip(right, found, strict=False)) if one != other), 0)
    return f": {right[max(0, at - 30) : at + 30]!r}, now {found[max(0, at - 30) : at + 30]!r}"


@contextlib.contextmanager
def place(work: Path, before: Path | None) -> Iterator[Path]:
    """A working folder with other people's files in it, and those of ``before``."""
    folder = Path(tempfile.mkdtemp(dir=work))
    folder.chmod(0o777)
    try:
        (folder / "tmp").mkdir(mode=0o777)
        for name, text in FOREIGN.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text)
        if before is not None:
            shutil.copytree(before, folder, dirs_exist_ok=True)
        yield folder
    finally:
        shutil.rmtree(folder)


def is_one_line(status: int, said: str) -> bool:
    """Whether a failure was told as it should be: an exit code of its own and one line with `error:`."""
    told = [line for line in said.splitlines() if "error:" in line]
    return status in (1, 2) and len(told) == 1 and "Traceback" not in said and "panicked" not in said
