"""Sparsemax of CPU tensors by langadapt's compiled core, where that is installed, in threads.

float32 and bfloat16 go through it as they are, float16 as float32; sums are float64's.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..backend import core


def sparsemax(x: Tensor) -> Tensor:
    """Rows of `x` (`[rows, n]`) projected onto the simplex; needs the core."""
    given = _taken(x)
    output = torch.empty_like(given)
    core().sparsemax(_array(given), _array(output), threads=torch.get_num_threads())
    return output.to(x.dtype)


def sparsemax_backward(output: Tensor, grad: Tensor) -> Tensor:
    """Gradient of the input; all `[rows, n]`, of one dtype. Needs the core."""
    result = torch.empty_like(_taken(grad))
    arrays = _array(_taken(output)), _array(_taken(grad)), _array(result)
    core().sparsemax_gradient(*arrays, threads=torch.get_num_threads())
    return result.to(grad.dtype)


def _taken(tensor: Tensor) -> Tensor:
    return (tensor.float() if tensor.dtype == torch.float16 else tensor).contiguous()


def _array(tensor: Tensor) -> Any:
    """The tensor's memory for numpy, which knows no bfloat16."""
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).detach().numpy()
