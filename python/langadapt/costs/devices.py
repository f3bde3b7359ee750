"""What GPUs can do: memory, dense bf16 peak, bandwidth, as published by their makers."""

from __future__ import annotations

import os
import re
import subprocess
import time
from dataclasses import dataclass

from langadapt.errors import ConfigError

GIB = 1 << 30


@dataclass(frozen=True)
class Device:
    """One kind of GPU."""

    name: str
    """As recipes spell it."""
    memory: int
    """Bytes that a process can use, the driver's share taken off."""
    flops: float
    """Dense bf16 tensor-core peak, FLOP/s."""
    bandwidth: float
    """Memory, bytes/s."""
    link: float
    """To its neighbours inside a machine, bytes/s in each direction."""
    pattern: str
    """Regular expression that finds it in the driver's name of the device."""


DEVICES = {
    device.name: device
    for device in (
        Device("a100-40gb", int(39.4 * GIB), 312e12, 1.555e12, 300e9, r"A100.*40GB"),
        Device("a100-80gb", int(79.1 * GIB), 312e12, 2.0e12, 300e9, r"A100.*80GB"),
        Device("h100-80gb", int(79.1 * GIB), 989e12, 3.35e12, 450e9, r"H100(?!.*(PCIe|NVL))"),
        Device("h100-pcie", int(79.1 * GIB), 756e12, 2.0e12, 64e9, r"H100 PCIe"),
        Device("h100-nvl", int(93.1 * GIB), 835e12, 3.9e12, 300e9, r"H100 NVL"),
        Device("h200", int(139.8 * GIB), 989e12, 4.8e12, 450e9, r"\bH200(?! NVL)"),
        Device("h200-nvl", int(139.8 * GIB), 835e12, 4.8e12, 450e9, r"\bH200 NVL"),
        Device("b200", int(178.0 * GIB), 2250e12, 8.0e12, 900e9, r"\bB200"),
        Device("gb200", int(184.0 * GIB), 2500e12, 8.0e12, 900e9, r"\bGB200"),
        Device("l40s", int(44.4 * GIB), 362e12, 0.864e12, 32e9, r"L40S"),
        Device("l4", int(22.0 * GIB), 121e12, 0.3e12, 32e9, r"L4$"),
        Device("a10g", int(22.0 * GIB), 70e12, 0.6e12, 32e9, r"A10G"),
        Device("a6000", int(47.4 * GIB), 155e12, 0.768e12, 56e9, r"RTX A6000"),
        Device("rtx-6000-ada", int(47.4 * GIB), 364e12, 0.96e12, 32e9, r"RTX 6000 Ada"),
        Device("rtx-3090", int(23.6 * GIB), 71e12, 0.936e12, 56e9, r"RTX 3090"),
        Device("rtx-4090", int(23.5 * GIB), 165e12, 1.008e12, 32e9, r"RTX 4090"),
        Device("rtx-5090", int(31.3 * GIB), 210e12, 1.79e12, 64e9, r"RTX 5090"),
    )
}


def parse(text: str) -> tuple[int, Device]:
    """``2 x h100-80gb`` (or ``h200``) as a count and a device.

    Raises:
        ConfigError: a device that is not in the table, or a count that is none.
    """
    match = re.fullmatch(r"\s*(?:(\d+)\s*[x*×]\s*)?([\w-]+)\s*", text.lower())
    if match is None or (match[1] is not None and int(match[1]) < 1):
        raise ConfigError(f"gpus: {text!r} is not like `2 x h100-80gb`")
    if match[2] not in DEVICES:
        raise ConfigError(f"gpus: {match[2]!r} is not in the table: {', '.join(DEVICES)}")
    return int(match[1] or 1), DEVICES[match[2]]


def named(driver_name: str) -> Device | None:
    """The device that the driver calls ``driver_name``, if it is in the table."""
    for device in DEVICES.values():
        if re.search(device.pattern, driver_name):
            return device
    return None


def here() -> tuple[int, Device]:
    """What this machine has: its GPUs, or its CPU as a device of its own.

    Raises:
        ConfigError: GPUs that are not in the table.
    """
    names = gpu_names()
    if names:
        device = named(names[0])
        if device is None:
            raise ConfigError(
                f"{names[0]} is not in the table of GPUs; name the nearest one in budget.gpus: {', '.join(DEVICES)}"
            )
        return len(names), device
    return 1, cpu()


def gpu_names() -> list[str]:
    """Names of this machine's GPUs, asked of the driver's own tool, which is faster than importing torch."""
    try:
        command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]


def cpu() -> Device:
    """This machine's CPU: its memory, and the fp32 rate of a matrix product measured now (0.2 s)."""
    import numpy as np

    size = 768
    left, right = np.ones((size, size), np.float32), np.ones((size, size), np.float32)
    left @ right
    begun, count = time.perf_counter(), 0
    while time.perf_counter() - begun < 0.2:
        left @ right
        count += 1
    flops = 2 * size**3 * count / (time.perf_counter() - begun)
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Device("cpu", int(0.9 * total), flops, 20e9, 10e9, r"^$")
