"""The gradient norm, by a pass or in the backward pass: the same bits, and never of a gradient that has changed."""

import copy
import gc
import pickle

import pytest
import torch
from adamw_cases import bits
from torch import nn

from langadapt_kernels import FusedAdamW
from langadapt_kernels.adamw import norm
from langadapt_kernels.adamw.run import LaunchConfig
from langadapt_kernels.backend import core

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BACKENDS = ["reference", "triton", *(["core"] if DEVICE.type == "cpu" and core() is not None else [])]


def draw(seed):
    return torch.randint(40, (6,), generator=torch.Generator().manual_seed(seed)).to(DEVICE)


class Network(nn.Module):
    """Small and large tensors, tied weights, one parameter of float32, one that is used now and then."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(40, 24, dtype=torch.bfloat16)
        self.inner = nn.Linear(24, 96, dtype=torch.bfloat16)
        self.outer = nn.Linear(96, 24, bias=False, dtype=torch.bfloat16)
        self.scale = nn.Parameter(torch.ones(24))
        self.seldom = nn.Parameter(torch.ones(24, dtype=torch.bfloat16))
        self.to(DEVICE)

    def forward(self, ids, seldom=True):
        x = self.outer(torch.tanh(self.inner(self.embedding(ids))))
        x = x * self.seldom if seldom else x
        return (x * self.scale.bfloat16()) @ self.embedding.weight.T


def loss_of(model, seed, seldom=True):
    return model(draw(seed), seldom).float().square().mean() * 10


def make(backend, in_backward, model=None, **settings):
    model = model if model is not None else Network()
    tied = model.embedding.weight
    groups = [{"params": [tied], "lr": 1e-2}, {"params": [p for p in model.parameters() if p is not tied]}]
    optimizer = FusedAdamW(groups, 1e-3, max_grad_norm=0.05, norm_in_backward=in_backward, backend=backend, **settings)
    optimizer.launch_config = LaunchConfig(block=512, chunk=1024, exact=True)
    return model, optimizer


@pytest.fixture
def read(monkeypatch):
    """How many gradients the passes before the steps read."""
    found = []
    plain_cpu, plain_launch = norm._cpu_total, norm._launch_pass

    def cpu_total(grads, known, backend):
        found.append(len(grads) - len(known))
        return plain_cpu(grads, known, backend)

    def launch_pass(entries, *rest, **named):
        found.append(len(entries))
        plain_launch(entries, *rest, **named)

    monkeypatch.setattr(norm, "_cpu_total", cpu_total)
    monkeypatch.setattr(norm, "_launch_pass", launch_pass)
    return found


def same(left, right) -> None:
    for a, b in zip(left.parameters(), right.parameters(), strict=True):
        assert torch.equal(bits(a.detach()), bits(b.detach()))


def both(backend, work, **settings) -> None:
    """`work(model, optimizer, step)` with and without hooks gives the same bits."""
    (model, hooked), (twin, plain) = make(backend, True, **settings), make(backend, False, **settings)
    for step in range(3):
        work(model, hooked, step)
        work(twin, plain, step)
        assert torch.equal(hooked.grad_norm, plain.grad_norm)
    same(model, twin)


@pytest.mark.parametrize("backend", BACKENDS)
def test_hooks_give_the_bits_of_the_pass_and_spare_it(backend, read):
    def work(model, optimizer, step):
        loss_of(model, step).backward()
        read.clear()
        optimizer.step()
        assert sum(read) == (0 if optimizer.norm_in_backward else 6)
        optimizer.zero_grad()

    both(backend, work)


@pytest.mark.parametrize("keep", [True, False])
def test_accumulated_gradients(keep, read):
    """Whether or not the earlier passes are told to be such; gradients may keep their memory."""

    def work(model, optimizer, step):
        if keep:
            loss_of(model, step).backward()
        else:
            with optimizer.accumulating():
                loss_of(model, step).backward()
        loss_of(model, step + 10).backward()
        read.clear()
        optimizer.step()
        assert sum(read) == (0 if optimizer.norm_in_backward else 6)
        optimizer.zero_grad(set_to_none=not keep)

    both("reference", work)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_was_not_in_the_last_pass_is_read(backend, read):
    """A parameter with a gradient of an earlier micro-batch alone, and one that has none at all in a step."""

    def work(model, optimizer, step):
        with optimizer.accumulating():
            loss_of(model, step, seldom=step == 1).backward()
        loss_of(model, step + 10, seldom=False).backward()
        read.clear()
        optimizer.step()
        if optimizer.norm_in_backward:
            assert sum(read) == (1 if step == 1 else 0)
        optimizer.zero_grad()

    both(backend, work)


def halve(model):
    for param in model.parameters():
        param.grad.mul_(0.5)


def halve_apart(model):
    for param in model.parameters():
        param.grad = param.grad * 0.5


def halve_together(model):
    torch._foreach_mul_([param.grad for param in model.parameters()], 0.5)


def zero_all(model):
    for param in model.parameters():
        param.grad.zero_()


def clip_before(model):
    nn.utils.clip_grad_norm_(model.parameters(), 0.01)


@pytest.mark.parametrize("change", [halve, halve_apart, halve_together, zero_all, clip_before])
def test_gradients_changed_after_the_backward_pass_are_read_again(change):
    def work(model, optimizer, step):
        loss_of(model, step).backward()
        change(model)
        optimizer.step()
        optimizer.zero_grad()

    both("reference", work)


def test_gradients_that_come_without_a_backward_pass():
    """At the addresses, and with the version counters, of those that were measured."""

    def work(model, optimizer, step):
        loss_of(model, step).backward()
        for param in model.parameters():
            shape, dtype = param.grad.shape, param.grad.dtype
            param.grad = None
            param.grad = torch.full(shape, 0.25, dtype=dtype, device=param.device)
        optimizer.step()

    both("reference", work)


def test_a_second_step_on_the_same_gradients_and_infinities():
    def work(model, optimizer, step):
        loss_of(model, step).backward()
        if step == 2:
            model.outer.weight.grad[0, 0] = float("inf")
        optimizer.step()
        if step < 2:
            optimizer.step()
        optimizer.zero_grad()

    both("reference", work)


def test_frozen_and_added_parameters_and_another_cut(read):
    model, optimizer = make("triton", True)
    model.outer.weight.requires_grad_(False)
    extra = nn.Parameter(torch.ones(5000, dtype=torch.bfloat16, device=DEVICE))
    loss_of(model, 0).backward()
    # Places move: what was measured before no longer counts.
    optimizer.add_param_group({"params": [extra]})
    extra.grad = torch.ones_like(extra)
    optimizer.step()
    assert sum(read) == 6
    optimizer.zero_grad()
    loss_of(model, 1).backward()
    extra.square().sum().backward()
    optimizer.launch_config = LaunchConfig(block=1024, chunk=2048, exact=True)
    read.clear()
    optimizer.step()
    assert sum(read) == 6
    expected = torch.stack([p.grad.double().square().sum() for p in (*model.parameters(), extra) if p.grad is not None])
    torch.testing.assert_close(optimizer.grad_norm, expected.sum().sqrt().float(), rtol=1e-6, atol=0)


def test_copies_measure_too_and_optimizers_that_are_gone_do_not(read, monkeypatch):
    model, optimizer = make("reference", True)
    for twin, copied in (copy.deepcopy((model, optimizer)), pickle.loads(pickle.dumps((model, optimizer)))):  # noqa: S301
        read.clear()
        loss_of(twin, 0).backward()
        copied.load_state_dict(copied.state_dict())
        copied.step()
        assert sum(read) == 0
    calls = []
    monkeypatch.setattr(norm, "_cpu_sums", lambda grads, backend: calls.append(1) or [0.0 for _ in grads])
    del optimizer
    gc.collect()
    loss_of(model, 0).backward()
    assert not calls


def test_several_processes_leave_it_to_the_step(read, monkeypatch):
    model, optimizer = make("reference", True)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    loss_of(model, 0).backward()
    optimizer.step()
    assert sum(read) == 6


def test_settings_are_checked():
    with pytest.raises(ValueError, match="`norm_in_backward` needs `max_grad_norm`"):
        FusedAdamW([nn.Parameter(torch.zeros(3))], norm_in_backward=True)


def test_inside_a_compiled_training_step():
    model, optimizer = make("reference", True)
    twin, plain = make("reference", False)

    def training_step(model, optimizer, ids):
        model(ids).float().square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    compiled = torch.compile(training_step, backend="eager")
    for step in range(2):
        compiled(model, optimizer, draw(step))
        training_step(twin, plain, draw(step))
        assert torch.equal(optimizer.grad_norm, plain.grad_norm)
    same(model, twin)


@pytest.mark.parametrize("unscaled", [False, True], ids=["in the step", "before the step"])
@pytest.mark.parametrize("in_backward", [False, True], ids=["pass", "hooks"])
def test_under_a_grad_scaler(in_backward, unscaled):
    """Scales of powers of two change nothing; an infinite gradient leaves everything as it is."""
    (model, optimizer), (twin, plain) = make("reference", in_backward), make("reference", False)
    scaler = torch.amp.GradScaler(DEVICE.type, init_scale=2.0**12)
    for step in range(3):
        scaler.scale(loss_of(model, step)).backward()
        if unscaled:
            scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        loss_of(twin, step).backward()
        plain.step()
        torch.testing.assert_close(optimizer.grad_norm, plain.grad_norm, rtol=1e-6, atol=0)
        optimizer.zero_grad()
        plain.zero_grad()
    same(model, twin)
    before = copy.deepcopy(optimizer.state_dict())
    scaler.scale(loss_of(model, 3)).backward()
    model.scale.grad[0] = float("inf")
    scaler.step(optimizer)
    scaler.update()
    same(model, twin)
    for a, b in zip(before["state"].values(), optimizer.state_dict()["state"].values(), strict=True):
        assert all(torch.equal(a[name], b[name]) for name in a)
    assert scaler.get_scale() == 2.0**11


def test_a_grad_scaler_without_clipping_and_one_that_comes_too_late():
    param, twin = (nn.Parameter(torch.ones(9, dtype=torch.bfloat16)) for _ in range(2))
    optimizer, plain = FusedAdamW([param], 0.1), FusedAdamW([twin], 0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    scaler.scale((param * 3).sum()).backward()
    scaler.step(optimizer)
    (twin * 3).sum().backward()
    plain.step()
    assert torch.equal(param, twin)
    released = FusedAdamW([param], 0.1, gradient_release=True)
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(param.sum())
    param.grad = torch.ones_like(param)
    with pytest.raises(RuntimeError, match="`gradient_release` steps in the backward pass"):
        scaler.step(released)
