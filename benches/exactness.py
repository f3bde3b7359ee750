"""Killed at random moments, resumed on other numbers of processes: is the result that of an undisturbed run?

`kills`: one run, undisturbed; the same in processes that are killed (SIGKILL) at random moments, twenty times, the
same call each time. Compared: the hash of the exported weights, and every logged loss. `ranks`: two processes, then
one, then two again, each stopped by SIGTERM in the middle, against one process throughout; compared: the documents of
every step in order, and the losses (equal up to the order of sums). Model, tokenizer and store are those of
`benches/initialisers.py prepare`.

    python benches/exactness.py --prepared runs/initialisers --work runs/exactness --out docs/runs/exactness.jsonl
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from row_files import RowFile

from langadapt.machine import describe_device, versions
from langadapt.tokenizer.encoder import Tokenizer
from langadapt.training import StoreShare, TrainSettings, train_model
from langadapt.training.loop import Trainer

KILLS, STEPS = 20, 60
SETTINGS: dict[str, Any] = {
    "sequence_length": 256,
    "batch_sequences": 4,
    "micro_batch": 2,
    "learning_rate": 1e-3,
    "min_learning_rate": 1e-5,
    "rounding": "stochastic",
    "checkpoint_minutes": None,
    "checkpoint_every": 2,
    "log_every": 1,
    "stale_every": 0,
    "threads": 1,
}


def train(prepared: Path, out: Path, **changes: Any) -> None:
    """The run that is killed and resumed: the base model on German, a stage's worth of settings."""
    base = prepared / "english-base" / "trained" / "final"
    store = StoreShare(prepared / "german" / "stores" / "target-own", 1.0, "german")
    settings = TrainSettings(**{**SETTINGS, **changes})
    train_model(base, [store], out, settings, tokenizer=Tokenizer.from_pretrained(base), progress=lambda *_: None)


def losses(out: Path) -> list[float]:
    """Logged losses in order."""
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text("utf-8").splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def digest(out: Path) -> str:
    """SHA-256 of the exported weights."""
    return hashlib.sha256((out / "final" / "model.safetensors").read_bytes()).hexdigest()


def newest(out: Path) -> int:
    """Step of the newest checkpoint."""
    return max((int(path.name.split("-")[1]) for path in (out / "checkpoints").glob("step-*")), default=0)


def wait_for_progress(child: int, out: Path, before: int) -> None:
    """Until there is a newer checkpoint, or the process has ended."""
    while newest(out) <= before:
        state = Path(f"/proc/{child}/stat").read_text("utf-8").rsplit(")", 1)[1].split()[0]
        if state == "Z":
            return
        time.sleep(0.02)


def killed(prepared: Path, work: Path) -> dict[str, Any]:
    """The first part."""
    whole, cut = work / "whole", work / "killed"
    for folder in (whole, cut):
        shutil.rmtree(folder, ignore_errors=True)
    begun = time.monotonic()
    if os.fork() == 0:
        # Every run has a process of its own, which inherits imports and nothing computed.
        train(prepared, whole, steps=STEPS)
        os._exit(0)
    os.wait()
    undisturbed = time.monotonic() - begun
    moments, kills, reached = random.Random(0), 0, []
    while not (cut / "final").exists():
        child = os.fork()
        if child == 0:
            train(prepared, cut, steps=STEPS)
            os._exit(0)
        if kills < KILLS:
            # One in four dies at some moment of its start, the others at one after their first checkpoint.
            if moments.random() < 0.75:
                wait_for_progress(child, cut, newest(cut))
            time.sleep(moments.uniform(0, 4))
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        died = os.waitpid(child, 0)[1] == signal.SIGKILL
        kills += died
        if died:
            reached.append(newest(cut))
    return {
        "kills": kills,
        "newest_checkpoint_after_each": reached,
        "steps": STEPS,
        "undisturbed_seconds": round(undisturbed, 1),
        "sha256": {"undisturbed": digest(whole), "killed": digest(cut)},
        "weights_identical": digest(whole) == digest(cut),
        "losses_identical": losses(whole) == losses(cut),
    }


def recorded(prepared: Path, out: Path, stop: int) -> None:
    """One process of a run that notes the documents of its part of every step, and asks for the end after `stop`."""
    plain = Trainer.one_step

    def noting(self: Any, batch: Any) -> None:
        plain(self, batch)
        note = {"step": self.step, "rank": self.processes.rank, "documents": batch.documents}
        with (out.parent / f"{out.name}-order.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(note) + "\n")
        if self.step == stop:
            os.kill(os.getpid(), signal.SIGTERM)

    Trainer.one_step = noting  # type: ignore[method-assign]
    train(prepared, out, steps=12, precision="fp32", rounding="nearest", device="cpu")


def order(file: Path) -> dict[int, list[list[int]]]:
    """Documents of every window of every step, ranks one after the other; steps that were done again count once."""
    found: dict[int, dict[int, list[list[int]]]] = {}
    for line in file.read_text("utf-8").splitlines():
        note = json.loads(line)
        found.setdefault(note["step"], {})[note["rank"]] = note["documents"]
    return {step: [window for rank in sorted(parts) for window in parts[rank]] for step, parts in found.items()}


def on_ranks(prepared: Path, work: Path) -> dict[str, Any]:
    """The second part."""
    runs = {"one": [(1, 0)], "two-one-two": [(2, 4), (1, 8), (2, 0)]}
    for name, stages in runs.items():
        shutil.rmtree(work / name, ignore_errors=True)
        (work / f"{name}-order.jsonl").unlink(missing_ok=True)
        for processes, stop in stages:
            launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
            command = [sys.executable, *(launcher if processes > 1 else []), __file__, "--prepared", str(prepared)]
            command += ["--recorded", str(work / name), "--stop", str(stop)]
            done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
            if done.returncode and not stop:
                raise SystemExit(done.stderr[-3000:])
    orders = [order(work / f"{name}-order.jsonl") for name in runs]
    pairs = list(zip(losses(work / "one"), losses(work / "two-one-two"), strict=True))
    return {
        "stages": "2 processes to step 4, 1 to step 8, 2 to step 12",
        "steps": len(pairs),
        "order_identical": orders[0] == orders[1],
        "largest_relative_difference_of_losses": max(abs(a - b) / a for a, b in pairs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepared", type=Path, default=Path("runs/initialisers"))
    parser.add_argument("--work", type=Path, default=Path("runs/exactness"))
    parser.add_argument("--out", type=Path, default=Path("docs/runs/exactness.jsonl"))
    parser.add_argument("--recorded", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--stop", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.recorded is not None:
        recorded(arguments.prepared, arguments.recorded, arguments.stop)
        return
    arguments.work.mkdir(parents=True, exist_ok=True)
    # Both parts are made anew: only together do they speak of one version.
    arguments.out.unlink(missing_ok=True)
    found = RowFile(arguments.out, {"settings": SETTINGS, "device": describe_device(), "versions": versions()})
    for name, part in {"kills": killed, "ranks": on_ranks}.items():
        found.add({"part": name, **part(arguments.prepared, arguments.work)})
        print(json.dumps(found.rows[-1]), flush=True)


if __name__ == "__main__":
    main()
