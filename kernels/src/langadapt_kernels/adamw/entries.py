"""The tensors of a step as entries, kept between steps: of the same tensors, only the gradients are looked at again.

A model has hundreds of parameters, and a step takes milliseconds on a GPU: what is done here for each of them must cost
the host about a microsecond, or the host becomes what limits the step.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .groups import DTYPES
from .modes import Entry
from .sharding import flat, local

# In place of a gradient between steps: entries must not keep memory that `zero_grad` means to free.
_NONE = torch.empty(0)


def same_objects(left: Sequence[object], right: Sequence[object]) -> bool:
    """Whether both hold the same objects in the same order; comparing tensors themselves would launch kernels."""
    return len(left) == len(right) and all(map(operator.is_, left, right))


class Entries:
    """The entries of an optimizer's parameters."""

    def __init__(self, make: Callable[[Tensor, Tensor], Entry]) -> None:
        """`make`: a new entry, from a parameter and its (local) shard."""
        self._make = make
        self._known: dict[Tensor, Entry] = {}
        self._params: list[Tensor] = []
        self._last: list[Entry] = []
        self._plain: list[bool] = []

    def are_for(self, params: Sequence[Tensor]) -> bool:
        """Whether the last step was of these."""
        return same_objects(params, self._params)

    def of(self, params: Sequence[Tensor]) -> list[Entry]:
        """Entries of `params` with their present gradients; give them to `release` after the step.

        Raises:
            ValueError: a gradient that cannot be stepped with, or a state that does not fit its parameter.
        """
        if not self.are_for(params):
            self._last = [self._find(param) for param in params]
            self._params = list(params)
            self._plain = [not hasattr(param, "placements") and param.is_contiguous() for param in params]
            return self._last
        for i, (param, entry) in enumerate(zip(params, self._last, strict=True)):
            grad = param.grad
            if (
                self._plain[i]
                and grad is not None
                and grad.dtype in DTYPES
                and grad.layout == torch.strided
                and grad.is_contiguous()
                and entry.param.data_ptr() == param.data_ptr()
            ):
                entry.grad = grad.view(-1)
            else:
                self._last[i] = self._find(param)
        return self._last

    def release(self) -> None:
        """Hold no gradients any more."""
        for entry in self._last:
            entry.grad = _NONE

    def _find(self, param: Tensor) -> Entry:
        """The parameter's entry, made anew where its memory has moved."""
        shard, grad = local(param), param.grad
        if grad is None or grad.dtype not in DTYPES or grad.is_sparse:
            kind = "none" if grad is None else f"{grad.dtype}, {grad.layout} for a parameter of {tuple(param.shape)}"
            raise ValueError(f"gradients must be dense and bfloat16 or float32, got: {kind}")
        entry = self._known.get(param)
        if entry is None or entry.param.data_ptr() != shard.data_ptr():
            entry = self._known[param] = self._make(param, shard)
        entry.grad = flat(local(grad), like=shard)
        return entry
