"""The step for CPU tensors against the reference: the same bits, whatever the blocks, threads and joined tensors."""

import pytest
import torch
from adamw_cases import SIZES, assert_same_bits, copy_entry, make_entry, scalars_for

from langadapt_kernels.adamw import cpu, reference
from langadapt_kernels.adamw.modes import ROUNDINGS, ElementIndex
from langadapt_kernels.adamw.norm import square_sum
from langadapt_kernels.adamw.run import StepCache, run_step

BF16, FP32 = torch.bfloat16, torch.float32
SCALE = torch.tensor(0.37)


def by_reference(entries, rows, scalars) -> list[int]:
    return [int(reference.adamw_step(entry, scalars[row], SCALE)) for entry, row in zip(entries, rows, strict=True)]


def check(entries, *, alike: bool = False) -> None:
    """Step copies by both, with and without counting."""
    rows = [0 if alike else i for i in range(len(entries))]
    scalars = scalars_for(len(entries))
    expected, counted, plain = ([copy_entry(entry) for entry in entries] for _ in range(3))
    for copies in (expected, counted, plain):
        for copy, entry in zip(copies, entries, strict=True):
            copy.index = entry.index
    stale = by_reference(expected, rows, scalars)
    settings = {"backend": "reference", "cache": StepCache()}
    assert run_step(counted, rows, scalars, SCALE, count_stale=True, **settings).tolist() == stale
    assert run_step(plain, rows, scalars, SCALE, count_stale=False, **settings) is None
    for one, two, three in zip(expected, counted, plain, strict=True):
        assert_same_bits(one, two)
        assert_same_bits(one, three)


@pytest.fixture(params=["numpy", "no numpy"])
def with_and_without_numpy(request, monkeypatch):
    if request.param == "no numpy":
        monkeypatch.setattr(cpu, "numpy", None)


@pytest.mark.usefixtures("with_and_without_numpy")
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
        check([entry])


@pytest.mark.parametrize("rounding", ["nearest", "stochastic", "split"])
def test_small_tensors_are_joined_with_those_of_the_same_kind_and_row(rounding):
    entries = [make_entry(40 + i, rounding, base=1000 * i, stochastic_variance=i % 2 == 0) for i in range(6)]
    entries += [make_entry(30, rounding, weight=FP32, grad=FP32), make_entry(5000, rounding, base=8000)]
    entries[2].index = ElementIndex(40, 7, 25)
    check(entries, alike=True)


def test_threads_share_the_blocks(monkeypatch):
    monkeypatch.setattr(cpu, "_BLOCK", 1000)
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda count=threads: count)
        check([make_entry(size, "stochastic", base=8 * i) for i, size in enumerate((30_001, 0, 7, 999))])


def test_what_goes_wrong_in_a_thread_is_raised(monkeypatch):
    monkeypatch.setattr(cpu, "_BLOCK", 8)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)

    def fail(tensor, part, scratch):
        raise ValueError(f"block at {part.start}")

    with pytest.raises(ValueError, match="block at"):
        cpu.for_each_block([1000], fail)


@pytest.mark.usefixtures("with_and_without_numpy")
def test_square_sums():
    entries = [make_entry(size, "nearest", grad=dtype) for size in (*SIZES, 100_003) for dtype in (BF16, FP32)]
    total = square_sum(entries, range(len(entries)), backend="reference", cache=StepCache())
    expected = torch.stack([reference.square_sum(entry.grad) for entry in entries]).sum()
    assert total.dtype == torch.float64
    torch.testing.assert_close(total, expected, rtol=1e-15, atol=0)
    entries[0].grad[0] = float("inf")
    assert square_sum(entries, range(len(entries)), backend="reference", cache=StepCache()) == float("inf")
