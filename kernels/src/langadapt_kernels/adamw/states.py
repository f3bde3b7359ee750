"""What the optimizer keeps for a parameter, and its way through torch's loading of state dicts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from .modes import LOW_BITS


def initial_state(param: Tensor, rounding: str, dtype: torch.dtype | None) -> dict[str, Tensor]:
    """Step counter, moments of `dtype` (None: the parameter's) and what `rounding` keeps beside the weight: zeros."""
    moments = dtype or param.dtype
    state = {
        "step": torch.zeros((), device=param.device),
        "exp_avg": torch.zeros_like(param, dtype=moments),
        "exp_avg_sq": torch.zeros_like(param, dtype=moments),
    }
    if rounding in LOW_BITS and param.dtype == torch.bfloat16:
        name, low_dtype = LOW_BITS[rounding]
        state[name] = torch.zeros_like(param, dtype=low_dtype)
    return state


def check_state(param: Tensor, state: dict[str, Any], rounding: str) -> None:
    """Raise ValueError if the parameter is no longer of the dtype or on the device that its state was made for."""
    low = LOW_BITS[rounding][0] if rounding in LOW_BITS and param.dtype == torch.bfloat16 else None
    if param.device != state["exp_avg"].device or (low is not None and low not in state):
        missing = f", has no `{low}`" if low is not None and low not in state else ""
        raise ValueError(
            f"the model was converted or moved after a step: a parameter of {tuple(param.shape)} is {param.dtype} on "
            f"{param.device}, its state on {state['exp_avg'].device}{missing}\n\n"
            "hint: make a new optimizer, and load the state dict of the old one"
        )


class Sealed:
    """Hides a parameter's state from torch's casts while it is loaded."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state


def seal(_: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
    """A state dict whose states pass through torch's loading as they are."""
    return {**state_dict, "state": {key: Sealed(value) for key, value in state_dict["state"].items()}}


def restored_state(state: dict[str, Tensor], saved: dict[str, Any]) -> dict[str, Tensor]:
    """`state`, fresh, with what was saved of its kind.

    Raises:
        ValueError: a saved tensor has another shape.
    """
    found = dict(state)
    for name, value in state.items():
        loaded = saved.get(name)
        if loaded is None or (name == "low_bits" and loaded.dtype != value.dtype):
            continue
        loaded = torch.as_tensor(loaded)
        if loaded.shape != value.shape:
            raise ValueError(f"loaded `{name}` has shape {tuple(loaded.shape)}, expected: {tuple(value.shape)}")
        found[name] = loaded.to(device=value.device, dtype=value.dtype)
    return found
