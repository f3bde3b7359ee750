"""All fuzz targets for a given time, on as many processes as there are cores, and a table of what they tried.

    python tests/fuzz.py --seconds 3600            # all of them
    python tests/fuzz.py readers weights           # some of them
    FUZZ_SEED=7 FUZZ_CASE=12 python tests/fuzz.py readers    # one case again, as a failure says it

A target runs in a process of its own that may use 4 GB of addresses, so that an absurd allocation is found, and may
spend two minutes on a case. An input is one file or one text that was generated and tried in every way. A new seed each
time, unless there is `FUZZ_SEED`.
"""

from __future__ import annotations

import argparse
import os
import resource
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RUST = {"encoder": "fuzz_encode", "pieces": "fuzz_pieces", "readers": "fuzz_readers", "stores": "fuzz_stores"}
"""Names of targets to the tests that hold them."""
PYTHON = ("reference", "tokenizer_files", "weights", "store_files")
MEMORY = 4 << 30
LONGEST = 120.0
"""Seconds without a new case."""


@dataclass
class Target:
    """A target at work."""

    name: str
    process: subprocess.Popen[bytes]
    note: Path
    """How far it is, written by itself: the number of the case and the inputs before it."""
    log: Path
    seed: int
    started: float
    state: tuple[int, int] = (0, 0)
    changed: float = 0.0

    def look(self) -> None:
        """See how far it is; one that stands still is ended."""
        text = self.note.read_text("utf-8").split() if self.note.exists() else []
        state = (int(text[0]), int(text[1])) if len(text) == 2 else self.state
        if state != self.state or not self.changed:
            self.state, self.changed = state, time.monotonic()
        elif time.monotonic() - self.changed > LONGEST and self.process.poll() is None:
            self.process.send_signal(signal.SIGABRT)

    def outcome(self) -> str:
        """``held``, or how to see it fail again."""
        if self.process.returncode == 0:
            return "held"
        return f"FAILED ({self.process.returncode}): FUZZ_SEED={self.seed} FUZZ_CASE={self.state[0]}"


def command(name: str) -> list[str]:
    """What runs a target."""
    if name in RUST:
        options = ["--release", "--locked", "-q", "-p", "langadapt-core", "--test", RUST[name]]
        return ["cargo", "test", *options, "--", "--ignored", "--nocapture"]
    return [sys.executable, str(HERE / "fuzz_targets.py"), name]


def limit_memory() -> None:
    """In the child; no core is dumped."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def start(name: str, seed: int, seconds: float, work: Path) -> Target:
    """Begin with a target."""
    note, log = work / f"{name}.note", work / f"{name}.log"
    given = {"FUZZ_SEED": str(seed), "FUZZ_SECONDS": str(int(seconds) or 1), "FUZZ_NOTE": str(note)}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command(name),
            cwd=ROOT,
            env=os.environ | given | {"TMPDIR": str(work), "RUST_BACKTRACE": "0", "OMP_NUM_THREADS": "1"},
            stdout=output,
            stderr=output,
            preexec_fn=limit_memory,
            process_group=0,
        )
    return Target(name, process, note, log, seed, time.monotonic())


def run(names: list[str], seconds: float, processes: int) -> bool:
    """All targets, `processes` of them at a time, as long together as `seconds` on each; true where all held."""
    if any(name in RUST for name in names):
        tests = [part for name in names if name in RUST for part in ("--test", RUST[name])]
        build = ["cargo", "test", "--release", "--locked", "-q", "-p", "langadapt-core", "--no-run", *tests]
        subprocess.run(build, cwd=ROOT, check=True)
    share = seconds * min(processes, len(names)) / len(names)
    waiting, running, held, inputs = list(names), [], True, 0
    sys.stdout.write(f"{'target':<16} {'inputs':>12} {'seconds':>8}  seed and outcome\n")
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else None) as folder:
        while waiting or running:
            while waiting and len(running) < processes:
                given = os.environ.get("FUZZ_SEED")
                seed = int(given) if given else secrets.randbits(63)
                running.append(start(waiting.pop(0), seed, share, Path(folder)))
            time.sleep(0.2)
            for target in running:
                target.look()
            for target in [target for target in running if target.process.poll() is not None]:
                running.remove(target)
                target.look()
                held, inputs = held and target.process.returncode == 0, inputs + target.state[1]
                spent = time.monotonic() - target.started
                line = f"{target.name:<16} {target.state[1]:>12,} {spent:>8.0f}  {target.seed} {target.outcome()}\n"
                sys.stdout.write(line)
                if target.process.returncode:
                    sys.stdout.write(target.log.read_text("utf-8", "replace")[-4000:])
                sys.stdout.flush()
    sys.stdout.write(f"{'together':<16} {inputs:>12,}\n")
    return held


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", help=", ".join((*RUST, *PYTHON)))
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1))
    given = parser.parse_args()
    unknown = set(given.targets) - {*RUST, *PYTHON}
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    sys.exit(not run(given.targets or [*RUST, *PYTHON], given.seconds, given.processes))


if __name__ == "__main__":
    main()
