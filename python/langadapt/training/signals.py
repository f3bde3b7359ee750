"""Requests from outside: stop with a checkpoint, or finish the schedule now."""

from __future__ import annotations

import logging
import os
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from langadapt.errors import ConfigError

log = logging.getLogger(__name__)

PILOTS = "pilots"
"""Folder, in that of a run, of trainings that are too short to be asked for anything."""
TOLD: set[str] = set()
"""Times of grace that were warned of."""
ANNEAL_NAME = "anneal-now"
"""A file of this name in the run's folder asks for the final decay."""


class Requests:
    """Signals that arrive while training, to be looked at between steps.

    SIGTERM and SIGUSR1 (Slurm's warning before a time limit) and the first Ctrl-C ask for a checkpoint and an end; a
    second Ctrl-C interrupts at once. SIGUSR2, or a file `ANNEAL_NAME`, asks for the final decay.
    """

    def __init__(self, out: Path) -> None:
        """Nothing asked yet; handlers are set while used as a context."""
        self.stop: str | None = None
        self.anneal_file = out / ANNEAL_NAME
        self.anneal_signal = False
        self.before: dict[int, Any] = {}

    def __enter__(self) -> Requests:
        # Only the main thread may set handlers; elsewhere (notebooks' workers) signals keep their usual effect.
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGTERM", "SIGUSR1", "SIGUSR2", "SIGINT"):
                number = getattr(signal, name, None)
                if number is not None:
                    self.before[number] = signal.signal(number, self.receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Note the signal."""
        name = signal.Signals(number).name
        if name == "SIGUSR2":
            self.anneal_signal = True
        elif name == "SIGINT" and self.stop == "SIGINT":
            raise KeyboardInterrupt
        else:
            self.stop = name

    @property
    def anneal(self) -> bool:
        """Whether the final decay was asked for."""
        return self.anneal_signal or self.anneal_file.exists()

    def anneal_begun(self) -> None:
        """Forget the request."""
        self.anneal_signal = False
        self.anneal_file.unlink(missing_ok=True)


def warn_of_short_grace(seconds: float) -> None:
    """Say once that `torchrun` would kill a process before it has written its checkpoint.

    ``seconds``: from a signal to the end of the checkpoint, at most.
    """
    known = os.environ.get
    grace = known("TORCH_ELASTIC_SHUTDOWN_TIMEOUT") or known("PET_SHUTDOWN_TIMEOUT") or "30"
    if "TORCHELASTIC_RUN_ID" not in os.environ or grace in TOLD or not grace.isdecimal() or seconds < 0.8 * int(grace):
        return
    TOLD.add(grace)
    log.warning(
        "torchrun kills its processes %s s after a signal, and a step and a checkpoint may take %.0f s: start it with "
        "the environment variable TORCH_ELASTIC_SHUTDOWN_TIMEOUT=%d (torch 2.13), or signal them, not it",
        *(grace, seconds, 60 * (int(2 * seconds) // 60 + 1)),
    )


def ask_to_anneal(root: Path) -> list[Path]:
    """Ask all unfinished runs below ``root`` for the final decay; returns their folders.

    Raises:
        ConfigError: there is none.
    """
    runs = [
        file.parent
        for file in sorted(root.rglob("run.json"))
        if not (file.parent / "final").exists() and PILOTS not in file.relative_to(root).parts
    ]
    if not runs:
        raise ConfigError(f"{root}: no unfinished training run in it")
    for folder in runs:
        (folder / ANNEAL_NAME).touch()
    return runs
