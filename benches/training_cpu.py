"""Tokens per second of the training loop beside a bare torch loop on the same model, on a CPU.

Inside the timer: packed batches, forward, backward, update, and for the loop everything else it does (prefetch, fp32
gradient sums, meters, checks, schedule). Outside: loading, packing, checkpoints and the export. The bare loop makes its
batches beforehand, calls the model, torch's cross-entropy on all logits, backward, `clip_grad_norm_` and
`torch.optim.AdamW`; it keeps documents apart by the same position ids and sums gradients in bf16. Small steps cost the
loop most: its update in plain torch takes twice as long as torch's own, its attention and its loss less than half.
Rounds of both are interleaved; the report gives the median of the ratios and their spread. On one thread the clock
counts CPU seconds, which other processes on the machine disturb less.

    python benches/training_cpu.py [--tokens 4096 16384] [--rounds 5] [--steps 2] [--threads 1] [--out NAME]
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from machine import describe, write_report
from tables import markdown
from transformers import LlamaConfig, LlamaForCausalLM

from langadapt.planning.calibration import NoiseStore
from langadapt.training import TrainSettings
from langadapt.training import model as models
from langadapt.training.data.batches import Mixture, Windows
from langadapt.training.parallel import ProcessGroup
from langadapt.training.step import Stepper

SHAPE = {
    "vocab_size": 8192,
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
}


def clock() -> float:
    """Seconds: of this process on one thread, else of the wall."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def network() -> Any:
    """About 9 million parameters in bf16."""
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SHAPE)).to(torch.bfloat16)


class Bare:
    """What one would write in an afternoon."""

    def __init__(self, mixture: Mixture, settings: TrainSettings) -> None:
        self.model = network().train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), 1e-4, betas=(0.9, 0.95), weight_decay=0.05)
        self.micro_batch, self.mixture = int(settings.micro_batch), mixture

    def run(self, first: int, steps: int) -> float:
        """Seconds for some steps."""
        batches = [self.mixture.batch(step) for step in range(first, first + steps)]
        begun = clock()
        for batch in batches:
            ids, labels, positions = map(torch.from_numpy, (batch.input_ids, batch.labels, batch.positions))
            count = len(ids) // self.micro_batch
            for part in range(0, len(ids), self.micro_batch):
                piece = slice(part, part + self.micro_batch)
                logits = self.model(input_ids=ids[piece], position_ids=positions[piece], use_cache=False).logits
                loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), labels[piece].flatten())
                (loss / count).backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
        return clock() - begun


class Loop:
    """Ours: the stepper with everything that `train_model` does around a step but files."""

    def __init__(self, mixture: Mixture, settings: TrainSettings, model: Any = None) -> None:
        processes, model = ProcessGroup(), model or network()
        self.stepper = Stepper(models.load(model, settings, processes.device), mixture, settings, processes)
        self.mixture, self.settings = mixture, settings

    def run(self, first: int, steps: int) -> float:
        """Seconds for some steps."""
        from contextlib import closing

        from langadapt.training.course import Course
        from langadapt.training.data.batches import prefetch

        course = Course.start(self.settings, 1000)
        begun = clock()
        with closing(prefetch(self.mixture.batch, iter(range(first, first + steps)))) as batches:
            for step in range(first, first + steps):
                self.stepper.step(next(batches), step, rate=course.rate(self.settings))
                course.advance()
                self.stepper.check_finite(step, Path())
            self.stepper.report(steps, [None])
        return clock() - begun


def measure(tokens_per_step: int, rounds: int, steps: int) -> dict[str, Any]:
    """Interleaved rounds."""
    settings = TrainSettings(
        steps=1000,
        sequence_length=256,
        batch_tokens=tokens_per_step,
        micro_batch=8,
        # As torch's AdamW rounds.
        rounding="nearest",
        learning_rate=1e-4,
        warmup=0.01,
        min_learning_rate=1e-5,
    )
    tokens = (rounds + 2) * steps * settings.tokens_per_step
    windows = Windows(
        NoiseStore(SHAPE["vocab_size"], tokens, 300), "noise", settings.sequence_length, start=1, end=2, seed=0
    )
    mixture = Mixture([windows], [1.0], settings.sequences_per_step)
    sides = {"bare": Bare(mixture, settings), "loop": Loop(mixture, settings)}
    for side in sides.values():
        side.run(0, 1)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        order = list(sides) if number % 2 == 0 else list(reversed(sides))
        for name in order:
            seconds[name].append(sides[name].run(1 + number * steps, steps))
    per_round = steps * settings.tokens_per_step
    ratios = [bare / loop for bare, loop in zip(seconds["bare"], seconds["loop"], strict=True)]
    return {
        "bench": "training_cpu",
        "tokens_per_step": tokens_per_step,
        "clock": "CPU seconds" if torch.get_num_threads() == 1 else "wall seconds",
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "parameters": sum(parameter.numel() for parameter in sides["bare"].model.parameters()),
        "tokens_per_second": {name: round(per_round / statistics.median(times), 1) for name, times in seconds.items()},
        "loop_over_bare": round(statistics.median(ratios), 4),
        "spread": [round(min(ratios), 4), round(max(ratios), 4)],
        "goal": 0.95,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[4096, 16384], help="per step")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out", type=Path, help="writes NAME.jsonl and NAME.md")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    rows = [measure(tokens, arguments.rounds, arguments.steps) for tokens in arguments.tokens]
    print(table(rows), end="")
    if arguments.out:
        facts = {"threads": torch.get_num_threads(), "parameters": rows[0]["parameters"], "clock": rows[0]["clock"]}
        write_report(arguments.out, describe("torch", "transformers") | facts, rows, table(rows))


def table(rows: list[dict[str, Any]]) -> str:
    heads = ["tokens per step", "bare loop, tokens/s", "langadapt, tokens/s", "ratio (spread)", "goal"]
    cells = []
    for row in rows:
        speed, (low, high) = row["tokens_per_second"], row["spread"]
        ratio = f"{row['loop_over_bare']:.2f} ({low:.2f} to {high:.2f})"
        speeds = [f"{speed[side]:,.0f}" for side in ("bare", "loop")]
        cells.append([f"{row['tokens_per_step']:,}", *speeds, ratio, row["goal"]])
    return markdown(heads, cells, words=())


if __name__ == "__main__":
    main()
