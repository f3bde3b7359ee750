"""The sum of squares of all gradients, taken by one pass before the step or, tensor by tensor, in the backward pass.

Either way each chunk of each tensor has a place of its own for its partial sum, and one reduction of fixed order adds
them up: no atomics, the same bits in every run.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import TensorWeakRef

from ..backend import choose_backend
from . import cpu, reference
from .groups import DTYPES
from .modes import Entry
from .run import Fit, LaunchConfig, Slot, StepCache
from .sharding import local, reduction_groups


def square_sum(entries: Sequence[Entry], rows: Sequence[int], *, backend: str, cache: StepCache) -> Tensor:
    """Sum of squares over the gradients of all entries: float64 tensor of no dimensions on their device."""
    if backend != "triton":
        return _cpu_total([entry.grad for entry in entries], {}, backend)
    places, count = _places([len(entry.grad) for entry in entries], cache.config)
    partial = torch.empty(count, dtype=torch.float64, device=entries[0].grad.device)
    _launch_pass(entries, rows, [start for start, _ in places], partial, cache=cache)
    return partial.sum()


def _places(sizes: Sequence[int], config: LaunchConfig) -> tuple[list[tuple[int, int]], int]:
    """(first, one past the last) place of each tensor's partial sums, and how many places there are."""
    places, count = [], 0
    for size in sizes:
        chunks = -(-size // config.chunk)
        places.append((count, count + chunks))
        count += chunks
    return places, count


def _cpu_total(grads: Sequence[Tensor], known: dict[int, float | Tensor], backend: str) -> Tensor:
    """The sum over `grads`, of which some, by position, are `known`, by the core or the reference."""
    missing = [i for i in range(len(grads)) if i not in known]
    values = dict(known) | dict(zip(missing, _cpu_sums([grads[i] for i in missing], backend), strict=True))
    ordered = [values[i] for i in range(len(grads))]
    if backend == "core":
        return torch.tensor(ordered, dtype=torch.float64).sum()
    return torch.stack([torch.as_tensor(value) for value in ordered]).sum()


def _cpu_sums(grads: Sequence[Tensor], backend: str) -> Sequence[float | Tensor]:
    """One sum per gradient."""
    return cpu.square_sums(grads) if backend == "core" else [reference.square_sum(grad) for grad in grads]


def _launch_pass(
    entries: Sequence[Entry], rows: Sequence[int], starts: Sequence[int], partial: Tensor, *, cache: StepCache
) -> None:
    """Write the partial sums of all entries, each from its place in `starts` on."""
    from .kernel import square_sum_kernel

    config = cache.config
    kinds: dict[bool, list[int]] = {}
    for i, entry in enumerate(entries):
        kinds.setdefault(entry.grad.dtype == torch.float32, []).append(i)
    for wide, members in kinds.items():
        chosen, chosen_rows = [entries[i] for i in members], [rows[i] for i in members]
        places = [starts[i] for i in members]
        table = cache.table(Slot("norm", wide, tuple(chosen_rows)), chosen, chosen_rows, random=False, places=places)
        for fit, chunks in table.chunks.items():
            with torch.cuda.device_of(partial):
                square_sum_kernel[(len(chunks),)](
                    table.entries,
                    chunks,
                    partial,
                    GRAD_WIDE=wide,
                    RAGGED=fit == Fit.RAGGED,
                    SHIFTED=fit == Fit.SHIFTED,
                    CHUNK=config.chunk,
                    BLOCK=config.block,
                    num_warps=config.warps,
                )


@dataclass
class _Slots:
    """Where the partial sums of one device's tensors lie."""

    places: dict[Tensor, tuple[int, int]]
    partial: Tensor  # float64 [places]


class GradientSquares:
    """Squares of an optimizer's gradients, of which some may have been summed in the backward pass already.

    Such a sum counts only while the gradient is the very tensor that was read, unchanged since, as its version counter
    tells: a gradient that was replaced, scaled or zeroed is read again.
    """

    def __init__(self, backend: str | None, config: LaunchConfig) -> None:
        """No parameters yet."""
        self.backend, self.config = backend, config
        self._params: list[Tensor] = []
        self._seen: dict[Tensor, tuple[TensorWeakRef, int]] = {}
        self._sums: dict[Tensor, float | Tensor] = {}
        self._slots: dict[torch.device, _Slots] = {}
        self._paused = False

    def add(self, params: Iterable[Tensor], hooks: bool) -> None:
        """Know of more parameters; with `hooks`, their gradients are measured as soon as they are accumulated."""
        params = list(params)
        self._params += params
        self.cut(self.config)
        # Weakly: a hook outlives its optimizer, and must keep nothing of it alive.
        measure = weakref.WeakMethod(self.measure)
        for param in params:
            if hooks and param.requires_grad and not hasattr(param, "placements"):
                param.register_post_accumulate_grad_hook(lambda p: (measure() or _nothing)(p))

    def cut(self, config: LaunchConfig) -> None:
        """Cut tensors differently from now on, which takes other places; forgets what was measured."""
        self.config = config
        self._slots.clear()
        self.forget()

    def forget(self) -> None:
        """Read everything again."""
        self._seen.clear()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Measure nothing meanwhile."""
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    @torch._disable_dynamo
    @torch.no_grad()
    def measure(self, param: Tensor) -> None:
        """Sum up the squares of the gradient that `param` has now."""
        grad = param.grad
        if self._paused or grad is None or not _final(param, grad):
            return
        memory = grad.view(-1)
        backend = choose_backend(self.backend, param.device, in_core=True)
        if backend == "triton":
            self._launch(param, memory)
        else:
            self._sums[param] = _cpu_sums([memory], backend)[0]
        self._seen[param] = TensorWeakRef(grad), grad._version

    def known(self, param: Tensor) -> bool:
        """Whether the present gradient of `param` was measured."""
        seen, grad = self._seen.get(param), param.grad
        return seen is not None and grad is not None and seen[0]() is grad and grad._version == seen[1]

    def norm(self, params: Sequence[Tensor], entries: Sequence[Entry], rows: Sequence[int], cache: StepCache) -> Tensor:
        """2-norm of the gradients of `params` over all devices, shards and ranks, float64 on the first one's device.

        Reads what is not known. `rows` and `cache`: places in the tables of scalars, which name launches, and tables.
        """
        parts: dict[tuple[Any, ...], list[int]] = {}
        for i, param in enumerate(params):
            parts.setdefault((param.device, *reduction_groups(param.grad)), []).append(i)
        totals = []
        for (_, *process_groups), members in parts.items():
            chosen = [params[i] for i in members], [entries[i] for i in members], [rows[i] for i in members]
            total = self._total(*chosen, cache)
            for process_group in process_groups:
                torch.distributed.all_reduce(total, group=process_group)
            totals.append(move(total, params[0].device))
        return torch.stack(totals).sum().sqrt()

    def _total(
        self, params: Sequence[Tensor], entries: Sequence[Entry], rows: Sequence[int], cache: StepCache
    ) -> Tensor:
        """Sum over the gradients of parameters of one device, float64 of no dimensions."""
        device = params[0].device
        known = [self.known(param) for param in params]
        backend = choose_backend(self.backend, device, in_core=True)
        if backend != "triton":
            sums = {i: self._sums[param] for i, param in enumerate(params) if known[i]}
            return _cpu_total([entry.grad for entry in entries], sums, backend)
        slots = self._device_slots(device)
        places = [slots.places[param] for param in params]
        missing = [i for i, done in enumerate(known) if not done]
        if missing:
            starts = [places[i][0] for i in missing]
            _launch_pass([entries[i] for i in missing], [rows[i] for i in missing], starts, slots.partial, cache=cache)
        if len(params) == len(slots.places):
            return slots.partial.sum()
        merged: list[tuple[int, int]] = []
        for start, stop in sorted(places):
            follows = merged and merged[-1][1] == start
            merged.append((merged.pop()[0], stop) if follows else (start, stop))
        return torch.cat([slots.partial[start:stop] for start, stop in merged]).sum()

    def _device_slots(self, device: torch.device) -> _Slots:
        if device not in self._slots:
            mine = [param for param in self._params if param.device == device]
            sizes = [local(param).numel() for param in mine]
            places, count = _places(sizes, self.config)
            partial = torch.zeros(count, dtype=torch.float64, device=device)
            self._slots[device] = _Slots(dict(zip(mine, places, strict=True)), partial)
        return self._slots[device]

    def _launch(self, param: Tensor, grad: Tensor) -> None:
        from .kernel import tensor_square_sum_kernel

        slots, config, wide = self._device_slots(param.device), self.config, grad.dtype == torch.float32
        first, last = slots.places[param]
        if first == last:
            return
        with torch.cuda.device_of(grad):
            tensor_square_sum_kernel[(last - first,)](
                grad if wide else grad.view(torch.uint16),
                slots.partial,
                first,
                grad.numel(),
                GRAD_WIDE=wide,
                CHUNK=config.chunk,
                BLOCK=config.block,
                num_warps=config.warps,
            )


def move(value: Tensor, device: torch.device) -> Tensor:
    """Between GPUs without waiting; a CPU must wait, for it would read before the copy is there."""
    return value.to(device, non_blocking=device.type == "cuda")


def _nothing(_: Tensor) -> None:
    """What is left of the hook of an optimizer that is gone."""


def _final(param: Tensor, grad: Tensor) -> bool:
    """Whether the step will see this gradient as it is now; what is odd about it is left to the step to handle.

    Gradients of a job of several processes may be reduced after the hook that sees them, in place or in buckets,
    behind the version counter's back.
    """
    if hasattr(param, "placements") or hasattr(grad, "placements"):
        return False
    if grad.layout != torch.strided or grad.dtype not in DTYPES or grad.device != param.device:
        return False
    if not (grad.is_contiguous() and param.is_contiguous()):
        return False
    distributed = torch.distributed
    return not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1)
