"""The trained model as a Hugging Face folder."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from langadapt.artefacts.folders import new_folder, write_manifest
from langadapt.errors import LangadaptError
from langadapt.training import model as models
from langadapt.training.job import TrainingJob
from langadapt.training.parallel import ProcessGroup
from langadapt.training.result import TrainResult


def write_final(job: TrainingJob, model: Any, tokenizer: Any, processes: ProcessGroup, *, result: TrainResult) -> None:
    """Write ``final`` with the tokenizer's files and a manifest; all processes must call it.

    Raises:
        LangadaptError: the disk is full, or nothing may be written there.
    """
    state = models.gather(model, processes.is_main)
    final = job.out / "final"
    try:
        if processes.is_main:
            with new_folder(final) as folder:
                files = Path(job.model) if isinstance(job.model, (str, Path)) else None
                models.export(model, state, folder, files, tokenizer=tokenizer)
                run = job.described
                write_manifest(folder, "train", run["settings"], run["inputs"], summary=asdict(result))
    except OSError as error:
        raise LangadaptError(
            f"{final}: cannot write the trained model: {error.strerror or error}; the last "
            f"checkpoint in {job.out / 'checkpoints'} is whole; free some space and run the same command again"
        ) from error
    processes.barrier()
