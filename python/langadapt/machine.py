"""The machine and the packages that a result was made with."""

from __future__ import annotations

import functools
import os
import platform
from importlib.metadata import PackageNotFoundError, version

from langadapt.errors import ConfigError, shorten

MOST_THREADS = 1024
"""Each has tables and a stack of its own."""


def thread_count(threads: int | None = None) -> int:
    """``threads``, up to :data:`MOST_THREADS`, or as many as there are cores that this process may use.

    Raises:
        ConfigError: ``threads`` is not positive.
    """
    if threads is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if threads < 1:
        raise ConfigError(f"threads: {threads}; give at least 1")
    return min(threads, MOST_THREADS)


def choose_device(name: str) -> str:
    """``auto`` becomes the best device of this machine.

    Raises:
        ConfigError: a device that torch does not know, or a GPU that is not there.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(name).type
    except RuntimeError:
        raise ConfigError(f"device: {name!r} is no device; give auto, cpu or cuda") from None
    if kind == "cuda":
        index = torch.device(name).index or 0
        if not torch.cuda.is_available():
            raise ConfigError(f"device: {name}, but torch sees no GPU here")
        if index >= torch.cuda.device_count():
            raise ConfigError(f"device: {name}, but torch sees {torch.cuda.device_count()} GPUs here, the first is 0")
        return name
    try:
        # Of GPUs alone the first use takes memory, which processes of one machine would all take of the first.
        torch.zeros(1, device=name).item()
    except Exception as error:
        # Of a kind for each device.
        raise ConfigError(
            f"device: {name} cannot be used here ({shorten(str(error))}); give auto, cpu or cuda"
        ) from None
    return name


@functools.cache
def multiplies_bfloat16() -> bool:
    """Whether this CPU has instructions for products of bfloat16; without them they are slower than float32's."""
    import torch

    tests = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(test is not None and test() for test in tests)


def quiet_transformers() -> None:
    """No bars for loading and writing shards: a stage says what it does, and stderr may be a log file."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def describe_device() -> str:
    """The machine in words."""
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
    return f"CPU, {os.cpu_count()} cores"


def versions() -> dict[str, str]:
    """Versions of what decides the numbers."""
    found = {"python": platform.python_version()}
    for package in ("langadapt", "langadapt-kernels", "torch", "transformers", "tokenizers", "triton", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
