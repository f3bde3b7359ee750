"""Scarce text: how often does repeating it pay, and does it pay more beside text of the other language?

An English base model, made here, is swapped to a German tokenizer (rows by `subword_mean`, which sees no German) and
trained on a sub-sample of German, a seed's own, read 1 to 16 times, alone or beside as many tokens of English that are
never repeated. `unique` reads as many tokens of German that are all different: what the repeats stand for. Each
arm is a whole run with its own schedule. `table` has the rankings by the rules of `langadapt plan` beside the measured
ones.

    python benches/repeats.py prepare --out runs/repeats
    OMP_NUM_THREADS=1 python benches/repeats.py run --out runs/repeats --rows docs/runs/repeats.jsonl
    python benches/repeats.py table --rows docs/runs/repeats.jsonl

Resumable: rows that are there are not made again.
"""

from __future__ import annotations

import itertools
import logging
import random
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from row_files import RowFile, read_rows
from small_base import BASE, CORPUS, STEP_TOKENS, TOKENIZER, TRAIN, WINDOW, commands
from tables import markdown
from texts import byte_count, corpus, first_texts
from transformers import AutoModelForCausalLM

from langadapt.artefacts.stages import Run
from langadapt.corpus.build import build_corpus
from langadapt.corpus.documents import read_documents
from langadapt.demo.scratch import train_from_scratch
from langadapt.evaluation.bits_per_byte import bits_per_byte
from langadapt.machine import describe_device, versions
from langadapt.store import tokenize_corpus
from langadapt.swap.files import swap_folder
from langadapt.tokenizer.encoder import Tokenizer
from langadapt.tokenizer.training import train_bpe
from langadapt.training import StoreShare, TrainSettings, repetition
from langadapt.training.rehearsal import rehearse

SEEDS = (1, 2, 3)
SIZES = (8_192, 32_768)
"""Tokens of German that there are."""
REPEATS = {8_192: (1, 2, 4, 8, 16), 32_768: (1, 4, 16)}
UNIQUE = {8_192: (4, 16), 32_768: (4,)}
PIECE = 2_000
"""Characters of a document that are taken at most: a sample of few whole books would be one of few subjects."""
MEASURED_BYTES = 40_000
PARAMETERS = 0.73e6


@dataclass(frozen=True)
class Arm:
    """What is read."""

    size: int
    """Different tokens of German, of which there are so many."""
    repeats: int
    english: bool = False
    """As many tokens of English beside it."""
    unique: bool = False
    """Tokens of German that are all different in place of repeats."""

    @property
    def target_tokens(self) -> int:
        """Of German, repeats included."""
        return self.size * self.repeats

    @property
    def tokens(self) -> int:
        """In all."""
        return self.target_tokens * (2 if self.english else 1)


def arms(size: int) -> Iterator[Arm]:
    """All of a size."""
    yield from (Arm(size, repeats, english) for repeats in REPEATS[size] for english in (False, True))
    yield from (Arm(size, repeats, unique=True) for repeats in UNIQUE[size])


class Experiment:
    """The base model, a German tokenizer, the swapped model, English under the new tokenizer, held-out text."""

    def __init__(self, data: Path, out: Path) -> None:
        self.out = out
        english, german = str(corpus("en", data)), str(corpus("de", data))
        run = Run(out / "english-base", logging.info)
        with run.locked():
            self.base = train_from_scratch(run, [english], BASE)
        folder = out / "german"
        if not folder.exists():
            build_corpus([german], folder, **CORPUS)
        self.texts = {"target": folder, "source": out / "english-base" / "corpus"}
        if not (out / "tokenizer").exists():
            train_bpe([str(folder / "train.jsonl.zst")], **TOKENIZER).save_pretrained(out / "tokenizer")
        self.tokenizer = Tokenizer.from_pretrained(out / "tokenizer")
        self.swapped = out / "swapped"
        if not self.swapped.exists():
            swap_folder(self.base, out / "tokenizer", self.swapped, method="subword_mean")
        self.english = out / "english-store"
        if not self.english.exists():
            tokenize_corpus(self.pieces("source", 0, max(SIZES) * 16), self.tokenizer, self.english)
        self.held_out = {
            side: first_texts(text / "validation.jsonl.zst", MEASURED_BYTES, byte_count)
            for side, text in self.texts.items()
        }

    def pieces(self, side: str, seed: int, tokens: int) -> Iterator[str]:
        """Beginnings of documents in a seed's order, until they come to ``tokens``."""
        documents = list(read_documents([str(self.texts[side] / "train.jsonl.zst")]))
        starts = [(number, at) for number, text in enumerate(documents) for at in range(0, len(text), PIECE)]
        random.Random(seed).shuffle(starts)
        left = tokens
        for number, at in starts:
            piece = documents[number][at : at + PIECE]
            yield piece
            # A start token goes with each.
            left -= len(self.tokenizer.encode(piece)) + 1
            if left <= 0:
                return
        raise ValueError(f"{side}: {tokens} tokens are more than there are")

    def store(self, seed: int, tokens: int) -> Path:
        """A seed's sub-sample of German; a smaller one is the beginning of a larger one."""
        out = self.out / "stores" / f"german-{seed}-{tokens}"
        if not out.exists():
            tokenize_corpus(self.pieces("target", seed, tokens), self.tokenizer, out)
        return out

    def run(self, arm: Arm, seed: int) -> dict[str, Any]:
        """One row."""
        stores = [StoreShare(self.store(seed, arm.target_tokens if arm.unique else arm.size), 1.0, "target")]
        if arm.english:
            stores.append(StoreShare(self.english, 1.0, "source"))
        model = AutoModelForCausalLM.from_pretrained(self.swapped, dtype=torch.float32)
        settings = TrainSettings(**TRAIN, steps=-(-arm.tokens // STEP_TOKENS), seed=seed)
        begun = time.process_time()
        result = rehearse(model, stores, settings, tokenizer=self.tokenizer)
        seconds = round(time.process_time() - begun, 1)
        bits = {
            side: round(bits_per_byte(model, self.tokenizer, texts, window=WINDOW), 5)
            for side, texts in self.held_out.items()
        }
        about = {name: getattr(arm, name) for name in ("size", "repeats", "english", "unique")}
        return about | {"seed": seed, "bits_per_byte": bits, "steps": result.steps, "cpu_seconds": seconds}


def key(row: dict[str, Any]) -> tuple[Any, ...]:
    """What a row is of."""
    return tuple(row[name] for name in ("size", "repeats", "english", "unique", "seed"))


def run(experiment: Experiment, file: Path) -> None:
    """All rows that are not there yet, written as they come; the small size first."""
    about = {"base": BASE, "train": TRAIN, "measured_bytes": MEASURED_BYTES, "versions": versions()}
    found = RowFile(file, about | {"device": describe_device(), "threads": 1})
    done = {key(row) for row in found.rows}
    for size, seed in itertools.product(SIZES, SEEDS):
        for arm in arms(size):
            if (arm.size, arm.repeats, arm.english, arm.unique, seed) not in done:
                found.add(experiment.run(arm, seed))


def means(rows: list[dict[str, Any]]) -> dict[Arm, dict[str, list[float]]]:
    """Values of the seeds by arm and side."""
    found: dict[Arm, dict[str, list[float]]] = {}
    for row in rows:
        arm = Arm(*(row[name] for name in ("size", "repeats", "english", "unique")))
        for side, bits in row["bits_per_byte"].items():
            found.setdefault(arm, {}).setdefault(side, []).append(bits)
    return found


def predicted(arm: Arm, harm: bool) -> float:
    """What ranks an arm, lower is better: minus its effective tokens, by the worth of passes alone, or with those past
    the best number of passes counted as harm."""
    best = repetition.best_passes(PARAMETERS, arm.size)
    excess = max(arm.repeats - best, 0.0) if harm else 0.0
    return -arm.size * (repetition.worth_of_passes(arm.repeats - excess) - excess)


def table(file: Path) -> str:
    """Markdown: arms of each size, and how well the two rules rank those that repeat."""
    lines: list[str] = []
    found = means(read_rows(file)[1])
    for size in dict.fromkeys(arm.size for arm in found):
        mine = {arm: sides for arm, sides in found.items() if arm.size == size}
        cells = []
        for arm, sides in sorted(mine.items(), key=lambda item: (item[0].unique, item[0].english, item[0].repeats)):
            text = "different text" if arm.unique else f"{arm.repeats} times"
            values = [spread(sides[side]) for side in ("target", "source")]
            cells.append(
                [text + (" + English" if arm.english else ""), f"{arm.tokens:,}", len(sides["target"]), *values]
            )
        lines += ["", f"{size:,} tokens of German:", ""]
        lines.append(markdown(["read", "tokens", "seeds", "German", "English"], cells).rstrip())
        for english in (False, True):
            arms = [arm for arm in mine if arm.english == english and not arm.unique]
            measured = sorted(arms, key=lambda arm: statistics.fmean(mine[arm]["target"]))
            orders = [
                measured,
                *(sorted(arms, key=lambda arm, harm=harm: predicted(arm, harm)) for harm in (False, True)),
            ]
            told = [", ".join(str(arm.repeats) for arm in order) for order in orders]
            beside = "beside English" if english else "alone"
            lines += ["", f"Best first, {beside}: measured {told[0]}; by worth {told[1]}; with harm {told[2]}."]
    return "\n".join(lines).strip()


def spread(values: list[float]) -> str:
    """Mean, and half the range over seeds."""
    around = f" ± {(max(values) - min(values)) / 2:.3f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{around}"


def measure(data: Path, out: Path, rows: Path | None) -> None:
    """Make the fixed part, and the rows that are missing."""
    experiment = Experiment(data, out)
    if rows is not None:
        run(experiment, rows)


if __name__ == "__main__":
    commands(__doc__, "repeats", measure, table)
