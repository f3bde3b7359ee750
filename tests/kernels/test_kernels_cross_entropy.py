"""Cross-entropy in place: kernel and reference beside torch in float64, and beside each other."""

import pytest
import torch
from adamw_cases import DEVICE

from langadapt_kernels import cross_entropy_

BACKENDS = ["reference", "triton"]
IGNORED = -100
# A gradient of bfloat16 or float16 is rounded once.
UNITS = {torch.float32: 2**-20, torch.bfloat16: 2**-8, torch.float16: 2**-10}


def draw(rows: int, n: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(n)
    logits = 4 * torch.randn(rows, n, generator=generator)
    targets = torch.randint(n, (rows,), generator=generator)
    targets[1::3] = IGNORED
    return logits.to(DEVICE, dtype), targets.to(DEVICE)


@pytest.mark.parametrize("dtype", UNITS, ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_losses_and_gradients_beside_torch_in_float64(backend, dtype):
    # One entry, no multiple of anything, whole blocks, and blocks with an end.
    for n in (1, 37, 4096, 9001):
        logits, targets = draw(4, n, dtype)
        leaf = logits.double().requires_grad_()
        expected = torch.nn.functional.cross_entropy(leaf, targets, ignore_index=IGNORED, reduction="none")
        (expected.sum() * 0.25).backward()
        before = logits.clone()
        untouched = cross_entropy_(logits, targets, gradient=False, backend=backend)
        assert torch.equal(logits, before)
        losses = cross_entropy_(logits, targets, scale=0.25, backend=backend)
        assert losses.dtype == torch.float32 and torch.equal(losses, untouched)
        torch.testing.assert_close(losses.double(), expected.detach(), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(logits.double(), leaf.grad, rtol=UNITS[dtype], atol=1e-7)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, in the interpreter, where a GPU says nothing
@pytest.mark.parametrize("backend", BACKENDS)
def test_entries_and_targets_that_are_not_ordinary(backend):
    """-inf has no share; NaN, +inf and targets out of range give NaN; ignored rows become zeros whatever they hold."""
    inf, nan = float("inf"), float("nan")
    rows = [[-inf, 1.0, 1.0], [1.0, nan, 0.0], [1.0, inf, 0.0], [3e38, -3e38, 0.0], [nan, 0.0, inf], [1.0, 2.0, 3.0]]
    logits = torch.tensor(rows, device=DEVICE)
    targets = torch.tensor([1, 0, 0, 0, IGNORED, 3], device=DEVICE)
    losses = cross_entropy_(logits, targets, backend=backend)
    torch.testing.assert_close(losses[0].exp().item(), 2.0)
    assert losses[[1, 2, 5]].isnan().all() and losses[3:5].tolist() == [0.0, 0.0]
    assert logits[0].tolist() == [0.0, -0.5, 0.5]
    assert logits[1].isnan().all() and logits[2].isnan().any()
    assert logits[3:5].tolist() == [[0.0, 0.0, 0.0]] * 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_rows_and_blocks_of_rows(backend, monkeypatch):
    assert cross_entropy_(*draw(0, 5, torch.float32), backend=backend).shape == (0,)
    whole, targets = draw(7, 50, torch.bfloat16)
    parts = whole.clone()
    losses = cross_entropy_(whole, targets, backend=backend)
    monkeypatch.setattr("langadapt_kernels.cross_entropy.reference._BLOCK", 100)
    torch.testing.assert_close(cross_entropy_(parts, targets, backend=backend), losses)
    assert torch.equal(parts, whole)


def test_arguments_are_checked():
    logits, targets = draw(3, 5, torch.float32)
    with pytest.raises(ValueError, match=r"got shapes: \(3, 5\) and \(2,\)"):
        cross_entropy_(logits, targets[:2])
    with pytest.raises(ValueError, match=r"got: torch.float64 and torch.int64"):
        cross_entropy_(logits.double(), targets)
    with pytest.raises(ValueError, match=r"got: torch.float32 and torch.int32"):
        cross_entropy_(logits, targets.int())
    with pytest.raises(ValueError, match="must be contiguous"):
        cross_entropy_(logits.t()[:3, :3], targets)
