"""Parameter groups: their checks, and their way through torch's loading of state dicts."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from .modes import ROUNDINGS

DTYPES = (torch.bfloat16, torch.float32)


class Sealed:
    """Hides a parameter's state from torch's casts while it is loaded."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state


def seal(_: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
    return {**state_dict, "state": {key: Sealed(value) for key, value in state_dict["state"].items()}}


def check_group(group: dict[str, Any]) -> None:
    lr, betas = group["lr"], group["betas"]
    if isinstance(lr, Tensor):
        if lr.numel() != 1:
            raise ValueError(f"`lr` as a tensor must have one element, got shape: {tuple(lr.shape)}")
    elif not (lr >= 0 and math.isfinite(lr)):
        raise ValueError(f"`lr` must be finite and not negative, got: {lr}")
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise ValueError(f"`betas` must be two numbers in [0, 1), got: {betas}")
    for name in ("eps", "weight_decay"):
        if not (group[name] >= 0 and math.isfinite(group[name])):
            raise ValueError(f"`{name}` must be finite and not negative, got: {group[name]}")
    if group["rounding"] not in ROUNDINGS:
        raise ValueError(f"unknown rounding: {group['rounding']!r}; choose one of {ROUNDINGS}")
    for param in group["params"]:
        if param.dtype not in DTYPES:
            raise ValueError(
                f"parameters must be bfloat16 or float32, got: {param.dtype} of shape {tuple(param.shape)}"
            )
