"""Every command that writes, killed at random moments: what does the next run of it leave?

    python tests/kills.py                      # 200 kills of each command, and the other ways to fail; a table
    python tests/kills.py --kills 20 --seed 7 swap adapt

Each command runs on small real text. Undisturbed it shows what is right; then it is killed (SIGKILL, SIGTERM, or Ctrl-C
once and twice) again and again, after a while or at a file's opening for writing, flushing or renaming, until it gets
through. Every other time the result of other settings lies there already. A loss is anything but the same files with
the same bytes: an artefact that differs or is missing, a leftover, a file of somebody else that was touched, an error
of the run after a kill, a place that holds neither the old nor the new result, whole.

`twins`: two processes at once in the same place. `disk`: a disk that is full at a random moment. `threads`: a system
that gives no more. `memory`: 1 GB of address space. Of these each must be refused in one line or give the right result,
and the next run, left alone, must.
"""

from __future__ import annotations

import argparse
import codecs
import contextlib
import io
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import transformers.models.llama.modeling_llama
from kill_commands import commands, earlier, write_inputs
from kill_kit import (
    INTERRUPTED,
    LONGEST,
    differences,
    doom,
    is_one_line,
    measure,
    place,
    results,
    snapshot,
    start,
    wait,
)

# Loaded once, before the children are made.
import langadapt.evaluation.continuations
import langadapt.export.gguf_file
import langadapt.finish.files
import langadapt.models.interpolation
import langadapt.pipeline.run
import langadapt.planning.first_recipe
import langadapt.swap.files
import langadapt.tokenizer.editing
import langadapt.training.loop
import langadapt.trials.dial
import langadapt.trials.inputs
import langadapt.trials.vocabularies  # noqa: F401
from langadapt.cli.main import main as command_line


@dataclass
class Tally:
    """What happened to a command."""

    trials: int = 0
    kills: int = 0
    seconds: float = 0.0
    losses: list[str] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)


class Trials:
    """A command and what its runs must end at."""

    def __init__(self, name: str, work: Path, *, inputs: Path, seed: int) -> None:
        self.name, self.work, self.command = name, work, commands(inputs)[name]
        self.draw, self.tally = random.Random(f"{seed} {name}"), Tally()
        self.arguments, self.before = self.command.arguments, self.command.before
        with place(work, self.before) as folder:
            self.seconds, self.steps = measure(self.arguments, folder)
            self.right, self.made = snapshot(folder), results(folder)
            self.size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        self.earlier = earlier(self.command, work) if self.command.other else None

    def run(self, kills: int, others: int) -> None:
        """So many kills, and each other way to fail so often."""
        while self.tally.kills < kills:
            self.killed()
        for _ in range(others):
            self.twins()
            if os.geteuid() == 0:
                self.full_disk()
                self.no_threads()
            if not self.command.torch:
                self.little_memory()

    def finish(self, folder: Path, how: str) -> None:
        """Run it once more, undisturbed, and compare."""
        status, said = wait(start(self.arguments, folder))
        found = differences(folder, self.right)
        if self.command.once and not found and is_one_line(status, said):
            status = 0
        if status != 0 or found:
            self.tally.losses.append(f"{how}: exit {status}, {'; '.join(found[:4])} {said.strip()[-300:]}")
        self.tally.trials += 1

    def note(self, status: int, said: str, how: str) -> None:
        """A run that was to work or to be refused."""
        if status != 0 and not is_one_line(status, said):
            self.tally.losses.append(f"{how}: exit {status}: {said.strip()[-400:]}")
        refused = next((line for line in said.splitlines() if "error:" in line), "")
        self.tally.refusals[re.sub(r"[\d,.]+|/\S+", "..", refused)[:90] or "worked"] += 1

    def killed(self) -> None:
        """Some kills, then a run to the end."""
        before = self.earlier if self.earlier is not None and self.draw.random() < 0.5 else self.before
        with place(self.work, before) as folder:
            old = results(folder)
            for _ in range(self.draw.randint(1, 4)):
                fate, death = doom(self.draw, 1.2 * self.seconds, self.steps)
                status, said = wait(start(self.arguments, folder, fate))
                died = status in (-signal.SIGKILL, -signal.SIGTERM, INTERRUPTED)
                self.tally.kills += died
                again = self.command.once and is_one_line(status, said)
                if not (died or status == 0 or again) or "Traceback" in said:
                    self.tally.losses.append(f"{death}: exit {status}: {said.strip()[-400:]}")
                now = results(folder)
                if self.earlier is not None and now not in (old, self.made):
                    changed = [name for name in now if old.get(name) != now[name]]
                    self.tally.losses.append(f"{death}: neither old nor new: {changed} are new of {sorted(now)}")
            self.finish(folder, "kill")

    def twins(self) -> None:
        """Two at once; one of them may be told that the other is at work."""
        with place(self.work, self.before) as folder:
            both = []
            for _ in range(2):
                both.append(start(self.arguments, folder))
                time.sleep(self.draw.uniform(0, 0.5 * self.seconds))
            ends = [wait(child) for child in both]
            for status, said in ends:
                self.note(status, said, "twins")
            if all(status != 0 for status, _ in ends):
                self.tally.losses.append(f"twins: both failed: {ends[0][1].strip()[-300:]}")
            self.finish(folder, "twins")

    def full_disk(self) -> None:
        """A disk that holds a part of what is to be written, made larger afterwards."""
        with place(self.work, self.before) as folder:
            inner = folder / "disk"
            inner.mkdir()
            size = int(self.draw.uniform(0.05, 1.0) * self.size) + (64 << 10)
            size += sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", inner], check=True)
            try:
                for path in folder.iterdir():
                    if path != inner:
                        (shutil.copytree if path.is_dir() else shutil.copy)(path, inner / path.name)
                self.note(*wait(start(self.arguments, inner)), "disk")
                subprocess.run(["mount", "-o", "remount,size=1g", inner], check=True)
                self.finish(inner, "disk")
            finally:
                subprocess.run(["umount", inner], check=True)

    def no_threads(self) -> None:
        """A user who may have a few more threads, or none."""
        spare = self.draw.randint(0, 6)

        def limit() -> None:
            tasks = len([*Path("/proc/self/task").iterdir()]) + spare
            resource.setrlimit(resource.RLIMIT_NPROC, (tasks, tasks))
            os.setuid(65534)

        with place(self.work, self.before) as folder:
            for path in folder.rglob("*"):
                path.chmod(0o777)
            self.note(*wait(start(self.arguments, folder, limit)), "threads")
            self.finish(folder, "threads")

    def little_memory(self) -> None:
        """In a new process, which has a gigabyte of addresses or less."""
        size = self.draw.randint(700, 1024) << 20
        limits = f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({size}, {size})); "
        call = "import sys; sys.argv[0] = 'langadapt'; from langadapt.cli import main; main()"
        with place(self.work, self.before) as folder:
            done = subprocess.run(
                [sys.executable, "-c", limits + call, *self.arguments],
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=LONGEST,
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TMPDIR": str(folder / "tmp")},
            )
            self.note(done.returncode, done.stdout + done.stderr, "memory")
            self.finish(folder, "memory")


def warm_up() -> None:
    """Load what commands load when they begin, once for all children."""
    transformers.logging.disable_progress_bar()
    # A user without rights may not read it any more.
    codecs.lookup("unicode-escape")
    with contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(SystemExit):
        command_line(["report", "there-is-no-such-run"])


def run(names: list[str], work: Path, *, kills: int, others: int, seed: int) -> dict[str, Tally]:
    """``kills`` of each command, and ``others`` of each other way to fail, by the command's name."""
    warm_up()
    inputs, tallies = work / "inputs", {}
    inputs.mkdir(parents=True)
    inputs.chmod(0o777)
    names = names or list(commands(inputs))
    write_inputs(inputs, names)
    for path in [work, *work.parents]:
        # For a user without rights, of `threads`.
        if path.stat().st_uid == os.geteuid() and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o011)
    for name in names:
        begun = time.monotonic()
        trials = Trials(name, work, inputs=inputs, seed=seed)
        tallies[name] = trials.tally
        try:
            trials.run(kills, others)
        except KeyboardInterrupt:
            # Long runs may be ended; what was found until then counts.
            break
        finally:
            trials.tally.seconds = time.monotonic() - begun
            sys.stderr.write(row(name, trials.tally))
            for loss in trials.tally.losses:
                sys.stderr.write(f"    {loss}\n")
    return tallies


def row(name: str, tally: Tally) -> str:
    """A line of the table."""
    cells = (name, tally.kills, sum(tally.refusals.values()), tally.trials, len(tally.losses), round(tally.seconds))
    return f"| {' | '.join(map(str, cells))} |\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commands", nargs="*")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--others", type=int, default=10)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    given = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Panics print a line where it asks for their places.
    os.environ["RUST_BACKTRACE"] = "0"
    sys.stdout.write(f"seed {given.seed}\n")
    sys.stdout.flush()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        tallies = run(given.commands, Path(folder) / "work", kills=given.kills, others=given.others, seed=given.seed)
    sys.stdout.write("| command | kills | other failures | runs compared | losses | seconds |\n")
    sys.stdout.write("|---|--:|--:|--:|--:|--:|\n")
    for name, tally in tallies.items():
        sys.stdout.write(row(name, tally))
    refusals = sum((tally.refusals for tally in tallies.values()), Counter())
    sys.stdout.write(json.dumps(dict(refusals.most_common()), indent=1, ensure_ascii=False) + "\n")
    sys.exit(any(tally.losses for tally in tallies.values()))


if __name__ == "__main__":
    main()
