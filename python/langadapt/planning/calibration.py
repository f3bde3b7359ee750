"""Speed of a recipe's model on this machine: a few real optimizer steps on random tokens."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from langadapt.models.folder import readable, resolve_model
from langadapt.planning.plan import new_vocabulary, plan_recipe
from langadapt.training import model as models
from langadapt.training import parallel
from langadapt.training.data.batches import Mixture, Windows
from langadapt.training.layout_trials import synchronize
from langadapt.training.meters import peak_memory
from langadapt.training.settings import TrainSettings
from langadapt.training.step import Stepper


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

    processes = parallel.join(settings)
    dtype = torch.bfloat16 if settings.precision == "pure-bf16" else torch.float32
    with torch.device(processes.device), torch.random.fork_rng():
        network = AutoModelForCausalLM.from_config(config, dtype=dtype)
    network = models.load(network, settings, processes.device)
    rows = network.get_input_embeddings().weight.shape[0]
    tokens = (steps + 2) * settings.tokens_per_step
    windows = Windows(NoiseStore(rows, tokens), "noise", settings.window, start=None, end=None, seed=0)
    mixture = Mixture([windows], [1.0], min(settings.sequences_per_step, len(windows)))
    stepper = Stepper(network, mixture, settings, processes)
    times, updates = [], []
    for step in range(steps):
        synchronize(processes.device)
        begun = time.perf_counter()
        stepper.step(mixture.batch(step), step, rate=0.0)
        synchronize(processes.device)
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
        "peak_bytes": float(peak_memory(processes.device)),
    }


def calibrate_recipe(recipe: Any, target_seconds: float = 60.0) -> dict[str, Any]:
    """`calibrate` for a recipe's model with its new vocabulary, on a batch that takes about a minute in all."""
    from transformers import AutoConfig

    folder = resolve_model(recipe.model)
    with readable(folder):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    vocabulary = new_vocabulary(recipe)
    if vocabulary is not None:
        config.get_text_config().vocab_size = vocabulary
    settings = plan_recipe(recipe).settings
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
