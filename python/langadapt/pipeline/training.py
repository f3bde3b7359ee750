"""The stage that trains an arm."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from langadapt.errors import TrainingDiverged
from langadapt.evaluation.bits_per_byte import measure_bits_per_byte
from langadapt.evaluation.replies import reply_bits
from langadapt.models.folder import read_new_rows
from langadapt.pipeline.job import Job
from langadapt.pipeline.swap import Arm
from langadapt.pipeline.text import WATCHED, Corpora
from langadapt.tokenizer.conversations import Example
from langadapt.tokenizer.encoder import Tokenizer
from langadapt.training import train_model
from langadapt.training.job import OldModel
from langadapt.training.result import TrainResult
from langadapt.training.resume import Extend
from langadapt.training.settings import TrainSettings
from langadapt.training.watch import TARGET


def trained(
    job: Job, corpora: Corpora, arm: Arm, *, extend: Extend = False, replies: Sequence[Example] = ()
) -> dict[str, Any]:
    """Continued pretraining of one arm; the summary of :func:`train_arm`."""
    return job.run.stage(
        f"train-{arm.method}",
        folder_of(job, arm) / "final",
        lambda: train_arm(job, corpora, arm, extend=extend, replies=replies),
        settings={"train": asdict(job.recipe.train), "shares": [share.described for share in arm.stores]},
        inputs={"model": arm.model, **{share.name: share.store for share in arm.stores}},
    )


def train_arm(
    job: Job,
    corpora: Corpora,
    arm: Arm,
    *,
    settings: TrainSettings | None = None,
    out: Path | None = None,
    extend: Extend = False,
    replies: Sequence[Example] = (),
) -> dict[str, Any]:
    """The training itself, of the recipe unless told otherwise; every process of a distributed run calls this.

    ``replies``: conversations to watch it with, in place of target text.
    """
    out, url = out or folder_of(job, arm), job.recipe.train.checkpoints_url
    # A folder for each arm; pilots, whose settings are given, stay here.
    own = None if url is None or settings is not None else f"{url.rstrip('/')}/{arm.method}"
    try:
        result = train_model(
            arm.model,
            arm.stores,
            out,
            replace(settings or job.recipe.train, checkpoints_url=own),
            # With the chat templates and roles that a swap has kept, which the new tokenizer's own folder lacks.
            tokenizer=Tokenizer.from_pretrained(arm.model),
            validate=validator(job, corpora, arm.tokenizer, replies),
            new_rows=read_new_rows(arm.model),
            old=old_model(job, corpora),
            extend=extend,
        )
    except TrainingDiverged as diverged:
        # What came of it is measured and reported like any other; whoever asked for this training is told at the end.
        if not diverged.result.final.is_dir():
            raise
        result = diverged.result
    return {**asdict(result), "log": str((out / "log.jsonl").relative_to(job.folder))}


def old_model(job: Job, corpora: Corpora) -> OldModel:
    """The source model, the text that it knows, and the stores that replay it."""
    known = corpora.get("source")
    return OldModel(job.model) if known is None else OldModel(job.model, known.train, [one.name for one in known.parts])


def check_converged(summary: Mapping[str, Any]) -> None:
    """Raise TrainingDiverged for the summary of a training that had."""
    if summary.get("diverged"):
        known = {field.name for field in fields(TrainResult)}
        result = TrainResult(**{name: value for name, value in summary.items() if name in known})
        raise TrainingDiverged(result.diverged, result)


def folder_of(job: Job, arm: Arm) -> Path:
    """Where an arm's training leaves its log, checkpoints and final model."""
    return job.folder / "trained" / arm.method


def validator(
    job: Job, corpora: Corpora, tokenizer: Path, replies: Sequence[Example] = ()
) -> Callable[[Any, int], dict[str, float]]:
    """A callback for training: bits per byte of all languages, and of each of their sources, on the text to watch it
    with; of ``replies`` where there are any, in place of target text."""
    settings, loaded = job.recipe.evaluate, Tokenizer.from_pretrained(tokenizer)
    limit = settings.bytes_while_training
    texts = {language: corpus.held_out(limit).watched for language, corpus in corpora.items()}

    def validate(model: Any, step: int) -> dict[str, float]:
        found = {}
        for language, documents in texts.items():
            one = measure_bits_per_byte(model, loaded, documents, window=settings.window, stride=settings.stride)
            found[language] = one.bits_per_byte
            found |= corpora[language].by_part(limit, one, WATCHED)
        bits = {f"bits_per_byte_{name}": one for name, one in found.items()}
        return bits | ({TARGET: reply_bits(model, replies, settings.window)} if replies else {})

    return validate
