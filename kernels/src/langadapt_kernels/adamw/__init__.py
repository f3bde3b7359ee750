"""AdamW for pure bf16 training: the step as a function, and as a `torch.optim.Optimizer`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..backend import choose_backend
from .groups import DTYPES, check_group
from .modes import LOW_BITS, ROUNDINGS, ElementIndex, Entry, scalar_table
from .optimizer import FusedAdamW
from .run import StepCache, run_step
from .sharding import flat

__all__ = ["FusedAdamW", "adamw_step"]


@torch.compiler.disable
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

    `p <- p (1 - lr wd) - lr m_hat / (sqrt(v_hat) + eps)`, computed in float32 and rounded once. Source:
    "Decoupled Weight Decay Regularization" (Loshchilov & Hutter, 2019), algorithm 2, with the schedule in `lr`.

    Args:
        params: bfloat16 or float32 tensors of any shape, dense in memory, all on one device. Changed.
        grads: bfloat16 or float32, one per parameter, same shapes.
        exp_avgs: first moments, bfloat16 or float32, same shapes and strides as the parameters. Changed.
        exp_avg_sqs: second moments, of the first moments' dtype. Changed.
        step: the number of this step, from 1 to 2**24.
        lr: learning rate; a tensor of no dimensions is read on its device without a sync.
        betas: decay rates of the moments, in [0, 1).
        eps: added to the square root of the second moment.
        weight_decay: decoupled decay, per unit of `lr`.
        rounding: how bfloat16 parameters are stored: "nearest", "stochastic", "kahan" (bfloat16 compensation),
            "split" (the low 16 bits of a float32 master), "split8" (the next 8 bits of it). float32 parameters are
            stored as they are.
        low_bits: for the last three, what is kept beside each parameter: bfloat16, int16 or uint8 of the same
            shape, zero at first. Changed.
        stochastic_variance: round bfloat16 second moments stochastically too; see `FusedAdamW`.
        grad_scale: float32 tensor of no dimensions on the same device that gradients are multiplied with.
        seed: key of the random bits, in [0, 2**63).
        first_elements: index in the whole model of each tensor's first element, which keys its random bits; by
            default the tensors follow each other, each starting at a multiple of 8.
        backend: "triton", "reference", or None: Triton on CUDA tensors where it is installed, else the reference.

    Returns:
        int64 `[len(params)]`: how many stored weights of each tensor the step left as they were.

    Raises:
        ValueError: lists of different lengths, shapes, strides or devices; an unsupported dtype; a tensor given twice;
            a setting out of range; an unknown mode or backend.
        RuntimeError: the Triton backend was asked for and is not installed.
    """
    _check_lists(params, grads, exp_avgs, exp_avg_sqs, rounding, low_bits)
    _check_settings(step, lr, betas, eps, weight_decay, seed)
    if not params:
        return torch.zeros(0, dtype=torch.int64)
    device = params[0].device
    if grad_scale is not None and (
        not isinstance(grad_scale, Tensor) or grad_scale.dtype != torch.float32 or grad_scale.numel() != 1
    ):
        raise ValueError(f"`grad_scale` must be one float32 number in a tensor, got: {grad_scale}")
    if grad_scale is not None and grad_scale.device != device:
        raise ValueError(f"`grad_scale` is on {grad_scale.device}, the parameters on {device}")
    chosen = choose_backend(backend, device)
    entries, base = [], 0
    for i, param in enumerate(params):
        low = low_bits[i] if low_bits is not None and param.dtype == torch.bfloat16 else None
        first = base if first_elements is None else first_elements[i]
        entry = Entry(
            param=flat(param),
            grad=flat(grads[i], like=param),
            exp_avg=flat(exp_avgs[i]),
            exp_avg_sq=flat(exp_avg_sqs[i]),
            low=None if low is None else flat(low),
            rounding=rounding if param.dtype == torch.bfloat16 else "nearest",
            stochastic_variance=stochastic_variance,
            seed=seed,
            index=ElementIndex(first, param.numel(), 1),
        )
        entries.append(entry)
        base += -(-param.numel() // 8) * 8
    settings = torch.tensor([[0.0, *betas, eps, weight_decay]], dtype=torch.float64, device=device)
    settings[:, 0] = lr
    steps = torch.full((1,), float(step), device=device)
    scalars = scalar_table(settings, steps).expand(len(entries), -1).contiguous()
    rows = list(range(len(entries)))
    stale = run_step(entries, rows, scalars, grad_scale, backend=chosen, cache=StepCache(), count_stale=True)
    assert stale is not None
    return stale


def _check_lists(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    exp_avgs: Sequence[Tensor],
    exp_avg_sqs: Sequence[Tensor],
    rounding: str,
    low_bits: Sequence[Tensor] | None,
) -> None:
    if rounding not in ROUNDINGS:
        raise ValueError(f"unknown rounding: {rounding!r}; choose one of {ROUNDINGS}")
    if rounding in LOW_BITS and low_bits is None:
        raise ValueError(
            f"rounding {rounding!r} needs `low_bits`: {LOW_BITS[rounding][1]} tensors shaped like the parameters"
        )
    if rounding not in LOW_BITS and low_bits is not None:
        raise ValueError(f"rounding {rounding!r} keeps nothing beside the weights; leave `low_bits` out")
    lists = {"grads": grads, "exp_avgs": exp_avgs, "exp_avg_sqs": exp_avg_sqs}
    if low_bits is not None:
        lists["low_bits"] = low_bits
    for name, tensors in lists.items():
        if len(tensors) != len(params):
            raise ValueError(f"`{name}` has {len(tensors)} tensors for {len(params)} parameters")
        for i, (tensor, param) in enumerate(zip(tensors, params, strict=True)):
            if tensor.shape != param.shape or tensor.device != params[0].device or param.device != params[0].device:
                raise ValueError(
                    f"`{name}[{i}]` is {tuple(tensor.shape)} on {tensor.device} for a parameter of "
                    f"{tuple(param.shape)} on {param.device}; all must be on: {params[0].device}"
                )
            if name != "grads" and tensor.stride() != param.stride():
                raise ValueError(f"`{name}[{i}]` has strides {tensor.stride()}, its parameter {param.stride()}")
            allowed = (LOW_BITS[rounding][1],) if name == "low_bits" else DTYPES
            allowed = (exp_avgs[i].dtype,) if name == "exp_avg_sqs" else allowed
            if tensor.dtype not in allowed or param.dtype not in DTYPES or tensor.layout != torch.strided:
                raise ValueError(
                    f"`{name}[{i}]` is {tensor.dtype}, {tensor.layout} for a parameter of {param.dtype}; "
                    f"supported: dense and one of {allowed}"
                )
    # Two programs would step the same memory at once.
    written = [t for name, tensors in lists.items() if name != "grads" for t in tensors] + list(params)
    places = [tensor.data_ptr() for tensor in written if tensor.numel()]
    if len(set(places)) < len(places):
        raise ValueError("a tensor was given twice; each parameter, moment and low bits need memory of their own")


def _check_settings(
    step: int, lr: float | Tensor, betas: tuple[float, float], eps: float, weight_decay: float, seed: int
) -> None:
    if not 1 <= step <= 2**24:
        raise ValueError(f"`step` counts from 1 to 2**24, got: {step}")
    check_group({"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "params": ()})
    if not 0 <= seed < 2**63:
        raise ValueError(f"`seed` must be in [0, 2**63), got: {seed}")
