"""The FOCUS combination against an oracle in float64, on easy and on adversarial vectors."""

import importlib

import pytest
import torch
from adamw_cases import DEVICE
from torch.utils._python_dispatch import TorchDispatchMode

from langadapt_kernels import focus_combine
from langadapt_kernels.backend import core

run = importlib.import_module("langadapt_kernels.focus.run")

BACKENDS = ["reference", "triton"]


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def clustered(count: int, width: int, seed: int) -> torch.Tensor:
    """Vectors around ten centres, as word vectors are: supports of about thirty."""
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


@pytest.fixture(params=["reference", "triton", "core"])
def backend(request):
    """As an argument of `focus_combine`."""
    if request.param == "core" and (DEVICE.type != "cpu" or core() is None):
        pytest.skip("a CPU and the compiled core are needed")
    return request.param


def check(new, anchors, rows, backend, tolerance=1e-5) -> None:
    output = focus_combine(new, anchors, rows, backend=backend)
    assert output.shape == (len(new), rows.shape[1]) and output.dtype == rows.dtype
    torch.testing.assert_close(output.double(), oracle(new, anchors, rows), rtol=0, atol=tolerance)


def test_clustered_vectors(backend):
    """Sizes that fill no tile: 11 new tokens, 333 anchors, width 70, rows of 37."""
    check(clustered(11, 70, 1), clustered(333, 70, 2), draw(333, 37, seed=3), backend)


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


def test_one_anchor_takes_everything(backend):
    rows = draw(1, 5)
    output = focus_combine(draw(3, 4), draw(1, 4, seed=1), rows, backend=backend)
    assert torch.equal(output, rows.expand(3, -1))


def test_duplicated_anchors_share_alike(backend):
    """Each anchor five times: ties all over the support."""
    new, anchors = clustered(3, 32, 1), clustered(30, 32, 2).repeat(5, 1)
    check(new, anchors, draw(150, 6, seed=3), backend)


def test_all_equal_rows_zero_vectors_and_opposites(backend):
    """300 equal anchors do not fit the kernel's buffer of 256: the row is left to the reference and stays exact."""
    rows = draw(300, 6, seed=3)
    new = torch.stack((torch.ones(16), torch.zeros(16), -torch.ones(16))).to(DEVICE)
    output = focus_combine(new, torch.ones(300, 16, device=DEVICE), rows, backend=backend)
    torch.testing.assert_close(output, rows.mean(dim=0).expand(3, -1), rtol=0, atol=1e-5)


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
    settings = {"tile": run.Tile(16, 64, 64, 4)}
    full = run.support(new, anchors, **settings)
    assert (full[1] > 0).all()
    for buffers in ({"capacity": 16}, {"words": 4}):
        candidates, sizes, weights = run.support(new, anchors, **buffers, **settings)
        for row in range(len(new)):
            size = int(sizes[row])
            if size >= 0:
                assert size == full[1][row]
                assert torch.equal(candidates[row, :size], full[0][row, :size])
                assert torch.equal(weights[row, :size], full[2][row, :size])
    assert -1 in run.support(new, anchors, capacity=16, **settings)[1].tolist()


def test_the_search_misses_no_member_of_the_support():
    """Against float64, for vectors whose similarities crowd around the threshold closer than bfloat16 can tell."""
    base = draw(1, 64, seed=5)
    anchors = base + 0.02 * draw(150, 64, seed=6)
    new = base + 0.02 * draw(4, 64, seed=7)
    candidates, sizes, weights = run.support(new, anchors, tile=run.Tile(16, 64, warps=4))
    for row in range(len(new)):
        dense = torch.zeros(150, dtype=torch.float64, device=DEVICE)
        size = int(sizes[row])
        dense[candidates[row, :size].long()] = weights[row, :size].double()
        identity = torch.eye(150, device=DEVICE)
        torch.testing.assert_close(dense, oracle(new, anchors, identity)[row], rtol=0, atol=1e-6)


@pytest.mark.parametrize("width", [300, 130, 40])
def test_the_search_does_not_depend_on_its_tile(width):
    """New tokens kept in shared memory or read again with every tile of anchors: the same support to the last bit."""
    new, anchors = clustered(5, width, 1), clustered(333, width, 2)
    found = []
    for tile in (run.Tile(columns=64, kept=True), run.Tile(), run.Tile(16, 128, kept=True)):
        candidates, sizes, weights = run.support(new, anchors, tile=tile)
        inside = torch.arange(candidates.shape[1], device=DEVICE) < sizes[:, None]
        found.append((sizes, torch.where(inside, candidates, 0), torch.where(inside, weights, 0)))
    assert (found[0][0] > 1).all()
    for other in found[1:]:
        assert all(map(torch.equal, found[0], other))


def test_vectors_too_long_for_shared_memory_take_another_tile():
    device = torch.device("cpu")
    assert [run.tile_for(width, device).kept for width in (300, 447, 448, 600)] == [True, True, False, False]
    check(clustered(3, 600, 1), clustered(130, 600, 2), draw(130, 6, seed=3), "triton")


class Recorded(TorchDispatchMode):
    """The largest tensor that any operation makes, in bytes, and the precisions that matrix products are taken with."""

    def __init__(self):
        super().__init__()
        self.largest, self.precisions = 0, set()

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        made = [t for t in (result if isinstance(result, tuple) else (result,)) if isinstance(t, torch.Tensor)]
        # Views own nothing.
        held = [a.untyped_storage()._cdata for a in arguments if isinstance(a, torch.Tensor)]
        made = [t for t in made if t.untyped_storage()._cdata not in held]
        self.largest = max([self.largest, *(t.numel() * t.element_size() for t in made)])
        if "mm" in function.name():
            self.precisions.add(torch.backends.cuda.matmul.fp32_precision)
            self.precisions.add(torch.backends.mkldnn.matmul.fp32_precision)
        return result


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_left_to_the_reference_take_no_copy_of_the_matrix(backend, monkeypatch):
    """One row with 300 equal anchors among 3,000: of 3,000 x 256 in bfloat16, nothing as large is made of it."""
    monkeypatch.setattr("langadapt_kernels.focus.reference.BLOCK", 1 << 14)
    anchors = clustered(3000, 16, 2)
    anchors[::10] = anchors[0]
    new = torch.stack((anchors[0], anchors[1]))
    rows = draw(3000, 256, seed=3).bfloat16()
    assert backend == "reference" or -1 in run.support(new, anchors)[1].tolist()
    with Recorded() as recorded:
        output = focus_combine(new, anchors, rows, backend=backend)
    torch.testing.assert_close(output.double(), oracle(new, anchors, rows), rtol=2**-8, atol=1e-4)
    assert recorded.largest < rows.numel() * 2


def test_the_reference_multiplies_in_float32_whatever_is_allowed():
    """TF32 is off by 1e-3; the setting is the caller's again afterwards."""
    torch.set_float32_matmul_precision("medium")
    try:
        with Recorded() as recorded:
            focus_combine(clustered(2, 16, 1), clustered(9, 16, 2), draw(9, 4), backend="reference")
        assert recorded.precisions == {"ieee"}
        assert torch.get_float32_matmul_precision() == "medium"
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_no_new_tokens(backend):
    assert focus_combine(draw(0, 4), draw(3, 4), draw(3, 5), backend=backend).shape == (0, 5)


def test_without_the_core_the_reference_does_its_part(monkeypatch):
    new, anchors, rows = clustered(5, 16, 1), clustered(70, 16, 2), draw(70, 6, seed=3)
    monkeypatch.setattr("langadapt_kernels.backend.core", lambda: None)
    if DEVICE.type == "cpu":
        assert torch.equal(focus_combine(new, anchors, rows), focus_combine(new, anchors, rows, backend="reference"))


@pytest.mark.parametrize("backend", ["reference", None])
def test_blocks_of_new_tokens(backend, monkeypatch):
    new, anchors, rows = clustered(50, 16, 1), clustered(70, 16, 2), draw(70, 6, seed=3)
    whole = focus_combine(new, anchors, rows, backend=backend)
    monkeypatch.setattr("langadapt_kernels.focus.reference.BLOCK", 500)
    torch.testing.assert_close(focus_combine(new, anchors, rows, backend=backend), whole)


@pytest.mark.parametrize("count", [127, 128, 129])
@pytest.mark.parametrize("width", [63, 64])
def test_padding_among_the_anchors_is_unlike_everything(count, width):
    """All anchors point away from the new tokens; padding fills a tile, or there is none, or it takes a coordinate."""
    towards = draw(1, width)
    new = towards + 0.05 * draw(3, width, seed=1)
    anchors = -towards + 0.05 * draw(count, width, seed=2)
    check(new, anchors, draw(count, 6, seed=3), "triton")
