"""What `auto` comes to: micro-batch, recomputation and sharding, by trial on one GPU, by prediction on several."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from langadapt.costs import devices
from langadapt.costs.adapter import Adapter
from langadapt.costs.devices import Device
from langadapt.costs.flops import Shape
from langadapt.costs.memory import Layout, activation_bytes, estimate
from langadapt.costs.speed import CHECKPOINTING_COST
from langadapt.training.options import ROOM, Option, Pricing, best_of, sizes
from langadapt.training.parallel import ProcessGroup
from langadapt.training.settings import TrainSettings

log = logging.getLogger(__name__)

CPU_MICRO_TOKENS, CPU_ACTIVATIONS = 8192, 1 << 30
"""Tokens per forward pass that a CPU is given, and bytes that they may keep for the backward pass: small models come to
full speed with many tokens, large ones with few, and would fill memory with more (4.7 GB for 8,192 of Gemma 3 270M)."""


def resolve(
    settings: TrainSettings, shape: Shape, processes: ProcessGroup, before: Mapping[str, Any] | None
) -> TrainSettings:
    """``settings`` without `auto` wherever that takes no trial: as the checkpoint ``before`` had it, or as predicted.

    On one GPU ``micro_batch`` and ``activation_checkpointing`` may still be `auto` afterwards.
    """
    settings = reuse(settings, processes, before)
    if not processes.is_distributed:
        settings = replace(settings, sharding="none")
    windows = settings.sequences_per_step // processes.size
    if settings.micro_batch != "auto":
        settings = replace(settings, micro_batch=min(settings.micro_batch, windows))
    if processes.device.type != "cuda":
        return on_cpu(settings, shape, windows)
    if not processes.is_distributed:
        return settings
    if "auto" not in (settings.micro_batch, settings.activation_checkpointing, settings.sharding):
        return settings
    gpu = this_gpu(processes.device)
    chosen = best_of(options(settings, shape, processes, gpu), gpu).layout
    log.info("layout, as predicted: %s", chosen.describe())
    return fill_in(settings, chosen)


def fill_in(settings: TrainSettings, layout: Layout) -> TrainSettings:
    """``settings`` with every `auto` as ``layout`` has it."""
    chosen: dict[str, Any] = {
        "micro_batch": layout.micro_batch,
        "activation_checkpointing": layout.activation_checkpointing,
        "sharding": layout.sharding,
    }
    return replace(settings, **{key: value for key, value in chosen.items() if getattr(settings, key) == "auto"})


def describe(layout: Mapping[str, Any]) -> str:
    """What `Stepper.describe_layout` says, for people."""
    many = f", sharding {layout['sharding']} over {layout['processes']} processes" if layout["processes"] > 1 else ""
    how = layout["activation_checkpointing"]
    return f"layout: micro-batch {layout['micro_batch']}, activation checkpointing {how}{many}"


def reuse(settings: TrainSettings, processes: ProcessGroup, before: Mapping[str, Any] | None) -> TrainSettings:
    """What a run had found before it was interrupted, if it goes on with as many processes and the same wishes."""
    if before is None or before.get("processes", processes.size) != processes.size:
        return settings
    names = [name for name in ("micro_batch", "activation_checkpointing", "sharding") if name in before]
    # The micro-batch is chosen beside the others: of another recomputation it tells nothing.
    if any(getattr(settings, name) not in {"auto", before[name]} for name in names if name != "micro_batch"):
        return settings
    return replace(settings, **{name: before[name] for name in names if getattr(settings, name) == "auto"})


def on_cpu(settings: TrainSettings, shape: Shape, windows: int) -> TrainSettings:
    """Few tokens at a time, nothing made twice."""
    most = min(CPU_MICRO_TOKENS, CPU_ACTIVATIONS // (shape.layers * activation_bytes(shape, "none")))
    fitting = [size for size in sizes(windows) if size * settings.window <= most]
    return fill_in(settings, Layout(sharding="full", micro_batch=max(fitting, default=1)))


def this_gpu(device: torch.device) -> Device:
    """As the table has it, with the memory that it really has."""
    properties = torch.cuda.get_device_properties(device)
    # Of a GPU that is not in the table only the order of layouts is wanted, which depends little on its speed.
    known = devices.named(properties.name) or devices.DEVICES["h100-80gb"]
    return replace(known, memory=properties.total_memory)


def options(settings: TrainSettings, shape: Shape, processes: ProcessGroup, device: Device) -> list[Option]:
    """All layouts that the settings leave open, with predicted memory and speed."""
    windows = settings.sequences_per_step // processes.size
    many = sizes(windows) if settings.micro_batch == "auto" else [settings.micro_batch]
    recomputations = (
        tuple(CHECKPOINTING_COST)
        if settings.activation_checkpointing == "auto"
        else (settings.activation_checkpointing,)
    )
    shardings = (
        ("none", "grad-op", "full")
        if settings.sharding == "auto" and processes.is_distributed
        else (settings.sharding,)
    )
    pricing = Pricing(shape, settings, processes.size, device)
    return [
        pricing.price(layout_of(settings, processes, sharding, how, micro_batch=size))
        for sharding, how, size in itertools.product(shardings, recomputations, many)
    ]


def layout_of(
    settings: TrainSettings, processes: ProcessGroup, sharding: str, activation_checkpointing: str, *, micro_batch: int
) -> Layout:
    """A layout of these settings as `langadapt.costs` understands it."""
    hybrid, windows = sharding == "hybrid", settings.sequences_per_step // processes.size
    return Layout(
        precision="mixed-bf16" if settings.precision == "fp32" else settings.precision,
        rounding=settings.rounding,
        states=settings.states,
        # Parameters are spread over one node; what is exchanged between nodes is not foreseen.
        gpus=int(os.environ.get("LOCAL_WORLD_SIZE", str(processes.size))) if hybrid else processes.size,
        sharding="full" if hybrid else sharding,
        activation_checkpointing=activation_checkpointing,
        micro_batch=micro_batch,
        micro_batches=-(-windows // micro_batch),
        windows=windows,
        accumulate=settings.accumulate,
        compiled=settings.compile,
        parts=settings.parts,
        adapter=Adapter.of(settings),
        teacher=settings.replay_loss == "kl",
    )


def has_room_for_whole_sums(settings: TrainSettings, shape: Shape, processes: ProcessGroup) -> bool:
    """Whether every process can hold all gradients in fp32; nothing in ``settings`` is `auto` any more."""
    if processes.device.type != "cuda" or settings.sharding == "none":
        return True
    layout = layout_of(
        settings, processes, settings.sharding, settings.activation_checkpointing, micro_batch=int(settings.micro_batch)
    )
    needed = estimate(shape, replace(layout, whole_sums=True), settings.window, settings.loss_chunk).peak
    return needed <= ROOM * torch.cuda.get_device_properties(processes.device).total_memory
