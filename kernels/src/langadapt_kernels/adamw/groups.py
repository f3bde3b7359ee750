"""Parameter groups and their checks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .modes import ROUNDINGS

DTYPES = (torch.bfloat16, torch.float32)


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


class SettingsTable:
    """lr, betas, eps and weight decay of each parameter; uploaded only when a value changes."""

    def __init__(self) -> None:
        self._known: dict[torch.device, tuple[list[tuple[float, ...]], Tensor]] = {}

    def on(
        self,
        device: torch.device,
        groups: Sequence[dict[str, Any]],
        upload: Callable[[Tensor, torch.device], Tensor],
    ) -> Tensor:
        """float64 `[rows, 5]`, a row for each parameter on `device`. Rates that are tensors are read there."""
        values: list[tuple[float, ...]] = []
        tensors: list[tuple[int, int, Tensor]] = []
        for group in groups:
            count, lr = sum(p.device == device for p in group["params"]), group["lr"]
            if isinstance(lr, Tensor):
                tensors.append((len(values), len(values) + count, lr))
                lr = 0.0
            values += [(lr, *group["betas"], group["eps"], group["weight_decay"])] * count
        known = self._known.get(device)
        if known is None or known[0] != values:
            known = values, upload(torch.tensor(values, dtype=torch.float64), device)
            self._known[device] = known
        for start, end, lr in tensors:
            known[1][start:end, 0] = lr
        return known[1]
