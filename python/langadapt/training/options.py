"""Layouts that a run could take, what each would need and bring, and which of them to take."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from langadapt.costs import devices, memory, speed
from langadapt.costs.devices import GIB, Device
from langadapt.costs.flops import Shape
from langadapt.costs.memory import Layout, Memory
from langadapt.errors import ConfigError
from langadapt.training.settings import TrainSettings

PRECISIONS = (
    ("pure-bf16", "nearest"),
    ("pure-bf16", "stochastic"),
    ("pure-bf16", "kahan"),
    ("pure-bf16", "split"),
    ("mixed-bf16", "nearest"),
)
ROOM = 0.92
"""Share of a GPU's memory that a prediction may fill where several work together: they do not try, since one that runs
out of memory would leave the others waiting. One GPU tries."""
ALIKE = 1.02
"""Layouts whose speeds are closer than this are alike: the one that needs least memory is taken."""


@dataclass(frozen=True)
class Option:
    """A layout with its price."""

    layout: Layout
    memory: Memory
    fits: bool
    tokens_per_second: float
    step_seconds: float
    mfu: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"description": self.layout.describe(), **asdict(self)}


def sizes(windows: int) -> list[int]:
    """Micro-batches worth trying: divisors of a process' windows, so that all passes are alike, at most doubling."""
    found: list[int] = []
    for size in range(1, windows + 1):
        if windows % size == 0 and (not found or size >= 2 * found[-1] or size == windows):
            found.append(size)
    return found


def placements(sharding: str, gpus: int) -> tuple[str, ...]:
    """What a wish for ``sharding`` leaves open: nothing on one GPU; `hybrid` is full inside of a node."""
    if gpus == 1:
        return ("none",)
    return ("none", "grad-op", "full") if sharding == "auto" else ("full" if sharding == "hybrid" else sharding,)


def enumerate_options(
    shape: Shape, settings: TrainSettings, gpus: int, device: Device, measured: Mapping[str, Any] | None
) -> Iterator[Option]:
    """The best micro-batch that fits, or the smallest one, of every combination.

    Sums in bf16 save memory and lose digits: they are offered beside the fp32 sums that ``accumulate: auto`` means
    where these do not fit, or only with a smaller micro-batch.
    """
    wanted = (settings.precision, settings.rounding)
    precisions = PRECISIONS if wanted in PRECISIONS or settings.precision == "fp32" else (*PRECISIONS, wanted)
    windows = settings.sequences_per_step // gpus
    many = sizes(windows)
    if settings.micro_batch != "auto":
        many = [min(settings.micro_batch, windows)]
    elif measured is not None and "micro_batch" in measured:
        # Nothing is known of the others' speed.
        many = [min(int(measured["micro_batch"]), windows)]
    for precision, sharding, recompute in itertools.product(precisions, placements("auto", gpus), speed.RECOMPUTE):
        layout = Layout(
            *precision, gpus, sharding, recompute, accumulate=settings.accumulate, compiled=settings.compile
        )
        found = best_of(sized(shape, layout, settings, device, measured, many), device)
        yield found
        if settings.accumulate == "auto" and precision[0] == "pure-bf16":
            layout = replace(layout, accumulate="bf16")
            other = best_of(sized(shape, layout, settings, device, measured, many), device)
            if other.fits and (not found.fits or other.tokens_per_second > ALIKE * found.tokens_per_second):
                yield other


def sized(
    shape: Shape,
    layout: Layout,
    settings: TrainSettings,
    device: Device,
    measured: Mapping[str, Any] | None,
    many: Sequence[int],
) -> list[Option]:
    """A layout with each of several micro-batches."""
    windows = settings.sequences_per_step // layout.gpus
    return [
        price_of(
            shape,
            replace(layout, micro_batch=size, micro_batches=-(-windows // size), windows=windows),
            settings,
            device,
            measured,
        )
        for size in many
    ]


def price_of(
    shape: Shape, layout: Layout, settings: TrainSettings, device: Device, measured: Mapping[str, Any] | None = None
) -> Option:
    """Memory and speed of one layout; of measured ones only the recomputation is predicted."""
    # Training does the same: gradients are sent once per step where there is room for whole sums.
    layout = replace(layout, whole_sums=True)
    needed = memory.estimate(shape, layout, settings.sequence_length, settings.loss_chunk)
    if needed.peak > ROOM * device.memory and layout.sharding != "none":
        layout = replace(layout, whole_sums=False)
        needed = memory.estimate(shape, layout, settings.sequence_length, settings.loss_chunk)
    known = None
    if measured is not None:
        known = measured["tokens_per_second"] * speed.RECOMPUTE[measured["activation_checkpointing"]]
        known /= speed.RECOMPUTE[layout.activation_checkpointing]
    times = speed.predict(shape, layout, device, settings.sequence_length, settings.compile, known)
    fits = needed.peak <= device.memory
    return Option(layout, needed, fits, times.tokens_per_second, times.step_seconds, times.mfu)


def best_of(options: Sequence[Option], device: Device) -> Option:
    """The fastest that fits, with room to spare where several GPUs work together; the smallest where none does."""
    roomy = [option for option in options if option.layout.gpus == 1 or option.memory.peak <= ROOM * device.memory]
    fitting = [option for option in roomy if option.fits] or [option for option in options if option.fits]
    if not fitting:
        return min(options, key=lambda option: option.memory.peak)
    fastest = max(option.tokens_per_second for option in fitting)
    alike = [option for option in fitting if option.tokens_per_second * ALIKE >= fastest]
    return min(alike, key=lambda option: option.memory.peak)


def choose(
    options: list[Option], settings: TrainSettings, shape: Shape, gpus: int, device: Device
) -> tuple[Option, str]:
    """The best layout under the recipe's precision, and why.

    Raises:
        ConfigError: none fits.
    """
    precision = "mixed-bf16" if settings.precision == "fp32" else settings.precision
    wanted = (precision, settings.rounding, settings.accumulate)
    mine = [
        option
        for option in options
        if (option.layout.precision, option.layout.rounding, option.layout.accumulate) == wanted
        and option.layout.sharding in placements(settings.sharding, gpus)
        and settings.activation_checkpointing in {"auto", option.layout.activation_checkpointing}
    ]
    best = best_of(mine, device)
    if not best.fits:
        raise ConfigError(
            f"nothing fits: even `{best.layout.describe()}` needs {best.memory.peak / GIB:.1f} GiB per GPU, "
            f"and {device.name} has {device.memory / GIB:.1f}. {what_would_fit(shape, settings, gpus, options)}"
        )
    margin = 1 - best.memory.peak / device.memory
    count = sum(option.fits for option in mine)
    under = f"{precision} {settings.rounding}" if precision == "pure-bf16" else precision
    reason = f"fastest of the {count} layouts that fit under {under}, with {100 * margin:.0f} % of memory to spare"
    faster = [option for option in options if option.fits and option.tokens_per_second > 1.05 * best.tokens_per_second]
    if faster:
        other = max(faster, key=lambda option: option.tokens_per_second)
        gain = other.tokens_per_second / best.tokens_per_second
        reason += f"; `{other.layout.describe()}` would be {gain:.2f} x as fast"
    return best, reason


def what_would_fit(shape: Shape, settings: TrainSettings, gpus: int, options: list[Option]) -> str:
    """Another precision here, or the smallest number of known GPUs that does."""
    here = [option for option in options if option.fits]
    if here:
        return f"`{here[0].layout.describe()}` would fit"
    for count in (1, 2, 4, 8, 16, 32, 64):
        if count < gpus or settings.sequences_per_step % count:
            continue
        for device in sorted(devices.DEVICES.values(), key=lambda device: device.memory):
            if any(option.fits for option in enumerate_options(shape, settings, count, device, None)):
                return f"{count} x {device.name} would do; or lower sequence_length"
    return "Lower sequence_length, or take a smaller model"
