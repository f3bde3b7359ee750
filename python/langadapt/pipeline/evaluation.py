"""The stages that measure: the held-out text itself, and each model on it, one row of the results."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from langadapt.artefacts.folders import write_atomically
from langadapt.artefacts.plain_json import to_json
from langadapt.evaluation.bits_per_byte import measure_bits_per_byte
from langadapt.evaluation.compression import xz_bits_per_byte
from langadapt.evaluation.continuations import continuations, prompts
from langadapt.evaluation.suites import measure_suites
from langadapt.evaluation.writing import judge_of, measure_writing
from langadapt.machine import choose_device
from langadapt.models.folder import load_model, tokenizer_file
from langadapt.pipeline.job import Job
from langadapt.pipeline.text import TESTED, Corpora, all_parts
from langadapt.recipe.plain_values import build
from langadapt.report.results import HeldOutFacts, Measurement, Prompt
from langadapt.swap.rows.names import KEEP
from langadapt.tokenizer.encoder import Tokenizer

PHASES = {"swapped": "before training", "trained": "trained", "finished": "trained, with chat"}
"""For readers."""
SAMPLES = {"target": 3, "source": 1}
"""Prompts of each language."""
MEASURED = {"split": "watched and tested", "writing": "greedy and drawn"}
"""In stamps: what is measured is not what earlier versions measured."""


def held_out(job: Job, corpora: Corpora) -> dict[str, HeldOutFacts]:
    """Sizes of the held-out text of all languages, what a compressor makes of it, and prompts from it."""
    out, limit = job.folder / "evaluation" / "held-out.json", job.recipe.evaluate.bytes_while_training

    def make() -> dict[str, Any]:
        facts = {}
        for language, corpus in corpora.items():
            texts = corpus.held_out(limit)
            facts[language] = asdict(
                HeldOutFacts(
                    document_bytes=[len(text.encode()) for text in texts.tested],
                    watched_documents=len(texts.watched),
                    watched_bytes=sum(len(text.encode()) for text in texts.watched),
                    apart=texts.apart,
                    xz_bits_per_byte=xz_bits_per_byte(texts.tested),
                    watched_xz_bits_per_byte=xz_bits_per_byte(texts.watched),
                    prompts=[Prompt(*pair) for pair in prompts(texts.tested, SAMPLES.get(language, 1))],
                )
            )
        write_atomically(out, to_json(facts) + "\n")
        return facts

    inputs = {name: part.validation for name, part in all_parts(corpora).items()}
    found = job.run.stage("held-out", out, make, settings={"bytes": limit, "split": MEASURED["split"]}, inputs=inputs)
    return {language: build(HeldOutFacts, facts, f"{language}.") for language, facts in found.items()}


def evaluated(
    job: Job, corpora: Corpora, model: Path, tokenizer: Path, *, method: str | None = None, phase: str = "source"
) -> Measurement:
    """Parameters, bits per byte of all languages, and the suites.

    Args:
        job: the run.
        corpora: measured on what they set aside for the final test.
        model: folder to measure.
        tokenizer: folder of its tokenizer.
        method: what became of the source model; none = nothing.
        phase: ``source``, ``swapped``, ``trained`` or ``finished``.
    """
    name = phase if method is None else f"{method}-{phase}"
    out = job.folder / "evaluation" / f"{name}.json"

    def make() -> dict[str, Any]:
        side = "source" if tokenizer == job.model else "target"
        numbers = measure(job, corpora, model, tokenizer)
        row = asdict(Measurement(label(method, phase), method, phase, side, **numbers))
        write_atomically(out, to_json(row) + "\n")
        return row

    inputs = {"model": model, "tokenizer": tokenizer_file(tokenizer)}
    inputs |= {name: part.validation for name, part in all_parts(corpora).items()}
    settings = {**asdict(job.recipe.evaluate), **MEASURED}
    return Measurement(**job.run.stage(f"evaluate-{name}", out, make, settings=settings, inputs=inputs))


def measure(job: Job, corpora: Corpora, model: Path, tokenizer: Path) -> dict[str, Any]:
    """Fields of a :class:`Measurement`."""
    settings = job.recipe.evaluate
    loaded: Any = load_model(model, dtype=torch.bfloat16)
    loaded.to(choose_device(job.recipe.train.device)).eval()
    encoder = Tokenizer.from_pretrained(tokenizer)
    windows: dict[str, Any] = {"window": settings.window, "stride": settings.stride}
    numbers: dict[str, Any] = {"parameters": loaded.num_parameters()}
    numbers |= {name: {} for name in ("bits_per_byte", "document_bits", "samples", "drawn", "writing")}
    held = {language: corpus.held_out(settings.bytes_while_training) for language, corpus in corpora.items()}
    sides = {language: [*one.watched, *one.tested] for language, one in held.items() if language in SAMPLES}
    for language, corpus in corpora.items():
        texts = held[language].tested
        found = measure_bits_per_byte(loaded, encoder, texts, **windows, progress=job.progress)
        numbers["bits_per_byte"][language] = found.bits_per_byte
        numbers["bits_per_byte"] |= corpus.by_part(settings.bytes_while_training, found, TESTED)
        numbers["document_bits"][language] = [round(bits, 2) for bits in found.document_bits]
        beginnings = [beginning for beginning, _ in prompts(texts, SAMPLES.get(language, 1))]
        numbers["samples"][language] = continuations(loaded, encoder, beginnings)
        numbers["drawn"][language] = continuations(loaded, encoder, beginnings, seed=job.recipe.seed)
        if language not in sides:
            continue
        judge = judge_of(sides, language)
        for way, seed in (("greedy", None), ("drawn", job.recipe.seed)):
            found_writing = measure_writing(loaded, encoder, texts, judge, seed=seed)
            if found_writing is not None:
                numbers["writing"].setdefault(language, {})[way] = found_writing.to_dict()
    suites = measure_suites(loaded, tokenizer, settings.suites, limit=settings.limit, progress=job.progress)
    return {**numbers, "suites": suites.metrics, "suite_items": suites.items}


def label(method: str | None, phase: str) -> str:
    """A row's name for readers."""
    if method is None:
        return "source model"
    if method == KEEP and phase == "trained":
        return "trained without a swap"
    return f"{method}, {PHASES[phase]}"
