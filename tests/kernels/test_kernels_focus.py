"""The FOCUS combination against an oracle in float64, on easy and on adversarial vectors."""

import importlib

import pytest
import torch
from adamw_cases import DEVICE

from langadapt_kernels import focus_combine

kernel = importlib.import_module("langadapt_kernels.focus.kernel")

BACKENDS = ["reference", "triton"]


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def clustered(count: int, width: int, seed: int) -> torch.Tensor:
    """Vectors around ten centres, as word vectors are: supports of a dozen or two."""
    return draw(10, width, seed=99)[torch.arange(count) % 10] + 0.6 * draw(count, width, seed=seed)


def oracle(new: torch.Tensor, anchors: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    def unit(x):
        norm = x.norm(dim=1, keepdim=True)
        return x / torch.where(norm > 0, norm, 1)

    similarity = unit(new.double()) @ unit(anchors.double()).T
    ordered = similarity.sort(dim=1, descending=True).values
    total = ordered.cumsum(dim=1) - 1
    rank = torch.arange(1, len(anchors) + 1, device=new.device)
    size = (ordered * rank > total).sum(dim=1, keepdim=True)
    tau = total.gather(1, size - 1) / size
    return (similarity - tau).clamp(min=0) @ rows.double()


def check(new, anchors, rows, backend, tolerance=1e-5) -> None:
    output = focus_combine(new, anchors, rows, backend=backend)
    assert output.shape == (len(new), rows.shape[1]) and output.dtype == rows.dtype
    torch.testing.assert_close(output.double(), oracle(new, anchors, rows), rtol=0, atol=tolerance)


@pytest.mark.parametrize("backend", BACKENDS)
def test_clustered_vectors(backend):
    """Sizes that fill no tile: 11 new tokens, 333 anchors, width 70, rows of 37."""
    check(clustered(11, 70, 1), clustered(333, 70, 2), draw(333, 37, seed=3), backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_two_matrices_of_narrow_rows_in_one_call(backend, dtype):
    new, anchors = clustered(3, 64, 1), clustered(130, 64, 2)
    matrices = draw(130, 520, seed=3).to(dtype), draw(130, 8, seed=4)
    narrow, wide = focus_combine(new, anchors, matrices, backend=backend)
    assert narrow.dtype == dtype and wide.dtype == torch.float32
    # float32 sums, rounded once.
    unit = 2**-8 if dtype == torch.bfloat16 else 2**-11
    torch.testing.assert_close(narrow.double(), oracle(new, anchors, matrices[0]), rtol=unit, atol=1e-4)
    torch.testing.assert_close(wide.double(), oracle(new, anchors, matrices[1]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_anchor_takes_everything(backend):
    rows = draw(1, 5)
    output = focus_combine(draw(3, 4), draw(1, 4, seed=1), rows, backend=backend)
    assert torch.equal(output, rows.expand(3, -1))


@pytest.mark.parametrize("backend", BACKENDS)
def test_duplicated_anchors_share_alike(backend):
    """Each anchor five times: ties all over the support."""
    new, anchors = clustered(3, 32, 1), clustered(30, 32, 2).repeat(5, 1)
    check(new, anchors, draw(150, 6, seed=3), backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_all_equal_rows_zero_vectors_and_opposites(backend):
    """300 equal anchors do not fit the kernel's buffer of 256: the row is left to the reference and stays exact."""
    rows = draw(300, 6, seed=3)
    new = torch.stack((torch.ones(16), torch.zeros(16), -torch.ones(16))).to(DEVICE)
    output = focus_combine(new, torch.ones(300, 16, device=DEVICE), rows, backend=backend)
    torch.testing.assert_close(output, rows.mean(dim=0).expand(3, -1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_tiny_and_huge_vectors(backend):
    """Cosines do not depend on lengths, even where squares leave the range of float32."""
    new, anchors = clustered(2, 16, 1), clustered(40, 16, 2)
    rows = draw(40, 6, seed=3)
    scales = torch.logspace(-30, 30, 40, device=DEVICE)[:, None]
    output = focus_combine(new * 1e-30, anchors * scales, rows, backend=backend)
    torch.testing.assert_close(output, focus_combine(new, anchors, rows, backend=backend), rtol=0, atol=1e-5)


def test_overflowing_buffers_are_marked_and_others_are_right():
    """Buffers so small that some rows overflow in words, some in candidates, and some fit."""
    new, anchors = clustered(8, 64, 1), clustered(200, 64, 2)
    settings = {"rows": 16, "columns": 64, "step": 64, "warps": 4}
    full = kernel.support(new, anchors, **settings)
    assert (full[1] > 0).all()
    for buffers in ({"capacity": 16}, {"words": 4}):
        candidates, sizes, weights = kernel.support(new, anchors, **buffers, **settings)
        for row in range(len(new)):
            size = int(sizes[row])
            if size >= 0:
                assert size == full[1][row]
                assert torch.equal(candidates[row, :size], full[0][row, :size])
                assert torch.equal(weights[row, :size], full[2][row, :size])
    assert -1 in kernel.support(new, anchors, capacity=16, **settings)[1].tolist()


def test_the_search_misses_no_member_of_the_support():
    """Against float64, for vectors whose similarities crowd around the threshold closer than bfloat16 can tell."""
    base = draw(1, 64, seed=5)
    anchors = base + 0.02 * draw(150, 64, seed=6)
    new = base + 0.02 * draw(4, 64, seed=7)
    candidates, sizes, weights = kernel.support(new, anchors, rows=16, columns=64, warps=4)
    for row in range(len(new)):
        dense = torch.zeros(150, dtype=torch.float64, device=DEVICE)
        size = int(sizes[row])
        dense[candidates[row, :size].long()] = weights[row, :size].double()
        identity = torch.eye(150, device=DEVICE)
        torch.testing.assert_close(dense, oracle(new, anchors, identity)[row], rtol=0, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_new_tokens(backend):
    assert focus_combine(draw(0, 4), draw(3, 4), draw(3, 5), backend=backend).shape == (0, 5)


def test_reference_works_in_blocks(monkeypatch):
    new, anchors, rows = clustered(50, 16, 1), clustered(70, 16, 2), draw(70, 6, seed=3)
    whole = focus_combine(new, anchors, rows, backend="reference")
    monkeypatch.setattr("langadapt_kernels.focus.reference._BLOCK", 500)
    torch.testing.assert_close(focus_combine(new, anchors, rows, backend="reference"), whole)


@pytest.mark.parametrize("count", [127, 128, 129])
@pytest.mark.parametrize("width", [63, 64])
def test_padding_among_the_anchors_is_unlike_everything(count, width):
    """All anchors point away from the new tokens; padding fills a tile, or there is none, or it takes a coordinate."""
    towards = draw(1, width)
    new = towards + 0.05 * draw(3, width, seed=1)
    anchors = -towards + 0.05 * draw(count, width, seed=2)
    check(new, anchors, draw(count, 6, seed=3), "triton")
