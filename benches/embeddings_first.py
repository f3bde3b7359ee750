"""Does a first phase that trains only embeddings pay? The new rows alone at a high rate, then everything.

The English base model, tokenizers, stores, vectors and held-out texts are those that `benches/initialisers.py prepare`
makes. The model is swapped to German and to Arabic, its rows made by FOCUS or worse, and trained on target
text alone. Every arm takes the same number of optimizer steps in all, of the same windows in the same order: what the
first phase takes is missing at the end. A seed decides the data order and the draws of rows.

- `none`: everything from the first step.
- `embeddings x 3`: the same, embeddings at three times the rate of all else throughout.
- `first 5 % x 10`: 5 % of the steps train the rows that were not copied from the source, at ten times the peak rate;
  then everything. `all rows`: that phase trains copied rows, too. Both kinds are combined once.

Rows by FOCUS at a peak of 1e-3 get all arms; rows by `mean` and `random`, other peaks, and the model with its own
tokenizer (`keep`) get some.

    python benches/embeddings_first.py run --prepared runs/initialisers --rows docs/runs/embeddings_first.jsonl
    python benches/embeddings_first.py table --rows docs/runs/embeddings_first.jsonl

Resumable: rows that are there are not made again. Seconds are of the process' CPU time, training alone.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from row_files import RowFile, read_rows
from tables import markdown
from texts import byte_count, first_texts
from transformers import AutoModelForCausalLM

from langadapt.evaluation.bits_per_byte import bits_per_byte
from langadapt.machine import describe_device, versions
from langadapt.models.folder import read_new_rows
from langadapt.swap.files import swap_folder
from langadapt.tokenizer.encoder import Tokenizer
from langadapt.training import StoreShare, TrainSettings
from langadapt.training.rehearsal import rehearse
from langadapt.vectors.cbow import load_vectors

SEEDS = (1, 2, 3)
LANGUAGES = ("german", "arabic")
STEPS, PEAK, LOW_PEAK, HIGH_PEAK = 160, 1.0e-3, 3.0e-4, 3.0e-3
KEEP = "keep"
"""Instead of a way to make rows: the model as it is, with its own tokenizer."""
MEASURED_BYTES = 30_000
TRAIN: dict[str, Any] = {
    "sequence_length": 256,
    "batch_sequences": 4,
    "micro_batch": 4,
    "schedule": "cosine",
    "warmup": 0.04,
    "weight_decay": 0.1,
    "precision": "mixed-bf16",
    "checkpoint_minutes": None,
    "stale_every": 0,
    "log_every": 10,
    "threads": 1,
}


@dataclass(frozen=True)
class Arm:
    """How the embeddings are treated; rates are multiples of the peak."""

    share: float = 0.0
    """Of the steps, with embeddings alone."""
    first: float = 0.0
    """Rate of that phase."""
    throughout: float = 1.0
    """Rate of the embeddings when everything is trained."""
    all_rows: bool = False
    """The first phase trains copied rows, too."""

    @property
    def name(self) -> str:
        """For the table."""
        parts = [f"first {self.share:.0%} x {self.first:g}".replace("%", " %")] if self.share else []
        parts += ["all rows"] if self.all_rows else []
        parts += [f"embeddings x {self.throughout:g}"] if self.throughout != 1 else []
        return ", ".join(parts) or "none"

    def settings(self, peak: float, seed: int) -> TrainSettings:
        """The run's; its steps and those of the first phase are :data:`STEPS` together."""
        first = round(self.share * STEPS)
        return TrainSettings(
            **TRAIN,
            steps=STEPS - first,
            learning_rate=peak,
            min_learning_rate=peak / 10,
            embedding_learning_rate=peak * self.throughout,
            embeddings_first_steps=first,
            embeddings_first_learning_rate=peak * self.first if first else None,
            new_rows_only=not self.all_rows,
            seed=seed,
        )


NONE, X3, X10 = Arm(), Arm(throughout=3), Arm(throughout=10)
SHORT_3, SHORT_10 = Arm(0.05, 3), Arm(0.05, 10)
LONG_3, LONG_10 = Arm(0.1, 3), Arm(0.1, 10)
BOTH, ALL_10 = Arm(0.05, 10, throughout=3), Arm(0.05, 10, all_rows=True)
ARMS = (NONE, X3, SHORT_10, LONG_10, X10, BOTH, SHORT_3, LONG_3, ALL_10)
RANDOM_ARMS = (NONE, X3, SHORT_10, BOTH, LONG_10)
LOW_ARMS = (NONE, X3, X10, SHORT_10, LONG_10)
SETS = (
    (PEAK, "focus", ARMS, 6),
    (PEAK, "random", RANDOM_ARMS, 4),
    (LOW_PEAK, "focus", LOW_ARMS, 4),
    (PEAK, "mean", (NONE, X3, BOTH), 3),
    (HIGH_PEAK, "focus", (NONE, X3), 2),
    (PEAK, KEEP, (NONE, X3), 2),
)
"""Peak, rows, arms, and how many of the arms get more than the first seed."""
Job = tuple[float, str, str, Arm, int]


def jobs() -> Iterator[Job]:
    """Whole seeds first, so that an unfinished experiment is a smaller one."""
    for seed, (peak, method, arms, more), language in itertools.product(SEEDS, SETS, LANGUAGES):
        yield from ((peak, language, method, arm, seed) for arm in (arms if seed == SEEDS[0] else arms[:more]))


class Experiment:
    """Swapped models, target stores, held-out texts."""

    def __init__(self, prepared: Path, work: Path) -> None:
        self.prepared, self.work = prepared, work
        self.base = prepared / "english-base" / "trained" / "final"
        self.texts = {
            language: {which: self.held_out(language, which) for which in ("target", "source")}
            for language in LANGUAGES
        }

    def held_out(self, language: str, which: str) -> list[str]:
        """:data:`MEASURED_BYTES` or a little more of them."""
        file = self.prepared / language / "corpus" / which / "validation.jsonl.zst"
        return first_texts(file, MEASURED_BYTES, byte_count)

    def swapped(self, language: str, method: str, seed: int) -> Path:
        """The swapped model's folder."""
        if method == KEEP:
            return self.base
        out = self.work / (f"{language}-{method}" if method == "focus" else f"{language}-{method}-{seed}")
        if not out.exists():
            side = self.prepared / language
            needed = {"vectors": load_vectors(side / "vectors.safetensors")} if method == "focus" else {}
            self.work.mkdir(parents=True, exist_ok=True)
            swap_folder(self.base, side / "tokenizer", out, method=method, seed=seed, **needed)
        return out

    def run(self, peak: float, language: str, method: str, arm: Arm, seed: int) -> dict[str, Any]:
        """One row."""
        folder = self.swapped(language, method, seed)
        tokenizer = Tokenizer.from_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        settings, new_rows = arm.settings(peak, seed), read_new_rows(folder)
        which = "target-own" if method == KEEP else "target-new"
        store = StoreShare(self.prepared / language / "stores" / which, 1.0, "target")
        begun = time.process_time()
        result = rehearse(model, [store], settings, tokenizer=tokenizer, new_rows=new_rows)
        seconds = round(time.process_time() - begun, 2)
        bits = {
            which: round(bits_per_byte(model, tokenizer, texts, window=256), 5)
            for which, texts in self.texts[language].items()
        }
        return {
            "peak": peak,
            "language": language,
            "rows": method,
            "arm": arm.name,
            "seed": seed,
            "bits_per_byte": bits,
            "first_steps": settings.embeddings_first_steps,
            "steps": result.steps,
            "new_rows": len(new_rows or ()),
            "cpu_seconds": seconds,
        }


def key(row: dict[str, Any]) -> tuple[Any, ...]:
    """What a row is of."""
    return tuple(row[name] for name in ("peak", "language", "rows", "arm", "seed"))


def run(prepared: Path, work: Path, file: Path) -> None:
    """All rows that are not there yet, written as they come."""
    experiment = Experiment(prepared, work)
    about = {"train": TRAIN, "steps": STEPS, "measured_bytes": MEASURED_BYTES, "versions": versions()}
    found = RowFile(file, about | {"device": describe_device(), "threads": 1})
    done = {key(row) for row in found.rows}
    for peak, language, method, arm, seed in jobs():
        if (peak, language, method, arm.name, seed) in done:
            continue
        found.add(experiment.run(peak, language, method, arm, seed))


def table(file: Path) -> str:
    """Markdown: one table per peak, language and kind of rows; differences to `none` are of the same seeds."""
    _, rows = read_rows(file)
    lines: list[str] = []
    known = {key(row)[:3] for row in rows}
    order = [(peak, language, method) for peak, method, _, _ in SETS for language in LANGUAGES]
    for peak, language, method in [group for group in order if group in known]:
        mine = [row for row in rows if key(row)[:3] == (peak, language, method)]
        lines += ["", f"{language.capitalize()}, rows by `{method}`, peak {peak:.0e}:".replace("e-0", "e-"), ""]
        heads, arms = ["arm", "seeds", "target", "against none", "source", "against none", "CPU s"], []
        plain = {row["seed"]: row["bits_per_byte"] for row in mine if row["arm"] == NONE.name}
        order_of = [arm.name for arm in (NONE, X3, X10, SHORT_3, SHORT_10, LONG_3, LONG_10, ALL_10, BOTH)]
        for arm in sorted({row["arm"] for row in mine}, key=order_of.index):
            chosen = [row for row in mine if row["arm"] == arm and row["seed"] in plain]
            cells = []
            for which in ("target", "source"):
                values = [row["bits_per_byte"][which] for row in chosen]
                cells.append(f"{statistics.fmean(values):.3f}")
                gains = [value - plain[row["seed"]][which] for value, row in zip(values, chosen, strict=True)]
                cells.append("" if arm == NONE.name else spread(gains))
            seconds = statistics.median(row["cpu_seconds"] for row in chosen)
            arms.append([arm, len(chosen), *cells, f"{seconds:.1f}"])
        lines.append(markdown(heads, arms).rstrip())
    return "\n".join(lines).strip()


def spread(values: list[float]) -> str:
    """Mean, and half the range over seeds."""
    around = f" ± {(max(values) - min(values)) / 2:.3f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):+.3f}{around}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("run", "table"))
    parser.add_argument("--prepared", type=Path, default=Path("runs/initialisers"), help="of initialisers.py prepare")
    parser.add_argument("--work", type=Path, default=Path("runs/embeddings-first"), help="for swapped models")
    parser.add_argument("--rows", type=Path, default=Path("docs/runs/embeddings_first.jsonl"))
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if arguments.command == "run":
        torch.set_num_threads(1)
        run(arguments.prepared, arguments.work, arguments.rows)
    else:
        print(table(arguments.rows))


if __name__ == "__main__":
    main()
