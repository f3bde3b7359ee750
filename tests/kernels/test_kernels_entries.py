"""What the optimizer keeps between steps: entries of the same tensors, and no gradient."""

import pytest
import torch
from adamw_cases import DEVICE, bits
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef

from langadapt_kernels import FusedAdamW
from langadapt_kernels.adamw import run
from langadapt_kernels.adamw.modes import EntryRow
from langadapt_kernels.adamw.run import LaunchConfig

BF16 = torch.bfloat16


def test_no_gradient_is_kept_after_a_step():
    params = [nn.Parameter(torch.randn(size, device=DEVICE)) for size in (5, 3000)]
    optimizer = FusedAdamW(params, 1e-3, max_grad_norm=1.0)
    for _ in range(2):
        torch.stack([p.square().sum() for p in params]).sum().backward()
        grads = [StorageWeakRef(p.grad.untyped_storage()) for p in params]
        optimizer.step()
        optimizer.zero_grad()
        assert all(grad.expired() for grad in grads)


def test_gradients_are_freed_where_they_are_released():
    kept = []
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)).to(DEVICE)
    for param in model.parameters():
        # Before the optimizer's: it sees the gradient that will be released.
        param.register_post_accumulate_grad_hook(lambda p: kept.append(StorageWeakRef(p.grad.untyped_storage())))
    FusedAdamW(model.parameters(), 1e-3, gradient_release=True)
    for _ in range(2):
        model(torch.randn(2, 8, device=DEVICE)).sum().backward()
    # The backward pass itself may hold the very last ones.
    assert len(kept) == 8 and all(grad.expired() for grad in kept[:4])


@pytest.mark.parametrize("backend", ["reference", "triton"])
def test_tensors_that_change_between_steps(backend):
    """New gradients, gradients at odd addresses, of another dtype, a parameter moved or without gradient, as if new."""
    torch.manual_seed(0)
    start = [torch.randn(size).to(BF16).to(DEVICE) for size in (5000, 7, 4096)]
    kept, fresh = ([nn.Parameter(value.clone()) for value in start] for _ in range(2))
    settings = {"rounding": "stochastic", "max_grad_norm": 1.0, "backend": backend}
    one = FusedAdamW(kept, 1e-2, **settings)
    one.launch_config = LaunchConfig(block=4096, chunk=8192, exact=True)
    state = None
    for turn in range(6):
        grads = [torch.randn(len(value)).to(BF16).to(DEVICE) for value in start]
        if turn == 2:  # two bytes past the alignment
            grads[0] = torch.cat((grads[0][:1], grads[0]))[1:]
        if turn == 3:
            kept[2].data = kept[2].data.clone()
        for param, other, grad in zip(kept, fresh, grads, strict=True):
            param.grad, other.grad = grad, grad.clone()
        if turn == 4:
            kept[1].grad = fresh[1].grad = None
        one.step()
        # An optimizer that knows of nothing but the other's state.
        other = FusedAdamW(fresh, 1e-2, **settings)
        other.launch_config = one.launch_config
        if state is not None:
            other.load_state_dict(state)
        other.step()
        state = other.state_dict()
        for left, right in zip(kept, fresh, strict=True):
            assert torch.equal(bits(left.detach()), bits(right.detach())), turn


def test_a_step_of_the_same_tensors_uploads_nothing_but_addresses(monkeypatch):
    params = [nn.Parameter(torch.zeros(size, dtype=BF16, device=DEVICE)) for size in (4096, 8192)]
    optimizer = FusedAdamW(params, 1e-3, backend="triton", max_grad_norm=1.0)
    optimizer.launch_config = LaunchConfig(block=4096, chunk=8192)
    uploads = []
    plain = run.StepCache.upload
    monkeypatch.setattr(
        run.StepCache, "upload", lambda self, *args: uploads.append(args[0].shape) or plain(self, *args)
    )
    for param in params:
        param.grad = torch.ones_like(param)
    optimizer.step()
    uploads.clear()
    optimizer.step()
    assert not uploads
    held = [param.grad for param in params]
    for param in params:
        param.grad = torch.ones_like(param)
    optimizer.step()
    # The norm's table and the step's.
    assert [tuple(shape) for shape in uploads] == [(2, len(EntryRow._fields))] * 2
    del held
