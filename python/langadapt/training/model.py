"""The model to train: loaded in the right precision, checked against the data, prepared block by block."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from langadapt.errors import ConfigError, MismatchError, shorten
from langadapt.models.embeddings import token_weights as embeddings
from langadapt.models.folder import load_model
from langadapt.models.products import bound
from langadapt.models.weights import check_precision
from langadapt.tokenizer.files import read_files, write_files
from langadapt.training import adapter
from langadapt.training.attention import choice as attention
from langadapt.training.attention import isolation
from langadapt.training.settings import TrainSettings

log = logging.getLogger(__name__)

PACKED, STATES, ROWS, WHOLE = "packed", "states", "rows", "whole"
"""How documents of a window are kept apart: by position ids, with word to recurrent layers, by a row for each; or
not at all."""


def load(model: str | Path | nn.Module, settings: TrainSettings, device: torch.device) -> Any:
    """A causal language model on ``device``, parameters in the dtype that ``settings.precision`` asks for.

    A model that is handed over as an object is changed in place. Buffers keep their dtype: rotary frequencies in bf16
    would turn positions beyond 256 into noise.

    Raises:
        ConfigError: its weights are quantised, or its layers are none for the adapter that is asked for.
        DataError: the folder holds no whole model.
    """
    dtype = torch.bfloat16 if settings.precision == "pure-bf16" else torch.float32
    if isinstance(model, (str, Path)):
        check_precision(Path(model))
        with no_bars():
            loaded: Any = load_model(model, dtype=dtype)
    else:
        loaded = model
    wide = fp32_names(loaded)
    for name, parameter in loaded.named_parameters():
        parameter.data = parameter.data.to(torch.float32 if name in wide else dtype)
    if settings.adapter is not None:
        adapter.attach(loaded, settings, device, leave_out=wide)
    train_parts(loaded, settings.parts)
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


def fp32_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Modules, by name, all of whose parameters transformers holds in fp32 whatever the rest is in: routers that are
    given fp32, convolutions, and the like."""
    words = getattr(model, "_keep_in_fp32_modules_strict", None) or ()
    wide = {name for name, _ in model.named_parameters() if any(word in name for word in words)}
    return {
        path: module
        for path, module in model.named_modules()
        if wide
        and any(True for _ in module.parameters(recurse=False))
        and all(f"{path}.{name}" in wide for name, _ in module.named_parameters())
    }


def fp32_names(model: nn.Module) -> set[str]:
    """Parameters of `fp32_modules`."""
    return {f"{path}.{name}" for path, module in fp32_modules(model).items() for name, _ in module.named_parameters()}


def train_parts(model: Any, parts: str) -> None:
    """Ask for gradients of everything that can move, or of `embeddings` alone; before sharding, or FSDP makes the
    others, too."""
    moving = embeddings(model) if parts == "embeddings" else [one for _, one in adapter.moving(model)]
    wanted = {id(parameter) for parameter in moving}
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in wanted)


def groups(model: Any) -> dict[str, list[tuple[str, nn.Parameter]]]:
    """Trainable parameters as ``embeddings``, ``matrices`` (the only ones that decay), ``vectors`` (norms, biases, and
    embeddings of anything but tokens) and ``adapter``."""
    tokens = {id(weight) for weight in embeddings(model)}
    lookups = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    found: dict[str, list[tuple[str, nn.Parameter]]] = {"embeddings": [], "matrices": [], "vectors": [], "adapter": []}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if id(parameter) in tokens:
            kind = "embeddings"
        elif adapter.is_matrix(name):
            kind = "adapter"
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


def set_attention(
    model: Any, settings: TrainSettings, device: torch.device, known: str | None = None
) -> tuple[str, str]:
    """Choose the attention kernel and how documents are kept apart; returns its name and one of `PACKED`, `STATES`,
    `ROWS`, or `WHOLE` where they are not to be.

    ``known``: the kernel that a run that goes on had chosen.

    Raises:
        ConfigError: this architecture mixes documents whatever is done, or the kernel fails here.
    """
    autocast = settings.precision == "mixed-bf16"
    check_causal(model, device, autocast)
    way = WHOLE
    if settings.isolate_documents:
        wanted: str = settings.attention
        if wanted == "auto" and settings.compile and device.type == "cpu":
            # Lists of pieces are other ones in every batch, and so would be the compiled code.
            wanted = attention.reference_of(model)
        given = str(model.config._attn_implementation)
        chosen = attention.choose(model, wanted, device, autocast=autocast, length=settings.window, known=known)
        way = way_apart(model, chosen, device, autocast)
        if way != ROWS:
            return chosen, way
        model.set_attn_implementation(given)
        log.info(
            "in %s text of one document would reach the next of a window (it ignores position ids or has a recurrent "
            "state): each document gets a row of its own",
            type(model).__name__,
        )
    length = settings.window
    return attention.choose_for_whole_windows(model, device, autocast=autocast, length=length, known=known), way


def way_apart(model: Any, chosen: str, device: torch.device, autocast: bool) -> str:
    """How to keep documents of a window apart for this model with the attention ``chosen``: `PACKED`, where position
    ids that restart do, `STATES`, where the kernels of its recurrent layers are told and listen, else `ROWS`.

    Raises:
        ConfigError: rows of a batch are not independent of each other, or not of any length.
    """
    vocabulary = model.config.get_text_config().vocab_size
    was_training = model.training
    model.eval()
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            for way in (PACKED, STATES):
                if keeps_apart(model, chosen, device, way):
                    return way
            mixed = isolation.rows_mix(model, vocabulary, device)
            isolation.try_lengths(model.train(), vocabulary, device)
    except ValueError as error:
        raise ConfigError(
            f"isolate_documents: true, but {type(model).__name__} is not trained on rows of any length "
            f"({shorten(str(error))}); set isolate_documents: false and a `sequence_length` that it takes"
        ) from error
    finally:
        model.train(was_training)
    if mixed:
        raise ConfigError(
            f"isolate_documents: true, but {type(model).__name__} lets text of one row of a batch reach another; "
            "set isolate_documents: false"
        )
    return ROWS


def keeps_apart(model: Any, chosen: str, device: torch.device, way: str) -> bool:
    """Whether documents of a window are apart that way.

    Raises:
        ConfigError: the attention ``chosen`` fails.
    """
    vocabulary = model.config.get_text_config().vocab_size
    try:
        return not isolation.leaks(model, vocabulary, chosen, device, states=way == STATES)
    except TypeError:
        # No position ids.
        return False
    except Exception as error:
        if way == STATES:
            # transformers refuses what the kernels that are here cannot, and those fail in ways of their own.
            log.debug("recurrent layers are not told where documents begin: %s", error)
            return False
        # A kernel may compile for one length and fail for another.
        raise attention.unusable(chosen, error) from error


def check_causal(model: Any, device: torch.device, autocast: bool) -> None:
    """Raise ConfigError for a model that sees the tokens that it is to foretell, such as BERT as it comes."""
    was_training = model.training
    model.eval()
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            ahead = isolation.looks_ahead(model, model.config.get_text_config().vocab_size, device)
    finally:
        model.train(was_training)
    if ahead:
        raise ConfigError(
            f"{type(model).__name__} sees later tokens when it foretells the next one; a model that can do without, as "
            "BERT's kin, must say `is_decoder: true` in its config.json"
        )


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
        return checkpoint(bound(forward), *inputs, use_reentrant=False, context_fn=keep_expensive, **named)

    def keeping_none(*inputs: Any, **named: Any) -> Any:
        return checkpoint(bound(forward), *inputs, use_reentrant=False, **named)

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
        (torch.ops.langadapt, "attend_in_pieces"),
        (torch.ops.langadapt, "linear"),
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
    """All parameters whole and in memory, bf16 but for those of `fp32_modules`, for the process that writes them
    (``keep``); shards meet one by one, adapters are merged one by one, in fp32.

    Buffers that belong to a model's files (what balances the experts of DeepSeek V3, say) keep their dtype.
    """
    state, wide = {}, fp32_names(model)
    for name, parameter in adapter.merged(model):
        whole = parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter.data
        if keep:
            state[name] = whole.detach().to("cpu", torch.float32 if name in wide else torch.bfloat16)
    if keep:
        stored = model.state_dict().keys()
        state |= {name: buffer.detach().to("cpu") for name, buffer in model.named_buffers() if name in stored}
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
