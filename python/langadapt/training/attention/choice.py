"""Keeping documents of one window apart, for any architecture.

Position ids that restart say where documents begin. With no attention mask given, transformers' mask interface turns
them into the block-diagonal mask of whichever attention is set (SDPA, FlexAttention), sliding windows included. On a
GPU the kernels of `varlen_attention` need no mask at all; they are registered with transformers' attention interface
and chosen only where they agree with SDPA; on a CPU `PIECES` is, which needs none either (`piece_attention`).
`isolation.leaks` tests the model in hand: an architecture with a recurrence, or one that ignores position ids, would
mix documents without a word.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from langadapt.errors import ConfigError
from langadapt.training.attention import pieces as piece_attention
from langadapt.training.attention import varlen as varlen_attention
from langadapt.training.attention import whole as whole_attention

log = logging.getLogger(__name__)

PIECES = "langadapt_pieces"
TRIAL_SECONDS = 0.25
"""For which a kernel is timed; with its first pass and five kernels, a second or two."""
DROPOUTS = ("attention_dropout", "attn_pdrop", "attention_probs_dropout_prob")


def packed_inputs(
    input_ids: Tensor, positions: Tensor, attention: str, documents: int | None = None, *, states: bool = False
) -> dict[str, Any]:
    """Arguments for a model's ``forward`` from ``[windows, length]`` ids and positions (0 = a document begins).

    ``documents``: zeros in ``positions``, where the host knows without asking the device. For kernels of
    `varlen_attention` all windows become one row: they know no batches, and a document never crosses windows.
    ``states``: recurrent layers are told where documents begin, too, as the kernels of `mamba-ssm`, `causal-conv1d` and
    `flash-linear-attention` want to be; also in one row.
    """
    if attention == PIECES and not states:
        return {
            "input_ids": input_ids,
            "position_ids": positions,
            "document_pieces": piece_attention.Pieces(positions),
        }
    if attention not in varlen_attention.PLACES and not states:
        return {"input_ids": input_ids, "position_ids": positions}
    flat = positions.reshape(-1)
    count = len(flat) if documents is None else documents
    bounds = document_bounds(flat, count)
    given = {"input_ids": input_ids.reshape(1, -1), "position_ids": flat[None]}
    if states:
        given |= {"seq_idx": ((flat == 0).cumsum(0) - 1).int()[None], "cu_seq_lens_q": bounds[: count + 1]}
    if attention not in varlen_attention.PLACES:
        return given
    return {
        **given,
        # transformers looks for packed documents, and waits for the device with it, unless a mask is given: this one,
        # which nobody reads.
        "attention_mask": torch.zeros(1, 1, 1, 1, device=flat.device),
        "document_bounds": bounds,
        "longest_document": positions.shape[1],
    }


def document_bounds(positions: Tensor, documents: int) -> Tensor:
    """First tokens of ``documents`` documents and the end, int32; empty ones at the end make it a power of two.

    Few sizes, so that the compiler sees few shapes; hardly more than are needed, for the kernel starts its blocks of
    threads for empty documents, too.
    """
    size = 1 << max(documents - 1, 15).bit_length()
    begins = positions == 0
    bounds = torch.full((size + 1,), len(positions), dtype=torch.int32, device=positions.device)
    # Tokens inside of a document write to the last place, which is then set right.
    place = torch.where(begins, begins.cumsum(0) - 1, size)
    bounds.scatter_(0, place, torch.arange(len(positions), dtype=torch.int32, device=positions.device))
    bounds[-1] = len(positions)
    return bounds


def interface(needed: str, run: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, None]]:
    """Attention for packed documents behind transformers' attention interface.

    ``needed``: the argument of `packed_inputs` without which windows are not packed, and SDPA serves. ``run``: called
    with query, key, value, all further arguments; ``scale`` and ``window``, the sliding one, by name.
    """

    def forward(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        scaling: float | None = None,
        dropout: float = 0.0,
        sliding_window: int | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, None]:
        """query ``[windows, heads, tokens, d]``, key and value with the key-value heads.

        Raises:
            ValueError: soft caps, sinks or dropout, which the kernels lack.
        """
        if needed not in kwargs:
            return plain(module, query, key, value, attention_mask, scaling, dropout, sliding_window, **kwargs)
        refuse(dropout, kwargs)
        if torch.is_autocast_enabled(query.device.type):
            # Rotary embeddings leave fp32 under autocast, and custom operators are not cast.
            query, key, value = (tensor.to(torch.bfloat16) for tensor in (query, key, value))
        return run(query, key, value, kwargs, scale=scaling, window=sliding_window), None

    return forward


def in_one_row(kernel: str) -> Callable[..., tuple[Tensor, None]]:
    """The interface of a kernel of `varlen_attention`; there is one window, of all documents."""

    def run(query: Tensor, key: Tensor, value: Tensor, given: dict[str, Any], *, scale: Any, window: Any) -> Tensor:
        q, k, v = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
        bounds, longest = given["document_bounds"], given["longest_document"]
        return varlen_attention.forward(kernel, q, k, v, bounds, longest, scale, window)[None]

    return interface("document_bounds", run)


def in_pieces() -> Callable[..., tuple[Tensor, None]]:
    """The interface of `piece_attention`."""

    def run(query: Tensor, key: Tensor, value: Tensor, given: dict[str, Any], *, scale: Any, window: Any) -> Tensor:
        return piece_attention.forward(query, key, value, given["document_pieces"], scale, window)

    return interface("document_pieces", run)


def refuse(dropout: float, kwargs: dict[str, Any]) -> None:
    """Raise ValueError for what the kernels for packed documents lack."""
    if dropout or kwargs.get("softcap") is not None or kwargs.get("s_aux") is not None:
        raise ValueError("attention for packed documents has no dropout, soft caps or sinks; set `attention: auto`")


def plain(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float | None,
    dropout: float,
    window: int | None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """SDPA, for a model that is used, in the middle of its training, on windows that are not packed."""
    # By position: the order of transformers' attention interface.
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    length = query.shape[2]
    if mask is None and window is not None and window < length == key.shape[2]:
        mask = torch.ones(length, length, dtype=torch.bool, device=query.device).tril().triu(1 - window)[None, None]
    result: tuple[Tensor, None] = sdpa_attention_forward(
        module, query, key, value, mask, dropout=dropout, scaling=scaling, **kwargs
    )
    return result


def padding_mask(*args: Any, **kwargs: Any) -> Tensor | None:
    """transformers' mask interface: packed windows need no mask, padded ones (in a validation) that of SDPA."""
    from transformers.masking_utils import sdpa_mask

    if kwargs.get("attention_mask") is None:
        return None
    mask: Tensor | None = sdpa_mask(*args, **kwargs)
    return mask


def register() -> None:
    """Make `PIECES` and the kernels of `varlen_attention` known to transformers."""
    varlen_attention.find()
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    functions = {name: in_one_row(name) for name in varlen_attention.PLACES}
    for name, function in {PIECES: in_pieces(), **functions}.items():
        ALL_ATTENTION_FUNCTIONS.register(name, function)
        ALL_MASK_ATTENTION_FUNCTIONS.register(name, padding_mask)


def example(vocabulary: int, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids and positions ``[1, 2 * length]`` of two documents of ``length`` tokens."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(vocabulary, (1, 2 * length), generator=generator).to(device)
    return ids, torch.arange(length, device=device).repeat(2)[None]


def choose(
    model: Any,
    wanted: str,
    device: torch.device,
    *,
    autocast: bool = False,
    length: int = 2048,
    known: str | None = None,
) -> str:
    """Set the model's attention to the fastest that works here and return its name.

    ``wanted`` other than ``auto`` is taken or is an error. ``auto`` tries kernels for packed documents, FlexAttention
    and SDPA, and of them only SDPA for models with dropout in their attention; on a GPU it times those that agree with
    SDPA on windows of ``length`` tokens. For a model without SDPA it is what transformers gave it that others must
    agree with, and that is taken where none does. ``autocast``: the model's fp32 weights compute in bf16. ``known``:
    taken without timing if it still agrees.

    Raises:
        ConfigError: ``flash`` without the package, or without a GPU; a kernel that fails here, or is not right.
    """
    register()
    half = next(model.parameters()).dtype != torch.float32 or autocast
    candidates = candidates_for(model.config.get_text_config(), wanted, device, half)
    was_training = model.training
    model.eval()
    reference, good = reference_of(model), []
    try:
        for candidate in sorted(candidates, key=lambda name: name != known):
            try:
                model.set_attn_implementation(candidate)
                if candidate == reference or agrees(model, candidate, reference, device):
                    good.append(candidate)
            except Exception as error:
                # Kernels fail in many ways on devices they were not made for; that is what `auto` is for.
                if wanted != "auto":
                    raise unusable(wanted, error) from error
            if good and (candidate == known or device.type != "cuda"):
                break
        if not good and wanted != "auto":
            raise ConfigError(f"attention: {wanted} disagrees with {reference} on this machine; set attention: auto")
        chosen = good[0] if len(good) == 1 else fastest(model, good, length, device) if good else reference
        model.set_attn_implementation(chosen)
        return chosen
    finally:
        model.train(was_training)


def choose_for_whole_windows(
    model: Any, device: torch.device, *, autocast: bool, length: int, known: str | None
) -> str:
    """Set the model's attention for windows that no document divides and return its name.

    It stays what transformers gave the model, but for SDPA on a GPU: there cuDNN's kernel is tried and timed beside
    torch's own choice on windows of ``length`` tokens. ``autocast``, ``known``: as in `choose`.
    """
    given = str(model.config._attn_implementation)
    half = next(model.parameters()).dtype != torch.float32 or autocast
    if given != "sdpa" or device.type != "cuda" or not half:
        return given
    whole_attention.register()
    was_training = model.training
    model.eval()
    try:
        cudnn = whole_attention.CUDNN
        names = [given, cudnn] if agrees(model, cudnn, given, device, packed=False) else [given]
        chosen = known if known in names else names[0] if len(names) == 1 else fastest(model, names, length, device)
        model.set_attn_implementation(chosen)
        return chosen
    except Exception as error:
        # As in `choose`: kernels fail in many ways.
        log.info("attention: cuDNN's kernel fails here (%s)", type(error).__name__)
        model.set_attn_implementation(given)
        return given
    finally:
        model.train(was_training)


def reference_of(model: Any) -> str:
    """SDPA, or what transformers gave a model that has none (soft caps, sinks); it is set."""
    given = str(model.config._attn_implementation)
    try:
        model.set_attn_implementation("sdpa")
    except ValueError:
        model.set_attn_implementation(given)
        return given
    return "sdpa"


@torch.no_grad()
def fastest(model: Any, names: list[str], length: int, device: torch.device) -> str:
    """Of several kernels the one whose forward pass over two windows of ``length`` tokens takes least: the least of a
    few passes, for a quarter of a second each, after one that compiles."""
    ids, positions = example(model.config.get_text_config().vocab_size, length, device)
    seconds = {}
    for name in names:
        model.set_attn_implementation(name)
        inputs = packed_inputs(ids.view(2, -1), positions.view(2, -1), name, 2)
        passes: list[float] = []
        try:
            while len(passes) < 3 or sum(passes[1:]) < TRIAL_SECONDS:
                synchronize(device)
                begun = time.perf_counter()
                with torch.autocast(device.type, torch.bfloat16):
                    model.base_model(**inputs, use_cache=False)
                synchronize(device)
                passes.append(time.perf_counter() - begun)
        except Exception as error:
            # One may compile for a short window and fail, or not fit, for a long one.
            log.info("attention: %s fails on windows of %d tokens (%s)", name, length, type(error).__name__)
            continue
        seconds[name] = min(passes[1:])
        log.info("attention: %s takes %.1f ms for two windows", name, 1000 * seconds[name])
    return min(seconds, key=seconds.__getitem__, default=names[-1])


def synchronize(device: torch.device) -> None:
    """Wait for a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def unusable(attention: str, error: Exception) -> ConfigError:
    """What to say of a kernel that fails on this machine; compilers tell all that they were given, over pages."""
    reason = f"{type(error).__name__}: {error}".partition("\n")[0][:200]
    return ConfigError(
        f"attention: {attention} does not work for this model on this machine ({reason}); set another `attention`"
    )


def candidates_for(config: Any, wanted: str, device: torch.device, half: bool) -> list[str]:
    """What to try for ``wanted``, in order; ``half``: in bf16 or fp16, which the kernels of a GPU are for."""
    gpu = device.type == "cuda"
    if wanted == "flash":
        names = [name for name in varlen_attention.candidates(device) if name != varlen_attention.TORCH] if gpu else []
        if not names:
            raise ConfigError("attention: flash needs a GPU and the package `flash-attn`; set attention: auto")
        return names[:1]
    if wanted != "auto":
        return [{"varlen": varlen_attention.TORCH if gpu else PIECES, "flex": "flex_attention"}.get(wanted, wanted)]
    if any(getattr(config, name, None) for name in DROPOUTS):
        return ["sdpa"]
    if not gpu:
        return [PIECES, "sdpa"]
    return [*(varlen_attention.candidates(device) if half else []), "flex_attention", "sdpa"]


@torch.no_grad()
def agrees(model: Any, candidate: str, reference: str, device: torch.device, *, packed: bool = True) -> bool:
    """Whether ``candidate`` gives the logits of ``reference`` on two documents, ``packed`` or two windows, up to bf16
    noise."""
    config = model.config.get_text_config()
    if candidate in varlen_attention.PLACES and not gradients_agree(config, candidate, device):
        return False
    ids, positions = example(config.vocab_size, 128, device)
    if not packed:
        ids, positions = ids.view(2, -1), positions.view(2, -1)
    logits = []
    for name in (candidate, reference):
        model.set_attn_implementation(name)
        with torch.autocast(device.type, torch.bfloat16):
            logits.append(model(**packed_inputs(ids, positions, name), use_cache=False).logits.float())
    model.set_attn_implementation(candidate)
    return bool((logits[0] - logits[1]).norm() <= 0.02 * logits[1].norm())


@torch.enable_grad()
def gradients_agree(config: Any, kernel: str, device: torch.device) -> bool:
    """Whether a kernel of `varlen_attention` has SDPA's gradients for this config's heads: releases differ in whether
    theirs share keys and values among heads, and a wrong sum over them would show in no logits."""
    heads = int(config.num_attention_heads)
    shared = int(getattr(config, "num_key_value_heads", None) or heads)
    width = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(1, count, 96, width, generator=generator).to(device, torch.bfloat16).requires_grad_()
        for count in (heads, shared, shared)
    )
    positions = torch.cat([torch.arange(32), torch.arange(64)]).to(device)
    document = (positions == 0).cumsum(0)
    mask = (document[:, None] == document) & torch.ones(96, 96, dtype=torch.bool, device=device).tril()
    bounds = document_bounds(positions, 2)
    run = in_one_row(kernel)
    ours, _ = run(nn.Module(), query, key, value, None, document_bounds=bounds, longest_document=64)
    wide_key, wide_value = (tensor.repeat_interleave(heads // shared, dim=1) for tensor in (key, value))
    theirs = torch.nn.functional.scaled_dot_product_attention(query, wide_key, wide_value, attn_mask=mask)
    inputs = (query, key, value)
    found = [torch.autograd.grad(output.float().square().sum(), inputs) for output in (ours, theirs.transpose(1, 2))]
    return all(bool((one - other).norm() <= 0.03 * other.norm()) for one, other in zip(*found, strict=True))
