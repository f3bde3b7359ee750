"""Sparsemax of CPU tensors by langadapt's compiled core, where that is installed, in threads.

float32 and bfloat16 go through it as they are, float16 as float32; sums are float64's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..backend import core, memory


def sparsemax(x: Tensor) -> Tensor:
    """Rows of `x` (`[rows, n]`) projected onto the simplex; needs the core."""
    given = _taken(x)
    output = torch.empty_like(given)
    core().sparsemax(memory(given), memory(output), threads=torch.get_num_threads())
    return output.to(x.dtype)


def sparsemax_backward(output: Tensor, grad: Tensor) -> Tensor:
    """Gradient of the input; all `[rows, n]`, of one dtype. Needs the core."""
    slopes = _taken(grad)
    result = torch.empty_like(slopes)
    arrays = memory(_taken(output)), memory(slopes), memory(result)
    core().sparsemax_gradient(*arrays, threads=torch.get_num_threads())
    return result.to(grad.dtype)


def _taken(tensor: Tensor) -> Tensor:
    return (tensor.float() if tensor.dtype == torch.float16 else tensor).contiguous()
