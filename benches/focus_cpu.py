"""The core of FOCUS on a CPU, beside deepfocus' own: from vectors and anchor rows to the new rows.

    pip install --no-deps deepfocus fastdist print-on-steroids fasttext-numpy2-wheel; pip install entmax numba  # rival
    python benches/focus_cpu.py [--new N] [--anchors N] [--width D] [--rounds N] [--share S] [--out NAME]

Clustered random vectors (300 wide): about 8 to 15 anchors carry weight for each new token. Inside the timer:
similarities, sparsemax, combination. Outside: imports, making the data, numba's compilation (one small call first).
Every contender runs in a process of its own, the rounds interleaved. Both rivals handle `--share` of the new tokens and
their time is scaled up, which also scales a fixed part (a tenth of a second for stacking the anchors' rows). Before
timing, all must give the same rows within 1e-5. `cpu_s` counts all threads: on a busy machine it says more than the
clock.
Contenders: `deepfocus` (1.0.1), `torch` (the same in blocks: matmul, entmax.sparsemax by rows, dense product), and ours
in bfloat16 (what this CPU has instructions for) and in float32.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from contenders import answer, rounds_of, timed
from machine import describe, write_report
from tables import seconds_table

DIM = 300
CLUSTERS = 2000


def data(new: int, anchors: int, width: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(CLUSTERS, DIM, generator=generator)

    def rows(n: int) -> torch.Tensor:
        picked = centres[torch.randint(0, CLUSTERS, (n,), generator=generator)]
        return torch.nn.functional.normalize(picked + torch.randn(n, DIM, generator=generator))

    return rows(new), rows(anchors), torch.randn(anchors, width, generator=generator)


def by_deepfocus(new: torch.Tensor, anchors: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    from deepfocus.focus import NewToken, OverlappingToken, focus_additional_token_initialization

    class Token:
        def __init__(self, token: int) -> None:
            self.id = token

    overlap = {
        i: OverlappingToken(source=[], target=Token(i), source_embedding=row, auxiliary_embedding=vector)
        for i, (row, vector) in enumerate(zip(rows, anchors.numpy(), strict=True))
    }
    fresh = {i: NewToken(target=Token(i), auxiliary_embedding=vector) for i, vector in enumerate(new.numpy())}
    return focus_additional_token_initialization(overlap, fresh, torch.zeros(len(new), rows.shape[1]), device="cpu")


def by_torch(new: torch.Tensor, anchors: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    import entmax

    out = torch.empty(len(new), rows.shape[1])
    for start in range(0, len(new), 1000):
        weights = entmax.sparsemax(new[start : start + 1000] @ anchors.T, dim=1)
        out[start : start + 1000] = weights @ rows
    return out


def by_us(low_precision: bool) -> Callable[..., torch.Tensor]:
    def run(new: torch.Tensor, anchors: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        from langadapt.swap.rows.focus import similarity_weights
        from langadapt.swap.rows.plan import plan_of

        lengths, columns, weights = similarity_weights(new, anchors, low_precision=low_precision)
        plan = plan_of([(np.repeat(np.arange(len(new)), lengths), columns, weights)], len(new))
        return plan.apply(rows)[0]

    return run


CONTENDERS = {
    "deepfocus": by_deepfocus,
    "torch": by_torch,
    "langadapt bf16": by_us(True),
    "langadapt fp32": by_us(False),
}


def one(name: str, new: int, anchors: int, width: int) -> dict[str, float]:
    """One round in this process."""
    run = CONTENDERS[name]
    tensors = data(new, anchors, width)
    run(tensors[0][:8], tensors[1][:50], tensors[2][:50])
    check = run(tensors[0][:40], tensors[1], tensors[2])
    weights = [exact_sparsemax(row) for row in tensors[0][:40].double() @ tensors[1].double().T]
    expected = torch.stack(weights) @ tensors[2].double()
    error = float(((check - expected).norm(dim=1) / expected.norm(dim=1)).max())
    _, used = timed(lambda: run(*tensors))
    return used | {"error": error}


def exact_sparsemax(z: torch.Tensor) -> torch.Tensor:
    ordered = z.sort(descending=True).values
    inside = 1 + torch.arange(1, len(z) + 1) * ordered > ordered.cumsum(0)
    return (z - (ordered[inside].sum() - 1) / inside.sum()).clamp(min=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--new", type=int, default=20_000)
    parser.add_argument("--anchors", type=int, default=12_000)
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--share", type=float, default=0.1, help="of the new tokens that the two rivals handle")
    parser.add_argument("--out", type=Path, help="writes NAME.jsonl and NAME.md")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(one(arguments.one, arguments.new, arguments.anchors, arguments.width)))
        return

    def measure(name: str) -> dict[str, float]:
        new = arguments.new if name.startswith("langadapt") else max(50, int(arguments.new * arguments.share))
        shape = ["--new", str(new), "--anchors", str(arguments.anchors), "--width", str(arguments.width)]
        found = answer(__file__, "--one", name, *shape)
        if found["error"] > 1e-5:
            raise SystemExit(f"{name}: rows are off by {found['error']:.1e}; not timed")
        scale = arguments.new / new
        return {"wall_s": found["wall_s"] * scale, "cpu_s": found["cpu_s"] * scale, "error": found["error"]}

    rounds = rounds_of(list(CONTENDERS), arguments.rounds, measure)
    rows, table = seconds_table(rounds, "langadapt bf16")
    print(table, end="")
    if arguments.out:
        shape = f"{arguments.new} new tokens, {arguments.anchors} anchors, {DIM} wide, rows of {arguments.width}"
        write_report(arguments.out, describe("torch", "deepfocus", "entmax") | {"shape": shape}, rows, table)


if __name__ == "__main__":
    main()
