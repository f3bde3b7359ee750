"""Does LoRA pay? The body in full, low-rank matrices beside it, or nothing but the embeddings, at equal processor time.

An English base model as that of `benches/initialisers.py`, trained for a third of its steps, is swapped to German, its
rows by FOCUS, and trained on German alone. The time of a step is measured first, arms taking turns; each arm then gets
as many steps, with a whole schedule over them, as the time of :data:`STEPS` steps of training in full comes to.
Embeddings and output head are trained at the same rate in all arms. A seed decides the data order and the low-rank
matrices. What a run holds is counted in tensors: weights, gradients as they come, states of the optimizer.

    python benches/adapter.py prepare --data ../shared/data --out runs/adapter
    python benches/adapter.py run --out runs/adapter --rows docs/runs/adapter.jsonl
    python benches/adapter.py table --rows docs/runs/adapter.jsonl

Both are resumable. Seconds are of the process' CPU time, training alone.
"""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path
from typing import Any

import initialisers
import torch
from row_files import RowFile, read_rows
from small_base import commands
from tables import markdown
from texts import byte_count, first_texts
from transformers import AutoModelForCausalLM

from langadapt.evaluation.bits_per_byte import bits_per_byte
from langadapt.machine import describe_device, versions
from langadapt.swap.files import swap_folder
from langadapt.tokenizer.encoder import Tokenizer
from langadapt.training import StoreShare, TrainSettings
from langadapt.training.rehearsal import rehearse
from langadapt.training.resume import tensors_of
from langadapt.training.step import Stepper
from langadapt.vectors.cbow import load_vectors

BASE_STEPS = 400
STEPS, TIMED, SEEDS, MORE = 100, 12, (1, 2), 3
"""Steps of training in full; steps of which the first four are not counted, of each arm, for the time of one; seeds;
how many of the arms get more than the first seed."""
MEASURED_BYTES = 30_000
PEAK = 1.0e-3
TRAIN: dict[str, Any] = {
    "sequence_length": 256,
    "batch_sequences": 4,
    "micro_batch": 4,
    "learning_rate": PEAK,
    "min_learning_rate": PEAK / 10,
    "embedding_learning_rate": 3 * PEAK,
    "schedule": "cosine",
    "warmup": 0.04,
    "checkpoint_minutes": None,
    "stale_every": 0,
    "log_every": 10,
    "threads": 1,
}
ARMS: dict[str, dict[str, Any]] = {
    "full": {},
    "LoRA 16, rate x 3": {"adapter": {"rank": 16, "rate": 3.0}},
    "embeddings only": {"parts": "embeddings"},
    "LoRA 16, rate x 10": {"adapter": {"rank": 16, "rate": 10.0}},
    "LoRA 16, rate x 30": {"adapter": {"rank": 16, "rate": 30.0}},
}


def prepare(data: Path, prepared: Path) -> None:
    """The base model, and a German tokenizer, stores and vectors."""
    initialisers.BASE["train"]["steps"] = BASE_STEPS
    initialisers.LANGUAGES.pop("arabic", None)
    initialisers.Experiment(data, prepared)


class Experiment:
    """The swapped model, its store, held-out texts."""

    def __init__(self, prepared: Path) -> None:
        side = prepared / "german"
        self.folder = prepared / "german-focus"
        if not self.folder.exists():
            base, vectors = prepared / "english-base" / "trained" / "final", load_vectors(side / "vectors.safetensors")
            swap_folder(base, side / "tokenizer", self.folder, method="focus", seed=1, vectors=vectors)
        self.store = StoreShare(side / "stores" / "target-new", 1.0, "target")
        self.tokenizer = Tokenizer.from_pretrained(self.folder)
        self.texts = {
            which: first_texts(side / "corpus" / which / "validation.jsonl.zst", MEASURED_BYTES, byte_count)
            for which in ("target", "source")
        }

    def train(self, arm: str, steps: int, seed: int) -> tuple[Any, dict[str, Any]]:
        """A trained model, CPU seconds and bytes of its training."""
        model = AutoModelForCausalLM.from_pretrained(self.folder, dtype=torch.bfloat16)
        settings = TrainSettings(**TRAIN, **ARMS[arm], steps=steps, seed=seed)
        seconds: list[float] = []
        held: dict[str, Any] = {}
        plain = Stepper.step

        def watched(stepper: Stepper, *arguments: Any, **named: Any) -> None:
            begun = time.process_time()
            plain(stepper, *arguments, **named)
            seconds.append(time.process_time() - begun)
            if not held:
                held.update(bytes_of(stepper))

        Stepper.step = watched  # type: ignore[method-assign]
        begun = time.process_time()
        try:
            rehearse(model, [self.store], settings, tokenizer=self.tokenizer)
        finally:
            Stepper.step = plain  # type: ignore[method-assign]
        held |= {"cpu_seconds": round(time.process_time() - begun, 2)}
        return model, held | {"step_seconds": round(statistics.median(seconds[4:]), 5)}

    def run(self, arm: str, steps: int, seed: int) -> dict[str, Any]:
        """One row."""
        model, held = self.train(arm, steps, seed)
        bits = {
            which: round(bits_per_byte(model, self.tokenizer, texts, window=256), 5)
            for which, texts in self.texts.items()
        }
        return {"arm": arm, "seed": seed, "steps": steps, "bits_per_byte": bits, **held}


def bytes_of(stepper: Stepper) -> dict[str, Any]:
    """What training holds after a step, and what a checkpoint of it would."""
    trained = [parameter for _, parameter in stepper.phase.named]
    values = [value for parameter in trained for value in stepper.optimizer.state[parameter].values()]
    checkpoint = tensors_of(stepper.model, stepper.phase.named, stepper.optimizer).values()
    return {
        "weights_bytes": sum(parameter.nbytes for parameter in stepper.model.parameters()),
        "gradients_bytes": sum(parameter.nbytes for parameter in trained),
        "states_bytes": sum(value.nbytes for value in values if isinstance(value, torch.Tensor)),
        "checkpoint_bytes": sum(tensor.nbytes for tensor in checkpoint),
        "trained": sum(parameter.numel() for parameter in trained),
    }


def run(prepared: Path, file: Path) -> None:
    """All rows that are not there yet, whole seeds first, written as they come."""
    experiment = Experiment(prepared)
    about = {"train": TRAIN, "base_steps": BASE_STEPS, "measured_bytes": MEASURED_BYTES, "versions": versions()}
    found = RowFile(file, about | {"device": describe_device(), "threads": 1, "load": round(os.getloadavg()[0], 2)})
    if not any(row["arm"] == "none" for row in found.rows):
        found.add(untrained(experiment))
    if "step_seconds" not in found.about:
        times: dict[str, list[float]] = {arm: [] for arm in ARMS}
        for _ in range(2):
            for arm in ARMS:
                times[arm].append(experiment.train(arm, TIMED, 0)[1]["step_seconds"])
        found.about["step_seconds"] = {arm: min(seconds) for arm, seconds in times.items()}
    each = found.about["step_seconds"]
    done = {(row["arm"], row["seed"]) for row in found.rows}
    for seed in SEEDS:
        for arm in list(ARMS)[: None if seed == SEEDS[0] else MORE]:
            if (arm, seed) not in done:
                found.add(experiment.run(arm, round(STEPS * each["full"] / each[arm]), seed))


def untrained(experiment: Experiment) -> dict[str, Any]:
    """The row of the model as the swap left it."""
    model = AutoModelForCausalLM.from_pretrained(experiment.folder, dtype=torch.bfloat16).eval()
    bits = {
        which: round(bits_per_byte(model, experiment.tokenizer, texts, window=256), 5)
        for which, texts in experiment.texts.items()
    }
    return {"arm": "none", "seed": 0, "steps": 0, "bits_per_byte": bits}


def table(file: Path) -> str:
    """Markdown: arms by what they reach on the target."""
    _, rows = read_rows(file)
    arms = sorted({row["arm"] for row in rows}, key=lambda arm: mean(rows, arm, "target"))
    heads = ["arm", "seeds", "steps", "target", "source", "CPU s", "trained", "weights", "gradients", "states"]
    lines = []
    for arm in arms:
        mine = [row for row in rows if row["arm"] == arm]
        cells: list[Any] = [arm, len(mine), mine[0]["steps"]]
        for which in ("target", "source"):
            values = [row["bits_per_byte"][which] for row in mine]
            around = f" ± {(max(values) - min(values)) / 2:.3f}" if len(values) > 1 else ""
            cells.append(f"{statistics.fmean(values):.3f}{around}")
        if "cpu_seconds" in mine[0]:
            cells += [
                f"{statistics.median(row['cpu_seconds'] for row in mine):.1f}",
                f"{mine[0]['trained'] / 1e6:.2f} M",
            ]
            sizes = ("weights_bytes", "gradients_bytes", "states_bytes")
            cells += [f"{mine[0][size] / 1e6:.1f} MB" for size in sizes]
        lines.append([*cells, *[""] * (len(heads) - len(cells))])
    return markdown(heads, lines).strip()


def mean(rows: list[dict[str, Any]], arm: str, which: str) -> float:
    """Bits per byte of an arm."""
    return statistics.fmean(row["bits_per_byte"][which] for row in rows if row["arm"] == arm)


def measure(data: Path, out: Path, rows: Path | None) -> None:
    """Make the fixed part, or the rows that are missing."""
    if rows is None:
        prepare(data, out)
    else:
        run(out, rows)


if __name__ == "__main__":
    commands(__doc__, "adapter", measure, table)
