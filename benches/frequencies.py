"""What logits that know how often new tokens come are worth before and along a training, their own cost taken off.

The English base model, tokenizers, stores, vectors and held-out texts are those that `benches/initialisers.py prepare`
makes; swapped to German and to Arabic and trained on target text alone, as there. The shifted arms train for as many
steps less as the shift took, by the CPU seconds of a step of the same method without it.

    OMP_NUM_THREADS=1 python benches/frequencies.py run --out runs/initialisers --rows docs/runs/frequencies.jsonl
    python benches/frequencies.py table --rows docs/runs/frequencies.jsonl

Resumable: rows that are there are not made again.
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from pathlib import Path
from typing import Any

from distill import FIRST, Course
from initialisers import LANGUAGES, SEEDS, STEPS, TRAIN, VECTOR_METHODS, VECTORS, Experiment
from row_files import RowFile, read_rows
from small_base import commands
from tables import markdown

from langadapt.machine import versions
from langadapt.store import TokenStore
from langadapt.swap.frequencies import fit_frequencies
from langadapt.swap.rows.options import SwapOptions

METHODS = ("focus",)
SHIFTED = ", shifted"


def swap_of(course: Course, method: str, seed: int) -> SwapOptions:
    """By ``method``, with what it needs."""
    return SwapOptions(method, seed=seed, vectors=course.vectors if method in VECTOR_METHODS else None)


def measured(course: Course, arm: str, seed: int, second: float) -> dict[str, Any]:
    """A row; ``second``: CPU seconds of a step without a shift."""
    swap, cost = swap_of(course, arm.removesuffix(SHIFTED), seed), 0.0
    if arm.endswith(SHIFTED):
        begun = time.process_time()
        where = (course.experiment.base, TokenStore.open(course.store), course.experiment.tokenizer, course.tokenizer)
        swap = swap.updated({"logit_shift": fit_frequencies(*where, swap=swap)})
        cost = time.process_time() - begun
    steps = STEPS - (math.ceil(cost / second) if cost else 0)
    return {"shift_seconds": round(cost, 2), **course.train(swap, steps)}


def run(experiment: Experiment, file: Path) -> None:
    """All rows that are not there yet, one seed after the other."""
    courses = {language: Course(experiment, language) for language in LANGUAGES}
    found = RowFile(file, {"train": TRAIN, "steps": STEPS, "vectors": VECTORS, "versions": versions()})
    arms = [method + end for method in METHODS for end in ("", SHIFTED)]
    for seed, language, arm in itertools.product(SEEDS, LANGUAGES, arms):
        rows = {(row["language"], row["arm"], row["seed"]): row for row in found.rows}
        if (language, arm, seed) in rows:
            continue
        plain = rows.get((language, arm.removesuffix(SHIFTED), seed))
        second = plain["cpu_seconds"] / plain["steps"] if plain else 1.0
        found.add({"language": language, "arm": arm, "seed": seed, **measured(courses[language], arm, seed, second)})


def table(file: Path) -> str:
    """Markdown: arms by language, means over the seeds; differences are to the method alone with the same seed."""
    rows, lines = read_rows(file)[1], []
    for language in LANGUAGES:
        found = {(row["arm"], row["seed"]): row for row in rows if row["language"] == language}
        cells = []
        for arm in dict.fromkeys(arm for arm, _ in found):
            seeds = [seed for name, seed in found if name == arm]
            mine = [found[arm, seed] for seed in seeds]
            plain = [found[arm.removesuffix(SHIFTED), seed] for seed in seeds]
            shown = [arm, len(seeds)]
            shown += [f"{statistics.mean(row[key] for row in mine):.1f}" for key in ("steps", "shift_seconds")]
            for which, at in (("target", 0), ("target", 1), ("target", 2), ("source", 2)):
                here, there = ([list(row["marks"].values())[at][which] for row in group] for group in (mine, plain))
                gaps = [a - b for a, b in zip(here, there, strict=True)]
                shown += [f"{statistics.mean(here):.3f}", f"{min(gaps):+.3f} to {max(gaps):+.3f}" if any(gaps) else ""]
            cells.append(shown)
        heads = ["rows by", "seeds", "steps", "shift, CPU s"]
        for name in ("target, 0", f"target, {FIRST}", "target, last", "source, last"):
            heads += [name, "against unshifted"]
        lines += ["", f"{language.capitalize()}:", "", markdown(heads, cells).rstrip()]
    return "\n".join(lines).strip()


def measure(data: Path, out: Path, rows: Path | None) -> None:
    """Make the fixed part, and the rows that are missing."""
    experiment = Experiment(data, out)
    if rows is not None:
        run(experiment, rows)


if __name__ == "__main__":
    commands(__doc__, "frequencies", measure, table)
