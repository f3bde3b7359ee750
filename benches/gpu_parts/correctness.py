"""Is it right on this device? Against float64, and bit for bit against the CPU where that is promised."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor

from langadapt_kernels import FusedAdamW, focus_combine, sparsemax
from langadapt_kernels.adamw.modes import LOW_BITS, ROUNDINGS, ElementIndex, Entry, scalar_table
from langadapt_kernels.adamw.norm import square_sum
from langadapt_kernels.adamw.run import LaunchConfig, StepCache, run_step
from langadapt_kernels.rounding.reference import unsplit

from .measure import Bench

BF16, FP32 = torch.bfloat16, torch.float32

# The interpreter's time goes by programs and loops, whatever their size.
SMOKE: dict[str, Any] = {"block": 8192, "chunk": 8192}


def make_entry(
    size: int, rounding: str, device: torch.device, *, base: int = 0, state: torch.dtype = BF16, offset: int = 0
) -> Entry:
    """Fresh random numbers of a step in the middle of training."""

    def draw(dtype: torch.dtype, scale: float) -> Tensor:
        return (torch.randn(size + offset, device=device) * scale).to(dtype)[offset:]

    low = None
    if rounding in LOW_BITS:
        dtype = LOW_BITS[rounding][1]
        low = draw(dtype, 1e-3) if dtype == BF16 else torch.randint(0, 127, (size,), device=device).to(dtype)
    moments = draw(state, 0.01), draw(state, 1e-3).abs_()
    index = ElementIndex(base, size, 1)
    return Entry(draw(BF16, 1.0), draw(BF16, 0.1), *moments, low, rounding, rounding == "stochastic", 77, index)


def copy_to(entry: Entry, device: torch.device) -> Entry:
    tensors = (entry.param, entry.grad, entry.exp_avg, entry.exp_avg_sq, entry.low)
    copies = [None if t is None else t.to(device, copy=True) for t in tensors]
    return Entry(*copies, entry.rounding, entry.stochastic_variance, entry.seed, entry.index)


def step(entries: list[Entry], backend: str, config: LaunchConfig) -> Tensor | None:
    """The stale counts, for which the step is made."""
    device = entries[0].param.device
    settings = torch.tensor([[1e-3, 0.9, 0.95, 1e-8, 0.1]] * len(entries), dtype=torch.float64, device=device)
    scalars = scalar_table(settings, torch.arange(1.0, 1.0 + len(entries), device=device))
    scale = torch.tensor(0.37, device=device)
    rows = list(range(len(entries)))
    return run_step(entries, rows, scalars, scale, backend=backend, cache=StepCache(config), count_stale=True)


def float64_weight(entry: Entry, row: int) -> Tensor:
    """The updated weight of the entry as it is before the step, in float64."""
    param, grad, m, v = (t.double() for t in (entry.param, entry.grad, entry.exp_avg, entry.exp_avg_sq))
    if entry.rounding == "kahan" and entry.low is not None:
        param = param + entry.low.double()
    elif entry.low is not None:
        param = unsplit(entry.param, entry.low).double()
    grad = grad * 0.37
    m, v = 0.9 * m + 0.1 * grad, 0.95 * v + 0.05 * grad * grad
    count = row + 1
    m, v = m / (1 - 0.9**count), v / (1 - 0.95**count)
    return param * (1 - 1e-3 * 0.1) - 1e-3 * m / (v.sqrt() + 1e-8)


def adamw(bench: Bench) -> None:
    """Every mode, many sizes in one launch: exact math bit for bit as on a CPU, fast math beside float64."""
    sizes = (1, 7, 0, 1009, 9000) if bench.smoke else (1, 7, 0, 1009, 8192, 65549, 3_000_001)
    for rounding in ROUNDINGS:
        for state in (BF16, FP32) if rounding == "nearest" else (BF16,):
            label = f"{rounding}, states {str(state)[6:]}"
            bench.row(label, 5, lambda rounding=rounding, state=state: _compare(bench, rounding, state, sizes))


def _compare(bench: Bench, rounding: str, state: torch.dtype, sizes: tuple[int, ...]) -> dict[str, Any]:
    entries, base = [], 0
    for position, size in enumerate(sizes):
        offset = 1 if position == 3 else 0
        entries.append(make_entry(size, rounding, bench.device, base=base, state=state, offset=offset))
        base += -(-size // 8) * 8
    fast, exact = ([copy_to(e, bench.device) for e in entries] for _ in range(2))
    cpu = [copy_to(e, torch.device("cpu")) for e in entries]
    truth = [float64_weight(e, row) for row, e in enumerate(entries)]
    block = SMOKE if bench.smoke else {}
    counted = step(exact, "triton", LaunchConfig(exact=True, **block))
    step(fast, "triton", LaunchConfig(**block))
    expected = step(cpu, "reference", LaunchConfig())
    assert counted is not None and expected is not None
    different, flips, worst = int((counted.cpu() != expected).sum()), 0, 0.0
    for e, f, c, t in zip(exact, fast, cpu, truth, strict=True):
        for name in ("param", "exp_avg", "exp_avg_sq", "low"):
            left, right = getattr(e, name), getattr(c, name)
            if left is not None:
                different += int((left.cpu() != right).sum())
        flips += int((f.param.cpu() != c.param).sum())
        if t.numel():
            # In units in the last place of bfloat16; below 1e-3 what is left of a weight is float32's own error.
            unit = torch.clamp(t.abs(), min=1e-3).log2().floor().exp2() * 2**-7
            worst = max(worst, float(((f.param.double() - t).abs() / unit).max()))
    limit = 1.01 if rounding == "stochastic" else 0.51
    elements = sum(sizes)
    right = different == 0 and worst <= limit and flips <= 1e-3 * elements + 2
    note = f"exact: {different} bits off the CPU; fast: {flips} of {elements} weights, by {worst:.3f} units at most"
    return {"ok": right, "note": note}


def stochastic(bench: Bench) -> None:
    """Unbiased within five standard errors; the same bits whatever the cut."""

    def unbiased() -> dict[str, Any]:
        size = 1 << (13 if bench.smoke else 24)
        entry = make_entry(size, "stochastic", bench.device)
        entry.param.fill_(1.0)
        entry.grad.zero_()
        entry.exp_avg.zero_()
        step([entry], "triton", LaunchConfig(**(SMOKE if bench.smoke else {})))
        target, low = 1 - 1e-4, 1 - 2**-8
        probability = (1 - target) / 2**-8
        share = float((entry.param == low).double().mean())
        error = (probability * (1 - probability) / size) ** 0.5
        note = f"{share:.6f} rounded down, {probability:.6f} expected"
        return {"ok": abs(share - probability) < 5 * error, "note": note}

    def cuts() -> dict[str, Any]:
        whole = make_entry(20000 if bench.smoke else 1_000_000, "stochastic", bench.device)
        other = copy_to(whole, bench.device)
        step([whole], "triton", LaunchConfig(block=4096, chunk=8192))
        step([other], "triton", LaunchConfig(block=2048, chunk=16384, warps=8))
        same = all(torch.equal(getattr(whole, n), getattr(other, n)) for n in ("param", "exp_avg", "exp_avg_sq"))
        return {"ok": same}

    bench.row("unbiased", 5, unbiased)
    bench.row("independent of blocks", 5, cuts)


def optimizer(bench: Bench) -> None:
    """The optimizer beside torch's fused one in float32, and its norm beside float64."""
    bench.row("beside torch in float32", 10, lambda: _beside_torch(bench))
    bench.row("square sum", 10, lambda: _norm(bench))
    bench.row("norm in the backward pass", 10, lambda: _in_backward(bench))


def _beside_torch(bench: Bench) -> dict[str, Any]:
    """The optimizer beside torch's fused one in float32."""
    torch.manual_seed(0)
    shapes = [(64, 32), (100,)] if bench.smoke else [(4096, 1024), (4096,), (1000, 333)]
    ours = [torch.nn.Parameter(torch.randn(s, device=bench.device)) for s in shapes]
    truth = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    backend = "triton"
    fused = FusedAdamW(ours, 1e-3, max_grad_norm=1.0, backend=backend)
    torchs = torch.optim.AdamW(truth, 1e-3, fused=not bench.smoke)
    for _ in range(2 if bench.smoke else 20):
        for a, b in zip(ours, truth, strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        norm = torch.nn.utils.clip_grad_norm_(truth, 1.0)
        torchs.step()
        fused.step()
    worst = max(float((a - b).detach().abs().max()) for a, b in zip(ours, truth, strict=True))
    off = abs(float(fused.grad_norm) / float(norm) - 1) if fused.grad_norm is not None else 1.0
    return {"ok": worst < 1e-5 and off < 1e-5, "note": f"weights {worst:.1e} apart, norms {off:.1e}"}


def _norm(bench: Bench) -> dict[str, Any]:
    """The gradient norm beside float64."""
    sizes = (9000, 13) if bench.smoke else (50_000_001, 13, 8192)
    entries = [make_entry(size, "nearest", bench.device) for size in sizes]
    cache = StepCache()
    totals = [square_sum(entries, list(range(len(sizes))), backend="triton", cache=cache) for _ in range(2)]
    exact = sum(float(e.grad.double().square().sum()) for e in entries)
    off = abs(float(totals[0]) / exact - 1)
    return {"ok": off < 1e-6 and bool(torch.equal(*totals)), "note": f"{off:.1e} off, the same bits twice"}


def _in_backward(bench: Bench) -> dict[str, Any]:
    """Norms by hooks in the backward pass beside norms by a pass of their own."""
    torch.manual_seed(0)
    width, outcomes = (16 if bench.smoke else 2048), []
    x = torch.randn(64, width, device=bench.device, dtype=BF16)
    start = [torch.randn(width, width, device=bench.device).to(BF16) * 0.02 for _ in range(3)]
    for hooks in (True, False):
        params = [torch.nn.Parameter(value.clone()) for value in start]
        both = FusedAdamW(params, 1e-3, max_grad_norm=0.1, norm_in_backward=hooks, backend="triton")
        for _ in range(2 if bench.smoke else 5):
            y = x
            for param in params:
                y = torch.tanh(y @ param)
            y.float().square().mean().backward()
            if hooks and not all(both.gradient_squares.known(p) for p in params):
                return {"ok": False, "note": "a hook measured nothing"}
            both.step()
            both.zero_grad()
        outcomes.append((params, both.grad_norm))
    # Programs may add up their float64 sums in another order; a weight then differs where rounding was a tie.
    off = abs(float(outcomes[0][1]) / float(outcomes[1][1]) - 1)
    flips = sum(int((a != b).sum()) for a, b in zip(outcomes[0][0], outcomes[1][0], strict=True))
    return {"ok": off < 1e-6 and flips <= 1e-4 * 3 * width**2, "note": f"norms {off:.1e} apart, {flips} weights"}


def graph(bench: Bench) -> None:
    """A captured step, replayed with a changing learning rate, is the step."""

    def captured() -> dict[str, Any]:
        if bench.smoke:
            return {"skipped": "CUDA graphs need a GPU"}
        torch.manual_seed(0)
        start = torch.randn(3000, 333, device=bench.device).to(BF16)
        outcomes = []
        for capture in (False, True):
            param = torch.nn.Parameter(start.clone())
            param.grad = torch.zeros_like(param)
            rate = torch.tensor(1e-3, device=bench.device)
            step_of = FusedAdamW([param], rate, rounding="stochastic", max_grad_norm=1.0, seed=5)
            recorded = torch.cuda.CUDAGraph()
            side = torch.cuda.Stream()
            for turn in range(6):
                torch.manual_seed(turn)
                param.grad.copy_(torch.randn_like(param))
                rate.fill_(1e-3 / (1 + turn))
                if not capture or turn < 2:
                    side.wait_stream(torch.cuda.current_stream())
                    with torch.cuda.stream(side):
                        step_of.step()
                    torch.cuda.current_stream().wait_stream(side)
                else:
                    if turn == 2:
                        with torch.cuda.graph(recorded):
                            step_of.step()
                    recorded.replay()
            torch.cuda.synchronize()
            outcomes.append((param.detach(), float(step_of.state[param]["step"])))
        same = torch.equal(outcomes[0][0], outcomes[1][0]) and outcomes[0][1] == outcomes[1][1] == 6
        return {"ok": same, "note": f"steps counted: {outcomes[0][1]:.0f} and {outcomes[1][1]:.0f}"}

    bench.row("capture and replay", 10, captured)


def sparsemax_rows(bench: Bench) -> None:
    """Rows of many lengths, resident and streaming, forward and backward, beside float64."""
    kernel = importlib.import_module("langadapt_kernels.sparsemax.kernel")

    def case(n: int, dtype: torch.dtype) -> dict[str, Any]:
        x = torch.randn(3 if bench.smoke else 33, n, device=bench.device).to(dtype)
        truth = sparsemax(x.double(), backend="reference")
        grad = torch.randn_like(x)
        with bench.poisoned():
            outputs = [kernel.sparsemax(x), kernel.sparsemax(x, resident=0)]
            back = kernel.sparsemax_backward(truth.to(dtype), grad)
        expected = _backward(truth.to(dtype), grad)
        worst = max(float((o.double() - truth).abs().max()) for o in outputs)
        off = float((back.double() - expected).abs().max())
        limit = 1e-6 if dtype == FP32 else 4e-3
        return {"ok": worst < limit and off < 8 * limit, "note": f"forward {worst:.1e}, backward {off:.1e} off"}

    def not_finite() -> dict[str, Any]:
        inf, nan, n = float("inf"), float("nan"), 8 if bench.smoke else 32768
        x = torch.full((4, n), -1.0, device=bench.device)
        x[0, n // 2], x[1, -1], x[2, :-2], x[3, 0] = nan, inf, -inf, nan
        found = [kernel.sparsemax(x), kernel.sparsemax(x, resident=0)]
        right = all(bool(o[[0, 1, 3]].isnan().all()) and o[2, -3:].tolist() == [0.0, 0.5, 0.5] for o in found)
        return {"ok": right}

    bench.row("rows that are not finite", 5, not_finite)
    lengths = [(1, FP32), (100, FP32), (5000, BF16)]
    if not bench.smoke:
        lengths = [(n, FP32) for n in (1, 127, 4096, 9001, 32000, 32768, 50257, 262144)] + [
            (n, BF16) for n in (1000, 50257)
        ]
    for n, dtype in lengths:
        bench.row(f"n = {n}, {str(dtype)[6:]}", 5, lambda n=n, dtype=dtype: case(n, dtype))


def _backward(output: Tensor, grad: Tensor) -> Tensor:
    support = output > 0
    inside = torch.where(support, grad.double(), 0)
    return torch.where(support, inside - inside.sum(1, keepdim=True) / support.sum(1, keepdim=True), 0)


def focus(bench: Bench) -> None:
    """Clustered, random, duplicated and equal vectors, beside float64."""
    count, anchors, width, d = (5, 150, 40, 24) if bench.smoke else (1500, 5000, 300, 777)

    def case(kind: str) -> dict[str, Any]:
        a, b = torch.randn(count, width, device=bench.device), torch.randn(anchors, width, device=bench.device)
        if kind == "clustered":
            centres = torch.randn(50, width, device=bench.device)
            a = 0.6 * a + centres[torch.randint(50, (count,), device=bench.device)]
            b = 0.6 * b + centres[torch.randint(50, (anchors,), device=bench.device)]
        elif kind == "duplicated":
            b = b[: anchors // 5].repeat(5, 1)
        elif kind == "equal":
            b[:] = b[:1].clone()
        rows = torch.randn(len(b), d, device=bench.device), torch.randn(len(b), 8, device=bench.device).to(BF16)
        with bench.poisoned():
            outputs = focus_combine(a, b, rows, backend="triton")
        unit = [x.double() / x.double().norm(dim=1, keepdim=True) for x in (a, b)]
        weights = sparsemax(unit[0] @ unit[1].T, backend="reference")
        off = [float((o.double() - weights @ r.double()).abs().max()) for o, r in zip(outputs, rows, strict=True)]
        support = (weights > 0).sum(1).double()
        note = f"float32 {off[0]:.1e}, bfloat16 {off[1]:.1e} off; supports {support.mean():.0f} to {support.max():.0f}"
        return {"ok": off[0] < 2e-5 and off[1] < 3e-2, "note": note}

    kinds = ("clustered", "random", "duplicated", "equal")
    for kind in kinds:
        bench.row(kind, 10, lambda kind=kind: case(kind))


def offsets(bench: Bench) -> None:
    """One tensor of more than 2**31 elements: its end is stepped like any other part."""

    def case() -> dict[str, Any]:
        size = 20011 if bench.smoke else 2**31 + 20011
        if not bench.smoke and torch.cuda.mem_get_info()[0] < 10 * size:
            return {"skipped": "needs 22 GB of free memory"}
        generator = torch.Generator(bench.device).manual_seed(1)
        tensors = [torch.zeros(size, dtype=BF16, device=bench.device) for _ in range(4)]
        middle = size // 16 * 8
        parts = (slice(0, 9000), slice(middle, middle + 9000), slice(size - size % 8 - 8192, size))
        for tensor, scale in zip(tensors, (1.0, 0.1, 0.01, 1e-3), strict=True):
            for part in parts:
                drawn = torch.randn(tensor[part].shape, generator=generator, device=bench.device)
                tensor[part] = (drawn * scale).to(BF16)
        tensors[3].abs_()
        entry = Entry(*tensors, None, "stochastic", True, 9, ElementIndex(0, size, 1))
        expected = []
        for part in parts:
            index = ElementIndex(part.start, part.stop - part.start, 1)
            cut = Entry(*(t[part].cpu() for t in tensors), None, "stochastic", True, 9, index)
            step([cut], "reference", LaunchConfig())
            expected.append(cut)
        block = SMOKE if bench.smoke else {}
        step([entry], "triton", LaunchConfig(exact=True, **block))
        different = sum(int((entry.param[p].cpu() != e.param).sum()) for p, e in zip(parts, expected, strict=True))
        return {"ok": different == 0, "note": f"{different} weights differ from the CPU's"}

    bench.row("more than 2**31 elements", 20, case)
