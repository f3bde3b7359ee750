"""The AdamW step as a function of lists of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..backend import choose_backend
from .groups import DTYPES, check_group
from .modes import FAST_EPS, LOW_BITS, ROUNDINGS, ElementIndex, Entry, scalar_table
from .run import StepCache, run_step
from .sharding import flat


@torch._disable_dynamo
@torch.no_grad()
def adamw_step(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    exp_avgs: Sequence[Tensor],
    exp_avg_sqs: Sequence[Tensor],
    *,
    step: int,
    lr: float | Tensor,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
    rounding: str = "nearest",
    low_bits: Sequence[Tensor] | None = None,
    stochastic_variance: bool = False,
    grad_scale: Tensor | None = None,
    seed: int = 0,
    first_elements: Sequence[int] | None = None,
    backend: str | None = None,
) -> Tensor:
    """One AdamW step on lists of tensors, in place: all of them in one launch per combination of dtypes.

    `p <- p (1 - lr wd) - lr m_hat / (sqrt(v_hat) + eps)`, computed in float32 and rounded once. Source: "Decoupled
    Weight Decay Regularization" (Loshchilov & Hutter, 2019), algorithm 2, with the schedule in `lr`.

    Args:
        params: bfloat16 or float32 tensors of any shape, dense in memory, all on one device. Changed.
        grads: bfloat16 or float32, one per parameter, same shapes.
        exp_avgs: first moments, bfloat16 or float32, same shapes and strides as the parameters. Changed.
        exp_avg_sqs: second moments, of the first moments' dtype. Changed.
        step: the number of this step, from 1 to 2**24.
        lr, betas, eps, weight_decay, rounding, stochastic_variance, seed, backend: see `FusedAdamW`.
        low_bits: what "kahan", "split" and "split8" keep beside each parameter: bfloat16, int16 or uint8 of the same
            shape, zero at first. Changed.
        grad_scale: float32 tensor of no dimensions on the same device that gradients are multiplied with.
        first_elements: index in the whole model of each tensor's first element, which keys its random bits; by
            default the tensors follow each other, each starting at a multiple of 8.

    Returns:
        int64 `[len(params)]`: how many stored weights of each tensor the step left as they were.

    Raises:
        ValueError: lists of different lengths, shapes, strides or devices; an unsupported dtype; a tensor given twice;
            a setting out of range; an unknown mode or backend.
        RuntimeError: the Triton backend was asked for and is not installed.
    """
    check_group({"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "params": ()})
    _check_numbers(step, seed, rounding)
    lists = _Lists(params, grads, exp_avgs, exp_avg_sqs, low_bits)
    lists.check(rounding, grad_scale)
    if not params:
        return torch.zeros(0, dtype=torch.int64)
    entries = lists.entries(first_elements, rounding=rounding, stochastic_variance=stochastic_variance, seed=seed)
    settings = torch.tensor([[0.0, *betas, eps, weight_decay]], dtype=torch.float64, device=params[0].device)
    settings[:, 0] = lr
    # Long: most of it says what the lists are.
    scalars = scalar_table(settings, settings.new_full((1,), step).float())
    chosen = choose_backend(backend, settings.device, in_core=True)
    return _run(entries, scalars, grad_scale, backend=chosen, exact=eps < FAST_EPS)


def _run(entries: list[Entry], scalars: Tensor, grad_scale: Tensor | None, *, backend: str, exact: bool) -> Tensor:
    """The step with one row of scalars for all."""
    cache, rows = StepCache(), [0] * len(entries)
    stale = run_step(entries, rows, scalars, grad_scale, backend=backend, cache=cache, count_stale=True, exact=exact)
    assert stale is not None
    return stale


@dataclass(frozen=True)
class _Lists:
    """The tensors of a step, list by list."""

    params: Sequence[Tensor]
    grads: Sequence[Tensor]
    exp_avgs: Sequence[Tensor]
    exp_avg_sqs: Sequence[Tensor]
    low_bits: Sequence[Tensor] | None

    def beside(self) -> dict[str, Sequence[Tensor]]:
        """All lists but the parameters."""
        lists = {"grads": self.grads, "exp_avgs": self.exp_avgs, "exp_avg_sqs": self.exp_avg_sqs}
        return lists if self.low_bits is None else {**lists, "low_bits": self.low_bits}

    def check(self, rounding: str, grad_scale: Tensor | None) -> None:
        """Raise ValueError for tensors that cannot be stepped together."""
        if rounding in LOW_BITS and self.low_bits is None:
            raise ValueError(
                f"rounding {rounding!r} needs `low_bits`: {LOW_BITS[rounding][1]} tensors shaped like the parameters"
            )
        if rounding not in LOW_BITS and self.low_bits is not None:
            raise ValueError(f"rounding {rounding!r} keeps nothing beside the weights; leave `low_bits` out")
        for name, tensors in self.beside().items():
            if len(tensors) != len(self.params):
                raise ValueError(f"`{name}` has {len(tensors)} tensors for {len(self.params)} parameters")
            for i, tensor in enumerate(tensors):
                allowed = (LOW_BITS[rounding][1],) if name == "low_bits" else DTYPES
                allowed = (self.exp_avgs[i].dtype,) if name == "exp_avg_sqs" else allowed
                self._check_one(f"{name}[{i}]", tensor, self.params[i], allowed)
        # Two programs would step the same memory at once.
        written = [t for name, tensors in self.beside().items() if name != "grads" for t in tensors]
        places = [tensor.data_ptr() for tensor in (*written, *self.params) if tensor.numel()]
        if len(set(places)) < len(places):
            raise ValueError("a tensor was given twice; each parameter, moment and low bits need memory of their own")
        if grad_scale is not None:
            self._check_scale(grad_scale)

    def _check_one(self, name: str, tensor: Tensor, param: Tensor, allowed: tuple[torch.dtype, ...]) -> None:
        device = self.params[0].device
        if tensor.shape != param.shape or tensor.device != device or param.device != device:
            raise ValueError(
                f"`{name}` is {tuple(tensor.shape)} on {tensor.device} for a parameter of "
                f"{tuple(param.shape)} on {param.device}; all must be on: {device}"
            )
        if not name.startswith("grads") and tensor.stride() != param.stride():
            raise ValueError(f"`{name}` has strides {tensor.stride()}, its parameter {param.stride()}")
        if tensor.dtype not in allowed or param.dtype not in DTYPES or tensor.layout != torch.strided:
            raise ValueError(
                f"`{name}` is {tensor.dtype}, {tensor.layout} for a parameter of {param.dtype}; "
                f"supported: dense and one of {allowed}"
            )

    def _check_scale(self, grad_scale: Tensor) -> None:
        if not isinstance(grad_scale, Tensor) or grad_scale.dtype != torch.float32 or grad_scale.numel() != 1:
            raise ValueError(f"`grad_scale` must be one float32 number in a tensor, got: {grad_scale}")
        if self.params and grad_scale.device != self.params[0].device:
            raise ValueError(f"`grad_scale` is on {grad_scale.device}, the parameters on {self.params[0].device}")

    def entries(
        self, first_elements: Sequence[int] | None, *, rounding: str, stochastic_variance: bool, seed: int
    ) -> list[Entry]:
        """Each tensor as the step sees it."""
        entries, base = [], 0
        for i, param in enumerate(self.params):
            narrow = param.dtype == torch.bfloat16
            first = base if first_elements is None else first_elements[i]
            entry = Entry(
                param=flat(param),
                grad=flat(self.grads[i], like=param),
                exp_avg=flat(self.exp_avgs[i]),
                exp_avg_sq=flat(self.exp_avg_sqs[i]),
                low=flat(self.low_bits[i]) if self.low_bits is not None and narrow else None,
                rounding=rounding if narrow else "nearest",
                stochastic_variance=stochastic_variance,
                seed=seed,
                index=ElementIndex(first, param.numel(), 1),
            )
            entries.append(entry)
            base += -(-param.numel() // 8) * 8
        return entries


def _check_numbers(step: int, seed: int, rounding: str) -> None:
    if rounding not in ROUNDINGS:
        raise ValueError(f"unknown rounding: {rounding!r}; choose one of {ROUNDINGS}")
    if not 1 <= step <= 2**24:
        raise ValueError(f"`step` counts from 1 to 2**24, got: {step}")
    if not 0 <= seed < 2**63:
        raise ValueError(f"`seed` must be in [0, 2**63), got: {seed}")
