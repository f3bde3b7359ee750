"""Cross-entropy of a head's logits in place, beside float64, and beside torch's own."""

from __future__ import annotations

from typing import Any

import torch

from langadapt_kernels import cross_entropy_

from .measure import Bench

IGNORED = -100


def correct(bench: Bench) -> None:
    """Rows of many lengths, some of which do not count, beside torch in float64."""

    def case(n: int, dtype: torch.dtype) -> dict[str, Any]:
        rows = 4 if bench.smoke else 257
        logits = (4 * torch.randn(rows, n, device=bench.device)).to(dtype)
        targets = torch.randint(n, (rows,), device=bench.device)
        targets[1::3] = IGNORED
        leaf = logits.double().requires_grad_()
        truth = torch.nn.functional.cross_entropy(leaf, targets, ignore_index=IGNORED, reduction="none")
        (truth.sum() * 0.25).backward()
        with bench.poisoned():
            losses = cross_entropy_(logits, targets, scale=0.25, ignore_index=IGNORED, backend="triton")
        off = float((losses.double() - truth.detach()).abs().max())
        worst = float((logits.double() - leaf.grad).abs().max())
        limit = 1e-6 if dtype == torch.float32 else 2**-10
        return {"ok": off < 1e-4 and worst < limit, "note": f"losses {off:.1e}, gradients {worst:.1e} off"}

    lengths = (1, 500) if bench.smoke else (1, 127, 4096, 32000, 50257, 131072, 262144)
    for n in lengths:
        for dtype in (torch.bfloat16, torch.float32):
            bench.row(f"n = {n}, {str(dtype)[6:]}", 2, lambda n=n, dtype=dtype: case(n, dtype))


def speed(bench: Bench) -> None:
    """Chunks of 256 M logits in bfloat16, at 4 bytes each; ours overwrites them, so that later calls read gradients."""
    for rows, n in ((4, 500),) if bench.smoke else ((8192, 32768), (2048, 131072)):
        logits = torch.randn(rows, n, device=bench.device).bfloat16()
        targets = torch.randint(n, (rows,), device=bench.device)

        def ours(logits: torch.Tensor = logits, targets: torch.Tensor = targets) -> None:
            cross_entropy_(logits, targets, backend="triton")

        def torchs(logits: torch.Tensor = logits, targets: torch.Tensor = targets) -> None:
            leaf = logits.detach().requires_grad_()
            torch.nn.functional.cross_entropy(leaf.float(), targets, reduction="sum").backward()

        moved = 4.0 * rows * n
        for label, call in (("ours", ours), ("torch in float32", torchs)):
            bench.row(f"{rows} x {n}, {label}", 4, lambda call=call, moved=moved: bench.time(call, moved=moved))
