"""What GPUs can do: memory, dense bf16 peak, bandwidth, as published by their makers."""

from __future__ import annotations

import os
import re
import subprocess
import time
from dataclasses import dataclass

from langadapt.errors import LONGEST_NAME, ConfigError, nearest, shorten

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
    reached: float | None = None
    """FLOP/s that training reaches on it, where that was measured; else a table of shares of the peak is asked."""


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
        Device("rtx-4080", int(15.6 * GIB), 97.5e12, 0.717e12, 32e9, r"RTX 4080"),
        Device("rtx-5080", int(15.5 * GIB), 112.6e12, 0.96e12, 64e9, r"RTX 5080"),
        Device("rtx-4090", int(23.5 * GIB), 165e12, 1.008e12, 32e9, r"RTX 4090"),
        Device("rtx-5090", int(31.3 * GIB), 210e12, 1.79e12, 64e9, r"RTX 5090"),
    )
}


def parse(text: str) -> tuple[int, Device]:
    """``2 x h100-80gb`` (or ``h200``, ``rtx4090``, ``24gb``) as a count and a device, see :func:`find`.

    Raises:
        ConfigError: a device that is not in the table, or a count that is none.
    """
    match = re.fullmatch(r"(?:(\d{1,6})\s*[x*×]\s*)?([\w-][\w\s-]*)", text.lower().strip())
    if match is None or (match[1] is not None and int(match[1]) < 1):
        raise ConfigError(f"gpus: {shorten(repr(text))} is not like `2 x h100-80gb`")
    return int(match[1] or 1), find(match[2])


def find(name: str) -> Device:
    """The device that ``name`` stands for: as recipes or the driver spell it, without its dashes (``rtx4090``), without
    its maker or memory (``4090``, ``a100``: the first of that name in the table), or a memory alone (``24gb``).

    Raises:
        ConfigError: the table has none; the message names the nearest.
    """
    name = name[:LONGEST_NAME]
    bare = plain(name)
    if bare in (plain(known) for known in DEVICES):
        return next(device for known, device in DEVICES.items() if plain(known) == bare)
    memory = re.fullmatch(r"([1-9]\d{0,4})g(i?b)?", bare)
    if memory is not None:
        return of_memory(int(memory[1]))
    by_driver = (device for device in DEVICES.values() if re.search(device.pattern, name, re.IGNORECASE))
    shortened = (
        device for known, device in DEVICES.items() if re.fullmatch(rf"(rtx)?{re.escape(bare)}(\d+gb)?", plain(known))
    )
    found = next(by_driver, None) or next(shortened, None)
    if found is None:
        near = nearest(name, DEVICES, 3, cutoff=0.4) or ["h100-80gb", "rtx-4090"]
        raise ConfigError(
            f"gpus: {name!r} is none of the {len(DEVICES)} GPUs that are known; did you mean "
            f"{' or '.join(f'`{one}`' for one in near)}? Or give its memory, such as `24gb`"
        )
    return found


def plain(name: str) -> str:
    """Letters and digits of a device's name, the maker's left out."""
    return re.sub(r"nvidia|geforce|[^a-z0-9]", "", name.lower())


def of_memory(gigabytes: int) -> Device:
    """A GPU of which only the memory is known: it has the least of what the known ones with that much memory have.

    Raises:
        ConfigError: none has about as much.
    """
    alike = [device for device in DEVICES.values() if 0.9 <= device.memory / GIB / gigabytes <= 1.0]
    if not alike:
        sizes = sorted({round(device.memory / GIB / 0.98) for device in DEVICES.values()})
        raise ConfigError(f"gpus: no GPU of {gigabytes} GB is known; there are some of {', '.join(map(str, sizes))} GB")
    least = {name: min(getattr(device, name) for device in alike) for name in ("memory", "flops", "bandwidth", "link")}
    return Device(name=f"{gigabytes}gb", pattern=r"^$", **least)


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
