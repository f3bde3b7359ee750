"""What token distillation buys before and along a training, its own time counted.

The English base model, tokenizers, stores, vectors and held-out texts are those that `benches/initialisers.py prepare`
makes; swapped to German and to Arabic and trained on target text alone, as there. Beside FOCUS, which `distill` begins
with, stand two lessons that are much shorter than the default: snippets until each new token was shown once, and the
first 500 of these. All new tokens twenty times, the default, would take longer than these trainings.

- `steps`: every arm for the same number of steps, its lesson not counted.
- `time`: as many steps as fit into the CPU seconds of FOCUS after the lesson, with a schedule that long; lessons that
  leave none are left out.

    python benches/distill.py run --out runs/initialisers --rows docs/runs/distill.jsonl
    python benches/distill.py table --rows docs/runs/distill.jsonl

Resumable: rows that are there are not made again.
"""

from __future__ import annotations

import itertools
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from initialisers import LANGUAGES, SEEDS, STEPS, TRAIN, VECTORS, Experiment
from row_files import RowFile, read_rows
from small_base import commands
from tables import markdown
from transformers import AutoModelForCausalLM

from langadapt.evaluation.bits_per_byte import bits_per_byte
from langadapt.machine import versions
from langadapt.recipe.plain_values import build
from langadapt.store import TokenStore
from langadapt.swap.distill import DistillSettings, distil_rows
from langadapt.swap.loaded import swap_tokenizer
from langadapt.swap.rows.options import SwapOptions
from langadapt.tokenizer.encoder import Tokenizer
from langadapt.training import StoreShare, TrainSettings
from langadapt.training.rehearsal import rehearse
from langadapt.vectors.cbow import load_vectors

FOCUS = "focus"
ARMS = {
    FOCUS: None,
    "distill, all once": DistillSettings(each=1),
    "distill, 500 snippets": DistillSettings(each=1, most=500),
}
PARTS = ("steps", "time")
FIRST = 50
"""The step that is measured on the way."""


class Course:
    """A language, and what its trainings share."""

    def __init__(self, experiment: Experiment, language: str) -> None:
        self.experiment, folder = experiment, experiment.sides[language].folder
        self.tokenizer = Tokenizer.from_pretrained(folder / "tokenizer")
        self.store, self.vectors = folder / "stores" / "target-new", load_vectors(folder / "vectors.safetensors")
        self.texts = experiment.watched(language)

    def lesson(self, arm: str, swap: SwapOptions) -> tuple[SwapOptions, dict[str, float]]:
        """The swap of an arm, and what it cost."""
        settings = ARMS[arm]
        if settings is None:
            return swap, {"tokens": 0, "cpu_seconds": 0.0}
        begun = time.process_time()
        rows = distil_rows(
            self.experiment.base,
            TokenStore.open(self.store),
            self.experiment.tokenizer,
            self.tokenizer,
            settings=settings,
            swap=swap,
        )
        cost = {"tokens": rows.tokens, "cpu_seconds": round(time.process_time() - begun, 1)}
        return swap.updated({"method": "distill", "learnt_rows": rows}), cost

    def train(self, swap: SwapOptions, steps: int) -> dict[str, Any]:
        """Swap and train; bits per byte at the marks, CPU seconds without measuring."""
        model = AutoModelForCausalLM.from_pretrained(self.experiment.base, dtype=torch.float32)
        swap_tokenizer(model, self.experiment.tokenizer, self.tokenizer, swap=swap)
        marks, measuring = {}, 0.0

        def validate(trained: Any, step: int) -> dict[str, float]:
            nonlocal measuring
            if step in (0, FIRST, steps):
                at = time.process_time()
                marks[str(step)] = {
                    which: round(bits_per_byte(trained, self.tokenizer, some, window=256), 5)
                    for which, some in self.texts.items()
                }
                measuring += time.process_time() - at
            return {}

        changes = {"steps": steps, "validate_every": FIRST, "seed": swap.seed}
        settings = build(TrainSettings, TRAIN | changes, "train.")
        begun = time.process_time()
        rehearse(model, [StoreShare(self.store, 1.0, "target")], settings, tokenizer=self.tokenizer, validate=validate)
        return {"steps": steps, "cpu_seconds": round(time.process_time() - begun - measuring, 1), "marks": marks}


def run(experiment: Experiment, file: Path) -> None:
    """All rows that are not there yet, one seed after the other."""
    courses = {language: Course(experiment, language) for language in LANGUAGES}
    found = RowFile(file, {"train": TRAIN, "steps": STEPS, "vectors": VECTORS, "versions": versions()})
    for seed, language, arm in itertools.product(SEEDS, LANGUAGES, ARMS):
        rows = {(row["language"], row["arm"], row["seed"]): row for row in found.rows}
        if (language, arm, seed) in rows:
            continue
        course = courses[language]
        swap, cost = course.lesson(arm, SwapOptions(FOCUS, vectors=course.vectors, seed=seed))
        row = {"language": language, "arm": arm, "seed": seed, "lesson": cost, "steps": course.train(swap, STEPS)}
        if arm != FOCUS:
            rest = STEPS - round(STEPS * cost["cpu_seconds"] / rows[language, FOCUS, seed]["steps"]["cpu_seconds"])
            if rest > FIRST:
                row["time"] = course.train(swap, rest)
        found.add(row)


def table(file: Path) -> str:
    """Markdown: arms by language, means over the seeds; differences are to FOCUS with the same seed."""
    rows, lines = read_rows(file)[1], []
    for language in LANGUAGES:
        found = {(row["arm"], row["seed"]): row for row in rows if row["language"] == language}
        cells = []
        for part, arm in itertools.product(PARTS, ARMS):
            seeds = [seed for name, seed in found if name == arm and part in found[arm, seed]]
            if not seeds:
                continue
            mine, focus = ([found[name, seed] for seed in seeds] for name in (arm, FOCUS))
            steps = [round(statistics.mean(row[part]["steps"] for row in mine))]
            steps.append(
                round(statistics.mean(row["lesson"]["cpu_seconds"] + row[part]["cpu_seconds"] for row in mine))
            )
            shown = [part, arm, len(seeds), *steps]
            for which, at in (("target", 0), ("target", 1), ("target", 2), ("source", 2)):
                here = [list(row[part]["marks"].values())[at][which] for row in mine]
                there = [list(row["steps"]["marks"].values())[at][which] for row in focus]
                gaps = [a - b for a, b in zip(here, there, strict=True)]
                shown += [
                    f"{statistics.mean(here):.3f}",
                    "" if arm == FOCUS else f"{min(gaps):+.3f} to {max(gaps):+.3f}",
                ]
            cells.append(shown)
        heads = ["part", "arm", "seeds", "steps", "CPU s"]
        for name in ("target, 0", f"target, {FIRST}", "target, last", "source, last"):
            heads += [name, "against focus"]
        lines += ["", f"{language.capitalize()}:", "", markdown(heads, cells, words=(0, 1)).rstrip()]
    return "\n".join(lines).strip()


def measure(data: Path, out: Path, rows: Path | None) -> None:
    """Make the fixed part, and the rows that are missing."""
    experiment = Experiment(data, out)
    if rows is not None:
        run(experiment, rows)


if __name__ == "__main__":
    commands(__doc__, "distill", measure, table)
