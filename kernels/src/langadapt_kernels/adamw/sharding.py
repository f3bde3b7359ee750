"""Plain tensors and DTensor shards, seen by the step as flat local memory with a place in the whole model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .modes import ElementIndex


def local(tensor: Tensor) -> Tensor:
    """The shard of a DTensor that this rank holds, or the tensor itself."""
    to_local = getattr(tensor, "to_local", None)
    return tensor if to_local is None else to_local()


def flat(tensor: Tensor, like: Tensor | None = None) -> Tensor:
    """The tensor's memory as one dimension, in memory order: a view.

    A gradient whose strides are not those of its parameter, `like`, is copied into the parameter's order.

    Raises:
        ValueError: the tensor has gaps or overlaps in memory.
    """
    if like is not None and tensor.stride() != like.stride():
        tensor = torch.empty_strided(like.size(), like.stride(), dtype=tensor.dtype, device=tensor.device).copy_(tensor)
    if tensor.is_contiguous():
        return tensor.view(-1)
    sizes = sorted(zip(tensor.stride(), tensor.size(), strict=True))
    expected = 1
    for stride, size in sizes:
        if size != 1 and stride != expected:
            raise ValueError(
                f"parameters must be dense in memory, got: {tuple(tensor.size())} with strides {tensor.stride()}\n\n"
                "hint: make the parameter contiguous"
            )
        expected *= size
    return tensor.as_strided((tensor.numel(),), (1,))


def element_index(tensor: Any, base: int) -> ElementIndex:
    """Where the local elements of `tensor` stand in a model in which the whole tensor starts at element `base`.

    Raises:
        ValueError: the DTensor is sharded along two inner dimensions.
    """
    if not hasattr(tensor, "placements"):
        return ElementIndex(base, tensor.numel(), tensor.numel())
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    shape = tuple(tensor.shape)
    sizes, offsets = compute_local_shape_and_global_offset(shape, tensor.device_mesh, tensor.placements)
    cut = [d for d in range(len(shape)) if sizes[d] != shape[d]]
    if not cut or 0 in sizes:
        return ElementIndex(base, max(local(tensor).numel(), 1), 1)
    if any(0 < d < cut[-1] for d in cut):
        raise ValueError(
            f"parameter of shape {shape} is sharded along dimensions {cut}; supported: one, or the first and another"
        )
    strides = [1] * len(shape)
    for d in reversed(range(len(shape) - 1)):
        strides[d] = strides[d + 1] * shape[d + 1]
    base += sum(o * s for o, s in zip(offsets, strides, strict=True))
    inner = cut[-1]
    if inner == 0:
        return ElementIndex(base, local(tensor).numel(), 1)
    return ElementIndex(base, sizes[inner] * strides[inner], shape[inner] * strides[inner])


def reduction_groups(tensor: Any) -> tuple[Any, ...]:
    """The process groups over which a sum over this tensor's shards is completed; none for whole tensors.

    Raises:
        ValueError: the DTensor is a partial sum, whose norm is not known before it is reduced.
    """
    if not hasattr(tensor, "placements"):
        return ()
    if any(placement.is_partial() for placement in tensor.placements):
        raise ValueError(f"gradient is a partial sum, reduce it before the step; its placements: {tensor.placements}")
    mesh = tensor.device_mesh
    return tuple(mesh.get_group(d) for d, placement in enumerate(tensor.placements) if not placement.is_replicate())
