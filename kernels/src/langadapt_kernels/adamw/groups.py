"""Parameter groups and their checks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..backend import BACKENDS
from .modes import ROUNDINGS

DTYPES = (torch.bfloat16, torch.float32)
STATE_DTYPES = (*DTYPES, torch.int8)

# Arguments of `torch.optim.AdamW`: those that choose an implementation change nothing here, the others are refused.
_CHOICES = ("foreach", "fused", "capturable")
_MISSING = ("amsgrad", "maximize", "differentiable")


def check_options(options: dict[str, Any]) -> None:
    """Raise TypeError for names that `torch.optim.AdamW` does not know either, ValueError for what is missing here."""
    for name, value in options.items():
        if name not in _CHOICES + _MISSING:
            raise TypeError(f"FusedAdamW got an unexpected argument: `{name}`")
        if name in _MISSING and value:
            raise ValueError(f"`{name}` is not supported, got: {value}\n\nhint: torch.optim.AdamW has it")


def check_settings(
    *,
    state_dtype: torch.dtype | None,
    max_grad_norm: float | None,
    norm_in_backward: bool,
    seed: int,
    gradient_release: bool,
    backend: str | None,
) -> None:
    """Raise ValueError for what no parameter group of a `FusedAdamW` may have."""
    if state_dtype not in (None, *STATE_DTYPES):
        raise ValueError(f"`state_dtype` must be one of {STATE_DTYPES} or None, got: {state_dtype}")
    if max_grad_norm is not None and not max_grad_norm > 0:
        raise ValueError(f"`max_grad_norm` must be positive, got: {max_grad_norm}")
    if max_grad_norm is not None and gradient_release:
        raise ValueError("`max_grad_norm` needs all gradients at once; it excludes `gradient_release`")
    if norm_in_backward and max_grad_norm is None:
        raise ValueError("`norm_in_backward` needs `max_grad_norm`; infinity only measures the norm")
    if backend not in (None, *BACKENDS):
        raise ValueError(f"unknown backend: {backend!r}; choose one of {BACKENDS} or None for the automatic choice")
    if not 0 <= seed < 2**63:
        raise ValueError(f"`seed` must be in [0, 2**63), got: {seed}")


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
    if group.get("rounding", "nearest") not in ROUNDINGS:
        raise ValueError(f"unknown rounding: {group['rounding']!r}; choose one of {ROUNDINGS}")
    if group["weight_decay"] and not group.get("decoupled_weight_decay", True):
        raise ValueError(f"weight decay of Adam is not that of AdamW; the loaded one: {group['weight_decay']}")
    check_options({name: group[name] for name in _MISSING if name in group})
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
