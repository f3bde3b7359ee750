"""Tensors to step, and oracles that share no code with the package."""

import torch
from torch import Tensor

from langadapt_kernels.adamw.modes import LOW_BITS, ElementIndex, Entry, scalar_table
from langadapt_kernels.adamw.run import LaunchConfig, StepCache, run_step
from langadapt_kernels.adamw.states import column_mask
from langadapt_kernels.backend import choose_backend
from langadapt_kernels.codes import GROUP

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

# Whole groups of 64: one, none, whole blocks, and past 2**16.
CODED_SIZES = (64, 0, 4096, 2**16 + 320)

# 1, below one group of eight, empty, a prime, whole chunks only, and past 2**16 with an odd end.
SIZES = (1, 7, 0, 1009, 4096, 2**16 + 13)


WRITTEN = ("param", "exp_avg", "exp_avg_sq", "low", "exp_avg_scale", "exp_avg_sq_scale")


def make_entry(
    size: int,
    rounding: str,
    *,
    base: int = 0,
    weight: torch.dtype = torch.bfloat16,
    grad: torch.dtype = torch.bfloat16,
    state: torch.dtype = torch.bfloat16,
    stochastic_variance: bool = False,
    offset: int = 0,
    seed: int = 0,
    columns: int = 0,
) -> Entry:
    """A tensor in the middle of training; `offset` elements into its memory. With `columns`, whole rows of a matrix of
    which a third of the columns is frozen; `state` int8: codes."""
    generator = torch.Generator().manual_seed(size + 10 * base + seed)

    def draw(dtype: torch.dtype, scale: float) -> Tensor:
        memory = torch.zeros(size + offset, dtype=dtype, device=DEVICE)
        memory[offset:] = (torch.randn(size, generator=generator) * scale).to(DEVICE)
        return memory[offset:]

    low = None
    if rounding in LOW_BITS and weight == torch.bfloat16:
        dtype = LOW_BITS[rounding][1]
        low = torch.zeros(size, dtype=dtype, device=DEVICE)
        low += draw(torch.float32, 1e-3).to(dtype) if dtype == torch.bfloat16 else draw(torch.float32, 80).long().abs()
    if state == torch.int8:
        moments = draw_codes(size, offset, generator)
    else:
        moments = {"exp_avg": draw(state, 0.01), "exp_avg_sq": draw(state, 1e-3).abs_()}
    return Entry(
        param=draw(weight, 1.0),
        grad=draw(grad, 0.1),
        **moments,
        low=low,
        rounding=rounding,
        stochastic_variance=stochastic_variance,
        seed=0x1234_5678_9ABC_DEF0,
        index=ElementIndex(base, size, 1),
        **(
            {}
            if not columns
            else {"frozen": column_mask(torch.empty(size // columns, columns, device=DEVICE), frozen_of(columns))}
        ),
        columns=columns or 1,
    )


def draw_codes(size: int, offset: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Codes over their whole range; scales of many magnitudes, those of every fifth group zero."""
    groups = torch.arange(size // GROUP)
    scale = torch.where(groups % 5 == 2, 0.0, 8.0 ** -(groups % 7))
    codes = torch.randint(-127, 128, (size,), generator=generator, dtype=torch.int8)
    squares = torch.randint(0, 256, (size,), generator=generator, dtype=torch.uint8)
    tensors = {"exp_avg": codes, "exp_avg_sq": squares, "exp_avg_scale": 0.01 * scale, "exp_avg_sq_scale": 0.2 * scale}
    return {name: torch.cat((value[:1].repeat(offset), value)).to(DEVICE)[offset:] for name, value in tensors.items()}


def frozen_of(columns: int) -> Tensor:
    """Every third column, and the last."""
    column = torch.arange(columns)
    return (column % 3 == 0) | (column == columns - 1)


def copy_entry(entry: Entry) -> Entry:
    tensors = {name: getattr(entry, name) for name in ("grad", *WRITTEN)}
    copies = {name: None if tensor is None else tensor.clone() for name, tensor in tensors.items()}
    return Entry(
        **copies,
        rounding=entry.rounding,
        stochastic_variance=entry.stochastic_variance,
        seed=entry.seed,
        index=entry.index,
        frozen=entry.frozen,
        columns=entry.columns,
    )


def scalars_for(count: int, step: float = 3.0) -> Tensor:
    """Rows of different steps and hyperparameters, so that a wrong row shows."""
    rows = torch.arange(count, dtype=torch.float64, device=DEVICE)
    settings = torch.stack((1e-2 / (1 + rows), 0.9 - rows / 100, 0.95 - rows / 200, 1e-8 + 0 * rows, 0.1 * rows), dim=1)
    return scalar_table(settings, (step + rows).float())


def run(entries: list[Entry], backend: str, config: LaunchConfig | None = None, scale: float | None = 0.37) -> Tensor:
    """One step over all entries; the counts of unmoved weights."""
    # Bits are compared with a CPU's: the exact variant, which only a GPU tells from the other.
    choose_backend(backend, DEVICE, in_core=True)  # which mends what an older interpreter needs
    cache = StepCache(config or LaunchConfig(block=4096, chunk=8192, exact=True))
    grad_scale = None if scale is None else torch.tensor(scale, device=DEVICE)
    rows = list(range(len(entries)))
    scalars = scalars_for(len(entries))
    stale = run_step(entries, rows, scalars, grad_scale, backend=backend, cache=cache, count_stale=True)
    assert stale is not None
    return stale


def bits(tensor: Tensor) -> Tensor:
    kinds = {torch.bfloat16: torch.int16, torch.float32: torch.int32}
    return tensor.view(kinds[tensor.dtype]) if tensor.dtype in kinds else tensor


def assert_same_bits(left: Entry, right: Entry) -> None:
    for name in WRITTEN:
        a, b = getattr(left, name), getattr(right, name)
        if a is None:
            assert b is None
            continue
        nan = a.isnan() & b.isnan() if a.is_floating_point() else torch.zeros_like(a, dtype=torch.bool)
        different = (bits(a) != bits(b)) & ~nan
        where = different.nonzero()[:5].flatten().tolist()
        assert not different.any(), f"{name}: {int(different.sum())} of {a.numel()} differ, first at: {where}"
