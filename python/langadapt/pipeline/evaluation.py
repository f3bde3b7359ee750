"""The stage that measures a model: one row of the results."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from langadapt.artefacts.folders import write_atomically
from langadapt.evaluation.bits_per_byte import evaluate_suites, measure_bits_per_byte
from langadapt.machine import choose_device
from langadapt.models.folder import load_model, tokenizer_file
from langadapt.pipeline.job import Job
from langadapt.pipeline.text import Corpora
from langadapt.report.results import Measurement
from langadapt.swap.rows.names import KEEP
from langadapt.tokenizer.encoder import Tokenizer


def evaluated(
    job: Job, corpora: Corpora, model: Path, tokenizer: Path, *, method: str | None = None, phase: str = "source"
) -> Measurement:
    """Parameters, bits per byte of all languages, and the suites.

    Args:
        job: the run.
        corpora: measured on what they set aside.
        model: folder to measure.
        tokenizer: folder of its tokenizer.
        method: what became of the source model; none = nothing.
        phase: ``source``, ``swapped`` or ``trained``.
    """
    name = phase if method is None else f"{method}-{phase}"
    out = job.folder / "evaluation" / f"{name}.json"

    def make() -> dict[str, Any]:
        side = "source" if tokenizer == job.model else "target"
        numbers = measure(job, corpora, model, tokenizer)
        row = asdict(Measurement(label(method, phase), method, phase, side, **numbers))
        write_atomically(out, json.dumps(row, indent=2) + "\n")
        return row

    inputs = {"model": model, "tokenizer": tokenizer_file(tokenizer)}
    inputs |= {language: corpus.validation for language, corpus in corpora.items()}
    settings = asdict(job.recipe.evaluate)
    return Measurement(**job.run.stage(f"evaluate-{name}", out, make, settings=settings, inputs=inputs))


def measure(job: Job, corpora: Corpora, model: Path, tokenizer: Path) -> dict[str, Any]:
    """Fields of a :class:`Measurement`."""
    settings = job.recipe.evaluate
    loaded: Any = load_model(model, dtype=torch.bfloat16)
    loaded.to(choose_device(job.recipe.train.device)).eval()
    encoder = Tokenizer.from_pretrained(tokenizer)
    bits = {
        language: measure_bits_per_byte(
            loaded,
            encoder,
            corpus.held_out(),
            window=settings.window,
            stride=settings.stride,
            progress=job.progress,
        ).bits_per_byte
        for language, corpus in corpora.items()
    }
    suites = evaluate_suites(loaded, tokenizer, settings.suites, limit=settings.limit) if settings.suites else {}
    return {"parameters": loaded.num_parameters(), "bits_per_byte": bits, "suites": suites}


def label(method: str | None, phase: str) -> str:
    """A row's name for readers."""
    if method is None:
        return "source model"
    if method == KEEP:
        return "trained without a swap"
    return f"{method}, before training" if phase == "swapped" else f"{method}, trained"
