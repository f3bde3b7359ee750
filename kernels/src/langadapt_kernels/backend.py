"""Which implementation runs: asked for and missing is an error, unasked is automatic."""

from __future__ import annotations

import importlib.util
import os
from functools import cache
from typing import Any

import torch

BACKENDS = ("triton", "core", "reference")


@cache
def has_triton() -> bool:
    """Whether Triton can be imported; looks for the package without importing it."""
    return importlib.util.find_spec("triton") is not None


@cache
def core() -> Any:
    """The compiled core of langadapt, which has some operations for CPU tensors; None where it is not installed."""
    try:
        from langadapt import _core
    except ImportError:
        return None
    return _core


def memory(tensor: torch.Tensor) -> Any:
    """The tensor's memory for numpy, which knows no bfloat16, and for the core, which takes bytes without a sign."""
    kinds = {1: torch.uint8, 2: torch.uint16, 4: torch.float32}
    return tensor.detach().view(kinds[tensor.element_size()]).numpy()


def interpreting() -> bool:
    """Whether Triton kernels run in its interpreter (on CPU tensors, without a GPU)."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes", "y")


@cache
def mend_interpreter() -> None:
    """Let loops over runtime sizes be interpreted by Triton before 3.7 beside numpy from 2.4 on.

    Its integers are arrays of one element and one dimension, which that numpy converts no more. GPUs see none of this.
    """
    import triton

    if tuple(int(part) for part in triton.__version__.split(".")[:2]) >= (3, 7):
        return
    from triton.runtime import interpreter

    plain = interpreter._patch_lang_tensor

    def patch_lang_tensor(tensor: Any, scope: Any) -> None:
        plain(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = patch_lang_tensor


def choose_backend(backend: str | None, device: torch.device, *, in_core: bool = False) -> str:
    """The implementation for tensors on `device`: `"triton"`, `"core"` or `"reference"`.

    `None` takes Triton for CUDA tensors where it is installed, langadapt's compiled core for CPU tensors where that is
    and the operation is `in_core`, and the reference everywhere else. `"triton"` on CPU tensors runs the kernels in
    Triton's interpreter, for tests, and needs `TRITON_INTERPRET=1` in the environment.

    Raises:
        ValueError: unknown name, or one that cannot run the operation on the device.
        RuntimeError: asked for and not installed.
    """
    if backend is None:
        if device.type == "cpu" and in_core and core() is not None:
            return "core"
        return "triton" if device.type == "cuda" and has_triton() else "reference"
    if backend not in BACKENDS:
        raise ValueError(f"unknown backend: {backend!r}; choose one of {BACKENDS} or None for the automatic choice")
    if backend == "core":
        _check_core(device, in_core)
    elif backend == "triton":
        _check_triton(device)
    return backend


def _check_core(device: torch.device, in_core: bool) -> None:
    if not in_core or device.type != "cpu":
        known = "AdamW, FOCUS and sparsemax (not of float64)"
        raise ValueError(f"backend 'core' has {known} for CPU tensors, not this operation on: {device}")
    if core() is None:
        raise RuntimeError("backend 'core' was asked for, but the package `langadapt` is not installed")


def _check_triton(device: torch.device) -> None:
    if not has_triton():
        raise RuntimeError("backend 'triton' was asked for, but the package `triton` is not installed")
    if device.type != "cuda" and not interpreting():
        raise ValueError(
            f"backend 'triton' needs CUDA tensors, got tensors on: {device}\n\n"
            "hint: leave `backend` unset for the reference, or set TRITON_INTERPRET=1 to interpret the kernels"
        )
    if interpreting():
        mend_interpreter()
