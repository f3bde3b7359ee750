"""Source-shielded updates: columns that matter most to the source language stay as they are.

Importance of column j of a weight matrix is the sum over its rows of |w_ij| times the norm of the activations x_j that
meet it on source text, as Wanda scores single weights (Sun et al., 2023, arXiv 2306.11695); the most important columns
are frozen (Yamaguchi et al., ACL 2026, arXiv 2512.04844). It is taken from the source model with its own tokenizer,
whose body is the trained model's body as it begins; embeddings and output head are never masked.

Cost: one forward pass of the source model over :data:`WINDOWS` windows; it is loaded for that and dropped.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from langadapt.corpus.documents import read_documents
from langadapt.errors import ConfigError, DataError, MismatchError
from langadapt.models.embeddings import body_layers
from langadapt.models.folder import load_model
from langadapt.tokenizer.encoder import Tokenizer
from langadapt.training.data.mixture import special_tokens
from langadapt.training.job import OldModel, TrainingJob
from langadapt.training.model import no_bars
from langadapt.training.settings import TrainSettings
from langadapt.training.step import Stepper

WINDOWS = 256
"""Of source text; norms over some hundred windows settle."""
PER_DOCUMENT = 4
"""Windows of one document at most: few long ones would speak for all."""


def protect(job: TrainingJob, stepper: Stepper) -> None:
    """Freeze what matters most to the source language in the main phase of a run, where that is asked for."""
    settings, processes = job.settings, stepper.processes
    if settings.protect is None or job.old is None or stepper.phase.name != "main":
        return
    masks = protected_columns(job.old, settings, processes.device) if processes.is_main else None
    freeze(dict(stepper.phase.named), stepper.optimizer, processes.broadcast(masks))


def freeze(parameters: Mapping[str, nn.Parameter], optimizer: Any, masks: Mapping[str, Tensor]) -> None:
    """Leave columns as they are from now on; ``masks``: bool ``[columns]`` by parameter name.

    Raises:
        MismatchError: masks of another model.
    """
    for name, frozen in masks.items():
        if name not in parameters or parameters[name].shape[1:] != frozen.shape:
            shape = list(parameters[name].shape) if name in parameters else "nothing"
            raise MismatchError(
                f"protect: masks of another model: {len(frozen)} columns of `{name}`, which here is {shape}"
            )
        optimizer.freeze_columns(parameters[name], frozen)


def protected_columns(old: OldModel, settings: TrainSettings, device: torch.device) -> dict[str, Tensor]:
    """The most important columns of each matrix of the body: bool ``[columns]`` by parameter name, on the CPU.

    Raises:
        ConfigError: the model has no linear layers to protect.
        DataError: there is no source text.
    """
    dtype = torch.bfloat16 if settings.precision == "pure-bf16" else torch.float32
    with no_bars():
        model = load_model(old.folder, dtype=dtype).to(device).eval()
    windows = source_windows(old, model, settings)
    return most_important(importance(model, windows), settings.protect or 0.0)


def source_windows(old: OldModel, model: Any, settings: TrainSettings) -> Iterator[Tensor]:
    """Windows of source text under the source model's tokenizer, ``[1, at most sequence_length]``."""
    tokenizer = Tokenizer.from_pretrained(old.folder)
    start, _ = special_tokens(tokenizer, model, settings)
    windows = itertools.islice(cut(read_documents(list(old.text)), tokenizer, start, settings.window), WINDOWS)
    first = next(windows, None)
    if first is None:
        raise DataError("protect: the source text is empty; give text of the source language as corpus.source")
    return itertools.chain([first], windows)


def cut(documents: Iterable[str], tokenizer: Tokenizer, start: int | None, length: int) -> Iterator[Tensor]:
    """The first windows of each document, each begun by ``start`` as in training."""
    for document in documents:
        ids = torch.from_numpy(tokenizer.encode(document).astype("int64"))
        for piece in ids[: PER_DOCUMENT * length].split(length - (start is not None)):
            yield torch.cat([torch.tensor([start]), piece])[None] if start is not None else piece[None]


def linear_layers(model: Any) -> dict[str, nn.Linear]:
    """Those of the body, by name.

    Raises:
        ConfigError: there is none (GPT-2 has another kind; experts of a mixture keep their weights elsewhere, too).
    """
    layers = body_layers(model, nn.Linear)
    if not layers:
        raise ConfigError(f"protect: {type(model).__name__} has no linear layers whose columns could be kept")
    return layers


@torch.no_grad()
def importance(model: Any, windows: Iterable[Tensor]) -> dict[str, Tensor]:
    """Sum over rows of |weight|, times the norm of the inputs: float64 ``[columns]`` for each of `linear_layers`."""
    layers = linear_layers(model)
    squares = {name: torch.zeros(module.in_features, dtype=torch.float64) for name, module in layers.items()}

    def watch(name: str) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            flat = inputs[0].detach().reshape(-1, inputs[0].shape[-1])
            squares[name] += flat.float().square().sum(dim=0).double().cpu()

        return hook

    handles = [module.register_forward_pre_hook(watch(name)) for name, module in layers.items()]
    try:
        for window in windows:
            model(window.to(model.device), use_cache=False, logits_to_keep=1)
    finally:
        for handle in handles:
            handle.remove()
    return {
        f"{name}.weight": module.weight.float().abs().sum(dim=0).double().cpu() * squares[name].sqrt()
        for name, module in layers.items()
    }


def most_important(scores: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """The share of columns of each matrix with the highest scores; of equal ones the first."""
    masks = {}
    for name, score in scores.items():
        order = score.argsort(descending=True, stable=True)
        masks[name] = torch.zeros(len(score), dtype=torch.bool)
        masks[name][order[: round(share * len(score))]] = True
    return masks
