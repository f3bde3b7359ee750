"""Optimizers: groups that apply, gradient sums that lose nothing, a norm that needs no host sync."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from langadapt.errors import ConfigError
from langadapt.training.settings import TrainSettings

Named = list[tuple[str, nn.Parameter]]

SLOW_BETA2 = 0.99
"""Above it, bf16 second moments are rounded stochastically in every mode."""


def make(
    groups: dict[str, Named], settings: TrainSettings, clip_apart: bool = False, whole_gradients: bool = False
) -> torch.optim.Optimizer:
    """An optimizer with one group per name of ``groups``; only ``matrices`` decay. The loop sets the rates.

    ``clip_apart``: the caller measures and limits the norm. ``whole_gradients``: what the backward pass leaves in the
    parameters is what the update is made of, neither summed nor reduced elsewhere.

    Raises:
        ConfigError: no such optimizer, or its library is not installed.
    """
    parameter_groups: list[dict[str, Any]] = [
        {
            "name": name,
            "params": [parameter for _, parameter in named],
            "weight_decay": settings.weight_decay if name == "matrices" else 0.0,
        }
        for name, named in groups.items()
        if named
    ]
    common: dict[str, Any] = {"lr": settings.learning_rate, "betas": tuple(settings.betas), "eps": settings.eps}
    if settings.optimizer == "adamw-8bit":
        return eight_bit(parameter_groups, common)
    if settings.optimizer != "adamw":
        raise ConfigError(f"optimizer: {settings.optimizer} is none of adamw and adamw-8bit")
    from langadapt_kernels import FusedAdamW

    # A bf16 second moment that is rounded to nearest cannot shrink where beta2 takes less than half a unit of it.
    slow = settings.betas[1] > SLOW_BETA2
    # A limit of infinity measures the norm and clips nothing.
    return FusedAdamW(
        parameter_groups,
        settings.learning_rate,
        (settings.betas[0], settings.betas[1]),
        settings.eps,
        0.0,
        rounding=settings.rounding,
        state_dtype=torch.int8 if settings.states == "int8" else None,
        stochastic_variance=True if slow else None,
        seed=settings.seed,
        max_grad_norm=None if clip_apart else settings.max_grad_norm or math.inf,
        norm_in_backward=whole_gradients and not clip_apart,
    )


def set_rates(optimizer: torch.optim.Optimizer, rate: float, others: Mapping[str, float]) -> None:
    """Give each group of parameters the rate of its name in ``others``, or ``rate``."""
    for group in optimizer.param_groups:
        its = others.get(group["name"], rate)
        if isinstance(group["lr"], Tensor):
            # torchao's optimizers compile their step and take rates that change as tensors only.
            group["lr"].fill_(its)
        else:
            group["lr"] = its


def check_packages(settings: TrainSettings) -> None:
    """Raise ConfigError where the package of the optimizer is missing."""
    if settings.optimizer == "adamw-8bit":
        eight_bit_class()


def eight_bit(parameter_groups: list[dict[str, Any]], common: dict[str, Any]) -> torch.optim.Optimizer:
    """AdamW with 8-bit states of whichever library is there."""
    optimizer: torch.optim.Optimizer = eight_bit_class()(parameter_groups, **common)
    return optimizer


def eight_bit_class() -> Any:
    """The optimizer of `torchao` or of `bitsandbytes`."""
    try:
        from torchao.optim import AdamW8bit
    except ImportError:
        try:
            from bitsandbytes.optim import AdamW8bit
        except ImportError:
            raise ConfigError("optimizer: adamw-8bit needs `torchao` or `bitsandbytes`; pip install torchao") from None
    return AdamW8bit


def local(tensor: Tensor) -> Tensor:
    """This process' part of a sharded tensor; a plain tensor itself."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


class GradientSums:
    """fp32 sums of gradients over micro-batches.

    Each gradient is moved into its sum as soon as autograd has made it, so bf16 gradients exist one layer at a time:
    4 bytes per parameter instead of 2 for sums in bf16, which lose what is below 1/256 of the sum.
    """

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        """Attach to the parameters; `release` detaches."""
        self.sums: dict[nn.Parameter, Tensor] = {}
        self.widened = [
            parameter
            for parameter in parameters
            if hasattr(parameter, "grad_dtype") and not hasattr(parameter, "device_mesh")
        ]
        for parameter in self.widened:
            parameter.grad_dtype = torch.float32
        self.handles = [parameter.register_post_accumulate_grad_hook(self.add) for parameter in parameters]

    @torch.no_grad()
    def add(self, parameter: nn.Parameter) -> None:
        """Called by autograd when ``parameter.grad`` is complete for one micro-batch."""
        gradient = parameter.grad
        if gradient is None:
            return
        if parameter in self.sums:
            self.sums[parameter].add_(gradient)
        else:
            self.sums[parameter] = gradient.float()
        parameter.grad = None

    @torch.no_grad()
    def hand_over(self) -> None:
        """Give every parameter its sum as ``.grad``: in fp32 where torch allows it, else rounded once."""
        for parameter in list(self.sums):
            dtype = getattr(parameter, "grad_dtype", None) or parameter.dtype
            parameter.grad = self.sums.pop(parameter).to(dtype)

    def clear(self) -> None:
        """Forget what was summed (a step that ran out of memory is done again)."""
        self.sums.clear()

    def release(self) -> None:
        """Detach from the parameters."""
        for handle in self.handles:
            handle.remove()
        self.clear()
        for parameter in self.widened:
            parameter.grad = None
            parameter.grad_dtype = parameter.dtype


@torch.no_grad()
def gradient_norm(parameters: list[nn.Parameter], shards: Any = None) -> Tensor:
    """Global 2-norm of all gradients, fp32, on the device; sums over the processes of the group ``shards``."""
    gradients = [local(parameter.grad) for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return torch.zeros(())
    # Squares of a bf16 norm would overflow nothing but lose half the digits: norms are asked for in fp32.
    norms = torch._foreach_norm(gradients, 2, dtype=torch.float32)
    total = torch.stack([norm.to(norms[0].device) for norm in norms]).square().sum()
    if shards is not None:
        torch.distributed.all_reduce(total, group=shards)
    return total.sqrt()


@torch.no_grad()
def clip(parameters: list[nn.Parameter], norm: Tensor, limit: float) -> None:
    """Scale gradients so that their global norm is at most ``limit``; no host sync."""
    scale = (limit / (norm + 1e-6)).clamp(max=1.0)
    gradients = [local(parameter.grad) for parameter in parameters if parameter.grad is not None]
    torch._foreach_mul_(gradients, scale.to(gradients[0].device))


class RowTrainer:
    """Trains chosen rows of embedding matrices and nothing else.

    The optimizer sees copies of those rows only: other rows cannot move, not even by weight decay, and have no states.
    """

    def __init__(self, weights: list[tuple[str, nn.Parameter]], rows: Tensor) -> None:
        """``rows``: ids, int64, of rows to train, in every matrix of ``weights`` (sharded by rows or whole)."""
        self.parts: list[tuple[nn.Parameter, Tensor, nn.Parameter]] = []
        self.named: Named = []
        for name, weight in weights:
            mine = local(weight.data)
            first = first_row(weight)
            index = rows[(rows >= first) & (rows < first + len(mine))].to(mine.device) - first
            copy = nn.Parameter(mine[index].clone())
            self.parts.append((weight, index, copy))
            self.named.append((name, copy))

    @torch.no_grad()
    def take_gradients(self) -> None:
        """Move the gradients of the rows to the copies."""
        for weight, index, copy in self.parts:
            if weight.grad is not None:
                copy.grad = local(weight.grad)[index].to(copy.dtype)
                weight.grad = None

    @torch.no_grad()
    def put_back(self) -> None:
        """Write the copies into the matrices after a step."""
        for weight, index, copy in self.parts:
            local(weight.data)[index] = copy.data


def first_row(weight: Tensor) -> int:
    """Index of the first row of this process' shard."""
    if not hasattr(weight, "device_mesh"):
        return 0
    mesh = weight.device_mesh
    coordinate = mesh.get_coordinate()
    size, rank = mesh.shape[-1], coordinate[-1] if coordinate is not None else 0
    return min(rank * -(-weight.shape[0] // size), weight.shape[0])
