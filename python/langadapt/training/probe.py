"""Trying things out on the machine itself: which micro-batch is fastest, and how fast real steps are."""

from __future__ import annotations

import logging
import math
import statistics
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from langadapt.errors import LangadaptError
from langadapt.training.batches import Mixture, Windows
from langadapt.training.settings import TrainSettings

if TYPE_CHECKING:
    from langadapt.training.step import Stepper

log = logging.getLogger(__name__)

GAIN = 1.02
"""A larger micro-batch must be this much faster to be taken: smaller ones leave room for long documents."""


def sizes(windows: int) -> list[int]:
    """Micro-batches worth trying: divisors of a process' windows, so that all passes are alike, at most doubling."""
    found: list[int] = []
    for size in range(1, windows + 1):
        if windows % size == 0 and (not found or size >= 2 * found[-1] or size == windows):
            found.append(size)
    return found


def fastest_micro_batch(stepper: Stepper, windows: int) -> int:
    """Time forward and backward passes of growing size until memory is full or speed grows no more.

    Memory for optimizer states and gradient sums, which the first real step will take, is held while probing. No weight
    moves. Takes a few seconds; with compiled blocks, as long as compiling takes.

    Raises:
        LangadaptError: not even one window fits.
    """
    device, best, best_speed = stepper.device, 0, 0.0
    reserve = reserved_bytes(stepper)
    for size in sizes(windows):
        held: Any = None
        fresh(stepper)
        try:
            held = torch.empty(reserve, dtype=torch.uint8, device=device)
            speed = tokens_per_second(stepper, size)
        except torch.OutOfMemoryError:
            break
        finally:
            stepper.model.zero_grad(set_to_none=True)
            del held
            if device.type == "cuda":
                torch.cuda.empty_cache()
        log.info("micro-batch %d: %s tokens/s", size, f"{speed:,.0f}")
        if speed < best_speed * GAIN:
            break
        best, best_speed = size, speed
    fresh(stepper)
    if not best:
        raise LangadaptError(
            f"one window of {stepper.settings.sequence_length} tokens does not fit into memory; "
            "lower sequence_length, or set activation_checkpointing: full; `langadapt plan` shows what fits"
        )
    return best


def fresh(stepper: Stepper) -> None:
    """Forget what was compiled: after a second shape the compiler makes slower code for any shape."""
    if stepper.settings.compile:
        torch.compiler.reset()


def reserved_bytes(stepper: Stepper) -> int:
    """What the optimizer's states and gradient sums will take."""
    from langadapt.budget.memory import STATES

    settings = stepper.settings
    pure = settings.precision == "pure-bf16"
    per_parameter = STATES[settings.rounding] if pure else 8.0
    if pure and settings.accumulate != "bf16":
        per_parameter += 4.0
    return int(per_parameter * sum(parameter.numel() for parameter in stepper.model.parameters()))


def tokens_per_second(stepper: Stepper, size: int, rounds: int = 3) -> float:
    """Median speed of a forward and backward pass over ``size`` windows; the first pass is not counted."""
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
        stepper.model.zero_grad(set_to_none=True)
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


def calibrate(config: Any, settings: TrainSettings, steps: int = 4) -> dict[str, float]:
    """Run real optimizer steps of an untrained model of this config, on this machine alone.

    Returns:
        ``tokens_per_second`` of forward and backward passes, ``step_seconds``, ``optimizer_seconds``, ``micro_batch``
        and ``peak_bytes``.
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
        "micro_batch": float(stepper.micro_batch),
        "peak_bytes": float(peak_memory(team.device)),
    }


def calibrate_recipe(recipe: Any, target_seconds: float = 60.0) -> dict[str, float]:
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
    small = replace(settings, batch_tokens=None, batch_sequences=min(windows, 8), embeddings_first_steps=0)
    if small.micro_batch != "auto":
        small = replace(small, batch_sequences=min(windows, max(8, small.micro_batch)))
    found = calibrate(config, small)
    repeats = math.floor(target_seconds / max(4 * found["step_seconds"], 1e-9))
    if windows > small.sequences_per_step and repeats > 1:
        found = calibrate(
            config, replace(small, batch_sequences=min(windows, small.sequences_per_step * min(repeats, 4)))
        )
    return found
