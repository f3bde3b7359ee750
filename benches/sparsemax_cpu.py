"""Sparsemax of CPU tensors, there and back: the compiled core beside the reference in torch and beside entmax.

    python benches/sparsemax_cpu.py [--rows N] [--width N] [--rounds N] [--threads N] [--out NAME]

Rows of normal numbers. Contenders take turns in one process; before timing all must agree, each in its dtype, with the
reference in float64. `CPU seconds` count all threads: on a busy machine they say more than the clock.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import entmax
import torch
from contenders import timed
from machine import describe, write_report
from tables import seconds_table

from langadapt_kernels import sparsemax

OURS = "core"
CONTENDERS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    OURS: lambda x: sparsemax(x, backend="core"),
    "reference": lambda x: sparsemax(x, backend="reference"),
    "entmax": lambda x: entmax.sparsemax(x, dim=-1),
}
TOLERANCES = {torch.float32: 1e-6, torch.bfloat16: 4e-3}


def measure(dtype: torch.dtype, rows: int, width: int, rounds: int) -> dict[str, list[dict[str, float]]]:
    """Seconds of each round by contender, forward and with the gradient."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, width, generator=generator).to(dtype)
    grad = torch.randn(rows, width, generator=generator).to(dtype)
    expected = sparsemax(x.double(), backend="reference")
    found: dict[str, list[dict[str, float]]] = {}
    for _ in range(rounds):
        for name, run in CONTENDERS.items():
            leaf = x.clone().requires_grad_()
            output, forward = timed(lambda run=run, leaf=leaf: run(leaf))
            error = float((output.detach().double() - expected).abs().max())
            if not error <= TOLERANCES[dtype]:
                raise SystemExit(f"{name}, {dtype}: off by {error:.1e}; not timed")
            _, backward = timed(lambda output=output: output.backward(grad))
            found.setdefault(name, []).append(forward)
            found.setdefault(f"{name}, gradient", []).append(backward)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--width", type=int, default=12_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, help="writes NAME.jsonl and NAME.md")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows, tables = [], []
    for dtype in TOLERANCES:
        name = str(dtype).removeprefix("torch.")
        found, table = seconds_table(measure(dtype, arguments.rows, arguments.width, arguments.rounds), OURS)
        rows += [{"dtype": name} | row for row in found]
        tables.append(f"{name}:\n\n{table}")
    text = "\n".join(tables)
    print(text, end="")
    if arguments.out:
        shape = f"{arguments.rows} rows of {arguments.width}"
        about = describe("torch", "entmax") | {"shape": shape, "threads": arguments.threads}
        write_report(arguments.out, about, rows, text)


if __name__ == "__main__":
    main()
