"""The paper's table of precisions in small: {own tokenizer, swapped} x {pure bf16 by every rounding, mixed}.

`int8` is the default, stochastic rounding, with states of a byte.

The English base model (3.8M parameters), the German tokenizer, stores and held-out texts are those that
`benches/initialisers.py prepare` makes; the swap is FOCUS, once, in fp32. Every run is continued pretraining on German
alone; weights start as bf16. A seed decides the data order and the random bits of the rounding. Measured on the
exported bf16 model: bits per byte of German and of English text that no model was trained on.

- `steps`: every arm for the same number of steps.
- `time`: the slower arms for as many steps as they make in the CPU seconds of `nearest`, with a schedule that long.
- `anneal`: constant rate in pure bf16 (nearest), then the rate falls to its minimum in pure bf16 or in mixed
  precision, from the same weights and with a fresh optimizer.

The rate falls to a thirtieth of its peak, below half a bf16 unit of most weights, so that roundings can differ; the
share of weights that a step left as they were is kept, of the first, middle and last measured step and on average.

    python benches/precision.py run --prepared runs/initialisers --rows docs/runs/precision.jsonl
    python benches/precision.py table --rows docs/runs/precision.jsonl > docs/runs/precision.md

Resumable: rows that are there are not made again.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from row_files import RowFile, read_rows
from tables import markdown
from texts import byte_count, first_texts
from transformers import AutoModelForCausalLM

from langadapt.evaluation.bits_per_byte import bits_per_byte
from langadapt.machine import describe_device, versions
from langadapt.swap.loaded import swap_tokenizer
from langadapt.tokenizer.encoder import Tokenizer
from langadapt.training import StoreShare, TrainSettings, train_model
from langadapt.vectors.cbow import load_vectors

SEEDS = (1, 2, 3)
TOKENIZERS = ("own", "swapped")
PRECISIONS: dict[str, dict[str, Any]] = {
    **{name: {"precision": "pure-bf16", "rounding": name} for name in ("nearest", "stochastic", "kahan", "split")},
    "mixed": {"precision": "mixed-bf16"},
    "int8": {"precision": "pure-bf16", "rounding": "stochastic", "states": "int8"},
}
STEPS, ANNEAL_STEPS = 120, 40
TRAIN: dict[str, Any] = {
    "sequence_length": 256,
    "batch_sequences": 4,
    "micro_batch": 4,
    "learning_rate": 3.0e-4,
    "min_learning_rate": 1.0e-5,
    "schedule": "cosine",
    "warmup": 0.05,
    "weight_decay": 0.05,
    "checkpoint_minutes": None,
    "log_every": 10,
    "stale_every": 10,
    "threads": 1,
}
MEASURED_BYTES = 40_000


class Experiment:
    """The base model as it is and swapped, German stores, held-out texts."""

    def __init__(self, prepared: Path, work: Path) -> None:
        self.side, self.work = prepared / "german", work
        base = prepared / "english-base" / "trained" / "final"
        self.models = {"own": base, "swapped": work / "swapped"}
        self.tokenizers = {
            "own": Tokenizer.from_pretrained(base),
            "swapped": Tokenizer.from_pretrained(self.side / "tokenizer"),
        }
        if not self.models["swapped"].exists():
            self.swap()
        self.texts = {
            language: first_texts(self.side / "corpus" / folder / "validation.jsonl.zst", MEASURED_BYTES, byte_count)
            for language, folder in (("german", "target"), ("english", "source"))
        }

    def swap(self) -> None:
        """FOCUS with the prepared vectors."""
        model: Any = AutoModelForCausalLM.from_pretrained(self.models["own"], dtype=torch.float32)
        vectors = load_vectors(self.side / "vectors.safetensors")
        swap_tokenizer(model, *self.tokenizers.values(), method="focus", vectors=vectors, seed=1)
        self.work.mkdir(parents=True, exist_ok=True)
        model.to(torch.bfloat16).save_pretrained(self.models["swapped"])

    def measure(self, model: Path, which: str) -> dict[str, float]:
        """Bits per byte of both languages."""
        loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16)
        tokenizer = self.tokenizers[which]
        return {
            language: round(bits_per_byte(loaded, tokenizer, texts, window=256), 5)
            for language, texts in self.texts.items()
        }

    def train(self, start: Path, which: str, name: str, seed: int, **changes: Any) -> dict[str, Any]:
        """One training run: its final folder, and what a row says of it."""
        out = self.work / name
        shutil.rmtree(out, ignore_errors=True)
        store = self.side / "stores" / ("target-own" if which == "own" else "target-new")
        begun = time.process_time()
        settings = TrainSettings(**{**TRAIN, **changes, "seed": seed})
        result = train_model(start, [StoreShare(store, 1.0, "german")], out, settings, tokenizer=self.tokenizers[which])
        seconds = round(time.process_time() - begun, 2)
        lines = [json.loads(line) for line in (out / "log.jsonl").read_text("utf-8").splitlines()]
        stale = [line["stale_share"] for line in lines if "stale_share" in line]
        row = {"steps": result.steps, "tokens": result.tokens, "cpu_seconds": seconds, "loss": round(result.loss, 5)}
        if stale:
            row["stale"] = {
                "first": stale[0],
                "middle": stale[len(stale) // 2],
                "last": stale[-1],
                "mean": round(statistics.fmean(stale), 4),
            }
        return row | {"final": result.final}

    def run(self, part: str, which: str, arm: str, seed: int, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """One row."""
        if part == "start":
            row: dict[str, Any] = {"final": self.models[which]}
        elif part == "anneal":
            constant = {"schedule": "constant", **PRECISIONS["nearest"], "steps": STEPS - ANNEAL_STEPS}
            before = self.work / f"constant-{which}-{seed}"
            if not (before / "final").exists():
                self.train(self.models[which], which, before.name, seed, **constant)
            falling = {"schedule": "linear", "warmup": 0.0, "steps": ANNEAL_STEPS}
            row = self.train(before / "final", which, "run", seed + 100, **falling, **PRECISIONS[arm])
        else:
            steps = STEPS if part == "steps" else steps_in_time(rows, which, arm, seed)
            row = self.train(self.models[which], which, "run", seed, steps=steps, **PRECISIONS[arm])
        measured = self.measure(Path(row.pop("final")), which)
        return {"part": part, "tokenizer": which, "precision": arm, "seed": seed, "bits_per_byte": measured, **row}


def steps_in_time(rows: list[dict[str, Any]], which: str, arm: str, seed: int) -> int:
    """Steps that an arm makes in the CPU seconds of `nearest`, by the runs of equal steps."""
    seconds = {
        name: statistics.median(
            row["cpu_seconds"]
            for row in rows
            if (row["part"], row["tokenizer"], row["precision"]) == ("steps", which, name)
        )
        for name in ("nearest", arm)
    }
    return max(round(STEPS * seconds["nearest"] / seconds[arm]), 1)


def order() -> list[tuple[str, str, str, int]]:
    """Whole seeds first, so that an unfinished experiment is a smaller one."""
    arms = [(which, arm) for which in TOKENIZERS for arm in PRECISIONS]
    slower = [(which, arm) for which, arm in arms if arm != "nearest"]
    jobs = [("start", which, "none", 0) for which in TOKENIZERS]
    for seed in SEEDS:
        jobs += [("steps", *arm, seed) for arm in arms]
        jobs += [("anneal", "swapped", arm, seed) for arm in ("nearest", "mixed")]
        jobs += [("time", *arm, seed) for arm in slower] if seed == SEEDS[0] else []
    return jobs + [("time", *arm, seed) for seed in SEEDS[1:] for arm in slower]


def run(prepared: Path, work: Path, file: Path, parts: list[str]) -> None:
    """All rows that are not there yet, written as they come."""
    experiment = Experiment(prepared, work)
    about = {"train": TRAIN, "steps": STEPS, "anneal_steps": ANNEAL_STEPS, "versions": versions()}
    found = RowFile(file, about | {"device": describe_device(), "threads": 1})
    done = {(row["part"], row["tokenizer"], row["precision"], row["seed"]) for row in found.rows}
    for job in order():
        if job in done or (parts and job[0] not in parts):
            continue
        found.add(experiment.run(*job, found.rows))


def spread(values: list[float]) -> str:
    """Mean, and the standard deviation over seeds."""
    if not values:
        return "-"
    deviation = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.4f}{deviation}"


def table(file: Path) -> str:
    """The rows as Markdown."""
    _, rows = read_rows(file)
    heads = ["part", "tokenizer", "precision", "seeds", "steps", "CPU s", "German bits per byte", "English"]
    cells = []
    for part, which, arm in dict.fromkeys((row["part"], row["tokenizer"], row["precision"]) for row in rows):
        chosen = [row for row in rows if (row["part"], row["tokenizer"], row["precision"]) == (part, which, arm)]
        bits = [spread([row["bits_per_byte"][name] for row in chosen]) for name in ("german", "english")]
        stale = [row["stale"] for row in chosen if "stale" in row]
        shares = ", ".join(f"{statistics.fmean(one[key] for one in stale):.0%}" for key in ("mean", "last") if stale)
        numbers = [
            str(round(statistics.median(row[key] for row in chosen))) if key in chosen[0] else "-"
            for key in ("steps", "cpu_seconds")
        ]
        cells.append([part, which, arm, len(chosen), *numbers, *bits, shares or "-"])
    return markdown([*heads, "stale: mean, last"], cells, words=(0, 1, 2)).rstrip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("run", "table"))
    parser.add_argument("--prepared", type=Path, default=Path("runs/initialisers"), help="of initialisers.py prepare")
    parser.add_argument("--work", type=Path, default=Path("runs/precision"), help="for the swapped model and runs")
    parser.add_argument("--rows", type=Path, default=Path("docs/runs/precision.jsonl"))
    parser.add_argument("--parts", nargs="*", default=[], help="only these: start, steps, time, anneal")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if arguments.command == "run":
        torch.set_num_threads(1)
        run(arguments.prepared, arguments.work, arguments.rows, arguments.parts)
    else:
        print(table(arguments.rows))


if __name__ == "__main__":
    main()
