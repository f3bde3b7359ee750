"""Validations of a run and what follows from them: warnings, an early end, the model that is kept."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from langadapt.training import choices
from langadapt.training.best import BestWeights
from langadapt.training.checkpoint import Reader
from langadapt.training.job import TrainingJob
from langadapt.training.meters import Journal
from langadapt.training.parallel import ProcessGroup
from langadapt.training.step import Stepper
from langadapt.training.watch import Watch

log = logging.getLogger(__name__)


class Supervisor:
    """What is known of a run from its losses and validations; all processes know the same."""

    def __init__(self, job: TrainingJob, model: Any, processes: ProcessGroup, say: Callable[[str], None]) -> None:
        """``say``: tells a user of what is no reason to warn."""
        self.job, self.settings, self.model, self.processes, self.say = job, job.settings, model, processes, say
        self.watch, self.best = Watch(), BestWeights(model, processes)
        self.validation: dict[str, float] = {}
        """The last one."""
        self.seconds = 0.0
        """What it took."""

    def validate(self, stepper: Stepper, step: int, total: int, journal: Journal) -> None:
        """Let the caller measure the model as it is, after ``step`` of ``total`` steps."""
        if self.job.validate is None:
            return
        begun = time.monotonic()
        self.model.eval()
        with torch.no_grad(), stepper.compute(), stepper.uncompiled():
            found = {key: float(value) for key, value in self.job.validate(self.model, step).items()}
        self.model.train()
        # One process' numbers decide for all.
        self.validation = self.processes.broadcast(found)
        self.seconds = time.monotonic() - begun
        journal.write({"step": step, "validation": self.validation})
        shown = ", ".join(f"{key} {value:.4f}" for key, value in self.validation.items())
        self.say(f"step {step}: {shown}")
        self.warn(self.watch.saw_validation(step, self.validation, self.settings, total))
        if self.settings.keep == "best" and self.watch.best_step == step:
            self.best.take()

    def saw_loss(self, step: int, loss: float, steps: int, total: int) -> None:
        """Take in the mean loss of the last ``steps`` steps of ``total``."""
        self.warn(self.watch.saw_loss(step, loss, steps, total))

    def warn(self, what: str) -> None:
        """Tell a user of what the watch has seen, if anything."""
        if what and self.processes.is_main:
            log.warning("%s", what)

    def state(self) -> dict[str, Any]:
        """For a checkpoint, beside `copied`."""
        return {"validation": self.validation, "watch": asdict(self.watch)}

    def copied(self, step: int) -> dict[str, tuple[list[int], int, Tensor]] | None:
        """The best model's weights for the checkpoint of ``step``, whose own they are where it is the best."""
        return self.best.parts() if self.best.copies and self.watch.best_step != step else None

    def restore(self, state: Mapping[str, Any], reader: Reader, step: int) -> None:
        """Go on from the checkpoint of ``step``, whose weights the model has already."""
        self.validation, self.watch = state["validation"], Watch(**state.get("watch", {}))
        self.best.restore(reader, is_it=self.watch.best_step == step, wanted=self.settings.keep == "best")

    def conclude(self, step: int, finished: bool, parameters: int, *, passes: float) -> dict[str, Any]:
        """Make the model the one that is kept; returns fields of the result. ``finished``: the whole budget is used;
        ``passes``: over the target text."""
        watch = self.watch
        watch.at_the_end(step)
        kept = watch.best_step if self.best.copies else step
        if kept != step:
            self.best.put_back()
            self.say(f"kept: the model of step {kept}, the best at a validation (`keep: best`)")
        return {
            "validation": watch.best if self.best.copies else self.validation,
            "best_step": watch.best_step,
            "kept_step": kept,
            "overfit_from": watch.overfit_from,
            "stopped_early": watch.out_of_patience and not finished,
            "diverged": self.explain(parameters, passes) if watch.diverged else "",
        }

    def explain(self, parameters: int, passes: float) -> str:
        """What was seen of a divergence, the remedy that works first, and what is left."""
        rate, out = self.settings.learning_rate, Path(self.job.out)
        lower = choices.lower_rate(rate, parameters)
        remedy = f"lower learning_rate first ({rate:g} here, try {lower:g}), then lengthen warmup"
        # What was read once at most is not known by heart.
        if passes > 1 and self.watch.by_heart(self.watch.first_loss):
            remedy = "the training loss fell, so the text is learnt by heart: add text, or train for fewer passes"
        left = f"no model of it is kept; checkpoints are in {out / 'checkpoints'}"
        if self.best.copies:
            what = f"of step {self.watch.best_step}" if self.watch.best_step else "as it was before training"
            left = f"{out / 'final'} has the model {what}, the best there was"
        return f"training diverged: {self.watch.diverged}; {remedy}; {left}"
