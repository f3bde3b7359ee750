"""A step of AdamW on a CPU, beside torch's own, on the same bfloat16 tensors.

    python benches/adamw_cpu.py [--parameters N] [--tensors N] [--rounds N] [--steps N] [--threads N] [--out NAME]

Inside the timer: the step, in the rows that say so with clipping (torch: `clip_grad_norm_`), of an optimizer that has
stepped before. Outside: making tensors and states. Every contender runs in a process of its own, the rounds interleaved
in orders that are drawn; a round is the best of some steps, by the clock and by the processor time of all threads, the
report the median of the rounds. On a busy machine take one thread and the processor time: torch's threads wait for each
other in a loop, which counts as work. Before timing, ours must give the bits of the torch
reference. `memory` adds one int32 tensor to another, 12 bytes per element: what it moves in a second is the limit, at
14 bytes per parameter and step (16 for split8, 18 for kahan and split).
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from contenders import Row, answer, rounds_of, timed
from machine import describe, write_report
from tables import markdown
from torch import nn

BYTES = {"nearest": 14, "stochastic": 14, "kahan": 18, "split": 18, "split8": 16}
RIVAL = "torch fused"
GOALS = {"nearest": 1.0, "kahan": 0.8, "split": 0.8, "stochastic": 0.5}
SETTINGS: dict[str, Any] = {"lr": 1e-3, "betas": (0.9, 0.95), "weight_decay": 0.1}
SMALL = 20_000


def parameters(count: int, tensors: int) -> list[nn.Parameter]:
    """So many elements, in tensors of one size, with gradients."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(tensors):
        param = nn.Parameter(torch.randn(count // tensors, generator=generator).bfloat16())
        param.grad = (torch.randn(count // tensors, generator=generator) * 0.02).bfloat16()
        found.append(param)
    return found


def ours(params: list[nn.Parameter], name: str, backend: str | None = None) -> torch.optim.Optimizer:
    """By the name of a contender."""
    from langadapt_kernels import FusedAdamW

    rounding, _, clip = name.partition(" + ")
    limit = 1.0 if clip else None
    return FusedAdamW(params, **SETTINGS, rounding=rounding, max_grad_norm=limit, backend=backend)


def work_of(name: str, params: list[nn.Parameter]) -> Callable[[], Any]:
    """What is timed."""
    if name == "memory":
        left, right = (torch.zeros(sum(map(len, params)), dtype=torch.int32) for _ in range(2))
        return lambda: left.add_(right)
    if not name.startswith("torch"):
        return ours(params, name).step
    kind, _, clip = name.removeprefix("torch ").partition(" + ")
    optimizer = torch.optim.AdamW(params, **SETTINGS, **{kind: True})
    if not clip:
        return optimizer.step

    def step() -> None:
        nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()

    return step


def same_bits(name: str) -> bool:
    """Whether the contender gives the bits of the reference, in a few steps on few tensors."""
    results = []
    for backend in (None, "reference"):
        params = parameters(SMALL, 3)
        optimizer = ours(params, name, backend)
        for _ in range(3):
            optimizer.step()
        results.append(params)
    return all(torch.equal(a.view(torch.int16), b.view(torch.int16)) for a, b in zip(*results, strict=True))


@torch.no_grad()
def one(name: str, count: int, tensors: int, steps: int) -> Row:
    """One round in this process."""
    if name in BYTES and not same_bits(name):
        raise SystemExit(f"{name}: other bits than the reference's; not timed")
    work = work_of(name, parameters(count, tensors))
    work()
    found = [timed(work)[1] for _ in range(steps)]
    return {key: min(row[key] for row in found) for key in ("wall_s", "cpu_s")}


def summary(rounds: dict[str, list[Row]], count: int) -> tuple[list[Row], str]:
    """Rows and a table."""
    rows: list[Row] = []
    for name, found in rounds.items():
        row: Row = {"contender": name, "rounds": len(found)}
        for key in ("wall_s", "cpu_s"):
            values = [entry[key] for entry in found]
            row |= {key: statistics.median(values), f"{key}_range": [min(values), max(values)]}
        rows.append(row)
    known = {row["contender"]: row for row in rows}
    moved = 12 * count / known["memory"]["cpu_s"]
    cells = []
    for row in rows:
        name = row["contender"]
        if name == "memory":
            continue
        rival = known[RIVAL + " + clipping" if "clipping" in name else RIVAL]
        row["of_rival"] = {key: rival[key] / row[key] for key in ("wall_s", "cpu_s")}
        size = BYTES.get(name.partition(" + ")[0], 14) + 2 * ("clipping" in name)
        row["of_memory"] = size * count / row["cpu_s"] / moved
        speeds = [f"{count / row[key] / 1e6:,.0f}" for key in ("wall_s", "cpu_s")]
        ratios = [f"{row['of_rival'][key]:.2f}" for key in ("wall_s", "cpu_s")]
        cells.append([name, speeds[0], ratios[0], speeds[1], ratios[1], GOALS.get(name, ""), f"{row['of_memory']:.0%}"])
    heads = [
        "step",
        "million/s",
        "of torch fused",
        "million per CPU second",
        "of torch fused",
        "goal",
        "of memory's speed",
    ]
    limit = f"Memory: {moved / 1e9:.1f} GB per CPU second, {moved / 14e6:,.0f} million parameters of 14 bytes.\n"
    return rows, f"{markdown(heads, cells)}\n{limit}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parameters", type=int, default=50_000_000)
    parser.add_argument("--tensors", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, help="writes NAME.jsonl and NAME.md")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    count, tensors, steps = arguments.parameters, arguments.tensors, arguments.steps
    torch.set_num_threads(arguments.threads)
    if arguments.one:
        print(json.dumps(one(arguments.one, count, tensors, steps)))
        return
    names = ["memory", RIVAL, "torch foreach", *BYTES]
    names += [f"{name} + clipping" for name in (RIVAL, "nearest", "stochastic")]
    shape = ["--parameters", str(count), "--tensors", str(tensors), "--steps", str(steps)]
    shape += ["--threads", str(arguments.threads)]
    rounds = rounds_of(names, arguments.rounds, lambda name: answer(__file__, "--one", name, *shape), seed="adamw")
    rows, table = summary(rounds, count)
    print(table, end="")
    if arguments.out:
        facts = {"parameters": count, "tensors": tensors, "threads": arguments.threads}
        write_report(arguments.out, describe("torch") | facts, rows, table)


if __name__ == "__main__":
    main()
