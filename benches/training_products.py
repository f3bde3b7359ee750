"""A training step on a CPU beside its matrix products alone, which no loop can do without.

Gemma 3 270M's layers, weights drawn, windows of 512 tokens with documents of 300, bf16 with stochastic rounding. A step
is timed as it is, and once more under `torch.profiler`, which says how much of it are matrix products of weights
(`aten::mm`, `aten::addmm`: forward, both of backward, the output matrix), attention, its products (`aten::bmm` and
`aten::baddbmm`, in float32, of blocks of tokens with all that they can see), and the update. One thread, processor
seconds. A CPU without instructions for bf16 has a second row, with products of bf16 as torch makes them there.

    OMP_NUM_THREADS=1 python benches/training_products.py [--rows 16384] [--micro-batch 2 8] [--out NAME]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from evaluation import GEMMA
from machine import describe, write_report
from tables import markdown
from torch.profiler import ProfilerActivity, profile
from training_cpu import Loop
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

from langadapt.models import products
from langadapt.planning.calibration import NoiseStore
from langadapt.training import TrainSettings
from langadapt.training.data.batches import Mixture, Windows

SLOW = products.is_slow
PARTS = {
    "products": ("aten::mm", "aten::addmm"),
    "attention_products": ("aten::bmm", "aten::baddbmm"),
    "update": ("Optimizer.step",),
}
"""Parts of the names of operators; what is left is norms, activations, rotations, sums and casts."""
ATTENTION = ("PieceAttention", "PieceAttentionBackward")
"""With all that they call."""


def measure(rows: int, tokens: int, micro_batch: int, *, by_torch: bool) -> dict[str, Any]:
    """Seconds of one step and of its parts; ``by_torch``: with its own products of bf16."""
    products.is_slow = (lambda: False) if by_torch else SLOW
    torch.manual_seed(0)
    model = Gemma3ForCausalLM(Gemma3TextConfig(**GEMMA | {"vocab_size": rows})).to(torch.bfloat16)
    settings = TrainSettings(
        steps=1000,
        sequence_length=512,
        batch_tokens=tokens,
        micro_batch=micro_batch,
        learning_rate=1e-4,
        warmup=0.01,
        min_learning_rate=1e-5,
    )
    windows = Windows(NoiseStore(rows, 6 * tokens, 300), "noise", settings.sequence_length, start=1, end=2, seed=0)
    loop = Loop(Mixture([windows], [1.0], settings.sequences_per_step), settings, model)
    loop.run(0, 1)
    seconds = loop.run(1, 1)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        loop.run(2, 1)
    events = profiler.key_averages()
    found = {
        name: sum(one.self_cpu_time_total for one in events if any(key in one.key for key in keys)) / 1e6
        for name, keys in PARTS.items()
    }
    found["attention"] = sum(one.cpu_time_total for one in events if one.key in ATTENTION) / 1e6
    profiled = sum(one.self_cpu_time_total for one in events) / 1e6
    return {
        "rows": rows,
        "micro_batch": micro_batch,
        "products_by": "torch" if by_torch or not SLOW() else "float32",
        "tokens_per_second": round(settings.tokens_per_step / seconds, 1),
        "step_s": round(seconds, 2),
        "profiled_s": round(profiled, 2),
        **{f"{name}_s": round(value, 2) for name, value in found.items()},
        "times_those_of_weights": round(profiled / found["products"], 2),
        "times_products": round(profiled / (found["products"] + found["attention_products"]), 2),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """As Markdown."""
    heads = [
        "rows of the vocabulary",
        "micro-batch",
        "products of bf16 by",
        "tokens/s",
        "step, s",
        "under the profiler",
        "weights' products",
    ]
    heads += ["products of attention", "update", "attention", "times products of weights", "times all products"]
    cells = [[value if isinstance(value, str) else f"{value:,}" for value in row.values()] for row in rows]
    return markdown(heads, cells, words=(2,))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=16_384, help="of the vocabulary")
    parser.add_argument("--tokens", type=int, default=4096, help="per step")
    parser.add_argument("--micro-batch", type=int, nargs="+", default=[2, 8])
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    ways = [False, True] if SLOW() else [False]
    rows = [measure(given.rows, given.tokens, size, by_torch=way) for size in given.micro_batch for way in ways]
    print(table(rows), end="")
    if given.out:
        write_report(given.out, describe("torch", "transformers") | {"threads": 1}, rows, table(rows))


if __name__ == "__main__":
    main()
