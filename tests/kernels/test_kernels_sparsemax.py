"""Sparsemax: reference and kernels against an oracle by sorting in float64, and against entmax if installed."""

import importlib

import pytest
import torch
from adamw_cases import DEVICE

from langadapt_kernels import sparsemax
from langadapt_kernels.backend import core

# The package's attribute of that name is the function.
kernel = importlib.import_module("langadapt_kernels.sparsemax.kernel")

# The core, where it is installed, is for CPUs.
BACKENDS = ["reference", "triton", *(["core"] if core() is not None and DEVICE.type == "cpu" else [])]
# Largest error of a probability, per dtype, for entries of size ~1.
TOLERANCES = {torch.float64: 1e-14, torch.float32: 1e-6, torch.float16: 5e-4, torch.bfloat16: 4e-3}


def oracle(row: torch.Tensor) -> torch.Tensor:
    """One row, by the definition: the largest support whose smallest member still exceeds the threshold."""
    ordered = sorted(row.double().tolist(), reverse=True)
    total, tau = 0.0, 0.0
    for count, value in enumerate(ordered, start=1):
        total += value
        if 1 + count * value > total:
            tau = (total - 1) / count
    return (row.double() - tau).clamp(min=0)


def rows_of_all_kinds(n: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(n)
    drawn = torch.randn(4, n, generator=generator, dtype=torch.float64)
    drawn[1] *= 1e-3  # a wide support
    drawn[2] = 0.25  # all ties
    drawn[3, n // 2 :] = drawn[3, 0]
    return drawn


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_against_the_oracle(backend, dtype):
    if backend == "core" and dtype == torch.float64:
        with pytest.raises(ValueError, match="not of float64"):
            sparsemax(torch.zeros(2, dtype=dtype), backend=backend)
        return
    # One, two, below and above a block, and more than the reference's first 64 candidates.
    for n in (1, 2, 33, 128, 700):
        x = rows_of_all_kinds(n).to(DEVICE, dtype)
        output = sparsemax(x, backend=backend)
        assert output.dtype == dtype
        expected = torch.stack([oracle(row) for row in x.cpu()])
        error = (output.cpu().double() - expected).abs().max()
        assert error <= TOLERANCES[dtype], f"row length: {n}"


def test_rows_too_long_for_registers():
    """The streaming kernel on short and on long rows, and the resident one on a long row."""
    for n, resident in ((1, 0), (700, 16), (5000, 16), (20000, 32768)):
        x = rows_of_all_kinds(n)[:2].float().to(DEVICE)
        output = kernel.sparsemax(x, resident=resident)
        torch.testing.assert_close(output, sparsemax(x, backend="reference"), rtol=0, atol=1e-6)


def test_large_entries_keep_their_precision():
    x = torch.tensor([[1e6, 1e6 + 0.25, 1e6 - 3, -1e30], [-5e8, -5e8, -6e8, -9e8]], device=DEVICE)
    expected = torch.tensor([[0.375, 0.625, 0, 0], [0.5, 0.5, 0, 0]], device=DEVICE)
    for backend in BACKENDS:
        torch.testing.assert_close(sparsemax(x, backend=backend), expected, rtol=0, atol=1e-6)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, in the interpreter, where a GPU says nothing
def test_rows_that_are_not_finite():
    inf, nan = float("inf"), float("nan")
    x = torch.tensor([[1.0, nan, 2.0], [inf, 1.0, 1.0], [-inf, 1.0, 1.0]], device=DEVICE)
    for output in (*(sparsemax(x, backend=backend) for backend in BACKENDS), kernel.sparsemax(x, resident=0)):
        assert output[:2].isnan().all()
        assert output[2].tolist() == [0.0, 0.5, 0.5]


@pytest.mark.parametrize("backend", ["reference", "triton"])
def test_gradients(backend):
    # The interpreter takes a second per call: a few entries there.
    shape = (3, 7, 4) if backend == "reference" else (1, 4, 2)
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    x.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: sparsemax(x, 1, backend=backend), x)
    if backend == "reference":
        assert torch.autograd.gradgradcheck(lambda x: sparsemax(x, backend=backend), x)


def test_backward_of_long_rows_and_narrow_dtypes():
    generator = torch.Generator().manual_seed(0)
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.randn(2, 5000, generator=generator)
        grad = torch.randn(2, 5000, generator=generator).to(DEVICE, dtype)
        # Of what lies outside the support, nothing is read.
        grad[sparsemax(x.to(DEVICE, dtype), backend="reference") == 0] = float("nan")
        results = []
        for backend in BACKENDS:
            leaf = x.to(DEVICE, dtype).requires_grad_()
            sparsemax(leaf, backend=backend).backward(grad)
            results.append(leaf.grad)
        assert results[0].isfinite().all()
        for result in results[1:]:
            torch.testing.assert_close(result, results[0])


def test_any_dimension_any_layout_and_no_rows():
    x = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    for backend in BACKENDS:
        for dim in (0, 1, 2, -1, -3):
            for variant in (x, x.transpose(0, 2)):
                output = sparsemax(variant, dim, backend=backend)
                torch.testing.assert_close(output.sum(dim), torch.ones_like(output.sum(dim)))
                expected = sparsemax(variant.movedim(dim, -1).contiguous(), backend="reference").movedim(-1, dim)
                torch.testing.assert_close(output, expected, rtol=0, atol=1e-6)
        assert sparsemax(x[:0], backend=backend).shape == (0, 5, 4)
        assert sparsemax(x[0, 0], backend=backend).shape == (4,)


def test_compiles_without_a_graph_break():
    x = torch.randn(3, 9)
    compiled = torch.compile(lambda x: sparsemax(x * 2, 0), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), sparsemax(x * 2, 0))


@pytest.mark.skipif("core" not in BACKENDS, reason="the core is not installed, or this is a GPU's run")
def test_the_core_is_chosen_on_a_cpu_and_does_not_depend_on_threads():
    x = torch.randn(5, 7, 3000, generator=torch.Generator().manual_seed(0))
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        leaf = x.to(dtype).requires_grad_()
        output = sparsemax(leaf, 2)
        assert torch.equal(output, sparsemax(leaf.detach(), 2, backend="core"))
        threads = torch.get_num_threads()
        torch.set_num_threads(3)
        try:
            assert torch.equal(output, sparsemax(leaf.detach(), 2))
        finally:
            torch.set_num_threads(threads)
    # The reference may be off by its float32 sums.
    doubles = sparsemax(x.double(), 1, backend="reference")
    assert (sparsemax(x, 1) - doubles).abs().max() < 6e-8


def test_is_entmax():
    entmax = pytest.importorskip("entmax")
    x = torch.randn(20, 300, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(sparsemax(x, -1), entmax.sparsemax(x, dim=-1), rtol=0, atol=1e-6)
