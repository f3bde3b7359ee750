"""A short training that leaves nothing behind but what its caller measured: for probes and comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from langadapt.artefacts.folders import scratch_folder
from langadapt.errors import ConfigError, TrainingStopped
from langadapt.machine import choose_device
from langadapt.progress import Progress
from langadapt.training.data.batches import StoreShare
from langadapt.training.job import OldModel, TrainingJob, Validate
from langadapt.training.loop import Trainer
from langadapt.training.parallel import ProcessGroup
from langadapt.training.result import TrainResult
from langadapt.training.settings import TrainSettings


def rehearse(
    model: Any,
    stores: Sequence[StoreShare],
    settings: TrainSettings,
    *,
    tokenizer: Any,
    validate: Validate | None = None,
    progress: Progress | None = None,
    new_rows: Sequence[int] | None = None,
    old: OldModel | None = None,
) -> TrainResult:
    """Train ``model`` in place as ``train_model`` would, without checkpoints, log or export.

    Runs in this process alone, under ``torchrun`` too. The arguments and errors are those of
    :func:`langadapt.training.train_model`; interrupted, it begins anew.
    """
    device = torch.device(choose_device(settings.device))
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device: {settings.device}, but torch sees no GPU here")
    settings = replace(
        settings, keep="last", checkpoint_every=None, checkpoint_minutes=None, tensorboard=False, wandb_project=None
    )
    # Steps are seeded one by one; the caller's generators are left as they were.
    with (
        scratch_folder("langadapt-rehearsal") as folder,
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
    ):
        silent = progress if progress is not None else say_nothing
        job = TrainingJob(model, list(stores), folder, settings, tokenizer, validate, silent, new_rows, old)
        try:
            return Rehearsal(job, ProcessGroup(device=device)).run(False)
        except TrainingStopped:
            raise TrainingStopped("stopped in the middle of a probe, of which nothing is kept") from None


def say_nothing(phase: str, done: int, total: int | None, unit: str) -> None:
    """A listener that does not."""


class Rehearsal(Trainer):
    """A run whose model is not kept."""

    def save(self) -> None:
        """No checkpoint; a model that was lost is still found out."""
        self.stepper.check_finite(self.step, self.out)

    def export(self, result: TrainResult) -> None:
        """No files."""
