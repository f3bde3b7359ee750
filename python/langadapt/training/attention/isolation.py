"""Whether a model keeps documents apart, and the future out of sight: seen by changing what it must not look at."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from langadapt.training.attention.choice import example, packed_inputs


def leaks(
    model: Any, vocabulary: int, attention: str, device: torch.device, *, length: int = 24, states: bool = False
) -> bool:
    """Whether the first document of a window changes what the model says about the second. ``states``: it is told where
    documents begin for its recurrent layers, too (`packed_inputs`).

    Raises:
        TypeError: the model takes no position ids.
    """
    ids, positions = example(vocabulary, length, device)
    other = ids.clone()
    other[:, :length] = (other[:, :length] + 1) % vocabulary
    both = [packed_inputs(some, positions, attention, 2, states=states) for some in (ids, other)]
    with torch.no_grad():
        first, second = (model(**inputs, use_cache=False).logits.float()[0, length:] for inputs in both)
    return differ(first, second, model) or reaches_back(model, both[0], length)


def reaches_back(model: Any, inputs: dict[str, Any], length: int) -> bool:
    """Whether what the model says from token ``length`` on has a gradient at the tokens before: zero, and not only
    small, wherever they are masked, in any precision and however little the model has learnt."""
    found: list[Tensor] = []

    def note(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        found.append(output.detach().requires_grad_())
        # Some models scale it in place, which no leaf allows.
        return found[-1].clone()

    handle = model.get_input_embeddings().register_forward_hook(note)
    try:
        with torch.enable_grad():
            logits = model(**inputs, use_cache=False).logits[0, length:]
            gradients = torch.autograd.grad(logits.float().square().sum(), found, allow_unused=True)
    finally:
        handle.remove()
    # A zero may come out as no number, where a norm is taken of zeros.
    early = [one[:, :length].nan_to_num(0.0) for one in gradients if one is not None and one.shape[1] > length]
    return any(bool((one != 0).any()) for one in early)


@torch.no_grad()
def rows_mix(model: Any, vocabulary: int, device: torch.device, *, length: int = 24) -> bool:
    """Whether one row of a batch changes what the model says about another."""
    ids = example(vocabulary, length, device)[0].view(2, -1)
    other = ids.clone()
    other[0] = (other[0] + 1) % vocabulary
    first, second = (model(input_ids=some, use_cache=False).logits.float()[1] for some in (ids, other))
    return differ(first, second, model)


@torch.no_grad()
def try_lengths(model: Any, vocabulary: int, device: torch.device) -> None:
    """Have a model in training see rows of another length than windows.

    Raises:
        ValueError: it wants them as long as its positions are (Reformer).
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        model(input_ids=example(vocabulary, 12, device)[0], use_cache=False)


@torch.no_grad()
def looks_ahead(model: nn.Module, vocabulary: int, device: torch.device, *, length: int = 24) -> bool:
    """Whether later tokens change what the model says about earlier ones: it would learn to copy, not to foretell."""
    ids, _ = example(vocabulary, length, device)
    other = ids.clone()
    other[:, length:] = (other[:, length:] + 1) % vocabulary
    first, second = (model(input_ids=some, use_cache=False).logits.float()[0, :length] for some in (ids, other))
    return differ(first, second, model)


def differ(first: Tensor, second: Tensor, model: nn.Module) -> bool:
    """Whether logits of ``model`` are others.

    Grouped kernels of experts may round otherwise in other company: by less than a hundredth in bf16, where a leak of a
    model that has learnt something is a hundred times larger. In fp32 a leak shows in one that has learnt nothing, too.
    """
    weight = next(model.parameters())
    exact = weight.dtype == torch.float32 and not torch.is_autocast_enabled(weight.device.type)
    return bool((first - second).norm() > (1e-4 if exact else 1e-2) * first.norm())
