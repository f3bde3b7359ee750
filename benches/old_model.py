"""What the old model can still do for the new one: teach its rows, teach replayed text, keep the columns it needs.

An English base model, made here, is swapped to German and to Arabic and trained on target text with a tenth of English
beside it. Each arm changes one thing of the present default, or all of them.

    python benches/old_model.py prepare --data ../shared/data --out runs/old-model
    OMP_NUM_THREADS=1 python benches/old_model.py run --out runs/old-model --rows docs/runs/old_model.jsonl
    python benches/old_model.py table --rows docs/runs/old_model.jsonl

Resumable: rows that are there are not made again.
"""

from __future__ import annotations

import itertools
import logging
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from row_files import RowFile, read_rows
from small_base import BASE, CORPUS, TOKENIZER, TRAIN, commands
from tables import markdown
from texts import byte_count, first_texts

from langadapt.artefacts.stages import Run
from langadapt.demo.scratch import train_from_scratch
from langadapt.evaluation.bits_per_byte import bits_per_byte
from langadapt.machine import versions
from langadapt.models.folder import load_model
from langadapt.pipeline import text
from langadapt.pipeline.job import Job
from langadapt.recipe.plain_values import build
from langadapt.recipe.recipe import Recipe
from langadapt.swap.loaded import swap_tokenizer
from langadapt.tokenizer.encoder import Tokenizer
from langadapt.training import StoreShare, TrainSettings
from langadapt.training.job import OldModel
from langadapt.training.rehearsal import rehearse
from langadapt.vectors.cbow import load_vectors

SEEDS = (1, 2, 3)
SIDES = ("target", "source")
STEPS, MARKS = 160, (0, 50, 160)
MEASURED_BYTES = 20_000
LANGUAGES = {"german": "de", "arabic": "ar"}
VECTORS = {"dim": 64, "epochs": 2, "min_count": 10, "threads": 1}


class Prepared:
    """The fixed part: one base model; per language a corpus, a tokenizer, stores and vectors."""

    def __init__(self, data: Path, out: Path) -> None:
        self.data, self.out = data, out
        self.english = str(data / "corpus" / "en.jsonl.zst")
        run = Run(out / "english-base", logging.info)
        with run.locked():
            self.base = train_from_scratch(run, [self.english], BASE)
        self.tokenizer = Tokenizer.from_pretrained(self.base)
        self.sides = {language: self.side(language) for language in LANGUAGES}

    def side(self, language: str) -> Job:
        """Everything of a language up to its vectors, by the stages of a recipe."""
        recipe = build(
            Recipe,
            {
                "name": language,
                "model": str(self.base),
                "out": str(self.out / language),
                "corpus": {
                    "target": [str(self.data / "corpus" / f"{LANGUAGES[language]}.jsonl.zst")],
                    "source": [self.english],
                    "source_share": 0.1,
                    **CORPUS,
                },
                "tokenizer": TOKENIZER,
                "vectors": VECTORS,
                "train": {"sequence_length": 128},
                "seed": 1,
            },
            "",
        )
        side = Job(recipe, Run(Path(recipe.out), logging.info), self.base)
        with side.run.locked():
            corpora = text.corpora(side)
            tokenizer = text.tokenizer(side, corpora)
            stores = text.stores(side, corpora, tokenizer)
            text.vectors(side, stores[0].store)
        return side


@dataclass(frozen=True)
class Arm:
    """What differs from the default."""

    method: str = "focus"
    train: tuple[tuple[str, Any], ...] = ()
    share: float = 0.1
    """Of English."""


ARMS = {
    "default": Arm(),
    "protect 0.5": Arm(train=(("protect", 0.5),)),
    "kl": Arm(train=(("replay_loss", "kl"),)),
    "embeddings": Arm(train=(("parts", "embeddings"),)),
    "protect, kl": Arm(train=(("protect", 0.5), ("replay_loss", "kl"))),
}


def measured(prepared: Prepared, language: str, name: str, seed: int) -> dict[str, Any]:
    """One row: swap, train, measure at the marks; CPU seconds are of training alone."""
    arm, side = ARMS[name], prepared.sides[language]
    tokenizer = Tokenizer.from_pretrained(side.folder / "tokenizer")
    model = load_model(prepared.base, dtype=torch.float32)
    swap_tokenizer(
        model,
        prepared.tokenizer,
        tokenizer,
        method=arm.method,
        seed=seed,
        vectors=load_vectors(side.folder / "vectors.safetensors"),
    )
    corpus = side.folder / "corpus"
    texts = {which: first_texts(corpus / which / "validation.jsonl.zst", MEASURED_BYTES, byte_count) for which in SIDES}
    marks: dict[str, dict[str, float]] = {}
    begun, measuring = time.process_time(), 0.0

    def validate(trained: Any, step: int) -> dict[str, float]:
        nonlocal measuring
        if step in MARKS:
            at = time.process_time()
            spent = at - begun - measuring
            bits = {
                which: round(bits_per_byte(trained, tokenizer, some, window=128), 5) for which, some in texts.items()
            }
            measuring += time.process_time() - at
            marks[str(step)] = {"cpu_seconds": round(spent, 1), **bits}
        return {}

    shares = {"target": 1 - arm.share, "source": arm.share}
    stores = [
        StoreShare(side.folder / "stores" / f"{which}-new", share, which) for which, share in shares.items() if share
    ]
    settings = build(TrainSettings, TRAIN | dict(arm.train) | {"steps": STEPS, "validate_every": 50, "seed": seed}, "")
    old = OldModel(prepared.base, [str(corpus / "source" / "train.jsonl.zst")])
    rehearse(model, stores, settings, tokenizer=tokenizer, validate=validate, old=old)
    return {"language": language, "arm": name, "seed": seed, "marks": marks}


def run(prepared: Prepared, file: Path) -> None:
    """All rows that are not there yet, one seed after the other."""
    about = {"base": BASE, "train": TRAIN, "steps": STEPS, "vectors": VECTORS, "versions": versions()}
    found = RowFile(file, about)
    done = {(row["language"], row["arm"], row["seed"]) for row in found.rows}
    for seed, language, name in itertools.product(SEEDS, LANGUAGES, ARMS):
        if (language, name, seed) not in done:
            found.add(measured(prepared, language, name, seed))


def table(file: Path) -> str:
    """Markdown: arms by language, mean over seeds; differences are to the default of the same seed."""
    rows, lines, last = read_rows(file)[1], [], str(MARKS[-1])
    for language in LANGUAGES:
        found = {(row["arm"], row["seed"]): row["marks"][last] for row in rows if row["language"] == language}
        cells = []
        for arm in ARMS:
            seeds = [seed for name, seed in found if name == arm and ("default", seed) in found]
            if not seeds:
                continue
            shown = [arm, len(seeds)]
            for side in SIDES:
                here = [found[arm, seed][side] for seed in seeds]
                gaps = [found[arm, seed][side] - found["default", seed][side] for seed in seeds]
                shown += [f"{statistics.mean(here):.3f}", f"{statistics.mean(gaps):+.3f}"]
            cells.append([*shown, f"{statistics.mean(found[arm, seed]['cpu_seconds'] for seed in seeds):.1f}"])
        heads = ["arm", "seeds", "target", "against the default", "source", "against the default", "CPU s"]
        lines += [f"{language.capitalize()}, {last} steps:", "", markdown(heads, cells)]
    return "\n".join(lines)


def measure(data: Path, out: Path, rows: Path | None) -> None:
    """Make the fixed part, and the rows that are missing."""
    prepared = Prepared(data, out)
    if rows is not None:
        run(prepared, rows)


if __name__ == "__main__":
    commands(__doc__, "old_model", measure, table)
