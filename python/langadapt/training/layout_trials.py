"""The fastest layout of one GPU, by trial: which micro-batch, and what is made again in the backward pass."""

from __future__ import annotations

import logging
import math
import statistics
import time
from typing import TYPE_CHECKING

import torch

from langadapt.costs.adapter import Adapter, coded_share
from langadapt.costs.memory import Layout, states_per_parameter
from langadapt.errors import LangadaptError
from langadapt.training.attention.choice import synchronize
from langadapt.training.options import ALIKE, Option

if TYPE_CHECKING:
    from langadapt.training.step import Stepper

log = logging.getLogger(__name__)

LIMIT = 90.0
"""Seconds after which no other layout is tried; four times as many where each is compiled first, for 15 to 40 s."""
OPTIMISM = 1.05
"""A layout that was not tried may be this much faster than predicted beside those that were."""
STRETCH = 1.15
"""Layouts are tried up to this much above the memory that there is: predictions err to both sides."""
ROUND_SECONDS = 3.0
"""Seconds of passes after which a layout's speed is known well enough."""


def fastest_layout(stepper: Stepper, options: list[Option], memory: float) -> Layout:
    """Time forward and backward passes of the most promising of ``options`` until no other promises more.

    Tried first is what the plan holds for the fastest; how far off it was corrects what it holds of the others. What
    runs out of ``memory`` (bytes, as planned with) rules out all that need more. Optimizer states and gradient sums are
    held meanwhile, as in training. No weight moves.

    Raises:
        LangadaptError: not even the smallest fits.
    """
    begun, tried = time.monotonic(), Trials()
    limit = LIMIT * (4 if stepper.settings.compile else 1)
    least = min(option.memory.peak for option in options)
    open_ = [option for option in options if option.memory.peak <= max(STRETCH * memory, least)]
    while open_:
        option = max(open_, key=tried.promise)
        if tried.speeds and (tried.promise(option) * OPTIMISM <= tried.best or time.monotonic() - begun > limit):
            break
        speed = attempt(stepper, option.layout)
        if speed is None:
            log.info("%s: out of memory", option.layout.describe())
            open_ = [other for other in open_ if other.memory.peak < option.memory.peak]
        else:
            log.info("%s: %s tokens/s", option.layout.describe(), f"{speed:,.0f}")
            open_.remove(option)
            tried.speeds[option] = speed
    if not tried.speeds:
        smallest = min(options, key=lambda option: option.memory.peak).layout
        asked = "micro_batch or " if smallest.micro_batch > 1 else ""
        other = ", or set activation_checkpointing: full" if smallest.activation_checkpointing != "full" else ""
        raise LangadaptError(
            f"{smallest.micro_batch} x {stepper.settings.window} tokens per forward pass do not fit into "
            f"memory ({smallest.describe()}); lower {asked}sequence_length{other}; `langadapt plan` shows what fits"
        )
    return tried.chosen()


class Trials:
    """Speeds that were measured, and what they say about others."""

    def __init__(self) -> None:
        self.speeds: dict[Option, float] = {}

    @property
    def best(self) -> float:
        """Of all measured speeds."""
        return max(self.speeds.values())

    def promise(self, option: Option) -> float:
        """Predicted speed, corrected by how the likest measured layout kept its promise."""
        if not self.speeds:
            return option.tokens_per_second
        likest = min(
            self.speeds,
            key=lambda other: (
                other.layout.activation_checkpointing != option.layout.activation_checkpointing,
                abs(math.log(other.layout.micro_batch / option.layout.micro_batch)),
            ),
        )
        return option.tokens_per_second * self.speeds[likest] / likest.tokens_per_second

    def chosen(self) -> Layout:
        """The fastest; of those that are alike, the one that leaves most room for long documents."""
        alike = [option for option, speed in self.speeds.items() if speed * ALIKE >= self.best]
        return min(alike, key=lambda option: option.memory.peak).layout


def attempt(stepper: Stepper, layout: Layout) -> float | None:
    """Tokens per second of a layout on this machine; none if memory does not suffice."""
    device, held = stepper.device, None
    stepper.apply_layout(layout.micro_batch, layout.activation_checkpointing)
    try:
        held = torch.empty(states_bytes(stepper), dtype=torch.uint8, device=device)
        with stepper.summing():
            return tokens_per_second(stepper, layout.micro_batch)
    except torch.OutOfMemoryError:
        return None
    finally:
        stepper.model.zero_grad(set_to_none=True)
        del held
        if device.type == "cuda":
            torch.cuda.empty_cache()


def states_bytes(stepper: Stepper) -> int:
    """What the optimizer's states will take with the first real step."""
    settings = stepper.settings
    coded = coded_share(stepper.shape, Adapter.of(settings), settings.parts, settings.states)
    per_parameter = states_per_parameter(settings.precision, settings.rounding, coded)
    return int(per_parameter * sum(one.numel() for one in stepper.model.parameters() if one.requires_grad))


def tokens_per_second(stepper: Stepper, size: int, rounds: int = 3) -> float:
    """Median speed of forward and backward passes over ``size`` windows; the first is not counted.

    At most ``rounds`` are, and no more once they have taken long enough. Gradients are left as they come, so that the
    second and later passes add to sums, as in training.
    """
    length, device = stepper.settings.window, stepper.device
    ids = torch.randint(stepper.shape.vocabulary, (size, length), device=device)
    positions = torch.arange(length, device=device).expand(size, -1).contiguous()
    seconds = []
    for number in range(rounds + 1):
        synchronize(device)
        begun = time.perf_counter()
        stepper.forward_backward(ids, ids, positions, scale=1.0 / ids.numel(), documents=size)
        synchronize(device)
        if number:
            seconds.append(time.perf_counter() - begun)
        if sum(seconds) > ROUND_SECONDS:
            break
    return ids.numel() / statistics.median(seconds)
