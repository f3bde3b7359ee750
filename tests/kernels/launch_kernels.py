"""Launch everything as a GPU would have it launched, but compile only, and print what came out as JSON.

Run as a script, without Triton's interpreter: a driver that pretends to be an H100 stands in for CUDA's, so that the
launching code itself decides on types, alignments and options. Nothing runs, so results mean nothing.
"""

import importlib
import json
import os
import sys
from typing import Any

import torch
import triton
from compile_kernels import resources
from triton.backends.compiler import GPUTarget
from triton.runtime import driver, jit

import langadapt_kernels.backend as backend
from langadapt_kernels import FusedAdamW, cross_entropy_, focus_combine, sparsemax
from langadapt_kernels.adamw.modes import ROUNDINGS
from langadapt_kernels.adamw.run import LaunchConfig


class PretendedDriver:
    """What compiling asks of a driver."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


launched: list[dict[str, Any]] = []


def compile_only(kernel: Any, grid: Any) -> Any:
    def launch(*arguments: Any, **options: Any) -> Any:
        assert all(0 < size < 2**31 for size in grid), (kernel, grid)
        compiled = kernel.run(*arguments, grid=grid, warmup=True, **options)
        launched.append({"kernel": kernel.fn.__name__, **resources(compiled.asm["cubin"])})
        return compiled

    return launch


def step(size: int, dtype: torch.dtype, config: LaunchConfig | None = None, **settings: Any) -> None:
    """Two aligned tensors, one of a few elements, one at an odd address."""
    params = [torch.nn.Parameter(torch.zeros(shape, dtype=dtype)) for shape in ((size,), (3, size), (5,))]
    odd = torch.zeros(size + 1, dtype=dtype)[1:]
    params.append(torch.nn.Parameter(odd))
    optimizer = FusedAdamW(params, 1e-3, backend="triton", **settings)
    if config is not None:
        optimizer.launch_config = config
    sum(param.float().square().sum() for param in params).backward()
    optimizer.step()


def everything() -> None:
    bf16, fp32 = torch.bfloat16, torch.float32
    for rounding in ROUNDINGS:
        step(9000, bf16, rounding=rounding)
    step(9000, bf16, rounding="stochastic", max_grad_norm=1.0, stale_meter=True)
    step(9000, bf16, LaunchConfig(exact=True), max_grad_norm=1.0, norm_in_backward=True)
    step(40000, bf16, LaunchConfig(block=2048, chunk=16384, warps=8), rounding="stochastic")
    step(9000, bf16, state_dtype=fp32)
    step(128 * 64, bf16, rounding="stochastic", state_dtype=torch.int8, max_grad_norm=1.0, stale_meter=True)
    step(9000, fp32, max_grad_norm=1.0)
    step(9000, fp32, max_grad_norm=1.0, norm_in_backward=True)
    step(9000, bf16, gradient_release=True)
    for width in (1, 1000, 32000, 50257, 262144):
        for dtype in (fp32, bf16) if width == 50257 else (fp32,):
            x = torch.zeros(2, width, dtype=dtype, requires_grad=True)
            sparsemax(x, backend="triton").sum().backward()
    for width, dtype in ((50257, bf16), (32000, bf16), (1000, fp32)):
        for gradient in (True, False):
            targets = torch.zeros(2, dtype=torch.int64)
            cross_entropy_(torch.zeros(2, width, dtype=dtype), targets, gradient=gradient, backend="triton")
    new, anchors = torch.randn(5, 300), torch.randn(200, 300)
    rows = torch.randn(200, 520), torch.randn(200, 512).to(bf16), torch.randn(200, 8).half()
    focus_combine(new, anchors, rows, backend="triton")
    run = importlib.import_module("langadapt_kernels.focus.run")
    for tile in (run.Tile(), run.Tile(rows=64, warps=4), run.Tile(step=32)):
        run.support(new, anchors, tile=tile)
    # Vectors that are too long to be kept.
    run.support(torch.randn(5, 600), torch.randn(200, 600))


if __name__ == "__main__":
    assert os.environ.get("TRITON_INTERPRET", "0") == "0"
    driver.set_active(PretendedDriver())
    jit.KernelInterface.__getitem__ = compile_only
    # Triton's launches are let through for CPU tensors where kernels are interpreted; here, too.
    backend.interpreting = lambda: True
    backend.mend_interpreter = lambda: None
    everything()
    json.dump({"triton": triton.__version__, "launched": launched}, sys.stdout)
