"""The model to train: loaded in the right precision, checked against the data, prepared block by block."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from langadapt.errors import ConfigError, MismatchError
from langadapt.models.folder import load_model
from langadapt.tokenizer.files import read_files, write_files
from langadapt.training.attention import choice as attention
from langadapt.training.settings import TrainSettings


def load(model: str | Path | nn.Module, settings: TrainSettings, device: torch.device) -> Any:
    """A causal language model on ``device``, parameters in the dtype that ``settings.precision`` asks for.

    A model that is handed over as an object is changed in place. Buffers keep their dtype: rotary frequencies in bf16
    would turn positions beyond 256 into noise.

    Raises:
        DataError: the folder holds no whole model.
    """
    dtype = torch.bfloat16 if settings.precision == "pure-bf16" else torch.float32
    if isinstance(model, (str, Path)):
        with no_bars():
            loaded: Any = load_model(model, dtype=dtype)
    else:
        loaded = model
    for parameter in loaded.parameters():
        parameter.data = parameter.data.to(dtype)
        parameter.requires_grad_(True)
    loaded.to(device)
    if settings.norms_in_fp32:
        raise_norms(loaded)
    loaded.config.use_cache = False
    return loaded.train()


@contextlib.contextmanager
def no_bars() -> Iterator[None]:
    """Keep transformers' progress bars out of ours."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def is_norm(module: nn.Module) -> bool:
    """Whether a module normalises activations; architectures bring their own classes, named ``...Norm``."""
    return isinstance(module, (nn.LayerNorm, nn.RMSNorm)) or type(module).__name__.lower().endswith("norm")


def norms(model: nn.Module) -> list[nn.Module]:
    """Modules that normalise and have weights for it."""
    return [module for module in model.modules() if is_norm(module) and list(module.parameters(recurse=False))]


def raise_norms(model: nn.Module) -> None:
    """Hold norm weights in fp32 and run norms in fp32, between activations that stay in bf16."""
    for module in norms(model):
        for parameter in module.parameters(recurse=False):
            parameter.data = parameter.data.float()
        module.register_forward_pre_hook(lambda _, args: (args[0].float(), *args[1:]))
        module.register_forward_hook(lambda _, args, output: output.to(torch.bfloat16))


def embeddings(model: Any) -> list[nn.Parameter]:
    """Weights of input and output embeddings, once each (tied ones are one)."""
    found: dict[int, nn.Parameter] = {}
    for module in (model.get_input_embeddings(), model.get_output_embeddings()):
        weight = getattr(module, "weight", None)
        if isinstance(weight, nn.Parameter):
            found[id(weight)] = weight
    return list(found.values())


def groups(model: Any) -> dict[str, list[tuple[str, nn.Parameter]]]:
    """Trainable parameters as ``embeddings``, ``matrices`` (the only ones that decay) and ``vectors`` (norms, biases,
    and embeddings of anything but tokens)."""
    tokens = {id(weight) for weight in embeddings(model)}
    lookups = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    found: dict[str, list[tuple[str, nn.Parameter]]] = {"embeddings": [], "matrices": [], "vectors": []}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if id(parameter) in tokens:
            kind = "embeddings"
        elif parameter.ndim < 2 or id(parameter) in lookups:
            kind = "vectors"
        else:
            kind = "matrices"
        found[kind].append((name, parameter))
    return found


def blocks(model: nn.Module) -> list[nn.Module]:
    """The repeated layers: the longest list of modules in the model."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    found: list[list[nn.Module]] = [list(modules) for modules in lists]
    return max(found, key=len) if found else []


def check_vocabulary(model: Any, largest: int, where: str) -> None:
    """Raise MismatchError if ``largest`` + 1 ids do not fit the embedding matrix."""
    rows = model.get_input_embeddings().weight.shape[0]
    if largest >= rows:
        raise MismatchError(
            f"{where}: made by a tokenizer of more than {largest} entries, but the model has {rows} embedding rows; "
            "swap the model to this tokenizer first, or tokenize the text with the model's own"
        )


def set_attention(model: Any, settings: TrainSettings, device: torch.device, known: str | None = None) -> str:
    """Choose the attention kernel and make sure that it keeps documents apart; returns its name.

    ``known``: what a run that goes on had chosen.

    Raises:
        ConfigError: this architecture mixes documents whatever is done, or the kernel fails here.
    """
    if not settings.isolate_documents:
        return str(model.config._attn_implementation)
    wanted: str = settings.attention
    if wanted == "auto" and settings.compile and device.type == "cpu":
        # Lists of pieces are other ones in every batch, and so would be the compiled code.
        wanted = attention.reference_of(model)
    autocast = settings.precision == "mixed-bf16"
    chosen = attention.choose(model, wanted, device, autocast=autocast, length=settings.sequence_length, known=known)
    vocabulary = model.config.get_text_config().vocab_size
    was_training = model.training
    model.eval()
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            leaking = attention.leaks(model, vocabulary, chosen, device)
    except TypeError:
        leaking = True
    except Exception as error:
        # A kernel may compile for one length and fail for another.
        raise attention.unusable(chosen, error) from error
    finally:
        model.train(was_training)
    if leaking:
        raise ConfigError(
            f"isolate_documents: true, but {type(model).__name__} lets text of one document reach the next in a window "
            "(it ignores position ids or has a recurrent state); set isolate_documents: false"
        )
    return chosen


def checkpoint_activations(model: nn.Module, how: str) -> None:
    """Activation checkpointing: ``none``, ``selective`` (keep matrix products and attention) or ``full``.

    Takes the place of what was set before.
    """
    for block in blocks(model):
        plain = getattr(block.forward, "plain", block.forward)
        # Around `forward`, inside of `__call__`: hooks of FSDP stay outside of what is done again.
        block.forward = plain if how == "none" else again_in_backward(plain, how == "selective")


def again_in_backward(forward: Any, selective: bool) -> Any:
    """``forward`` as a function that keeps its inputs, or what is ``selective``, for the backward pass.

    A plain function: the compiler does not look into a `functools.partial` of `checkpoint` and, without a word,
    compiles nothing.
    """

    def keeping_some(*inputs: Any, **named: Any) -> Any:
        return checkpoint(forward, *inputs, use_reentrant=False, context_fn=keep_expensive, **named)

    def keeping_none(*inputs: Any, **named: Any) -> Any:
        return checkpoint(forward, *inputs, use_reentrant=False, **named)

    chosen: Any = keeping_some if selective else keeping_none
    chosen.plain = forward
    return chosen


def expensive() -> frozenset[Any]:
    """Matrix products and attention."""
    aten = torch.ops.aten
    kept = {aten.mm.default, aten.addmm.default, aten.bmm.default}
    for library, name in (
        (aten, "_scaled_dot_product_flash_attention"),
        (aten, "_scaled_dot_product_efficient_attention"),
        (aten, "_scaled_dot_product_cudnn_attention"),
        (aten, "_scaled_dot_product_flash_attention_for_cpu"),
        (torch.ops.torch_attn, "_varlen_attn"),
        (torch.ops.flash_attn, "_flash_attn_varlen_forward"),
        (torch.ops.flash_attn_3, "_flash_attn_forward"),
        (torch.ops.flash_attn_3, "fwd"),
    ):
        if hasattr(library, name):
            kept.add(getattr(library, name).default)
    return frozenset(kept)


def keep_expensive() -> Any:
    """Policy of selective recomputation: what costs FLOPs is kept, what costs bandwidth is made again."""
    kept = expensive()

    def policy(context: Any, operation: Any, *args: Any, **kwargs: Any) -> Any:
        return CheckpointPolicy.MUST_SAVE if operation in kept else CheckpointPolicy.PREFER_RECOMPUTE

    return create_selective_checkpoint_contexts(policy)


def gather(model: nn.Module, keep: bool) -> dict[str, Tensor]:
    """All parameters whole and in memory, bf16, for the process that writes them (``keep``); shards meet one by one."""
    state = {}
    for name, parameter in model.named_parameters():
        whole = parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter.data
        if keep:
            state[name] = whole.detach().to("cpu", torch.bfloat16)
    return state


def export(model: Any, state: dict[str, Tensor], folder: Path, tokenizer_files: Path | None, *, tokenizer: Any) -> None:
    """Write a Hugging Face folder: bf16 safetensors, config, and the tokenizer's files."""
    from transformers import AutoModelForCausalLM

    # A twin without weights: the trained model may be sharded, hooked, or have its attention changed.
    with torch.device("meta"):
        twin = AutoModelForCausalLM.from_config(model.config, dtype=torch.bfloat16)
    twin.config.use_cache = True
    if getattr(model, "generation_config", None) is not None:
        twin.generation_config = model.generation_config
    with no_bars():
        twin.save_pretrained(folder, state_dict=state)
    if tokenizer is not None and hasattr(tokenizer, "save_pretrained"):
        tokenizer.save_pretrained(str(folder))
    elif tokenizer_files is not None:
        write_files(read_files(tokenizer_files), folder)
