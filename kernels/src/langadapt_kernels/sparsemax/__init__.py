"""Sparsemax: the Euclidean projection of rows onto the probability simplex."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..backend import choose_backend
from . import cpu, reference

__all__ = ["sparsemax"]

_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def sparsemax(x: Tensor, dim: int = -1, *, backend: str | None = None) -> Tensor:
    """Project `x` onto the simplex along `dim`: like softmax, with exact zeros. Differentiable.

    Args:
        x: float64, float32, bfloat16 or float16, any shape and any length along `dim`; computed in float32 (float64 for
            float64). Rows may hold -inf (never in the support), not only -inf.
        dim: the dimension whose entries shall sum to one.
        backend: "triton", "core", "reference", or None: Triton on CUDA tensors where it is installed, the compiled core
            of `langadapt` on CPU tensors but float64 where that is, else the reference.

    Returns:
        A tensor of the shape and dtype of `x`. A row with NaN or +inf gives NaN.

    Raises:
        ValueError: another dtype, a dimension of length 0, an unknown backend, or one that cannot run it.
        IndexError: no such dimension.
        RuntimeError: a backend was asked for and is not installed.

    Source: Martins & Astudillo, "From Softmax to Sparsemax" (2016).
    """
    if x.dtype not in _DTYPES:
        raise ValueError(f"`x` must be one of {_DTYPES}, got: {x.dtype}")
    if not -max(x.dim(), 1) <= dim < max(x.dim(), 1):
        raise IndexError(f"no dimension {dim} in a tensor of shape: {tuple(x.shape)}")
    if x.dim() == 0 or x.shape[dim] == 0:
        raise ValueError(f"sparsemax needs at least one entry along dimension {dim}, got shape: {tuple(x.shape)}")
    moved = x.movedim(dim, -1)
    rows = moved.reshape(-1, moved.shape[-1])
    return _forward(rows, backend).view(moved.shape).movedim(-1, dim)


# The choice is made inside the operations, where `torch.compile` does not look.
@torch.library.custom_op("langadapt_kernels::sparsemax", mutates_args=())
def _forward(x: Tensor, backend: str | None) -> Tensor:
    backend = choose_backend(backend, x.device, in_core=x.dtype != torch.float64)
    if backend == "triton":
        from .kernel import sparsemax as run

        return run(x)
    if backend == "core":
        return cpu.sparsemax(x)
    return reference.sparsemax(x if x.dtype == torch.float64 else x.float()).to(x.dtype).contiguous()


@torch.library.custom_op("langadapt_kernels::sparsemax_backward", mutates_args=())
def _backward(output: Tensor, grad: Tensor, backend: str | None) -> Tensor:
    backend = choose_backend(backend, grad.device, in_core=grad.dtype != torch.float64)
    if backend == "triton":
        from .kernel import sparsemax_backward as run

        return run(output, grad)
    if backend == "core":
        return cpu.sparsemax_backward(output, grad)
    wide = torch.float64 if grad.dtype == torch.float64 else torch.float32
    return reference.sparsemax_backward(output, grad.to(wide)).to(grad.dtype)


@_forward.register_fake
def _(x: Tensor, backend: str | None) -> Tensor:
    return x.new_empty(x.shape)


@_backward.register_fake
def _(output: Tensor, grad: Tensor, backend: str | None) -> Tensor:
    return grad.new_empty(grad.shape)


def _save_output(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(output)
    ctx.backend = inputs[1]


def _save_first(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(inputs[0])
    ctx.backend = inputs[2]


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return _backward(ctx.saved_tensors[0], grad.contiguous(), ctx.backend), None


def _differentiate_twice(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    # The backward is linear and symmetric in its gradient, and the support is constant almost everywhere.
    return None, _backward(ctx.saved_tensors[0], grad.contiguous(), ctx.backend), None


_forward.register_autograd(_differentiate, setup_context=_save_output)
_backward.register_autograd(_differentiate_twice, setup_context=_save_first)
