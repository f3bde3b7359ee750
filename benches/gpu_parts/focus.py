"""The FOCUS combination and sparsemax, and what others do."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from langadapt_kernels import focus_combine, sparsemax
from langadapt_kernels.focus import reference

from .measure import Bench


def vectors(bench: Bench) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """32k new tokens, 32k anchors, width 300, around 1,000 centres: supports of 31 on average, 45 at most."""
    count, width, d, centres = (20, 32, 16, 5) if bench.smoke else (32768, 300, 4096, 1000)
    torch.manual_seed(0)
    middle = torch.randn(centres, width, device=bench.device)
    new, anchors = (
        middle[torch.randint(centres, (count,), device=bench.device)]
        + 0.6 * torch.randn(count, width, device=bench.device)
        for _ in range(2)
    )
    rows = tuple(torch.randn(count, d, device=bench.device).to(torch.bfloat16) for _ in range(2))
    return new, anchors, (rows[0], rows[1])


def combine(bench: Bench) -> None:
    new, anchors, rows = vectors(bench)
    run = importlib.import_module("langadapt_kernels.focus.run")

    def whole() -> dict[str, Any]:
        bench.release()
        before = 0 if bench.smoke else torch.cuda.memory_allocated()
        outputs = focus_combine(new, anchors, rows, backend="triton")
        used = 0 if bench.smoke else torch.cuda.max_memory_allocated() - before
        own = sum(o.numel() * o.element_size() for o in outputs)
        del outputs
        row = bench.time(lambda: focus_combine(new, anchors, rows, backend="triton"), repeats=10)
        return {**row, "extra_bytes": used - own}

    def search() -> dict[str, Any]:
        sizes = run.support(new, anchors)[1]
        row = bench.time(lambda: run.support(new, anchors), repeats=10)
        left = int((sizes < 0).sum())
        return {**row, "mean_support": float(sizes.clamp(min=0).double().mean()), "rows_left_to_the_reference": left}

    def gather() -> dict[str, Any]:
        found, sizes, weights = run.support(new, anchors)
        moved = float(sizes.clamp(min=0).sum() + len(sizes)) * rows[0].shape[1] * 2
        return bench.time(lambda: run._gather(found, sizes, weights, rows[0]), moved=moved, repeats=20)

    bench.row("two matrices", 15, whole)
    bench.row("search and weights", 10, search)
    bench.row("gather of one matrix", 10, gather)


def sweep(bench: Bench) -> None:
    new, anchors, _ = vectors(bench)
    run = importlib.import_module("langadapt_kernels.focus.run")
    tile = run.Tile
    tiles = [
        tile(columns=64, kept=True),
        tile(),
        tile(rows=64, columns=64, warps=4, kept=True),
        tile(rows=64, warps=4),
        tile(step=32),
        tile(rows=64, columns=256),
    ]
    if bench.smoke:
        tiles = [tile(16, 64, 32, 4)]
    for cut in tiles:
        label = f"tile {cut.rows} x {cut.columns} x {cut.step}, {cut.warps} warps{', kept' if cut.kept else ''}"
        bench.row(label, 10, lambda cut=cut: bench.time(lambda: run.support(new, anchors, tile=cut), repeats=5))


def rivals(bench: Bench) -> None:
    """The batched torch version, and the loop over new tokens of deepfocus, extrapolated from a sample."""
    new, anchors, rows = vectors(bench)
    count = len(new)

    def batched() -> dict[str, Any]:
        step = 2048

        def run() -> None:
            anchor_unit = reference.normalized(anchors)
            for start in range(0, count, step):
                weights = sparsemax(
                    reference.normalized(new[start : start + step]) @ anchor_unit.T, backend="reference"
                )
                for matrix in rows:
                    torch.matmul(weights.to(matrix.dtype), matrix)

        return bench.time(run, seconds=5, warmup=1, repeats=3)

    def loop() -> dict[str, Any]:
        """As deepfocus: all similarities, then for each new token sparsemax, mask, weighted sum."""
        sample = 10 if bench.smoke else 200
        try:
            project: Callable[..., Tensor] = importlib.import_module("entmax").sparsemax
            name = "entmax"
        except ImportError:
            project, name = lambda row, dim: sparsemax(row, dim, backend="reference"), "this package's reference"
        similarity = reference.normalized(new[:sample]) @ reference.normalized(anchors).T
        started = time.perf_counter()
        for row in similarity:
            weights = project(row, dim=0)
            chosen = weights > 0
            for matrix in rows:
                (weights[chosen].unsqueeze(1) * matrix[chosen]).sum(0)
        if not bench.smoke:
            torch.cuda.synchronize()
        seconds = (time.perf_counter() - started) * count / sample
        return {"median_ms": seconds * 1e3, "p10_ms": seconds * 1e3, "p90_ms": seconds * 1e3, "sparsemax": name}

    bench.row("batched torch", 30, batched)
    bench.row("loop of deepfocus, extrapolated", 10, loop)


def sparsemax_rows(bench: Bench) -> None:
    """32k x 32k float32, beside reading and writing the matrix once; rivals on fewer rows, scaled."""
    rows, n = (2, 500) if bench.smoke else (32768, 32768)
    part = rows if bench.smoke else 2048
    x = torch.randn(rows, n, device=bench.device)
    moved = 2.0 * x.numel() * 4

    def backward() -> dict[str, Any]:
        kernel = importlib.import_module("langadapt_kernels.sparsemax.kernel")
        output, grad = sparsemax(x[:part], backend="triton"), torch.randn_like(x[:part])
        scale = 3.0 * output.numel() * 4
        return bench.time(lambda: kernel.sparsemax_backward(output, grad), moved=scale, repeats=20)

    def scaled(call: Callable[[], Any]) -> dict[str, Any]:
        row = bench.time(call, seconds=3, repeats=10)
        times = {key: row[key] * rows / part for key in ("median_ms", "p10_ms", "p90_ms")}
        return {**row, **times, "measured_rows": part}

    def liger() -> dict[str, Any]:
        function = importlib.import_module("liger_kernel.ops.sparsemax").LigerSparsemaxFunction
        return scaled(lambda: function.apply(x[:part], -1))

    def entmax() -> dict[str, Any]:
        function = importlib.import_module("entmax").sparsemax
        return scaled(lambda: function(x[:part], dim=-1))

    bench.row("forward", 10, lambda: bench.time(lambda: sparsemax(x, backend="triton"), moved=moved, repeats=20))
    bench.row("softmax of torch", 5, lambda: bench.time(lambda: torch.softmax(x, -1), moved=moved, repeats=20))
    bench.row("backward, 2,048 rows", 5, backward)
    bench.rival("Liger, scaled", 5, liger)
    bench.rival("entmax, scaled", 5, entmax)
    bench.row("reference, scaled", 5, lambda: scaled(lambda: sparsemax(x[:part], backend="reference")))
