"""How long a step takes, from arithmetic, bandwidth and a tabled efficiency; `--calibrate` replaces the table."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from langadapt.costs.adapter import FOUR_BITS, coded_share, flops_per_token, moving_parameters
from langadapt.costs.devices import Device
from langadapt.costs.flops import Shape
from langadapt.costs.memory import CODES_SPARE, Layout

OPTIMIZER_BYTES = {"nearest": 14.0, "stochastic": 14.0, "split8": 16.0, "kahan": 18.0, "split": 18.0}
"""Bytes that a pure-bf16 AdamW step moves per parameter; 28 with fp32 parameters."""
EFFICIENCY = ((512, 0.15), (1024, 0.28), (2048, 0.40), (4096, 0.47), (8192, 0.52))
"""Share of the dense bf16 peak by hidden size without compilation; published runs on Hopper reach 0.33 to 0.51."""
COMPILED = 1.15
"""What compiling blocks gains."""
CHECKPOINTING_COST = {"none": 1.0, "selective": 1.08, "full": 4 / 3}
"""Forward and backward time with activation checkpointing, relative to none."""
BETWEEN = 1.02
"""Validations, checkpoints and logs."""


@dataclass(frozen=True)
class Speed:
    """Predicted times."""

    step_seconds: float
    tokens_per_second: float
    """Of all GPUs together."""
    mfu: float
    """As :meth:`langadapt.costs.flops.Shape.mfu` counts it."""


def efficiency(width: int, tokens: int, compiled: bool) -> float:
    """Tabled share of peak for a forward pass over ``tokens`` tokens: by width, less for few tokens."""
    found = EFFICIENCY[0][1]
    for (low, start), (high, end) in pairwise(EFFICIENCY):
        if low <= width:
            found = start + (end - start) * min((width - low) / (high - low), 1.0)
    return found * (COMPILED if compiled else 1.0) * tokens / (tokens + 384)


def predict(
    shape: Shape, layout: Layout, device: Device, sequence_length: int, *, compiled: bool, measured: float | None = None
) -> Speed:
    """Time of one optimizer step. ``measured``: tokens/s of one GPU's forward and backward passes, if known."""
    tokens = layout.micro_batch * sequence_length
    flops = flops_per_token(shape, sequence_length / 2, layout.adapter, layout.parts)
    reached = device.reached or device.flops * efficiency(shape.width, tokens, compiled)
    forward_backward = tokens * flops * CHECKPOINTING_COST[layout.activation_checkpointing] / reached
    if layout.precision == "mixed-bf16":
        # fp32 weights are cast for every forward pass and their fp32 gradients are read and written.
        forward_backward += 14 * shape.parameters / layout.gpus / device.bandwidth
    if layout.adapter is not None and layout.adapter.four_bit:
        # Read, written as bf16 and read again, forward and backward.
        forward_backward += 2 * (FOUR_BITS + 4) * layout.adapter.weights(shape) / device.bandwidth
    if measured is not None:
        forward_backward = tokens / measured
    exchange = communication_seconds(shape, layout, device)
    micro = max(forward_backward, exchange) + 0.1 * min(forward_backward, exchange)
    shards = layout.gpus if layout.sharding in {"full", "grad-op"} else 1
    moved = OPTIMIZER_BYTES[layout.rounding] if layout.precision == "pure-bf16" else 28.0
    # Codes are less to read, and less to write.
    moved -= 2 * CODES_SPARE * coded_share(shape, layout.adapter, layout.parts, layout.states)
    moving = moving_parameters(shape, layout.adapter, layout.parts)
    update = moved * moving / shards / (0.85 * device.bandwidth)
    passes = layout.micro_batches if layout.windows is None else layout.windows / layout.micro_batch
    seconds = (passes * micro + update) * BETWEEN
    all_tokens = tokens * passes * layout.gpus
    speed = all_tokens / seconds
    return Speed(seconds, speed, shape.mfu(speed, sequence_length, device.flops * layout.gpus))


def communication_seconds(shape: Shape, layout: Layout, device: Device) -> float:
    """What GPUs exchange per forward and backward pass: parameters gathered in bf16, gradients reduced in fp32."""
    if layout.gpus == 1:
        return 0.0
    gathers = {"full": 2, "grad-op": 1, "none": 0}[layout.sharding]
    reduced = (4 if layout.sharding != "none" else 8) / (layout.micro_batches if layout.sums_whole else 1)
    sent = shape.parameters * (2 * gathers + reduced) * (layout.gpus - 1) / layout.gpus
    return sent / (0.75 * device.link)
