"""Moments as companded codes of a byte: the same codes from kernel, compiled core and reference; what they keep."""

import copy
import io

import pytest
import torch
from adamw_cases import (
    CODED_SIZES,
    DEVICE,
    WRITTEN,
    assert_same_bits,
    bits,
    copy_entry,
    frozen_of,
    make_entry,
    run,
)
from torch import nn

from langadapt_kernels import FusedAdamW
from langadapt_kernels.adamw.modes import ROUNDINGS, ElementIndex
from langadapt_kernels.adamw.run import LaunchConfig
from langadapt_kernels.backend import core
from langadapt_kernels.codes import GROUP
from langadapt_kernels.codes import reference as codes

BF16, FP32, INT8 = torch.bfloat16, torch.float32, torch.int8
BACKENDS = (
    "triton",
    pytest.param("core", marks=pytest.mark.skipif(DEVICE.type != "cpu" or core() is None, reason="no compiled core")),
)
SHAPES = ((33, 2 * GROUP), (GROUP,), (5, 3, GROUP), (7, 10))
SETTINGS = {"lr": 1e-3, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}

backends = pytest.mark.parametrize("backend", BACKENDS)


def agree(entries, backend: str) -> None:
    """Step copies by a backend and by the reference."""
    found, expected = ([copy_entry(entry) for entry in entries] for _ in range(2))
    assert torch.equal(run(found, backend), run(expected, "reference"))
    for one, other in zip(found, expected, strict=True):
        assert_same_bits(one, other)


@backends
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_codes_agree_in_every_bit(rounding, backend):
    for kwargs in ({}, {"stochastic_variance": True}, {"weight": FP32, "grad": FP32, "stochastic_variance": True}):
        entries = [make_entry(s, rounding, base=8 * i, state=INT8, **kwargs) for i, s in enumerate(CODED_SIZES)]
        agree(entries, backend)


@backends
def test_odd_addresses_short_runs_and_frozen_columns_agree(backend):
    entries = [
        make_entry(4096 + GROUP, "stochastic", state=INT8, stochastic_variance=True, offset=1),
        make_entry(80 * 3 * GROUP, "stochastic", state=INT8, stochastic_variance=True, columns=3 * GROUP),
        make_entry(5 * GROUP, "kahan", base=12345, state=INT8, stochastic_variance=True),
        make_entry(50 * GROUP, "stochastic", base=2**33 + 8, state=INT8, stochastic_variance=True),
        make_entry(50 * GROUP, "stochastic", base=8, state=INT8),
    ]
    entries[3].index = ElementIndex(40, GROUP, 250)
    entries[4].grad = torch.cat((entries[4].grad[:4], entries[4].grad))[4:]
    agree(entries, backend)
    before, columns = copy_entry(entries[1]), 3 * GROUP
    run(entries[1:2], backend)
    still = frozen_of(columns).repeat(80).to(DEVICE)
    for name in ("param", "exp_avg", "exp_avg_sq"):
        moved = getattr(entries[1], name) != getattr(before, name)
        assert not moved[still].any() and moved[~still].any(), name


def test_codes_do_not_depend_on_blocks_or_launches():
    whole = make_entry(320 * GROUP, "stochastic", state=INT8, stochastic_variance=True)
    recut, halves = copy_entry(whole), copy_entry(whole)
    run([whole], "triton")
    run([recut], "triton", LaunchConfig(block=1024, chunk=2048, exact=True))
    assert_same_bits(whole, recut)
    for part in (slice(0, 131 * GROUP), slice(131 * GROUP, 320 * GROUP)):
        half = copy_entry(halves)
        for name in ("param", "grad", "exp_avg", "exp_avg_sq", "exp_avg_scale", "exp_avg_sq_scale"):
            unit = GROUP if name.endswith("scale") else 1
            setattr(half, name, getattr(halves, name)[part.start // unit : part.stop // unit])
        half.index = ElementIndex(part.start, half.param.numel(), 1)
        run([half], "triton")
    assert_same_bits(whole, halves)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, in the interpreter, where a GPU says nothing
@backends
def test_numbers_that_are_not_finite_spoil_their_group_alone(backend):
    for odd in (float("nan"), float("inf"), -float("inf"), 3e38):
        entry = make_entry(9 * GROUP, "split8", state=INT8, stochastic_variance=True)
        entry.grad[4 * GROUP + 5] = odd
        expected, found = copy_entry(entry), copy_entry(entry)
        run([expected], "reference", scale=None)
        run([found], backend, scale=None)
        assert_same_bits(expected, found)
        assert found.exp_avg_sq_scale.isnan().nonzero().flatten().tolist() == [4]
        assert not found.exp_avg_sq[4 * GROUP : 5 * GROUP].any()


def test_what_codes_keep():
    """Over twelve orders of magnitude: a hundredth of the group's largest is known to 4 %, and nothing becomes zero."""
    generator = torch.Generator().manual_seed(0)
    size = torch.rand(200 * GROUP, generator=generator).mul(12).neg().exp2() * torch.randn(1, generator=generator).exp()
    average = size * torch.randn(size.shape, generator=generator).sign()
    found = codes.decode_average(*codes.encode_average(average, None))
    most = average.abs().view(-1, GROUP).amax(1).repeat_interleave(GROUP)
    assert ((found - average).abs() <= (size + most).square() / most / 254 * 0.503).all()
    variance = size.square()
    for random in (None, torch.randint(0, 2**16, size.shape, generator=generator, dtype=torch.int32)):
        root = codes.decode_variance(*codes.encode_variance(variance, random, None)).sqrt()
        assert (root > 0).all()
        clear = size >= most / 100
        error = (root / size - 1).abs()
        assert error[clear].max() < (0.041 if random is None else 0.081) and error[clear].mean() < 0.02
    zeros = torch.zeros(GROUP)
    for found in (codes.encode_average(zeros, None), codes.encode_variance(zeros, None, None)):
        assert not found[0].any() and not found[1].any()
    one = zeros.clone()
    one[3:5] = torch.tensor([1.0, 1e-38])
    assert codes.encode_variance(one, None, None)[0][3:6].tolist() == [255, 1, 0]


def test_stochastic_codes_shrink_where_nearest_stands_still():
    """A second moment that decays beside one that does not, for as long as it takes to halve it."""
    moments = {}
    for stochastic in (False, True):
        param = nn.Parameter(torch.ones(64, GROUP, dtype=BF16, device=DEVICE))
        optimizer = FusedAdamW([param], 0.0, (0.9, 0.99), state_dtype=INT8, stochastic_variance=stochastic)
        for step in range(70):
            param.grad = torch.full_like(param, 0.1 if step == 0 else 0.0)
            param.grad[:, 0] = 1.0
            optimizer.step()
        state = optimizer.state[param]
        found = codes.decode_variance(state["exp_avg_sq"].view(-1), state["exp_avg_sq_scale"].view(-1))
        moments[stochastic] = float(found.view(64, GROUP)[:, 1:].mean() / (0.01 * 0.1**2 * 0.99**69))
    assert moments[False] > 1.5
    assert moments[True] == pytest.approx(1, abs=0.1)


def make_params(dtype=BF16) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator).to(BF16).to(dtype)) for shape in SHAPES]


def train(optimizer, params, steps) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(1000 + step)
        for param in params:
            param.grad = (torch.randn(param.shape, generator=generator) * 0.02).to(BF16).to(param.dtype)
        optimizer.step()


def test_hundred_steps_beside_torch_in_float32():
    """Of float32 weights under gradients that are noise: what the codes lose is a hundredth of the way."""
    params, truth, start = make_params(FP32), make_params(FP32), make_params(FP32)
    train(FusedAdamW(params, **SETTINGS, state_dtype=INT8), params, range(100))
    train(torch.optim.AdamW(truth, **SETTINGS), truth, range(100))
    for param, exact, before in zip(params, truth, start, strict=True):
        error = (param - exact).norm() / (exact - before).norm()
        coded = param.dim() > 1 and param.shape[-1] % GROUP == 0
        assert (1e-3 < error < 0.02) if coded else (error < 1e-5), param.shape


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_resumed_is_uninterrupted_bit_for_bit(rounding):
    kwargs = {**SETTINGS, "rounding": rounding, "state_dtype": INT8, "max_grad_norm": 0.5}
    params, other = make_params(), make_params()
    ours, first = FusedAdamW(params, **kwargs, seed=7), FusedAdamW(other, **kwargs, seed=7)
    train(ours, params, range(8))
    train(first, other, range(4))
    saved = io.BytesIO()
    torch.save(first.state_dict(), saved)
    second = FusedAdamW(other, **kwargs, seed=99)
    second.load_state_dict(torch.load(io.BytesIO(saved.getvalue()), weights_only=True))
    train(second, other, range(4, 8))
    for a, b in zip(params, other, strict=True):
        assert torch.equal(bits(a.detach()), bits(b.detach()))
        assert ours.state[a].keys() == second.state[b].keys()
        for name, value in ours.state[a].items():
            assert value.dtype == second.state[b][name].dtype and torch.equal(value, second.state[b][name])


def test_what_has_codes_and_how_many_bytes():
    params = make_params()
    optimizer = FusedAdamW(params, state_dtype=INT8)
    train(optimizer, params, range(1))
    coded = [optimizer.state[param]["exp_avg"].dtype == INT8 for param in params]
    assert coded == [True, False, True, False]
    moments = [value for name, value in optimizer.state[params[0]].items() if name in WRITTEN]
    assert sum(value.nbytes for value in moments) == 2.125 * params[0].numel()
    assert optimizer.state[params[1]]["exp_avg"].dtype == optimizer.state[params[3]]["exp_avg_sq"].dtype == BF16
    assert optimizer.state[params[2]]["exp_avg_scale"].shape == (5, 3, 1)
    turned = nn.Parameter(torch.zeros(GROUP, 2 * GROUP, dtype=BF16).t())
    optimizer = FusedAdamW([turned], state_dtype=INT8)
    train(optimizer, [turned], range(1))
    assert optimizer.state[turned]["exp_avg"].dtype == BF16


def test_codes_and_numbers_are_not_converted():
    states = {}
    for dtype in (None, FP32, INT8):
        params = make_params()
        optimizer = FusedAdamW(params, state_dtype=dtype)
        train(optimizer, params, range(2))
        states[dtype] = copy.deepcopy(optimizer.state_dict())
    for saved, wanted in ((INT8, None), (INT8, FP32), (None, INT8), (FP32, INT8)):
        optimizer = FusedAdamW(make_params(), state_dtype=wanted)
        with pytest.raises(
            ValueError, match=r"loaded `exp_avg` is torch\.\w+, but this optimizer keeps torch"
        ) as error:
            optimizer.load_state_dict(copy.deepcopy(states[saved]))
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="`state_dtype` must be one of"):
        FusedAdamW(make_params(), state_dtype=torch.uint8)


def test_released_and_frozen_as_stepped_whole():
    """Gradient release with a mask gives the bits of a whole step with it; frozen columns keep no moments."""
    results = []
    for release in (False, True):
        params = make_params()
        optimizer = FusedAdamW(
            params, 1e-2, rounding="stochastic", state_dtype=INT8, gradient_release=release, weight_decay=0.1
        )
        optimizer.freeze_columns(params[0], frozen_of(2 * GROUP))
        for step in range(3):
            generator = torch.Generator().manual_seed(step)
            loss = sum((p.float() * torch.randn(p.shape, generator=generator)).sum() for p in params)
            loss.backward()
            if not release:
                optimizer.step()
                optimizer.zero_grad()
        results.append((params, optimizer))
    for a, b in zip(results[0][0], results[1][0], strict=True):
        assert torch.equal(bits(a.detach()), bits(b.detach()))
        for name, value in results[0][1].state[a].items():
            assert torch.equal(value, results[1][1].state[b][name]), name
    still, (param, state) = frozen_of(2 * GROUP), (results[0][0][0], results[0][1].state[results[0][0][0]])
    assert torch.equal(param.detach()[:, still], make_params()[0].detach()[:, still])
    assert not state["exp_avg"][:, still].any() and not state["exp_avg_sq"][:, still].any()
    assert (state["exp_avg_sq"][:, ~still] > 0).all()


@backends
def test_the_optimizer_gives_the_bits_of_the_reference(backend):
    results = []
    for chosen in (backend, "reference"):
        params = [nn.Parameter(param.detach().to(DEVICE)) for param in make_params()]
        optimizer = FusedAdamW(
            params, 1e-2, rounding="stochastic", state_dtype=INT8, stale_meter=True, backend=chosen, max_grad_norm=1.0
        )
        optimizer.launch_config = LaunchConfig(block=1024, chunk=2048, exact=True)
        for step in range(3):
            generator = torch.Generator().manual_seed(step)
            for param in params:
                param.grad = torch.randn(param.shape, generator=generator).to(BF16).to(DEVICE)
            optimizer.step()
        results.append((params, optimizer, float(optimizer.stale_share())))
    for a, b in zip(results[0][0], results[1][0], strict=True):
        assert torch.equal(bits(a.detach()), bits(b.detach()))
        for name, value in results[0][1].state[a].items():
            assert torch.equal(bits(value), bits(results[1][1].state[b][name])), name
    assert results[0][2] == results[1][2]


def test_a_model_learns_as_with_float32_states():
    """A network beside a random teacher, three seeds: its last losses are those of float32 states to a twentieth."""
    losses = {}
    for dtype in (FP32, INT8):
        for seed in range(3):
            torch.manual_seed(seed)
            model = nn.Sequential(nn.Linear(GROUP, GROUP), nn.Tanh(), nn.Linear(GROUP, GROUP, bias=False)).to(BF16)
            teacher = nn.Sequential(nn.Linear(GROUP, GROUP), nn.Tanh(), nn.Linear(GROUP, GROUP))
            optimizer = FusedAdamW(
                model.parameters(), 5e-3, (0.9, 0.95), rounding="stochastic", state_dtype=dtype, seed=seed
            )
            last = []
            for step in range(300):
                optimizer.param_groups[0]["lr"] = 5e-3 * (1 - step / 300)
                x = torch.randn(64, GROUP)
                loss = (model(x.to(BF16)).float() - teacher(x).detach()).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                last.append(float(loss.detach()))
            losses[dtype, seed] = sum(last[-20:]) / 20
            assert losses[dtype, seed] < last[0] / 4
    for seed in range(3):
        assert losses[INT8, seed] == pytest.approx(losses[FP32, seed], rel=0.05)
