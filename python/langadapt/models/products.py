"""Matrix products of bf16 on a CPU that has no instructions for them, through float32.

There torch unpacks bf16 for each small tile again and again. Here operands become float32 once, a few rows of the
weight at a time, are multiplied, and the result is rounded to bf16 once: the same exact products of bf16 and the same
float32 sums, in another order. Billions of operations a second, one core of an Ice Lake Xeon, weights of 640 x 2,048
and 16,384 x 640, 1,024 tokens (float32 throughout: 129 to 151):

| product | torch | here |
|---|--:|--:|
| output | 32, 30 | 118, 100 |
| gradient of the input | 35, 35 | 128, 110 |
| gradient of the weight | 34, 32 | 123, 102 |
"""

from __future__ import annotations

import contextlib
import functools
import platform
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, _get_current_function_mode

from langadapt.machine import multiplies_bfloat16

LEAST_ROWS = 32
"""Of fewer rows, as where text is written, unpacking the weight takes longer than it saves."""
WEIGHT_BYTES = 16 << 20
"""Of a weight that is float32 at a time, so that of an output matrix there is no second one."""


@functools.cache
def is_slow() -> bool:
    """Whether this is such a CPU; of others than x86 torch cannot tell what they have."""
    return platform.machine() in ("x86_64", "AMD64") and not multiplies_bfloat16()


def widens(tensor: Tensor) -> bool:
    """Whether products of ``tensor`` go through float32 here."""
    return tensor.dtype == torch.bfloat16 and tensor.device.type == "cpu" and is_slow()


def exactly(run: Callable[..., Any]) -> Callable[..., Any]:
    """``run`` without autocast, under which products of float32 would be bf16."""
    return torch.autocast("cpu", enabled=False)(run)


def spans(weight: Tensor) -> Iterator[slice]:
    """Rows of ``weight`` that are widened at a time."""
    rows = max(1, WEIGHT_BYTES // (4 * weight.shape[1]))
    return (slice(start, start + rows) for start in range(0, len(weight), rows))


@exactly
def outputs(states: Tensor, weight: Tensor, bias: Tensor | None = None, *, out: Tensor | None = None) -> Tensor:
    """``states [n, k] @ weight [o, k].T + bias [o]``, into ``out`` where there is one."""
    if not widens(states):
        return torch.mm(states, weight.t(), out=out) if bias is None else torch.addmm(bias, states, weight.t(), out=out)
    made, wide = states.new_empty(len(states), len(weight)) if out is None else out, states.float()
    for rows in spans(weight):
        turned = weight[rows].float().t()
        made[:, rows] = wide @ turned if bias is None else torch.addmm(bias[rows].float(), wide, turned)
    return made


@exactly
def of_states(gradient: Tensor, weight: Tensor, *, out: Tensor | None = None) -> Tensor:
    """``gradient [n, o] @ weight [o, k]``: the gradient of what `outputs` was given."""
    if not widens(gradient):
        return torch.mm(gradient, weight, out=out)
    total: Tensor | None = None
    for rows in spans(weight):
        given, wide = gradient[:, rows].float(), weight[rows].float()
        total = given @ wide if total is None else total.addmm_(given, wide)
    made: Tensor = total.to(gradient.dtype) if out is None else out.copy_(total)  # type: ignore[union-attr,arg-type]
    return made


@exactly
def of_weight(gradient: Tensor, states: Tensor) -> Tensor:
    """``gradient [n, o].T @ states [n, k]``: the gradient of the weight of `outputs`."""
    if not widens(gradient):
        return gradient.t() @ states
    made, wide = states.new_empty(gradient.shape[1], states.shape[1]), states.float()
    for rows in spans(made):
        made[rows] = gradient[:, rows].float().t() @ wide
    return made


# An operator, so that what recomputes activations can keep its results, and does not see the products inside.
@torch.library.custom_op("langadapt::linear", mutates_args=())
def linear(states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``torch.nn.functional.linear`` through float32; states ``[..., k]``, weight ``[o, k]``, bias ``[o]``."""
    return outputs(states.reshape(-1, states.shape[-1]), weight, bias).view(*states.shape[:-1], len(weight))


def keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    """For `backward`."""
    ctx.save_for_backward(inputs[0], inputs[1])


def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    """Gradients of states, weight and bias."""
    (states, weight), need = ctx.saved_tensors, ctx.needs_input_grad
    flat = gradient.reshape(-1, gradient.shape[-1])
    return (
        of_states(flat, weight).view(states.shape) if need[0] else None,
        of_weight(flat, states.reshape(-1, states.shape[-1])) if need[1] else None,
        flat.sum(0) if need[2] else None,
    )


linear.register_autograd(backward, setup_context=keep)


class Widening(TorchFunctionMode):
    """Sends `torch.nn.functional.linear` of bf16 through `linear`; under autocast, what would be bf16."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Called for every function of torch."""
        if function is nn.functional.linear and not kwargs and fits(*args[:2]):
            states, weight, bias = (*args, None)[:3]
            if torch.is_autocast_enabled("cpu"):
                dtype = torch.get_autocast_dtype("cpu")
                states, weight = states.to(dtype), weight.to(dtype)
                bias = None if bias is None else bias.to(dtype)
            if widens(states) and weight.dtype == states.dtype:
                return linear(states, weight, bias)
        return function(*args, **(kwargs or {}))


def fits(states: Any, weight: Any) -> bool:
    """Whether both are plain tensors in memory, neither sharded nor packed, and have rows enough."""
    plain = type(states) is Tensor and type(weight) in (Tensor, nn.Parameter)
    return plain and states.device.type == "cpu" and states.numel() >= LEAST_ROWS * states.shape[-1]


def widening(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """The context for passes of a model on ``device``: it does nothing where bf16 is multiplied as it is."""
    return Widening() if device.type == "cpu" and is_slow() else contextlib.nullcontext()


def bound(run: Callable[..., Any]) -> Callable[..., Any]:
    """``run``, which makes products as they are made now when it is called again in a backward pass, which no context
    reaches."""
    mode = None if torch.compiler.is_compiling() else _get_current_function_mode()
    if not isinstance(mode, Widening):
        return run

    def again(*inputs: Any, **named: Any) -> Any:
        with mode:
            return run(*inputs, **named)

    return again
