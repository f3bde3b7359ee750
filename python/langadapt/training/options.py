"""Layouts that a run could take, what each would need and bring, and which of them to take."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from langadapt.costs import devices, memory, speed
from langadapt.costs.adapter import Adapter
from langadapt.costs.devices import GIB, Device
from langadapt.costs.flops import Shape
from langadapt.costs.memory import Layout, Memory
from langadapt.errors import ConfigError
from langadapt.training.settings import TrainSettings

KINDS = (
    ("pure-bf16", "nearest", "full"),
    ("pure-bf16", "stochastic", "full"),
    ("pure-bf16", "kahan", "full"),
    ("pure-bf16", "split", "full"),
    ("mixed-bf16", "nearest", "full"),
    ("pure-bf16", "stochastic", "int8"),
)
"""Precision, rounding and states, in the order in which what would fit is named."""
ROOM = 0.92
"""Share of a GPU's memory that a prediction may fill where several work together: they do not try, since one that runs
out of memory would leave the others waiting. One GPU tries."""
NOMINAL = 64
"""Windows per GPU and step beside which an update takes no time."""
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


def kind_of(settings: TrainSettings) -> tuple[str, str, str]:
    """Precision, rounding and states that a layout of these settings has; fp32 is planned for as mixed."""
    precision = "mixed-bf16" if settings.precision == "fp32" else settings.precision
    return precision, settings.rounding, settings.states


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


@dataclass(frozen=True)
class Pricing:
    """What layouts of one run need and bring on so many GPUs of one kind."""

    shape: Shape
    settings: TrainSettings
    gpus: int
    device: Device
    measured: Mapping[str, Any] | None = None
    """By `langadapt.planning.calibration.calibrate`, where the speed of one layout is known."""

    def price(self, layout: Layout) -> Option:
        """Memory and speed of one layout; of measured ones only the recomputation is predicted."""
        length, measured = self.settings.window, self.measured
        # Training does the same: gradients are sent once per step where there is room for whole sums.
        layout = replace(layout, whole_sums=True)
        needed = memory.estimate(self.shape, layout, length, self.settings.loss_chunk)
        if needed.peak > ROOM * self.device.memory and layout.sharding != "none":
            layout = replace(layout, whole_sums=False)
            needed = memory.estimate(self.shape, layout, length, self.settings.loss_chunk)
        known = None
        if measured is not None:
            known = measured["tokens_per_second"] * speed.CHECKPOINTING_COST[measured["activation_checkpointing"]]
            known /= speed.CHECKPOINTING_COST[layout.activation_checkpointing]
        times = speed.predict(self.shape, layout, self.device, length, compiled=self.settings.compile, measured=known)
        fits = needed.peak <= self.device.memory
        return Option(layout, needed, fits, times.tokens_per_second, times.step_seconds, times.mfu)

    def best_size(self, layout: Layout) -> Option:
        """A layout with the best micro-batch that the settings, and what is known of speeds, leave open."""
        windows = self.settings.sequences_per_step // self.gpus
        many = sizes(windows)
        if self.settings.micro_batch != "auto":
            many = [min(self.settings.micro_batch, windows)]
        elif self.measured is not None and "micro_batch" in self.measured:
            # Nothing is known of the others' speed.
            many = [min(int(self.measured["micro_batch"]), windows)]
        sized = [replace(layout, micro_batch=size, micro_batches=-(-windows // size), windows=windows) for size in many]
        return best_of([self.price(layout) for layout in sized], self.device)

    def options(self) -> Iterator[Option]:
        """The best micro-batch that fits, or the smallest one, of every combination.

        Sums in bf16 save memory and lose digits: they are offered beside the fp32 sums that ``accumulate: auto`` means
        where these do not fit, or only with a smaller micro-batch.
        """
        settings = self.settings
        wanted = kind_of(settings)
        # Of a library's optimizer there are no other states to offer.
        offered = [kind for kind in KINDS if kind[2] == "full" or settings.optimizer == "adamw"]
        kinds = offered if wanted in offered else [*offered, wanted]
        common: dict[str, Any] = {"accumulate": settings.accumulate, "compiled": settings.compile}
        common |= {"parts": settings.parts, "teacher": settings.replay_loss == "kl"}
        common["adapter"] = Adapter.of(settings)
        every = itertools.product(kinds, placements("auto", self.gpus), speed.CHECKPOINTING_COST)
        for (precision, rounding, states), sharding, checkpointing in every:
            layout = Layout(precision, rounding, self.gpus, sharding, checkpointing, states=states, **common)
            found = self.best_size(layout)
            yield found
            if settings.accumulate == "auto" and precision == "pure-bf16":
                other = self.best_size(replace(layout, accumulate="bf16"))
                if other.fits and (not found.fits or other.tokens_per_second > ALIKE * found.tokens_per_second):
                    yield other

    def choose(self, options: Sequence[Option]) -> tuple[Option, str]:
        """The best layout under the recipe's precision, and why.

        Raises:
            ConfigError: none fits.
        """
        settings, device = self.settings, self.device
        wanted = (kind_of(settings), settings.accumulate)
        mine = [
            option
            for option in options
            if (option.layout.kind, option.layout.accumulate) == wanted
            and option.layout.sharding in placements(settings.sharding, self.gpus)
            and settings.activation_checkpointing in {"auto", option.layout.activation_checkpointing}
        ]
        best = best_of(mine, device)
        if not best.fits:
            raise ConfigError(
                f"nothing fits: even `{best.layout.describe()}` needs {best.memory.peak / GIB:.1f} GiB per GPU, "
                f"and {device.name} has {device.memory / GIB:.1f}. {self.what_would_fit(options)}"
            )
        margin, count = 1 - best.memory.peak / device.memory, sum(option.fits for option in mine)
        under = best.layout.described_kind
        reason = f"fastest of the {count} layouts that fit under {under}, with {100 * margin:.0f} % of memory to spare"
        other = max((option for option in options if option.fits), key=lambda option: option.tokens_per_second)
        gain = other.tokens_per_second / best.tokens_per_second
        return best, reason + (f"; `{other.layout.describe()}` would be {gain:.2f} x as fast" if gain > 1.05 else "")

    def what_would_fit(self, options: Sequence[Option]) -> str:
        """Another precision here, or the smallest number of known GPUs that does."""
        for option in options:
            if option.fits:
                return f"`{option.layout.describe()}` would fit"
        for count in (1, 2, 4, 8, 16, 32, 64):
            if count < self.gpus or self.settings.sequences_per_step % count:
                continue
            for device in sorted(devices.DEVICES.values(), key=lambda device: device.memory):
                other = replace(self, gpus=count, device=device, measured=None)
                if any(option.fits and option.layout.states == self.settings.states for option in other.options()):
                    return f"{count} x {device.name} would do; or lower sequence_length"
        return "Lower sequence_length, or take a smaller model"


def predicted_speed(shape: Shape, settings: TrainSettings, gpus: int, device: Device) -> float:
    """Tokens per second of all GPUs in the best layout under the settings' precision, at a batch that is large enough
    not to matter; for budgets of hours, whose batch follows from it."""
    large = replace(settings, sequence_length=settings.window, batch_tokens=None, batch_sequences=NOMINAL * gpus)
    found = list(Pricing(shape, large, gpus, device).options())
    mine = [one for one in found if one.layout.kind == kind_of(settings)]
    return best_of(mine or found, device).tokens_per_second


def best_of(options: Sequence[Option], device: Device) -> Option:
    """The fastest that fits, with room to spare where several GPUs work together; the smallest where none does."""
    roomy = [option for option in options if option.layout.gpus == 1 or option.memory.peak <= ROOM * device.memory]
    fitting = [option for option in roomy if option.fits] or [option for option in options if option.fits]
    if not fitting:
        return min(options, key=lambda option: option.memory.peak)
    fastest = max(option.tokens_per_second for option in fitting)
    alike = [option for option in fitting if option.tokens_per_second * ALIKE >= fastest]
    return min(alike, key=lambda option: option.memory.peak)
