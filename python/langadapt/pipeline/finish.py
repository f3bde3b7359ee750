"""The stage that gives the trained model the chat of an instruct model."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from langadapt.finish.files import finish_folder
from langadapt.models.folder import resolve_model
from langadapt.pipeline.job import Job
from langadapt.pipeline.swap import Arm
from langadapt.pipeline.text import Corpora
from langadapt.recipe.sources import SIDES
from langadapt.swap.rows.names import KEEP


def finished(job: Job, corpora: Corpora, arm: Arm, final: Path) -> Path:
    """The folder of the model that chats.

    Args:
        job: the run; its recipe names an instruct model.
        corpora: scales are measured on what they set aside.
        arm: of the run's own method.
        final: its trained model.
    """
    settings, out = job.recipe.finish, job.folder / "finished"
    assert settings.instruct is not None
    instruct = resolve_model(settings.instruct)
    swapped = None if arm.method == KEEP else arm.model
    limit = job.recipe.evaluate.bytes_while_training

    def make() -> dict[str, Any]:
        return finish_folder(
            final,
            instruct,
            out,
            base=job.model,
            swapped=swapped,
            method=settings.method,
            scale=settings.scale,
            texts={side: corpora[side].held_out(limit).watched for side in SIDES if side in corpora},
            device=job.recipe.train.device,
            progress=job.progress,
        ).to_dict()

    inputs = {"model": final, "instruct": instruct, "base": job.model}
    inputs |= {} if swapped is None else {"swapped": swapped}
    job.run.stage("finish", out, make, settings=asdict(settings) | {"bytes": limit}, inputs=inputs)
    return out
