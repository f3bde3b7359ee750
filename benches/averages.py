"""Do averages of weights over the end of a training pay? Of the last few snapshots, and moving ones, beside the last.

The base model of `benches/adapter.py`, swapped to German by FOCUS and trained on German alone in pure bf16, with the
rate of the default (decayed) and with one that stays. A snapshot is taken every :data:`EVERY` steps; averages are
computed in float32 and written in bf16, as an export would. They cost no step: all rows of a seed are one training.

    python benches/averages.py prepare --data ../shared/data --out runs/adapter
    python benches/averages.py run --out runs/adapter --rows docs/runs/averages.jsonl
    python benches/averages.py table --rows docs/runs/averages.jsonl
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import adapter
import torch
from row_files import RowFile, read_rows
from small_base import commands
from tables import markdown
from transformers import AutoModelForCausalLM

from langadapt.evaluation.bits_per_byte import bits_per_byte
from langadapt.machine import versions
from langadapt.training import TrainSettings
from langadapt.training.rehearsal import rehearse
from langadapt.training.step import Stepper

STEPS, EVERY, SEEDS = 300, 10, (1, 2, 3)
WINDOWS = (2, 4, 8, 16)
"""Snapshots of an average, the last ones."""
HALF_LIVES = (10, 40)
"""Steps after which a step's weights count for half in a moving average."""
SCHEDULES: dict[str, dict[str, Any]] = {"decayed": {}, "constant": {"schedule": "constant"}}
RATES = (1, 2, 4)
"""Times the rates of `benches/adapter.py`: a rate that stays may be best at another peak than one that falls."""
Weights = dict[str, torch.Tensor]


class Recorder:
    """Snapshots and moving averages of a model while it is trained."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.model, self.steps = model, 0
        self.snapshots: list[Weights] = []
        self.moving = {half: self.weights() for half in HALF_LIVES}

    def weights(self) -> Weights:
        """As they are, in float32."""
        return {name: value.detach().float().clone() for name, value in self.model.state_dict().items()}

    def after(self) -> None:
        """One more step."""
        self.steps += 1
        now = self.weights()
        for half, average in self.moving.items():
            kept = 0.5 ** (1 / half)
            for name, value in average.items():
                value.mul_(kept).add_(now[name], alpha=1 - kept)
        if self.steps % EVERY == 0:
            self.snapshots.append(now)

    def averages(self) -> Mapping[str, Callable[[], Weights]]:
        """All of them by name; the last weights first."""
        made: dict[str, Callable[[], Weights]] = {"last": lambda: self.snapshots[-1]}
        for window in WINDOWS:
            made[f"last {window} of every {EVERY} steps"] = lambda window=window: mean_of(self.snapshots[-window:])
        for half, average in self.moving.items():
            made[f"moving, half-life {half}"] = lambda average=average: average
        return made


def mean_of(snapshots: list[Weights]) -> Weights:
    """Of all weights, one by one."""
    return {name: torch.stack([one[name] for one in snapshots]).mean(0) for name in snapshots[0]}


def train(experiment: adapter.Experiment, schedule: str, rate: int, seed: int) -> tuple[Any, Recorder]:
    """A trained model and what was recorded."""
    model = AutoModelForCausalLM.from_pretrained(experiment.folder, dtype=torch.bfloat16)
    recorder, plain = Recorder(model), Stepper.step

    def watched(stepper: Stepper, *arguments: Any, **named: Any) -> None:
        plain(stepper, *arguments, **named)
        recorder.after()

    peaks = {name: rate * adapter.TRAIN[name] for name in adapter.TRAIN if name.endswith("learning_rate")}
    settings = TrainSettings(**adapter.TRAIN | peaks | SCHEDULES[schedule], steps=STEPS, seed=seed)
    Stepper.step = watched  # type: ignore[method-assign]
    try:
        rehearse(model, [experiment.store], settings, tokenizer=experiment.tokenizer)
    finally:
        Stepper.step = plain  # type: ignore[method-assign]
    return model, recorder


def run(prepared: Path, file: Path) -> None:
    """All rows that are not there yet, one training after the other."""
    experiment = adapter.Experiment(prepared)
    found = RowFile(file, {"steps": STEPS, "every": EVERY, "train": adapter.TRAIN, "versions": versions()})
    done = {(row["schedule"], row["rate"], row["seed"]) for row in found.rows}
    for seed in SEEDS:
        for schedule, rate in product(SCHEDULES, RATES):
            if (schedule, rate, seed) in done:
                continue
            model, recorder = train(experiment, schedule, rate, seed)
            for name, average in recorder.averages().items():
                model.load_state_dict({key: value.bfloat16() for key, value in average().items()})
                bits = {
                    side: round(bits_per_byte(model, experiment.tokenizer, texts, window=256), 5)
                    for side, texts in experiment.texts.items()
                }
                found.add({"schedule": schedule, "rate": rate, "seed": seed, "average": name, "bits_per_byte": bits})


def table(file: Path) -> str:
    """Markdown: the last weights, and how far below them each average is, of the same trainings."""
    _, rows = read_rows(file)
    lines = []
    for schedule, rate in product(SCHEDULES, RATES):
        mine = [row for row in rows if (row["schedule"], row["rate"]) == (schedule, rate)]
        last = {row["seed"]: row["bits_per_byte"] for row in mine if row["average"] == "last"}
        for name in dict.fromkeys(row["average"] for row in mine):
            cells = [f"{schedule}, x {rate}", name]
            for side in ("target", "source"):
                each = {row["seed"]: row["bits_per_byte"][side] for row in mine if row["average"] == name}
                cells.append(f"{statistics.fmean(each.values()):.4f}")
                gaps = [value - last[seed][side] for seed, value in each.items()]
                cells.append("" if name == "last" else f"{min(gaps):+.4f} to {max(gaps):+.4f}")
            lines.append(cells)
    heads = ["rate", "weights", "target", "against the last", "source", "against the last"]
    return markdown(heads, lines, words=(0, 1)).strip()


def measure(data: Path, out: Path, rows: Path | None) -> None:
    """Make the fixed part, or the rows that are missing."""
    if rows is None:
        adapter.prepare(data, out)
    else:
        run(out, rows)


if __name__ == "__main__":
    commands(__doc__, "averages", measure, table)
