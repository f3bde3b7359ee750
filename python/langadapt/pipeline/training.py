"""The stage that trains an arm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from langadapt.evaluation.bits_per_byte import measure_bits_per_byte
from langadapt.models.folder import read_new_rows
from langadapt.pipeline.job import Job
from langadapt.pipeline.swap import Arm
from langadapt.pipeline.text import Corpora
from langadapt.tokenizer.encoder import Tokenizer
from langadapt.training import train_model
from langadapt.training.resume import Extend
from langadapt.training.settings import TrainSettings


def trained(job: Job, corpora: Corpora, arm: Arm, extend: Extend = False) -> dict[str, Any]:
    """Continued pretraining of one arm; the summary of :func:`train_arm`."""
    return job.run.stage(
        f"train-{arm.method}",
        folder_of(job, arm) / "final",
        lambda: train_arm(job, corpora, arm, extend=extend),
        settings={"train": asdict(job.recipe.train), "source_share": job.recipe.corpus.source_share},
        inputs={"model": arm.model, **{share.name: share.path for share in arm.stores}},
    )


def train_arm(
    job: Job,
    corpora: Corpora,
    arm: Arm,
    *,
    settings: TrainSettings | None = None,
    out: Path | None = None,
    extend: Extend = False,
) -> dict[str, Any]:
    """The training itself, of the recipe unless told otherwise; every process of a distributed run calls this."""
    out = out or folder_of(job, arm)
    result = train_model(
        arm.model,
        arm.stores,
        out,
        settings or job.recipe.train,
        tokenizer=Tokenizer.from_pretrained(arm.tokenizer),
        validate=validator(job, corpora, arm.tokenizer),
        new_rows=read_new_rows(arm.model),
        extend=extend,
    )
    return {**asdict(result), "log": str((out / "log.jsonl").relative_to(job.folder))}


def folder_of(job: Job, arm: Arm) -> Path:
    """Where an arm's training leaves its log, checkpoints and final model."""
    return job.folder / "trained" / arm.method


def validator(job: Job, corpora: Corpora, tokenizer: Path) -> Callable[[Any, int], dict[str, float]]:
    """A callback for training: bits per byte of all languages on a part of the validation text."""
    settings = job.recipe.evaluate
    loaded = Tokenizer.from_pretrained(tokenizer)
    texts = {language: corpus.held_out(settings.bytes_while_training) for language, corpus in corpora.items()}

    def validate(model: Any, step: int) -> dict[str, float]:
        return {
            f"bits_per_byte_{language}": measure_bits_per_byte(
                model, loaded, documents, window=settings.window, stride=settings.stride
            ).bits_per_byte
            for language, documents in texts.items()
        }

    return validate
