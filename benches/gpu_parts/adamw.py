"""The optimizer step: ours in every mode, and the rivals, on models of realistic shapes."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from typing import Any

import torch

from langadapt_kernels import FusedAdamW
from langadapt_kernels.adamw.run import LaunchConfig

from .measure import Bench

# hidden, feed-forward, key-value width, layers, vocabulary: TinyLlama-1.1B and Mistral-7B with a vocabulary of 32,768.
SMALL = (2048, 5632, 256, 22, 32000)
LARGE = (4096, 14336, 1024, 32, 32768)
TINY = (16, 32, 8, 1, 64)

# Bytes that a step must move per parameter, with bfloat16 states and without clipping (2 more).
BYTES = {"nearest": 14, "stochastic": 14, "kahan": 18, "split": 18, "split8": 16}


def shapes(dims: tuple[int, int, int, int, int]) -> list[tuple[int, ...]]:
    hidden, inner, kv, layers, vocabulary = dims
    layer: list[tuple[int, ...]] = [(hidden, hidden), (kv, hidden), (kv, hidden), (hidden, hidden)]
    layer += [(inner, hidden), (inner, hidden), (hidden, inner), (hidden,), (hidden,)]
    return [(vocabulary, hidden), *layer * layers, (hidden,), (vocabulary, hidden)]


def make_params(bench: Bench, dims: tuple[int, int, int, int, int]) -> list[torch.nn.Parameter]:
    params = []
    for shape in shapes(TINY if bench.smoke else dims):
        param = torch.nn.Parameter(torch.empty(shape, dtype=torch.bfloat16, device=bench.device).uniform_(-0.05, 0.05))
        param.grad = torch.empty_like(param).uniform_(-1e-3, 1e-3)
        params.append(param)
    return params


def count(params: list[torch.nn.Parameter]) -> int:
    return sum(p.numel() for p in params)


def time_ours(bench: Bench, dims: tuple[int, int, int, int, int], extra: float = 0, **settings: Any) -> dict[str, Any]:
    """One row: the whole `step()`, host work included, at the bytes of its mode plus `extra` per parameter."""
    config, wide = settings.pop("config", None), settings.pop("wide_gradients", False)
    params = make_params(bench, dims)
    for param in params if wide else ():
        grad, param.grad = param.grad, None
        param.grad_dtype = torch.float32
        param.grad = grad.float()
    optimizer = FusedAdamW(params, 1e-4, backend="triton", **settings)
    if config is not None or bench.smoke:
        optimizer.launch_config = config or LaunchConfig(block=1024, chunk=1024)
    row = bench.time(optimizer.step, moved=float(BYTES[settings.get("rounding", "nearest")] + extra) * count(params))
    # What the host takes to launch a step, without waiting for it.
    times = []
    for _ in range(1 if bench.smoke else 5):
        started = time.perf_counter()
        optimizer.step()
        times.append(time.perf_counter() - started)
    return {**row, "parameters": count(params), "host_ms": sorted(times)[len(times) // 2] * 1e3}


def _ours(bench: Bench, dims: tuple[int, int, int, int, int], cases: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {
        name: bench.row(name, 8, lambda settings=settings: time_ours(bench, dims, **settings))
        for name, settings in cases.items()
    }


def ours_small(bench: Bench) -> None:
    results = _ours(
        bench,
        SMALL,
        {
            "nearest": {"rounding": "nearest"},
            "stochastic": {"rounding": "stochastic", "stochastic_variance": False},
            "stochastic, variance too": {"rounding": "stochastic"},
            "kahan": {"rounding": "kahan"},
            "split": {"rounding": "split"},
            "split8": {"rounding": "split8"},
            "nearest, clipped": {"rounding": "nearest", "max_grad_norm": 1.0, "extra": 2},
            "nearest, stale meter": {"rounding": "nearest", "stale_meter": True},
            "nearest, float32 states": {"rounding": "nearest", "state_dtype": torch.float32, "extra": 8},
            "stochastic, int8 states": {"rounding": "stochastic", "state_dtype": torch.int8, "extra": -3.75},
            "split8, int8 states": {"rounding": "split8", "state_dtype": torch.int8, "extra": -3.75},
            "stochastic, float32 gradients": {"rounding": "stochastic", "wide_gradients": True, "extra": 2},
        },
    )
    _ratio(bench, results)


def _ratio(bench: Bench, results: dict[str, Any]) -> None:
    if "median_ms" in results["nearest"] and "median_ms" in results["stochastic"]:
        ratio = results["stochastic"]["median_ms"] / results["nearest"]["median_ms"]
        bench.row("stochastic over nearest", 0, lambda: {"ratio": ratio})


def ours_large(bench: Bench) -> None:
    results = _ours(
        bench,
        LARGE,
        {
            "nearest": {"rounding": "nearest"},
            "stochastic": {"rounding": "stochastic", "stochastic_variance": False},
            "stochastic, variance too, clipped": {"rounding": "stochastic", "max_grad_norm": 1.0, "extra": 2},
        },
    )
    _ratio(bench, results)


def clipping(bench: Bench) -> None:
    """The norm by a pass before the step, and in the backward pass: what each adds to the step, or to the writing.

    A hook reads a gradient that was just written: the two rows of writes differ by what it costs there.
    """
    params = make_params(bench, SMALL)
    sources = [torch.empty_like(p).uniform_(-1e-3, 1e-3) for p in params]
    elements = count(params)
    config = LaunchConfig(block=1024, chunk=1024) if bench.smoke else LaunchConfig()

    def make(**settings: Any) -> FusedAdamW:
        optimizer = FusedAdamW(params, 1e-4, backend="triton", **settings)
        optimizer.launch_config = config
        return optimizer

    plain, reading, hooked = make(), make(max_grad_norm=1.0), make(max_grad_norm=1.0, norm_in_backward=True)

    def write(then: Callable[[torch.Tensor], Any] | None = None) -> None:
        for param, source in zip(params, sources, strict=True):
            if param.grad is not None:
                param.grad.copy_(source)
            if then is not None:
                then(param)

    squares = hooked.gradient_squares
    bench.row("no clipping: step", 5, lambda: bench.time(plain.step, moved=14.0 * elements))
    bench.row("clip: pass, step", 5, lambda: bench.time(reading.step, moved=16.0 * elements))
    write(squares.measure)
    bench.row("clip: hook, step", 5, lambda: bench.time(hooked.step, moved=14.0 * elements))
    for label, then in (("written", None), ("written and squared", squares.measure)):
        # Hundreds of small launches: replayed, since the host hides behind the backward pass in training only.
        row = lambda then=then: bench.time(bench.replayed(lambda: write(then)), moved=4.0 * elements)  # noqa: E731
        bench.row(f"clip: hook, gradients {label}", 5, row)


def sweep(bench: Bench) -> None:
    """Other cuts of the launch, to see whether the defaults stand on this device."""
    cuts = [(1024, 8192, 4), (1024, 4096, 4), (1024, 32768, 4), (2048, 16384, 8), (2048, 16384, 4), (4096, 32768, 8)]
    for block, chunk, warps in [(1024, 1024, 4)] if bench.smoke else cuts:
        for rounding in ("nearest", "stochastic"):
            settings = {"rounding": rounding, "config": LaunchConfig(block=block, chunk=chunk, warps=warps)}
            label = f"{rounding}, block {block}, chunk {chunk}, {warps} warps"
            bench.row(label, 5, lambda settings=settings: time_ours(bench, SMALL, **settings))
    for rounding in () if bench.smoke else ("nearest", "stochastic"):
        settings = {"rounding": rounding, "config": LaunchConfig(exact=True)}
        bench.row(f"{rounding}, exact", 5, lambda settings=settings: time_ours(bench, SMALL, **settings))


def compiled_step(params: list[torch.nn.Parameter]) -> Callable[[], Any]:
    """The best case for a compiled step: float32 math over one flat buffer, in one generated kernel."""
    flat = torch.cat([p.detach().view(-1) for p in params])
    grad = torch.cat([p.grad.view(-1) for p in params if p.grad is not None])
    m, v = torch.zeros_like(flat), torch.zeros_like(flat)
    rate = torch.tensor(1e-4, device=flat.device)

    @torch.compile(dynamic=False)
    def step(p, g, m, v, rate):  # type: ignore[no-untyped-def]
        g32 = g.float()
        m32 = m.float() * 0.9 + g32 * 0.1
        v32 = v.float() * 0.999 + g32 * g32 * 0.001
        p.copy_(p.float() * (1 - rate * 0.01) - rate * m32 / (v32.sqrt() + 1e-8))
        m.copy_(m32)
        v.copy_(v32)

    return lambda: step(flat, grad, m, v, rate)


def rival_optimizers() -> dict[str, Callable[[list[torch.nn.Parameter]], Callable[[], Any]]]:
    """Name to a maker of the step; a library that is missing fails in its maker."""

    def library(module: str, name: str, **settings: Any) -> Callable[[list[torch.nn.Parameter]], Callable[[], Any]]:
        return lambda params: getattr(importlib.import_module(module), name)(params, lr=1e-4, **settings).step

    return {
        "torch fused": lambda params: torch.optim.AdamW(params, 1e-4, fused=True).step,
        "torch foreach": lambda params: torch.optim.AdamW(params, 1e-4, foreach=True).step,
        "torch compiled, one flat buffer": compiled_step,
        "optimi, no kahan": library("optimi", "AdamW", kahan_sum=False, triton=True),
        "optimi, kahan": library("optimi", "AdamW", kahan_sum=True, triton=True),
        "flashoptim": library("flashoptim", "FlashAdamW"),
        "d9d, stochastic rounding": library("d9d.optim.stochastic", "StochasticAdamW", state_dtype=torch.bfloat16),
        "torchao, stochastic rounding": library("torchao.optim", "_AdamW", bf16_stochastic_round=True),
        "torchao, 8-bit states": library("torchao.optim", "AdamW8bit"),
    }


def time_rival(
    bench: Bench, dims: tuple[int, int, int, int, int], make: Callable[[list[torch.nn.Parameter]], Callable[[], Any]]
) -> dict[str, Any]:
    params = make_params(bench, dims)
    # At the 14 bytes of pure bfloat16, whatever the rival moves: what counts is the time of a step.
    return {**bench.time(make(params), moved=14.0 * count(params), seconds=4.0), "parameters": count(params)}


def rivals_small(bench: Bench) -> None:
    makers = rival_optimizers()
    for name in ("torch fused", "torch foreach", "optimi, kahan") if bench.smoke else makers:
        if "torchao" not in name:
            bench.rival(name, 10, lambda make=makers[name]: time_rival(bench, SMALL, make))


def rivals_slow(bench: Bench) -> None:
    """Those that compile a step for each shape, a minute in all."""
    makers = rival_optimizers()
    for name in () if bench.smoke else makers:
        if "torchao" in name:
            bench.rival(name, 30, lambda make=makers[name]: time_rival(bench, SMALL, make))


def rivals_large(bench: Bench) -> None:
    makers = rival_optimizers()
    large = ("torch fused", "optimi, no kahan", "flashoptim", "d9d, stochastic rounding")
    for name in large[:2] if bench.smoke else large:
        bench.rival(name, 15, lambda make=makers[name]: time_rival(bench, LARGE, make))
