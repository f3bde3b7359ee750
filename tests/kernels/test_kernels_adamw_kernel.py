"""The Triton step against its reference: the same bits in every mode. Runs in the interpreter where there is no GPU."""

import importlib

import pytest
import torch
from adamw_cases import DEVICE, SIZES, assert_same_bits, copy_entry, frozen_of, make_entry, run

from langadapt_kernels import FusedAdamW, adamw_step
from langadapt_kernels.adamw.modes import ROUNDINGS, ElementIndex, EntryRow
from langadapt_kernels.adamw.norm import square_sum
from langadapt_kernels.adamw.run import Fit, LaunchConfig, Slot, StepCache

kernel_module = importlib.import_module("langadapt_kernels.adamw.kernel")

BF16, FP32 = torch.bfloat16, torch.float32


def many_entries(rounding: str, **kwargs) -> list:
    entries, base = [], 0
    for size in SIZES:
        entries.append(make_entry(size, rounding, base=base, **kwargs))
        base += -(-size // 8) * 8
    return entries


@pytest.mark.parametrize("state", [BF16, FP32], ids=["bf16", "fp32"])
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_kernel_and_reference_agree_in_every_bit(rounding, state):
    kernel = many_entries(rounding, state=state, stochastic_variance=rounding == "stochastic")
    reference = [copy_entry(entry) for entry in kernel]
    assert torch.equal(run(kernel, "triton"), run(reference, "reference"))
    for left, right in zip(kernel, reference, strict=True):
        assert_same_bits(left, right)


@pytest.mark.parametrize("rounding", ["stochastic", "split8"])
def test_dtypes_odd_addresses_and_places_agree(rounding):
    """float32 weights and gradients, memory off by one element, a first element inside a group of eight, short runs."""
    entries = [
        make_entry(5000, rounding, weight=FP32, grad=FP32, state=FP32),
        make_entry(5000, rounding, weight=FP32, grad=FP32),
        make_entry(5000, rounding, grad=FP32),
        make_entry(5000, rounding, offset=1, stochastic_variance=True),
        make_entry(5000, rounding, base=12345, stochastic_variance=True),
        make_entry(5000, rounding, stochastic_variance=True),
        make_entry(9000, rounding, base=2**33 + 8, stochastic_variance=True),
    ]
    entries[5].index = ElementIndex(40, 100, 250)
    reference = [copy_entry(entry) for entry in entries]
    assert torch.equal(run(entries, "triton", scale=None), run(reference, "reference", scale=None))
    for left, right in zip(entries, reference, strict=True):
        assert_same_bits(left, right)


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_frozen_columns_agree_and_stay(rounding):
    """Rows that end within a block and within a byte of the mask, beside a tensor of which all moves."""
    shapes = ((80, 64), (41, 301), (7, 9))
    entries = [make_entry(r * c, rounding, base=8 * 10**5 * i, columns=c) for i, (r, c) in enumerate(shapes)]
    entries.append(make_entry(4096, rounding, base=8 * 10**7))
    before, reference = ([copy_entry(entry) for entry in entries] for _ in range(2))
    assert torch.equal(run(entries, "triton"), run(reference, "reference"))
    for now, other, was, (rows, columns) in zip(entries, reference, before, shapes, strict=False):
        assert_same_bits(now, other)
        still = frozen_of(columns).repeat(rows).to(now.param.device)
        for name in ("param", "exp_avg", "exp_avg_sq"):
            moved = getattr(now, name) != getattr(was, name)
            assert not moved[still].any() and moved[~still].any(), name
    assert_same_bits(entries[-1], reference[-1])


def test_results_do_not_depend_on_blocks_chunks_or_launches():
    """Stochastic rounding keyed by place and step alone: other cuts, and one launch per half, give the same bits."""
    whole = make_entry(20000, "stochastic", stochastic_variance=True)
    recut, halves = copy_entry(whole), copy_entry(whole)
    run([whole], "triton")
    run([recut], "triton", LaunchConfig(block=1024, chunk=2048, exact=True))
    assert_same_bits(whole, recut)
    for part in (slice(0, 9992), slice(9992, None)):
        half = copy_entry(halves)
        for name in ("param", "grad", "exp_avg", "exp_avg_sq"):
            setattr(half, name, getattr(halves, name)[part])
        half.index = ElementIndex(part.start, half.param.numel(), 1)
        run([half], "triton")
    assert_same_bits(whole, halves)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, in the interpreter, where a GPU says nothing
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_not_a_number_and_infinity_bypass_the_rounding(rounding):
    """Weights, gradients and moments that are not finite, or are about to overflow, in both implementations."""
    special = [float("nan"), float("inf"), -float("inf"), 3.3895e38, -3.3895e38, 0.0, -0.0, 1e-40, 1.0, 3.38e38]
    kernel = make_entry(64 * 10, rounding, stochastic_variance=True)
    values = torch.tensor(special * 64, device=DEVICE)
    kernel.param.copy_(values)
    kernel.grad.copy_(values.view(64, 10).roll(3, 1).flatten() * torch.tensor([1.0, 1e-20], device=DEVICE).repeat(320))
    if kernel.low is not None:
        kernel.low.zero_()
    reference = copy_entry(kernel)
    run([kernel], "triton", scale=None)
    run([reference], "reference", scale=None)
    assert_same_bits(kernel, reference)
    assert kernel.param.isnan().any()


def test_square_sum_is_that_of_the_reference():
    entries = [*many_entries("nearest"), make_entry(3001, "nearest", grad=FP32, offset=1)]
    rows = list(range(len(entries)))
    cache = StepCache(LaunchConfig(block=4096, chunk=8192))
    total = square_sum(entries, rows, backend="triton", cache=cache)
    expected = square_sum(entries, rows, backend="reference", cache=cache)
    exact = sum(entry.grad.double().square().sum() for entry in entries)
    assert abs(total - expected) <= 1e-14 * expected
    assert abs(total - exact) <= 1e-6 * exact
    again = square_sum(entries, rows, backend="triton", cache=cache)
    assert torch.equal(total, again)


def test_tables_are_reused_until_an_address_changes():
    entry, cache = make_entry(9000, "nearest"), StepCache(LaunchConfig(block=1024, chunk=2048))
    slot = Slot("step", None, (0,))
    first = cache.table(slot, [entry], [0], random=False)
    assert cache.table(slot, [entry], [0], random=False) is first
    assert {fit: len(chunks) for fit, chunks in first.chunks.items()} == {Fit.WHOLE: 4, Fit.RAGGED: 1}
    entry.grad = entry.grad.clone()
    second = cache.table(slot, [entry], [0], random=False)
    assert second is not first and second.chunks is first.chunks
    assert second.entries[0, EntryRow._fields.index("grad")] == entry.grad.data_ptr()


@pytest.mark.parametrize("rounding", ["stochastic", "split"])
def test_gradients_at_odd_addresses_leave_the_rest_at_whole_blocks(rounding, monkeypatch):
    """As the backward pass of a sharded model makes them: views of one memory, eight bytes or two past 16."""
    launches = []
    plain = kernel_module.adamw_kernel
    monkeypatch.setattr(kernel_module, "adamw_kernel", Watched(plain, launches))
    entries = [make_entry(9000, rounding, base=base, stochastic_variance=True) for base in (0, 16384, 32768)]
    for entry, offset in zip(entries, (4, 1, 0), strict=True):
        entry.grad = torch.cat((entry.grad[:offset], entry.grad))[offset:]
        assert entry.grad.data_ptr() % 16 == 2 * offset
    reference = [copy_entry(entry) for entry in entries]
    assert torch.equal(run(entries, "triton"), run(reference, "reference"))
    for left, right in zip(entries, reference, strict=True):
        assert_same_bits(left, right)
    # Programs of 8,192 elements: a whole one of each tensor; without masks, whatever the gradient's address.
    found = {(options["RAGGED"], options["SHIFTED"]): programs for programs, options in launches}
    assert found == {(False, True): 2, (False, False): 1, (True, False): 3}
    cache = StepCache(LaunchConfig(block=1024, chunk=8192))
    rows = list(range(3))
    total = square_sum(entries, rows, backend="triton", cache=cache)
    torch.testing.assert_close(total, square_sum(entries, rows, backend="reference", cache=cache), rtol=1e-14, atol=0)


def test_gradients_that_move_by_multiples_of_sixteen_need_no_new_tables():
    memory = torch.zeros(20000, dtype=BF16, device=DEVICE)
    entry, cache, slot = (
        make_entry(9000, "nearest"),
        StepCache(LaunchConfig(block=1024, chunk=2048)),
        Slot("", None, ()),
    )
    entry.grad = memory[4:9004]
    first = cache.table(slot, [entry], [0], random=False)
    entry.grad = memory[84:9084]
    assert cache.table(slot, [entry], [0], random=False).chunks is first.chunks
    entry.grad = memory[80:9080]
    assert set(cache.table(slot, [entry], [0], random=False).chunks) == {Fit.WHOLE, Fit.RAGGED}


class Watched:
    """A kernel that notes how it is launched."""

    def __init__(self, kernel, launches):
        self.kernel, self.launches = kernel, launches

    def __getitem__(self, grid):
        def launch(*arguments, **options):
            self.launches.append((grid[0], options))
            return self.kernel[grid](*arguments, **options)

        return launch


@pytest.mark.parametrize("eps", [0.0, 1e-8])
def test_tiny_second_moments_count_where_eps_does_not_hide_them(eps, monkeypatch):
    """The fast root takes them for zero, and what is divided by it is infinite: small `eps` takes the exact one."""
    launches = []
    monkeypatch.setattr(kernel_module, "adamw_kernel", Watched(kernel_module.adamw_kernel, launches))
    weights = []
    for backend in ("triton", "reference"):
        param = torch.nn.Parameter(torch.ones(2048, device=DEVICE))
        param.grad = torch.full_like(param, 1e-19)
        optimizer = FusedAdamW([param], 1e-2, eps=eps, backend=backend)
        optimizer.step()
        moments = (torch.zeros_like(param), torch.zeros_like(param))
        twin = torch.ones_like(param)
        lists = [[t] for t in (twin, param.grad, *moments)]
        adamw_step(*lists, step=1, lr=1e-2, eps=eps, backend=backend)
        assert torch.equal(twin, param)
        weights.append(param.detach())
    assert torch.equal(*weights) and weights[0].isfinite().all()
    assert [options["EXACT"] for _, options in launches] == [eps == 0, eps == 0]
