"""`FusedAdamW` as an optimizer: beside torch's in float32, through checkpoints, groups, clipping, release,
compilation."""

import copy
import io
import pickle

import pytest
import torch
from adamw_cases import bits
from torch import nn

from langadapt_kernels import FusedAdamW, adamw_step
from langadapt_kernels.adamw import rows
from langadapt_kernels.adamw.modes import ROUNDINGS
from langadapt_kernels.adamw.run import LaunchConfig

BF16, FP32 = torch.bfloat16, torch.float32
SETTINGS = {"lr": 1e-3, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}
SHAPES = ((31, 17), (1,), (1009,), (64, 8))


def make_params(dtype=BF16, seed=0) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator).to(BF16).to(dtype)) for shape in SHAPES]


def set_grads(params, step: int, scale=0.02) -> None:
    """The same bfloat16 gradients for every optimizer, whatever the dtype of its parameters."""
    generator = torch.Generator().manual_seed(1000 + step)
    for param in params:
        param.grad = (torch.randn(param.shape, generator=generator) * scale).to(BF16).to(param.dtype)


def train(optimizer, params, steps) -> None:
    for step in steps:
        set_grads(params, step)
        optimizer.step()


def assert_equal_params(left, right) -> None:
    for a, b in zip(left, right, strict=True):
        assert torch.equal(bits(a.detach()), bits(b.detach()))


# Largest error of a weight of size ~1 after 100 steps of ~1e-3, beside torch in float32. bfloat16 has a spacing of
# 2**-8 to 2**-7 there. "nearest" loses most updates; "stochastic" walks at random around the truth; kahan and split8
# err by 2**-17 per step; split differs by the final rounding alone.
TOLERANCES = {"nearest": 0.2, "stochastic": 0.12, "kahan": 2**-7, "split8": 2**-7, "split": 2**-7}


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_hundred_steps_beside_torch_in_float32_with_a_reload_midway(rounding):
    params, truth = make_params(), make_params(FP32)
    ours = FusedAdamW(params, **SETTINGS, rounding=rounding, state_dtype=FP32)
    torchs = torch.optim.AdamW(truth, **SETTINGS)
    train(torchs, truth, range(100))
    train(ours, params, range(50))
    saved = io.BytesIO()
    torch.save(ours.state_dict(), saved)
    reloaded = FusedAdamW(params, rounding=rounding, state_dtype=FP32)
    reloaded.load_state_dict(torch.load(io.BytesIO(saved.getvalue()), weights_only=True))
    train(reloaded, params, range(50, 100))
    for param, exact in zip(params, truth, strict=True):
        error = (param.detach().float() - exact.detach()).abs() / exact.detach().abs().clamp(min=1)
        assert error.max() <= TOLERANCES[rounding]
        assert error.double().mean() <= TOLERANCES[rounding] / 2
    assert reloaded.param_groups[0]["lr"] == SETTINGS["lr"]
    assert float(reloaded.state[params[0]]["step"]) == 100


def test_split_follows_the_float32_master_to_the_last_bits():
    """The master, weight and low bits together, stays within float32 rounding of torch's parameters."""
    from langadapt_kernels.rounding.reference import unsplit

    params, truth = make_params(), make_params(FP32)
    ours = FusedAdamW(params, **SETTINGS, rounding="split", state_dtype=FP32)
    torchs = torch.optim.AdamW(truth, **SETTINGS)
    train(ours, params, range(100))
    train(torchs, truth, range(100))
    for param, exact in zip(params, truth, strict=True):
        master = unsplit(param.detach().view(-1), ours.state[param]["low_bits"].view(-1)).view(param.shape)
        torch.testing.assert_close(master, exact.detach(), rtol=3e-6, atol=3e-7)


def test_stochastic_rounding_keeps_updates_that_nearest_loses():
    """Steps of a hundredth of a unit in the last place: nearest stands still, stochastic moves on average."""
    start = torch.ones(4096, dtype=BF16)
    moved = {}
    for rounding in ("nearest", "stochastic"):
        param = nn.Parameter(start.clone())
        optimizer = FusedAdamW([param], 2**-14, (0.9, 0.95), weight_decay=0.0, rounding=rounding)
        for _ in range(100):
            param.grad = torch.full_like(param, -1.0)
            optimizer.step()
        moved[rounding] = float((param.detach().float() - 1).mean())
    assert moved["nearest"] == 0
    assert abs(moved["stochastic"] / (100 * 2**-14) - 1) < 0.1


def test_float32_parameters_are_torchs():
    params, truth = make_params(FP32), make_params(FP32)
    train(FusedAdamW(params, **SETTINGS, rounding="stochastic"), params, range(20))
    train(torch.optim.AdamW(truth, **SETTINGS), truth, range(20))
    for ours, exact in zip(params, truth, strict=True):
        torch.testing.assert_close(ours, exact, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("state_dtype", [None, FP32])
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_resumed_is_uninterrupted_bit_for_bit(rounding, state_dtype):
    """Dtypes of states and low bits, step and seed of the random bits all come back."""
    params, twins = make_params(), make_params()
    kwargs = {**SETTINGS, "rounding": rounding, "state_dtype": state_dtype, "max_grad_norm": 0.5}
    ours = FusedAdamW(params, **kwargs, seed=7)
    train(ours, params, range(10))
    train(FusedAdamW(twins, **kwargs, seed=7), twins, range(5))
    other = make_params()
    first = FusedAdamW(other, **kwargs, seed=7)
    train(first, other, range(5))
    second = FusedAdamW(other, **kwargs, seed=99)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    train(second, other, range(5, 10))
    assert_equal_params(params, other)
    for a, b in zip(params, other, strict=True):
        assert ours.state[a].keys() == second.state[b].keys()
        for name, value in ours.state[a].items():
            assert value.dtype == second.state[b][name].dtype and torch.equal(value, second.state[b][name])


def test_loads_torchs_state_and_torch_loads_ours():
    truth, ours = make_params(FP32), make_params(FP32)
    torchs = torch.optim.AdamW(truth, **SETTINGS)
    train(torchs, truth, range(10))
    with torch.no_grad():
        for param, value in zip(ours, truth, strict=True):
            param.copy_(value)
    fused = FusedAdamW(ours, lr=0.5)
    fused.load_state_dict(copy.deepcopy(torchs.state_dict()))
    back_params = [nn.Parameter(p.detach().clone()) for p in ours]
    for optimizer, params in ((torchs, truth), (fused, ours)):
        train(optimizer, params, range(10, 20))
    for a, b in zip(ours, truth, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)
    with torch.no_grad():
        for param, value in zip(back_params, ours, strict=True):
            param.copy_(value)
    back = torch.optim.AdamW(back_params, lr=0.5)
    back.load_state_dict(copy.deepcopy(fused.state_dict()))
    for optimizer, params in ((back, back_params), (torchs, truth)):
        train(optimizer, params, range(20, 30))
    for a, b in zip(back_params, truth, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-6, atol=2e-7)


def test_states_that_cannot_be_continued_are_errors():
    params = make_params(FP32)
    amsgrad = torch.optim.AdamW(params, amsgrad=True)
    train(amsgrad, params, range(1))
    with pytest.raises(ValueError, match="amsgrad"):
        FusedAdamW(params).load_state_dict(amsgrad.state_dict())
    state = FusedAdamW(make_params(FP32)).state_dict()
    other = FusedAdamW(params)
    train(other, params, range(1))
    state["state"] = copy.deepcopy(other.state_dict()["state"])
    state["state"][0]["exp_avg"] = torch.zeros(3)
    with pytest.raises(ValueError, match=r"`exp_avg` has shape \(3,\)"):
        FusedAdamW(make_params(FP32)).load_state_dict(state)


def test_groups_schedules_tensor_rates_and_parameters_without_gradient():
    truth, ours = make_params(FP32), make_params(FP32)
    optimizers = []
    for make, params in ((torch.optim.AdamW, truth), (FusedAdamW, ours)):
        groups = [
            {"params": params[:2], "weight_decay": 0.0, "lr": 1e-2},
            {"params": params[2:], "betas": (0.8, 0.9), "eps": 1e-4},
        ]
        optimizer = make(groups, **SETTINGS)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
        for step in range(12):
            set_grads(params, step)
            if step % 3 == 1:
                params[2].grad = None
            optimizer.step()
            schedule.step()
        optimizers.append(optimizer)
    for a, b in zip(ours, truth, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)
    assert float(optimizers[1].state[ours[2]]["step"]) == float(optimizers[0].state[truth[2]]["step"]) == 8

    fixed, tensor = make_params(), make_params()
    rate = torch.tensor(1e-3)
    by_value, by_tensor = FusedAdamW(fixed, 1e-3), FusedAdamW(tensor, rate)
    for step in range(4):
        value = 1e-3 * 2**step
        rate.fill_(value)
        by_value.param_groups[0]["lr"] = float(rate)
        train(by_value, fixed, [step])
        train(by_tensor, tensor, [step])
    assert_equal_params(fixed, tensor)


def test_rounding_may_differ_per_group():
    params = make_params()
    optimizer = FusedAdamW([{"params": params[:1], "rounding": "split"}, {"params": params[1:]}], 1e-3)
    train(optimizer, params, range(2))
    assert "low_bits" in optimizer.state[params[0]] and "low_bits" not in optimizer.state[params[1]]


def test_tied_parameters_are_stepped_once_and_shared_memory_is_an_error():
    param, single = make_params()[0], make_params()[0]
    train(FusedAdamW([param, param], **SETTINGS), [param], range(3))
    train(FusedAdamW([single], **SETTINGS), [single], range(3))
    assert_equal_params([param], [single])
    view = nn.Parameter(param.detach())
    optimizer = FusedAdamW([param, view], **SETTINGS)
    set_grads([param, view], 0)
    with pytest.raises(ValueError, match="share memory"):
        optimizer.step()


@pytest.mark.parametrize("max_norm", [0.1, 1e6])
def test_clipping_is_torchs(max_norm):
    truth, ours = make_params(FP32), make_params(FP32)
    optimizer = FusedAdamW(ours, **SETTINGS, max_grad_norm=max_norm)
    torchs = torch.optim.AdamW(truth, **SETTINGS)
    for step in range(5):
        set_grads(ours, step)
        set_grads(truth, step)
        norm = nn.utils.clip_grad_norm_(truth, max_norm)
        torchs.step()
        before = [p.grad.clone() for p in ours]
        optimizer.step()
        assert all(torch.equal(p.grad, g) for p, g in zip(ours, before, strict=True))
        torch.testing.assert_close(optimizer.grad_norm, norm, rtol=1e-6, atol=0)
    for a, b in zip(ours, truth, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def test_stale_meter():
    shares = {}
    for rounding in ("nearest", "split"):
        params = make_params()
        optimizer = FusedAdamW(params, 1e-5, weight_decay=0.0, rounding=rounding, stale_meter=True)
        with pytest.raises(RuntimeError, match="no step was made yet"):
            optimizer.stale_share()
        before = [p.detach().clone() for p in params]
        train(optimizer, params, range(1))
        shares[rounding] = float(optimizer.stale_share())
        if rounding == "nearest":
            kept = sum(int((p == b).sum()) for p, b in zip(params, before, strict=True))
            assert shares[rounding] == pytest.approx(kept / sum(p.numel() for p in params))
            counts = optimizer.stale_counts()
            assert sum(map(int, counts.values())) == kept and set(counts) == set(params)
    assert shares["nearest"] > 0.9 and shares["split"] < 0.1
    with pytest.raises(RuntimeError, match="stale_meter=True"):
        FusedAdamW(make_params()).stale_share()


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_gradient_release_steps_in_the_backward_pass(rounding):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1)).to(BF16)
    twin = copy.deepcopy(model)
    released = FusedAdamW(model.parameters(), 1e-2, rounding=rounding, gradient_release=True, stale_meter=True)
    plain = FusedAdamW(twin.parameters(), 1e-2, rounding=rounding, stale_meter=True)
    for _ in range(4):
        x = torch.randn(5, 8, dtype=BF16)
        model(x).square().mean().backward()
        assert all(p.grad is None for p in model.parameters())
        released.step()
        twin(x).square().mean().backward()
        plain.step()
        plain.zero_grad()
    assert_equal_params(model.parameters(), twin.parameters())
    assert float(released.stale_share()) == float(plain.stale_share())


def test_released_gradients_are_stepped_with_the_settings_of_their_moment():
    """One parameter at a time, some twice, with rates that change between: as one optimizer per parameter."""
    start = make_params()
    released, twins = ([nn.Parameter(p.detach().clone()) for p in start] for _ in range(2))
    rate = torch.tensor(1e-2)
    groups = [{"params": released[:2], "lr": rate}, {"params": released[2:]}]
    optimizer = FusedAdamW(groups, 1e-3, gradient_release=True)
    others = [FusedAdamW([p], float(rate) if i < 2 else 1e-3) for i, p in enumerate(twins)]

    def step(i: int) -> None:
        for param in (released[i], twins[i]):
            (param.float().square().sum() * (i + 1)).backward()
        others[i].step()
        others[i].zero_grad()

    for turn, order in enumerate(((0, 1, 2, 3), (0, 2), (2, 3, 1), (0, 0, 1, 2, 3))):
        for k, i in enumerate(order):
            if k == 1:
                # On the host for one group, on the device for the other.
                optimizer.param_groups[1]["lr"] = others[2].param_groups[0]["lr"] = 1e-3 / (turn + 2)
                others[3].param_groups[0]["lr"] = 1e-3 / (turn + 2)
                rate.mul_(0.5)
                others[0].param_groups[0]["lr"] = others[1].param_groups[0]["lr"] = float(rate)
            step(i)
    assert_equal_params(released, twins)
    steps = [int(optimizer.state[p]["step"]) for p in released]
    assert steps == [int(other.state[p]["step"]) for p, other in zip(twins, others, strict=True)] == [4, 3, 4, 3]


def test_a_released_gradient_costs_the_same_in_a_model_of_any_size(monkeypatch):
    """The scalars of all parameters are computed once in a backward pass, not once for each of them."""
    params = [nn.Parameter(torch.ones(3)) for _ in range(50)]
    optimizer = FusedAdamW(params, 1e-3, gradient_release=True)
    tables = []
    plain = rows.scalar_table
    monkeypatch.setattr(
        rows, "scalar_table", lambda settings, steps: tables.append(len(steps)) or plain(settings, steps)
    )
    for _ in range(3):
        torch.stack([p.sum() for p in params]).sum().backward()
    assert tables == [50, 50, 50]
    assert all(int(optimizer.state[p]["step"]) == 3 for p in params)


def test_closure_zero_dimensional_empty_and_strided_parameters():
    scalar, empty = nn.Parameter(torch.tensor(1.0, dtype=BF16)), nn.Parameter(torch.zeros(0, 3, dtype=BF16))
    strided = nn.Parameter(torch.randn(6, 4).to(BF16).t())
    plain = nn.Parameter(strided.detach().contiguous())
    optimizer = FusedAdamW([scalar, empty, strided, plain], 0.1, rounding="nearest")

    def closure():
        optimizer.zero_grad()
        loss = scalar.square() + strided.float().square().sum() + plain.float().square().sum() + empty.sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() > 0
    assert scalar < 1 and torch.equal(strided, plain)
    gaps = nn.Parameter(torch.randn(6, 4).to(BF16)[:, ::2])
    gaps.grad = torch.zeros_like(gaps)
    with pytest.raises(ValueError, match="dense in memory"):
        FusedAdamW([gaps]).step()


def test_gradients_of_other_kinds_are_errors():
    embedding = nn.Embedding(5, 3, sparse=True)
    optimizer = FusedAdamW(embedding.parameters())
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(ValueError, match="dense and bfloat16 or float32"):
        optimizer.step()


def test_copies_and_pickles_continue_alike():
    params = make_params()
    optimizer = FusedAdamW(params, **SETTINGS, rounding="split", max_grad_norm=1.0)
    train(optimizer, params, range(3))
    pickled = pickle.loads(pickle.dumps((params, optimizer)))  # noqa: S301
    for twin_params, twin in (copy.deepcopy((params, optimizer)), pickled):
        train(twin, twin_params, range(3, 6))
        expected_params, expected = copy.deepcopy((params, optimizer))
        train(expected, expected_params, range(3, 6))
        assert_equal_params(twin_params, expected_params)


def test_inside_a_compiled_training_step():
    torch.manual_seed(0)
    model = nn.Linear(8, 4).to(BF16)
    twin = copy.deepcopy(model)
    optimizer, plain = FusedAdamW(model.parameters(), 1e-2), FusedAdamW(twin.parameters(), 1e-2)

    def training_step(model, optimizer, x):
        model(x).float().square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    compiled = torch.compile(training_step, backend="eager")
    for _ in range(3):
        x = torch.randn(3, 8, dtype=BF16)
        compiled(model, optimizer, x)
        training_step(twin, plain, x)
    assert_equal_params(model.parameters(), twin.parameters())


def test_frozen_columns_have_no_decay_and_no_states_and_are_saved():
    params, twins = make_params(), make_params()
    settings = {**SETTINGS, "rounding": "stochastic"}
    optimizer, free = FusedAdamW(params, **settings), FusedAdamW(twins, **settings)
    before, frozen = params[0].detach().clone(), torch.arange(17) % 2 == 0
    optimizer.freeze_columns(params[0], frozen)
    train(optimizer, params, range(3))
    train(free, twins, range(6))
    again = FusedAdamW(params, **settings)
    again.load_state_dict(optimizer.state_dict())
    train(again, params, range(3, 6))
    assert torch.equal(bits(params[0][:, frozen]), bits(before[:, frozen]))
    assert not again.state[params[0]]["exp_avg_sq"][:, frozen].any()
    assert torch.equal(bits(params[0][:, ~frozen]), bits(twins[0][:, ~frozen]))
    assert_equal_params(params[1:], twins[1:])
    for param, mask in ((params[0], frozen[1:]), (params[0], frozen.float()), (params[1], frozen), (twins[0], frozen)):
        with pytest.raises(ValueError, match=r"a mask of|row-major|does not have"):
            optimizer.freeze_columns(param, mask)
    saved = optimizer.state_dict()
    saved["state"][0]["frozen_columns"] = torch.zeros(2, dtype=torch.uint8)
    with pytest.raises(ValueError, match="loaded `frozen_columns` has shape"):
        again.load_state_dict(saved)


def test_function_and_optimizer_agree():
    params, twins = make_params(), make_params()
    train(FusedAdamW(params, **SETTINGS, rounding="stochastic", stochastic_variance=False, seed=3), params, range(1))
    set_grads(twins, 0)
    moments = [[torch.zeros_like(p, requires_grad=False) for p in twins] for _ in range(2)]
    stale = adamw_step(twins, [p.grad for p in twins], *moments, step=1, rounding="stochastic", seed=3, **SETTINGS)
    assert_equal_params(params, twins)
    assert stale.shape == (len(twins),) and int(stale.sum()) > 0
    assert adamw_step([], [], [], [], step=1, lr=0.1).shape == (0,)


@pytest.mark.parametrize("rounding", ["stochastic", "split"])
def test_optimizer_on_the_kernels_is_the_optimizer_on_the_reference(rounding):
    """Clipping, meter, groups and a parameter without gradient, through the interpreter where there is no GPU."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    results = []
    for backend in ("triton", "reference"):
        params = [nn.Parameter(p.detach().to(device)) for p in make_params()[1:]]
        groups = [{"params": params[:1], "lr": 1e-2}, {"params": params[1:], "weight_decay": 0.0}]
        optimizer = FusedAdamW(
            groups, 1e-3, rounding=rounding, max_grad_norm=0.1, stale_meter=True, seed=5, backend=backend
        )
        optimizer.launch_config = LaunchConfig(exact=True)
        generator = torch.Generator().manual_seed(0)
        for step in range(2):
            for param in params[step:]:
                param.grad = torch.randn(param.shape, generator=generator).to(device, BF16)
            optimizer.step()
        results.append((params, float(optimizer.stale_share()), float(optimizer.grad_norm)))
    assert_equal_params(results[0][0], results[1][0])
    assert results[0][1:] == results[1][1:]
