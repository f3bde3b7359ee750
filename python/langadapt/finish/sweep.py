"""The scale that serves: each is made, loaded and measured, on text of both languages and on replies in the template.

The rule: of the scales whose replies are within :data:`NEAR` of the best, the one that costs the fewest bits per byte,
as the mean ratio over the languages to the adapted model; ties go to the smaller scale.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from langadapt.artefacts.folders import scratch_folder
from langadapt.corpus.samples import first_bytes
from langadapt.errors import ConfigError
from langadapt.evaluation.bits_per_byte import measure_bits_per_byte
from langadapt.finish.job import FinishJob
from langadapt.finish.options import SCALES
from langadapt.finish.replies import Replies, check_replies
from langadapt.finish.writing import write_finished
from langadapt.machine import choose_device
from langadapt.models.folder import load_model
from langadapt.progress import Progress

SAMPLE_BYTES = 200_000
"""Of each language's text that is measured."""
NEAR = 0.05
"""Shares of replies closer than this count as alike."""
PROMPTS = ("Hi!", "2 + 2 = ?", "OK?", "A, B, C, ...", "1, 2, 3, ?", "Thanks!")
"""What users say in any language."""
MOST_PROMPTS = 16
"""Prompts in all: the rest are first sentences of the held-out text."""
PROMPT_CHARACTERS = 160
"""Of a document that becomes a prompt."""


@dataclass(frozen=True)
class Probe:
    """What scales are measured on."""

    texts: Mapping[str, Sequence[str]]
    """Held-out documents by language."""
    prompts: tuple[str, ...] = ()
    """Of the user, before :data:`PROMPTS`."""
    device: str = "auto"

    def turns(self) -> list[str]:
        """What the user says in the replies that are checked."""
        openings = [document.strip()[:PROMPT_CHARACTERS] for documents in self.texts.values() for document in documents]
        return list(dict.fromkeys([*self.prompts, *PROMPTS, *filter(None, openings)]))[:MOST_PROMPTS]


def choose_scale(
    job: FinishJob, probe: Probe, out: Path, *, progress: Progress | None = None
) -> tuple[float, list[dict[str, Any]]]:
    """The scale, and what was measured of each.

    Args:
        job: the finishing.
        probe: text and prompts.
        out: where the finished model will lie; one more is written beside it meanwhile.
        progress: called as ``(phase, done, total, unit)``.

    Raises:
        ConfigError: there is no text to measure on.
    """
    if not any(any(documents) for documents in probe.texts.values()):
        raise ConfigError("scale `auto` is measured on held-out text: give some, or a number as the scale")
    rows = []
    for at, scale in enumerate((0.0, *SCALES)):
        with scratch_folder(f"{out.name}.scale", out.parent) as folder:
            write_finished(job, folder, scale)
            rows.append({"scale": scale, **measure(folder, job, probe)})
        if progress is not None:
            progress("measure scales", at + 1, len(SCALES) + 1, "models")
    return best_scale(rows), rows


def measure(folder: Path, job: FinishJob, probe: Probe) -> dict[str, Any]:
    """Bits per byte by language, and the shares of good replies, of a model on disk."""
    model: Any = load_model(folder, dtype="auto")
    model.to(choose_device(probe.device)).eval()
    bits = {
        language: measure_bits_per_byte(model, job.tokens.tokenizer, first_bytes(documents, SAMPLE_BYTES)).bits_per_byte
        for language, documents in probe.texts.items()
        if any(documents)
    }
    replies: Replies = check_replies(model, job.tokens.tokenizer, probe.turns())
    del model
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return {"bits_per_byte": bits, "replies": replies.to_dict()}


def best_scale(rows: Sequence[Mapping[str, Any]]) -> float:
    """The module's rule; ``rows`` begin with the adapted model's own, at scale 0, which is not chosen."""
    before, tried = rows[0]["bits_per_byte"], rows[1:]
    best = max(row["replies"]["good"] for row in tried)

    def cost(row: Mapping[str, Any]) -> float:
        ratios = [bits / before[language] for language, bits in row["bits_per_byte"].items()]
        mean = sum(ratios) / len(ratios)
        return mean if math.isfinite(mean) else math.inf

    near = [row for row in tried if row["replies"]["good"] >= best - NEAR]
    return float(min(near, key=lambda row: (cost(row), row["scale"]))["scale"])
