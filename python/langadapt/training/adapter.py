"""LoRA: low-rank matrices beside the linear layers of a frozen body, by the package `peft`; put in, told apart, merged.

A layer ``x W^T`` becomes ``x W^T + s (x A^T) B^T``, of which only A ``[rank, in]`` and B ``[out, rank]`` move (arXiv
2106.09685); B begins with zeros, so the model begins as it is. Layers are replaced inside the model: its class, its
embeddings and its head stay, so that loss, packing, validation and generation know nothing of it. A model's folder
never has these matrices: they are merged into ``W + s B A`` in fp32, which is rounded once.

Under ``qlora`` W is held in 4 bits (NF4 with quantised scales, arXiv 2305.14314) by the package `bitsandbytes`. What is
merged then is that W, as it was trained with, made plain again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator, Mapping
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from langadapt.errors import ConfigError, MismatchError, nearest, shorten
from langadapt.models.embeddings import body_layers, token_weights
from langadapt.training.adapter_settings import AdapterSettings, check_alone
from langadapt.training.settings import TrainSettings

NAME = "default"
"""Of the one adapter that a model has, as `peft` calls it."""
BASE = ".base_layer."
"""In the names of what a layer had before."""


def check_packages(adapter: AdapterSettings, device: torch.device) -> None:
    """Raise ConfigError where a package is missing, or a GPU for 4 bits."""
    if find_spec("peft") is None:
        raise ConfigError(f"adapter: {adapter.kind} needs the package `peft`; pip install peft")
    if adapter.kind != "qlora":
        return
    if device.type != "cuda":
        raise ConfigError(
            f"adapter: qlora multiplies with 4-bit weights on a GPU (CUDA), but the device is {device.type}; take "
            "one, or train with `kind: lora`"
        )
    if find_spec("bitsandbytes") is None:
        raise ConfigError("adapter: qlora needs the package `bitsandbytes`; pip install bitsandbytes")


def check(model: Any, adapter: AdapterSettings, device: torch.device, *, leave_out: Collection[str] = ()) -> None:
    """Refuse early what :func:`attach` would, on a ``model`` without weights, which is spoilt by it.

    Raises:
        ConfigError: as of :func:`attach`; also for several processes.
    """
    check_alone(adapter, int(os.environ.get("WORLD_SIZE", "1")))
    check_packages(adapter, device)
    inject(model, adapter, list(chosen_layers(model, adapter, leave_out)), 0)


def linear_layers(model: Any, leave_out: Collection[str] = ()) -> dict[str, nn.Module]:
    """Layers of the body that a low-rank matrix can stand beside, by name: linear ones, and GPT-2's, which are linear
    ones with the matrix the other way round.

    Args:
        model: a causal LM; its output head is no part of the body.
        leave_out: parameters that stay in fp32 whatever happens, such as routers.
    """
    from transformers.pytorch_utils import Conv1D

    layers = body_layers(model, (nn.Linear, Conv1D))
    return {name: layer for name, layer in layers.items() if f"{name}.weight" not in leave_out}


def chosen_layers(model: Any, adapter: AdapterSettings, leave_out: Collection[str] = ()) -> dict[str, nn.Module]:
    """The layers that ``adapter`` names, all where it names none.

    Raises:
        ConfigError: a name that no layer has, or a rank above the smaller side of a layer.
    """
    layers = linear_layers(model, leave_out)
    known = sorted({name.rpartition(".")[2] for name in layers})
    if not known:
        raise ConfigError(f"adapter: {type(model).__name__} has no linear layers beside which matrices could stand")
    for target in adapter.targets:
        if not any(is_called(name, target) for name in layers):
            near = nearest(target, known)
            raise ConfigError(
                f"adapter: targets: {type(model).__name__} has no linear layer {target!r}"
                f"{f'; did you mean `{near[0]}`?' if near else ''}; there are {', '.join(known)}"
            )
    wanted = adapter.targets or known
    chosen = {name: one for name, one in layers.items() if any(is_called(name, target) for target in wanted)}
    name = min(chosen, key=lambda name: min(chosen[name].weight.shape))  # type: ignore[arg-type]
    least = min(chosen[name].weight.shape)  # type: ignore[arg-type]
    if adapter.rank > least:
        raise ConfigError(
            f"adapter: rank: {adapter.rank} is above {least}, the smaller side of `{name}`; lower it, or name larger "
            "layers in targets"
        )
    return chosen


def is_called(layer: str, target: str) -> bool:
    """Whether a layer's dotted name is, or ends with, ``target``."""
    return layer == target or layer.endswith(f".{target}")


def attach(model: Any, settings: TrainSettings, device: torch.device, *, leave_out: Collection[str] = ()) -> None:
    """Put matrices beside the layers of ``model``, in place; drawn by the settings' seed, the same on any device.

    The weights beside which they stand become bf16 (under ``precision: fp32``: stay as they are) or, on ``device``,
    4 bits; the matrices have the dtype of what is trained. Nothing is frozen yet, see :func:`moving`.

    Raises:
        ConfigError: a package or a GPU is missing, layers that are not there, or matrices that are there already.
    """
    adapter = settings.adapter
    assert adapter is not None
    check_packages(adapter, device)
    if adapted_layers(model):
        raise ConfigError("adapter: the model has low-rank matrices already; merge them first")
    chosen = chosen_layers(model, adapter, leave_out)
    trained = next(iter(chosen.values())).weight.dtype
    for name, layer in chosen.items():
        if adapter.kind == "qlora":
            model.set_submodule(name, in_four_bits(layer, device, settings))
        elif settings.precision != "fp32":
            # Under autocast they are multiplied with in bf16 anyhow.
            layer.weight.data = layer.weight.data.to(torch.bfloat16)
    inject(model, adapter, list(chosen), settings.seed)
    for layer in adapted_layers(model).values():
        # They have the dtype that comes in, or autocast sees to it.
        layer.cast_input_dtype_enabled = False
        for matrix in (layer.lora_A, layer.lora_B):
            matrix.to(trained)


def inject(model: Any, adapter: AdapterSettings, names: list[str], seed: int) -> None:
    """Let `peft` replace the layers ``names``.

    Raises:
        ConfigError: an architecture that it refuses.
    """
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.scale * adapter.rank,  # type: ignore[arg-type]
        target_modules=names,
        fan_in_fan_out=not isinstance(model.get_submodule(names[0]), nn.Linear),
    )
    model.is_loaded_in_4bit = adapter.kind == "qlora"
    meta = model.get_submodule(names[0]).weight.is_meta
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            inject_adapter_in_model(config, model, NAME, low_cpu_mem_usage=meta)
    except ValueError as error:
        raise ConfigError(f"adapter: {type(model).__name__}: {shorten(str(error))}") from error
    finally:
        del model.is_loaded_in_4bit


def in_four_bits(layer: Any, device: torch.device, settings: TrainSettings) -> nn.Module:
    """A linear layer whose weight lies in 4 bits on ``device``; it computes in bf16, or in fp32 where all is."""
    import bitsandbytes as bnb

    if not isinstance(layer, nn.Linear):
        raise ConfigError(f"adapter: qlora is for linear layers, and this model has {type(layer).__name__}; take lora")
    dtype = torch.float32 if settings.precision == "fp32" else torch.bfloat16
    with torch.device("meta"):
        small = bnb.nn.Linear4bit(
            layer.in_features,
            layer.out_features,
            layer.bias is not None,
            dtype,
            compress_statistics=True,
            quant_type="nf4",
        )
    small.weight = bnb.nn.Params4bit(layer.weight.data.to(dtype), requires_grad=False, quant_type="nf4").to(device)
    small.bias = layer.bias
    return small


def adapted_layers(model: nn.Module) -> dict[str, Any]:
    """Layers with matrices beside them, by the names that they had before."""
    return {name: module for name, module in model.named_modules() if hasattr(module, "lora_A")}


def is_matrix(name: str) -> bool:
    """Whether a parameter is one of the low-rank matrices."""
    return ".lora_A." in name or ".lora_B." in name


def moving(model: Any) -> list[tuple[str, nn.Parameter]]:
    """Parameters that can move, with their names: beside an adapter its matrices and the rows of tokens, else all."""
    named = list(model.named_parameters())
    if not any(is_matrix(name) for name, _ in named):
        return named
    tokens = {id(weight) for weight in token_weights(model)}
    return [(name, parameter) for name, parameter in named if is_matrix(name) or id(parameter) in tokens]


def merged(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """All parameters under the names of the plain model, merged weights in fp32, made one at a time."""
    layers = adapted_layers(model)
    for name, parameter in model.named_parameters():
        layer, _, leaf = name.partition(BASE)
        if layer not in layers:
            if not is_matrix(name):
                yield name, parameter
        elif leaf == "weight":
            yield f"{layer}.weight", merged_weight(layers[layer])
        else:
            yield f"{layer}.{leaf}", parameter


@torch.no_grad()
def merged_weight(layer: Any) -> Tensor:
    """``W + s B A`` of an adapted layer: fp32, laid out as its weight."""
    product = (layer.lora_B[NAME].weight.float() @ layer.lora_A[NAME].weight.float()) * layer.scaling[NAME]
    weight: Tensor = plain_weight(layer.base_layer).float()
    return weight + (product.T if layer.fan_in_fan_out else product)


def plain_weight(layer: Any) -> Tensor:
    """The weight of a layer as a matrix, whatever it is held in."""
    weight: Tensor = layer.weight.data
    state = getattr(layer.weight, "quant_state", None)
    if state is None:
        return weight
    from bitsandbytes.functional import dequantize_4bit

    plain: Tensor = dequantize_4bit(weight, state)
    return plain


@torch.no_grad()
def fold(model: Any) -> None:
    """Make an adapted model plain again, in place, its merged weights in the dtype that they had (bf16 for 4 bits); a
    model's folder has nothing to fold."""
    if not isinstance(model, nn.Module):
        return
    for name, layer in adapted_layers(model).items():
        base, weight = layer.base_layer, merged_weight(layer)
        if hasattr(base.weight, "quant_state"):
            with torch.device("meta"):
                plain = nn.Linear(base.in_features, base.out_features, base.bias is not None)
            plain.weight, plain.bias = nn.Parameter(weight.to(torch.bfloat16)), base.bias
            base = plain
        else:
            base.weight.data = weight.to(base.weight.dtype)
        model.set_submodule(name, base)
    if hasattr(model, "peft_config"):
        del model.peft_config


def start_of(model: Any) -> dict[str, str]:
    """What a checkpoint says of weights that it does not hold: a digest of their sums; nothing where it holds all."""
    if not adapted_layers(model):
        return {}
    held = {name for name, _ in moving(model)}
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        if name not in held:
            bits = parameter.data.contiguous().reshape(-1).view(torch.uint8)
            digest.update(f"{name} {list(parameter.shape)} {int(bits.sum(dtype=torch.int64))}\n".encode())
    return {"start": digest.hexdigest()}


def check_start(state: Mapping[str, Any], start: Mapping[str, str]) -> None:
    """Raise MismatchError where a checkpoint of that state stands beside other frozen weights than those of ``start``,
    which `start_of` gave."""
    if state.get("start") != start.get("start"):
        raise MismatchError(
            "checkpoint: it holds what the adapter moved, beside other weights than this model's; go on from the model "
            "that the run began with"
        )
