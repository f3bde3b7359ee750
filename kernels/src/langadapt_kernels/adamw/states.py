"""What the optimizer keeps for a parameter, and its way through torch's loading of state dicts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..codes import GROUP
from .modes import LOW_BITS
from .sharding import flat, local

_SCALES = {"exp_avg": "exp_avg_scale", "exp_avg_sq": "exp_avg_sq_scale"}


def initial_state(param: Tensor, rounding: str, dtype: torch.dtype | None) -> dict[str, Tensor]:
    """Step counter, moments of `dtype` (None: the parameter's) and what `rounding` keeps beside the weight: zeros.

    int8 moments are codes with scales (see `codes`), of parameters that have whole groups; others have their own dtype.

    Raises:
        ValueError: codes of a tensor that is sharded within a group.
    """
    state = {"step": torch.zeros((), device=param.device)}
    if dtype == torch.int8 and has_codes(param):
        state["exp_avg"] = torch.zeros_like(param, dtype=torch.int8)
        state["exp_avg_sq"] = torch.zeros_like(param, dtype=torch.uint8)
        state |= {name: zero_scales(param) for name in _SCALES.values()}
    else:
        moments = param.dtype if dtype in (None, torch.int8) else dtype
        state |= {name: torch.zeros_like(param, dtype=moments) for name in _SCALES}
    if rounding in LOW_BITS and param.dtype == torch.bfloat16:
        name, low_dtype = LOW_BITS[rounding]
        state[name] = torch.zeros_like(param, dtype=low_dtype)
    return state


def has_codes(param: Tensor) -> bool:
    """Whether moments can be codes: of row-major tensors whose rows are whole groups, so that no shard cuts one."""
    return param.dim() >= 2 and param.shape[-1] % GROUP == 0 and param.is_contiguous()


def zero_scales(param: Any) -> Tensor:
    """float32 zeros, one for each group of each row: `[..., columns / GROUP]`, sharded as the parameter is.

    Raises:
        ValueError: a shard has a part of a group.
    """
    shape, shard = (*param.shape[:-1], param.shape[-1] // GROUP), local(param)
    if shard.shape[-1] % GROUP:
        raise ValueError(
            f"parameter of shape {tuple(param.shape)} is sharded into columns of {shard.shape[-1]}, but int8 moments "
            f"share a scale by {GROUP}; shard it by rows"
        )
    mine = torch.zeros((*shard.shape[:-1], shard.shape[-1] // GROUP), device=shard.device)
    if not hasattr(param, "placements"):
        return mine
    from torch.distributed.tensor import DTensor

    stride = torch.empty(shape, device="meta").stride()
    mesh, placements = param.device_mesh, param.placements
    return DTensor.from_local(mine, mesh, placements, run_check=False, shape=torch.Size(shape), stride=stride)


def moment_views(state: dict[str, Any]) -> dict[str, Tensor]:
    """The moments of a state, and the scales of codes, as a step takes them: flat and local."""
    names = (*_SCALES, *(scale for scale in _SCALES.values() if scale in state))
    return {name: flat(local(state[name])) for name in names}


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


FROZEN = "frozen_columns"
"""The mask of a matrix with columns that stay as they are, in its state."""


def column_mask(param: Tensor, frozen: Tensor) -> Tensor:
    """A bit for each column, lowest first: uint8 `[ceil(columns / 8)]` on the parameter's device.

    Raises:
        ValueError: not a bool per column, or a parameter whose memory does not hold whole rows of columns.
    """
    sharded = [one for one in getattr(param, "placements", ()) if one.is_shard() and one.dim != 0]
    if param.dim() != 2 or not local(param).is_contiguous() or sharded:
        raise ValueError(
            f"columns are frozen of row-major matrices, whole or sharded by rows, got: {tuple(param.shape)} with "
            f"strides {param.stride()}"
        )
    if frozen.dtype != torch.bool or frozen.shape != param.shape[1:]:
        raise ValueError(
            f"a mask of {frozen.dtype}, {tuple(frozen.shape)} for a matrix of {tuple(param.shape)}; expected a bool "
            "for each column"
        )
    bits = torch.nn.functional.pad(frozen, (0, -len(frozen) % 8)).view(-1, 8).to(param.device, torch.uint8)
    return (bits << torch.arange(8, dtype=torch.uint8, device=bits.device)).sum(dim=1, dtype=torch.uint8)


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
        ValueError: a saved tensor has another shape, or moments are codes in one of the two and numbers in the other.
    """
    found = dict(state)
    for name, value in state.items():
        loaded = saved.get(name)
        if loaded is None or (name == "low_bits" and loaded.dtype != value.dtype):
            continue
        loaded = torch.as_tensor(loaded)
        if loaded.shape != value.shape:
            raise ValueError(f"loaded `{name}` has shape {tuple(loaded.shape)}, expected: {tuple(value.shape)}")
        if name in _SCALES and loaded.is_floating_point() != value.is_floating_point():
            raise ValueError(
                f"loaded `{name}` is {loaded.dtype}, but this optimizer keeps {value.dtype}; codes and numbers are not "
                "converted: give the `state_dtype` that it was saved with"
            )
        found[name] = loaded.to(device=value.device, dtype=value.dtype)
    mask = saved.get(FROZEN)
    if mask is not None:
        shape = state["exp_avg"].shape
        if len(shape) != 2 or mask.dtype != torch.uint8 or mask.shape != (-(-shape[1] // 8),):
            raise ValueError(f"loaded `{FROZEN}` has shape {tuple(mask.shape)} for a parameter of {tuple(shape)}")
        found[FROZEN] = mask.to(device=state["exp_avg"].device)
    return found
