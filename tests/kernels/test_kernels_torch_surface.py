"""`FusedAdamW` met by code that was written for torch's: arguments, schedulers, groups, conversions, autocast."""

import copy

import pytest
import torch
from torch import nn

from langadapt_kernels import FusedAdamW, adamw_step, focus_combine, sparsemax

BF16 = torch.bfloat16


def make_params(dtype=BF16, shapes=((3, 5), (17,))) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in shapes]


def set_grads(params, seed) -> None:
    generator = torch.Generator().manual_seed(seed)
    for param in params:
        param.grad = torch.randn(param.shape, generator=generator).to(param.dtype)


def assert_close(left, right) -> None:
    for a, b in zip(left, right, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def test_torchs_choices_of_an_implementation_change_nothing():
    plain, chosen = make_params(), make_params()
    options = {"foreach": True, "fused": None, "capturable": True, "amsgrad": False, "maximize": False}
    for params, optimizer in ((plain, FusedAdamW(plain)), (chosen, FusedAdamW(chosen, **options))):
        set_grads(params, 0)
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(plain, chosen, strict=True))


@pytest.mark.parametrize("name", ["amsgrad", "maximize", "differentiable"])
def test_what_the_step_lacks_is_refused(name):
    with pytest.raises(ValueError, match=f"`{name}` is not supported"):
        FusedAdamW(make_params(), **{name: True})
    with pytest.raises(ValueError, match=f"`{name}` is not supported"):
        FusedAdamW([{"params": make_params(), name: True}])
    with pytest.raises(TypeError, match="unexpected argument: `momentum`"):
        FusedAdamW(make_params(), momentum=0.9)


def test_weight_decay_of_adam_is_not_taken_for_that_of_adamw():
    params = make_params(torch.float32)
    for decay in (0.0, 0.1):
        adam = torch.optim.Adam(params, weight_decay=decay)
        set_grads(params, 0)
        adam.step()
        fused = FusedAdamW(params)
        if decay:
            with pytest.raises(ValueError, match=r"not that of AdamW; the loaded one: 0.1"):
                fused.load_state_dict(adam.state_dict())
        else:
            fused.load_state_dict(adam.state_dict())


def test_schedulers_and_groups_that_come_later():
    results = []
    for make in (torch.optim.AdamW, FusedAdamW):
        params = make_params(torch.float32)
        late = make_params(torch.float32, ((6,),))
        optimizer = make(params[:1], 1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=10)
        for step in range(8):
            if step == 3:
                optimizer.add_param_group({"params": params[1:], "lr": 1e-3, "weight_decay": 0.0})
            if step == 5:
                optimizer.add_param_group({"params": late})
            set_grads([*params, *late], step)
            optimizer.step()
            if step < 3:
                schedule.step()
        results.append((params + late, [float(optimizer.state[p]["step"]) for p in params + late]))
    assert_close(results[0][0], results[1][0])
    assert results[0][1] == results[1][1] == [8, 5, 3]


def test_named_parameters_keep_their_names():
    model = nn.Linear(4, 2).to(BF16)
    optimizer = FusedAdamW(model.named_parameters())
    model(torch.ones(1, 4, dtype=BF16)).sum().backward()
    optimizer.step()
    assert optimizer.state_dict()["param_groups"][0]["param_names"] == ["weight", "bias"]


@pytest.mark.parametrize("norm_in_backward", [False, True])
def test_a_compiled_step_is_the_step(norm_in_backward):
    params, twins = make_params(), make_params()
    settings = {"max_grad_norm": 0.5, "norm_in_backward": norm_in_backward}
    optimizer, plain = FusedAdamW(params, **settings), FusedAdamW(twins, **settings)
    compiled = torch.compile(optimizer.step, backend="eager")
    for step in range(3):
        set_grads(params, step)
        set_grads(twins, step)
        compiled()
        plain.step()
    assert all(torch.equal(a, b) for a, b in zip(params, twins, strict=True))


def test_a_model_converted_after_a_step_is_an_error_that_says_so():
    def train(optimizer, model):
        model(torch.ones(1, 4, dtype=model.weight.dtype)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    model = nn.Linear(4, 2)
    optimizer = FusedAdamW(model.parameters(), rounding="split")
    train(optimizer, model)
    saved = copy.deepcopy(optimizer.state_dict())
    model.to(BF16)
    with pytest.raises(ValueError, match=r"converted or moved after a step.*has no `low_bits`"):
        train(optimizer, model)
    model.zero_grad()
    again = FusedAdamW(model.parameters(), rounding="split")
    again.load_state_dict(saved)
    train(again, model)
    assert "low_bits" in again.state[model.weight]
    model.to(torch.float16)
    with pytest.raises(ValueError, match=r"got: torch.float16, torch.strided for a parameter of \(2, 4\)"):
        train(again, model)


def test_autocast_changes_nothing():
    x, rows = torch.randn(5, 8), torch.randn(5, 3)
    params, twins = make_params(torch.float32), make_params(torch.float32)
    expected = focus_combine(x, x.flip(0), rows), sparsemax(x)
    optimizer, plain = FusedAdamW(params, max_grad_norm=1.0), FusedAdamW(twins, max_grad_norm=1.0)
    set_grads(params, 0)
    set_grads(twins, 0)
    plain.step()
    with torch.autocast("cpu", BF16):
        optimizer.step()
        found = focus_combine(x, x.flip(0), rows), sparsemax(x)
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(params, twins, strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": 0}, "`step` counts from 1"),
        ({"betas": (1.0, 0.9)}, "`betas`"),
        ({"lr": float("nan")}, "`lr`"),
        ({"seed": 2**63}, "`seed`"),
        ({"grad_scale": 1.0}, "one float32 number in a tensor"),
        ({"grad_scale": torch.ones((), dtype=torch.float64)}, "one float32 number in a tensor"),
        ({"exp_avg_sqs": [torch.zeros(4)]}, r"`exp_avg_sqs\[0\]` is torch.float32"),
        ({"grads": [torch.zeros(4, dtype=BF16).to_sparse()]}, "torch.sparse_coo"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_the_function_checks_what_a_kernel_could_not(change, message):
    def zeros():
        return [torch.zeros(4, dtype=BF16)]

    arguments = {"grads": zeros(), "exp_avgs": zeros(), "exp_avg_sqs": zeros(), "step": 1, "lr": 0.1, **change}
    with pytest.raises(ValueError, match=message):
        adamw_step(zeros(), **arguments)


def test_memory_that_would_be_stepped_twice_is_an_error():
    p, g, m, v = (torch.zeros(4, dtype=BF16) for _ in range(4))
    with pytest.raises(ValueError, match="given twice"):
        adamw_step([p, p], [g, g], [m, m.clone()], [v, v.clone()], step=1, lr=0.1)
    with pytest.raises(ValueError, match="given twice"):
        adamw_step([p], [g], [m], [m], step=1, lr=0.1)


def test_copies_release_their_own_gradients_once():
    torch.manual_seed(0)
    model = nn.Linear(4, 2).to(BF16)
    optimizer = FusedAdamW(model.parameters(), 0.1, gradient_release=True)
    x = torch.ones(1, 4, dtype=BF16)
    model(x).sum().backward()
    twin, copied = copy.deepcopy((model, optimizer))
    copied.load_state_dict(copied.state_dict())
    for network, its in ((model, optimizer), (twin, copied)):
        network(x).sum().backward()
        assert network.weight.grad is None and float(its.state[network.weight]["step"]) == 2
    assert torch.equal(model.weight, twin.weight)
