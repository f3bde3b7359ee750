"""Trying things out on the machine itself: which layout is fastest, and how fast real steps are."""

from __future__ import annotations

import logging
import math
import statistics
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from langadapt.budget.memory import Layout, states_per_parameter
from langadapt.budget.options import ALIKE, Option
from langadapt.errors import LangadaptError
from langadapt.training.batches import Mixture, Windows
from langadapt.training.settings import TrainSettings

if TYPE_CHECKING:
    from langadapt.training.step import Stepper

log = logging.getLogger(__name__)

LIMIT = 90.0
"""Seconds after which no other layout is tried."""
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
    least = min(option.memory.peak for option in options)
    open_ = [option for option in options if option.memory.peak <= max(STRETCH * memory, least)]
    while open_:
        option = max(open_, key=tried.promise)
        if tried.speeds and (tried.promise(option) * OPTIMISM <= tried.best or time.monotonic() - begun > LIMIT):
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
            f"{smallest.micro_batch} x {stepper.settings.sequence_length} tokens per forward pass do not fit into "
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
    stepper.take_layout(layout.micro_batch, layout.activation_checkpointing)
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
    per_parameter = states_per_parameter(settings.precision, settings.rounding)
    return int(per_parameter * sum(parameter.numel() for parameter in stepper.model.parameters()))


def tokens_per_second(stepper: Stepper, size: int, rounds: int = 3) -> float:
    """Median speed of forward and backward passes over ``size`` windows; the first is not counted.

    At most ``rounds`` are, and no more once they have taken long enough. Gradients are left as they come, so that the
    second and later passes add to sums, as in training.
    """
    length, device = stepper.settings.sequence_length, stepper.device
    ids = torch.randint(stepper.head_rows, (size, length), device=device)
    positions = torch.arange(length, device=device).expand(size, -1).contiguous()
    seconds = []
    for number in range(rounds + 1):
        synchronize(device)
        begun = time.perf_counter()
        stepper.forward_backward(ids, ids, positions, 1.0 / ids.numel(), size)
        synchronize(device)
        if number:
            seconds.append(time.perf_counter() - begun)
        if sum(seconds) > ROUND_SECONDS:
            break
    return ids.numel() / statistics.median(seconds)


def synchronize(device: torch.device) -> None:
    """Wait for a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class NoiseStore:
    """Random documents, for timing."""

    def __init__(self, vocabulary: int, tokens: int, document: int = 800) -> None:
        """``tokens`` in documents of ``document`` tokens each."""
        random = np.random.default_rng(0)
        self.offsets = np.arange(0, max(tokens, document) + 1, document, dtype=np.uint64)
        self.tokens = random.integers(0, vocabulary, int(self.offsets[-1]), dtype=np.int64)
        self.manifest: dict[str, Any] = {"summary": {}, "inputs": {}}


def calibrate(config: Any, settings: TrainSettings, steps: int = 4) -> dict[str, Any]:
    """Run real optimizer steps of an untrained model of this config, on this machine alone.

    Returns:
        ``tokens_per_second`` of forward and backward passes, ``step_seconds``, ``optimizer_seconds``, ``micro_batch``,
        ``activation_checkpointing`` and ``peak_bytes``.
    """
    from transformers import AutoModelForCausalLM

    from langadapt.training import model as models
    from langadapt.training import parallel
    from langadapt.training.meters import peak_memory
    from langadapt.training.step import Stepper

    team = parallel.join(settings)
    dtype = torch.bfloat16 if settings.precision == "pure-bf16" else torch.float32
    with torch.device(team.device), torch.random.fork_rng():
        network = AutoModelForCausalLM.from_config(config, dtype=dtype)
    network = models.load(network, settings, team.device)
    rows = network.get_input_embeddings().weight.shape[0]
    tokens = (steps + 2) * settings.tokens_per_step
    windows = Windows(NoiseStore(rows, tokens), "noise", settings.sequence_length, None, None, 0)
    mixture = Mixture([windows], [1.0], min(settings.sequences_per_step, len(windows)))
    stepper = Stepper(network, mixture, settings, team, None)
    stepper.prepare(None)
    times, updates = [], []
    for step in range(steps):
        synchronize(team.device)
        begun = time.perf_counter()
        stepper.step(mixture.batch(step), step, rate=0.0)
        synchronize(team.device)
        times.append(time.perf_counter() - begun)
        updates.append(stepper.optimizer_time.take())
    stepper.close()
    step_seconds, update = statistics.median(times[1:]), statistics.median(updates[1:])
    speed = settings.tokens_per_step / max(step_seconds - update, 1e-9)
    return {
        "tokens_per_second": speed,
        "step_seconds": step_seconds,
        "optimizer_seconds": update,
        "micro_batch": stepper.micro_batch,
        "activation_checkpointing": stepper.settings.activation_checkpointing,
        "peak_bytes": float(peak_memory(team.device)),
    }


def calibrate_recipe(recipe: Any, target_seconds: float = 60.0) -> dict[str, Any]:
    """`calibrate` for a recipe's model with its new vocabulary, on a batch that takes about a minute in all."""
    from dataclasses import replace

    from transformers import AutoConfig

    from langadapt.budget.plan import new_vocabulary
    from langadapt.model_folder import resolve_model

    config = AutoConfig.from_pretrained(str(resolve_model(recipe.model)))
    vocabulary = new_vocabulary(recipe)
    if vocabulary is not None:
        config.get_text_config().vocab_size = vocabulary
    settings: TrainSettings = recipe.train
    # A step of fewer windows has the same speed per token: gradient accumulation only repeats passes.
    windows = settings.sequences_per_step
    least = 8 if settings.micro_batch == "auto" else max(8, settings.micro_batch)
    small = replace(settings, batch_tokens=None, batch_sequences=min(windows, least), embeddings_first_steps=0)
    found = calibrate(config, small)
    repeats = math.floor(target_seconds / max(4 * found["step_seconds"], 1e-9))
    if windows > small.sequences_per_step and repeats > 1:
        found = calibrate(
            config, replace(small, batch_sequences=min(windows, small.sequences_per_step * min(repeats, 4)))
        )
    return found
