"""The step for CPU tensors by the compiled core against the reference: the same bits, whatever the threads."""

import pytest
import torch
from adamw_cases import DEVICE, SIZES, assert_same_bits, bits, copy_entry, make_entry, scalars_for
from torch import nn

from langadapt_kernels import FusedAdamW, adamw_step, sparsemax
from langadapt_kernels.adamw import reference
from langadapt_kernels.adamw.modes import ROUNDINGS, ElementIndex
from langadapt_kernels.adamw.norm import square_sum
from langadapt_kernels.adamw.run import StepCache, run_step
from langadapt_kernels.backend import choose_backend, core

BF16, FP32 = torch.bfloat16, torch.float32
SCALE = torch.tensor(0.37)

pytestmark = pytest.mark.skipif(
    DEVICE.type != "cpu" or core() is None, reason="langadapt's compiled core steps CPU tensors, where it is installed"
)


def check(entries, *, alike: bool = False) -> None:
    """Step copies by both, with and without counting."""
    rows = [0 if alike else i for i in range(len(entries))]
    scalars = scalars_for(len(entries))
    expected, counted, plain = ([copy_entry(entry) for entry in entries] for _ in range(3))
    stale = [int(reference.adamw_step(e, scalars[row], SCALE)) for e, row in zip(expected, rows, strict=True)]
    settings = {"backend": "core", "cache": StepCache()}
    assert run_step(counted, rows, scalars, SCALE, count_stale=True, **settings).tolist() == stale
    assert run_step(plain, rows, scalars, SCALE, count_stale=False, **settings) is None
    for one, two, three in zip(expected, counted, plain, strict=True):
        assert_same_bits(one, two)
        assert_same_bits(one, three)


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_every_mode_and_size(rounding):
    for kwargs in ({}, {"state": FP32}, {"grad": FP32}, {"weight": FP32, "grad": FP32}, {"stochastic_variance": True}):
        check([make_entry(size, rounding, base=8 * i, **kwargs) for i, size in enumerate(SIZES)])


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_values_that_are_not_finite_or_about_to_overflow(rounding):
    special = [float("nan"), float("inf"), -float("inf"), 3.3895e38, -3.3895e38, 3.4e38, 0.0, -0.0, 1e-40, 1.0]
    for count in (1, 5, 10):
        entry = make_entry(640, rounding, stochastic_variance=True)
        entry.param[:count] = torch.tensor(special[:count])
        entry.grad[7 : 7 + count] = torch.tensor(special[:count])
        entry.exp_avg_sq[20 : 20 + count] = torch.tensor(special[:count]).abs()
        expected, found = copy_entry(entry), copy_entry(entry)
        reference.adamw_step(expected, scalars_for(1)[0], SCALE)
        # Counts are left out: what NaN is rounded to has other bits here.
        run_step([found], [0], scalars_for(1), SCALE, backend="core", cache=StepCache(), count_stale=True)
        assert_same_bits(expected, found)


@pytest.mark.parametrize("rounding", ["nearest", "stochastic", "split"])
def test_shards_and_odd_places(rounding):
    """Runs of a few elements, places within a group of eight, beyond 2**32 groups, and addresses at odd multiples."""
    entries = [make_entry(700 + i, rounding, base=1000 * i, stochastic_variance=True, offset=i) for i in range(6)]
    places = (ElementIndex(40, 7, 25), ElementIndex(13, 300, 900), ElementIndex(2**35 - 512, 10**6, 1))
    for entry, index in zip(entries, places, strict=False):
        entry.index = index
    check(entries, alike=True)


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_frozen_columns(rounding):
    """Rows shorter and longer than a block, masks that end within a byte, and more than one piece."""
    for rows, columns in ((700, 5), (3, 301), (300, 257)):
        check(
            [make_entry(rows * columns, rounding, stochastic_variance=True, columns=columns), make_entry(9, rounding)]
        )


def test_threads_change_nothing(monkeypatch):
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda count=threads: count)
        check([make_entry(size, "stochastic", base=8 * i) for i, size in enumerate((300_001, 0, 7, 999))])


def test_square_sums():
    entries = [make_entry(size, "nearest", grad=dtype) for size in (*SIZES, 100_003) for dtype in (BF16, FP32)]
    total = square_sum(entries, range(len(entries)), backend="core", cache=StepCache())
    expected = torch.stack([reference.square_sum(entry.grad) for entry in entries]).sum()
    assert total.dtype == torch.float64
    torch.testing.assert_close(total, expected, rtol=1e-15, atol=0)
    entries[0].grad[0] = float("inf")
    assert square_sum(entries, range(len(entries)), backend="core", cache=StepCache()) == float("inf")


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_the_optimizer_takes_the_core_unasked_and_gives_the_bits_of_the_reference(rounding, monkeypatch):
    """Clipping, groups, the meter, a strided parameter, a gradient of float32, and the function."""
    results = []
    plain, calls = core().adamw_step, []
    monkeypatch.setattr(core(), "adamw_step", lambda *rest, **named: calls.append(1) or plain(*rest, **named))
    for backend in (None, "reference"):
        generator = torch.Generator().manual_seed(0)
        params = [nn.Parameter(torch.randn(n, 24, generator=generator).to(BF16)) for n in (30, 3000, 1)]
        params.append(nn.Parameter(torch.randn(6, 4, generator=generator).to(BF16).t()))
        params.append(nn.Parameter(torch.randn(50, generator=generator)))
        groups = [{"params": params[:1], "lr": 1e-2}, {"params": params[1:], "weight_decay": 0.0}]
        optimizer = FusedAdamW(groups, 1e-3, rounding=rounding, max_grad_norm=0.1, stale_meter=True, backend=backend)
        for _ in range(3):
            for param in params:
                param.grad = torch.randn(param.shape, generator=generator).to(param.dtype)
            optimizer.step()
        results.append((params, float(optimizer.stale_share()), float(optimizer.grad_norm)))
    assert len(calls) == 3
    for ours, theirs in zip(results[0][0], results[1][0], strict=True):
        assert torch.equal(bits(ours.detach()), bits(theirs.detach()))
    assert results[0][1] == results[1][1] and results[0][2] == pytest.approx(results[1][2], rel=1e-6)


def test_autograd_notices_the_step():
    weight = nn.Parameter(torch.ones(4, dtype=BF16))
    optimizer = FusedAdamW([weight], 0.1)
    loss = (weight * weight).sum()
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_the_core_is_asked_for_where_it_has_nothing(monkeypatch):
    with pytest.raises(ValueError, match=r"'core' has AdamW, FOCUS and sparsemax \(not of float64\) for CPU tensors"):
        sparsemax(torch.zeros(2, 3, dtype=torch.float64), backend="core")
    with pytest.raises(ValueError, match="on: meta"):
        choose_backend("core", torch.device("meta"), in_core=True)
    monkeypatch.setattr("langadapt_kernels.backend.core", lambda: None)
    assert choose_backend(None, torch.device("cpu"), in_core=True) == "reference"
    weight = torch.zeros(3, dtype=BF16)
    moments = [torch.zeros_like(weight)], [torch.zeros_like(weight)]
    with pytest.raises(RuntimeError, match="`langadapt` is not installed"):
        adamw_step([weight], [weight.clone()], *moments, step=1, lr=0.1, backend="core")


def test_what_the_core_refuses():
    """A caller of the compiled function cannot make it write where it should not."""
    array, scalars = torch.zeros(8).numpy(), scalars_for(1).numpy()
    described = {
        "weight": array,
        "grad": torch.zeros(8).numpy(),
        "exp_avg": torch.zeros(8).numpy(),
        "exp_avg_sq": torch.zeros(8).numpy(),
        "low": None,
        "rounding": "nearest",
        "stochastic_variance": False,
        "seed": 0,
        "index": (0, 8, 1),
        "row": 0,
        "frozen": None,
        "columns": 1,
        "exp_avg_scale": None,
        "exp_avg_sq_scale": None,
    }
    codes = {name: torch.zeros(64, dtype=torch.uint8).numpy() for name in ("exp_avg", "exp_avg_sq")}
    codes |= {name: torch.zeros(64).numpy() for name in ("weight", "grad")}
    scales = {name: torch.zeros(1).numpy() for name in ("exp_avg_scale", "exp_avg_sq_scale")}
    for change, message in (
        ({"exp_avg": array}, "given twice"),
        ({"grad": torch.zeros(7).numpy()}, "differ in length"),
        ({"rounding": "odd"}, "no rounding of this kind: odd"),
        ({"row": 1}, "no row of nine scalars: 1"),
        ({"index": (0, 0, 1)}, "runs are empty"),
        ({"frozen": torch.zeros(1, dtype=torch.uint8).numpy(), "columns": 9}, "not as long as its matrix is wide"),
        ({"weight": torch.zeros(8, dtype=torch.uint8).numpy()}, "not bytes"),
        (codes, "moments are of one kind"),
        (scales, "moments are of one kind"),
        (codes | scales | {"exp_avg_scale": torch.zeros(2).numpy()}, "lack a scale for each 64"),
    ):
        with pytest.raises(ValueError, match=message):
            core().adamw_step([described | change], scalars, 1.0, threads=1)
    assert core().adamw_step([described], scalars, 1.0, threads=1) == [8]
