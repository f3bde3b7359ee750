"""Negative log-likelihoods of tokens, a batch of windows after the other: what bits per byte are sums of."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from langadapt.models.attention import in_blocks
from langadapt.models.embeddings import check_largest
from langadapt.models.products import outputs, widening

BATCH_TOKENS, CPU_BATCH_TOKENS = 8192, 2048
"""Input tokens, padding included, per forward pass. A CPU gains nothing by more, and would go long without a word."""
LOGIT_BYTES = 128 << 20
"""Memory for float32 logits at a time."""
CPU_LOGIT_BYTES = 4 << 20
"""The same on a CPU, where exponents and sums are fast while its caches hold what they read."""
LOGIT_TOKENS = 1024
"""Tokens that share a pass over the output matrix. Fewer would read it too often for its arithmetic."""
WHOLE_LOGIT_BYTES = 1 << 30
"""The same for models whose logits cannot be had in pieces."""
LOGIT_CHANGES = (
    "final_logit_softcapping",
    "logit_scale",
    "logits_scaling",
    "lm_head_multiplier",
    "output_multiplier_scale",
)
"""Config entries of models that change logits after the output matrix: cutting the model there would miss it."""


@dataclass(frozen=True)
class Window:
    """A piece of one document for one forward pass."""

    targets: np.ndarray
    """int64[n], n <= window: tokens to predict; the inputs are the prefix token and all of these but the last."""
    scored: int
    """The last ``scored`` targets count; those before are context only."""
    document: int = 0
    """Which of the texts it is a piece of."""


def text_config(model: nn.Module) -> Any:
    """The config of the language model, also where it is a part of a larger one."""
    config: Any = getattr(model, "config", None)
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def call_if_there(model: nn.Module, name: str) -> Any:
    """What the model's method ``name`` returns; none where there is no such method."""
    method: Any = getattr(model, name, None)
    return method() if method is not None else None


class Scorer:
    """Runs a model over windows."""

    def __init__(self, model: nn.Module, prefix: int, window: int, batch_tokens: int | None) -> None:
        self.model = model
        self.prefix = prefix
        weight = getattr(call_if_there(model, "get_input_embeddings"), "weight", None)
        if weight is None or weight.device.type == "meta":
            weight = next(model.parameters())
            self.rows = None
        else:
            self.rows = int(weight.shape[0])
        self.device = weight.device
        if batch_tokens is None:
            batch_tokens = CPU_BATCH_TOKENS if self.device.type == "cpu" else BATCH_TOKENS
        self.batch_tokens = max(1, batch_tokens // window) * window
        self.split: tuple[nn.Module, nn.Linear] | None = None
        self.split_known = False

    def score(self, windows: Sequence[Window]) -> Iterator[tuple[float, list[tuple[int, float]]]]:
        """Document and nats of windows, a batch of them after the other, and the share of tokens scored by then."""
        longest_first = sorted(windows, key=lambda one: len(one.targets), reverse=True)
        total, scored = sum(one.scored for one in windows), 0
        yield 0.0 if windows else 1.0, []
        while longest_first:
            # The first is the longest: all others are padded to it.
            rows = max(1, self.batch_tokens // len(longest_first[0].targets))
            batch = longest_first[:rows]
            del longest_first[:rows]
            scored += sum(one.scored for one in batch)
            with evaluating(self.model), in_blocks():
                nats = self.score_batch(batch)
            yield scored / total, list(zip((one.document for one in batch), nats, strict=True))

    @torch.no_grad()
    def score_batch(self, windows: Sequence[Window]) -> list[float]:
        """Nats of each window of one forward pass."""
        width = len(windows[0].targets)
        inputs = np.full((len(windows), width), self.prefix, dtype=np.int64)
        mask = np.zeros((len(windows), width), dtype=np.int64)
        for row, one in enumerate(windows):
            inputs[row, 1 : len(one.targets)] = one.targets[:-1]
            mask[row, : len(one.targets)] = 1
        positions = [
            np.arange(len(one.targets) - one.scored, len(one.targets)) + row * width for row, one in enumerate(windows)
        ]
        targets = np.concatenate([one.targets[-one.scored :] for one in windows])
        self.check_ids(max(int(one.targets.max()) for one in windows))
        nats = self.forward(
            torch.from_numpy(inputs).to(self.device),
            torch.from_numpy(mask).to(self.device),
            torch.from_numpy(np.concatenate(positions)).to(self.device),
            torch.from_numpy(targets).to(self.device),
        ).tolist()
        ends = np.cumsum([one.scored for one in windows])
        return [math.fsum(nats[end - one.scored : end]) for one, end in zip(windows, ends, strict=True)]

    def check_ids(self, largest: int) -> None:
        """A row that does not exist would be a fault inside a GPU kernel, long after."""
        largest = max(largest, self.prefix)
        if self.rows is not None:
            check_largest(largest, self.rows)

    def forward(
        self, inputs: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        """float32 nats of ``targets``, which the flat ``positions`` of ``inputs[rows, width]`` predict."""
        if not self.split_known:
            self.split = split_head(self.model, inputs[:1, :4])
            self.split_known = True
        if self.split is None:
            return self.forward_whole(inputs, mask, positions, targets)
        backbone, head = self.split
        # No mask: padding is behind all that counts, and causal attention without one makes half the products.
        hidden = backbone(input_ids=inputs, use_cache=False)[0].flatten(0, 1)
        return torch.cat(
            [nats_by_rows(hidden[at], head, wanted) for at, wanted in chunks(positions, targets, LOGIT_TOKENS)]
        )

    def forward_whole(
        self, inputs: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        """The same where logits cannot be had in pieces: fewer windows at a time, but at least a whole one."""
        width = inputs.shape[1]
        windows = max(1, WHOLE_LOGIT_BYTES // (4 * width * (self.rows or 1)))
        nats = []
        for start in range(0, len(inputs), windows):
            part = slice(start, start + windows)
            logits = self.model(input_ids=inputs[part], attention_mask=mask[part], use_cache=False).logits.flatten(0, 1)
            inside = (positions >= start * width) & (positions < (start + windows) * width)
            chosen = positions[inside] - start * width
            for at, wanted in chunks(chosen, targets[inside], max(1, LOGIT_BYTES // (4 * logits.shape[-1]))):
                nats.append(nn.functional.cross_entropy(logits[at].float(), wanted, reduction="none"))
        return torch.cat(nats)


def chunks(positions: torch.Tensor, targets: torch.Tensor, size: int) -> Iterable[tuple[torch.Tensor, torch.Tensor]]:
    """Both in pieces of ``size``."""
    return zip(positions.split(size), targets.split(size), strict=True)


def nats_by_rows(hidden: torch.Tensor, head: nn.Linear, targets: torch.Tensor) -> torch.Tensor:
    """-log p of ``targets`` ``[n]`` in float32 by the logits that ``head`` makes of ``hidden`` ``[n, d]``."""
    return read_by_rows(hidden, head, torch.arange(len(hidden), device=hidden.device), targets)[0]


def read_by_rows(
    hidden: torch.Tensor, head: nn.Linear, places: torch.Tensor, targets: torch.Tensor, *, likeliest: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """-log p in float32 of ``targets`` ``[m]`` by the logits that ``head`` makes of ``hidden[places]``, and, if asked
    for, which of them are the likeliest entry of all; of equal ones the first is.

    Some rows of the output matrix at a time: products in the model's own digits, sums of exponents in float32. On a CPU
    the rest costs a quarter of the products, where logits of all rows cost as much again.
    """
    size = max(1, (CPU_LOGIT_BYTES if hidden.device.type == "cpu" else LOGIT_BYTES) // (4 * len(hidden)))
    wanted = torch.zeros(len(targets), dtype=torch.float32, device=hidden.device)
    first = torch.zeros(len(targets), dtype=torch.bool, device=hidden.device)
    sums, tops = [], []
    # Written again for all rows: new memory of this size comes from the system, page by page, each time.
    made, exact = (hidden.new_empty(len(hidden) * size, dtype=dtype) for dtype in (hidden.dtype, torch.float32))
    for start in range(0, head.out_features, size):
        weight = head.weight[start : start + size]
        product = made[: len(hidden) * len(weight)].view(len(hidden), -1)
        bias = None if head.bias is None else head.bias[start : start + size]
        outputs(hidden, weight, bias, out=product)
        logits = exact[: product.numel()].view_as(product).copy_(product)
        place = targets - start
        inside = (place >= 0) & (place < logits.shape[1])
        there = logits[places, place.clamp(0, logits.shape[1] - 1)]
        wanted = torch.where(inside, there, wanted)
        most = logits.amax(1)
        if likeliest:
            # An index of the largest costs ten times the largest itself, and few targets are it.
            few = inside & (there == most[places])
            first[few] = logits[places[few]].argmax(1) == place[few]
            tops.append(most)
        # Powers of two take a third of the time of powers of e on a CPU.
        sums.append(logits.sub_(most[:, None]).mul_(1 / math.log(2)).exp2_().sum(1).log_().add_(most))
    if likeliest:
        first &= torch.stack(tops).argmax(0)[places] == targets // size
    return torch.stack(sums).logsumexp(0)[places] - wanted, first


def split_head(model: nn.Module, probe: torch.Tensor) -> tuple[nn.Module, nn.Linear] | None:
    """The model as (backbone, output matrix), or none where the two do not make up the whole model.

    None also for sharded parameters, which are gathered only inside the whole model's forward pass. ``probe`` is a
    batch of ids on which both ways must agree to the bit.
    """
    backbone = getattr(model, "base_model", None)
    head = call_if_there(model, "get_output_embeddings")
    if not isinstance(backbone, nn.Module) or backbone is model:
        return None
    # Quantised heads are linear by name, and have weights that are no matrix.
    if not isinstance(head, nn.Linear) or type(head).forward is not nn.Linear.forward:
        return None
    config = text_config(model)
    if any(getattr(config, name, None) not in (None, 1, 1.0) for name in LOGIT_CHANGES):
        return None
    if any(type(parameter).__name__ == "DTensor" for parameter in model.parameters()):
        return None
    whole, hidden = model(input_ids=probe, use_cache=False).logits, backbone(input_ids=probe, use_cache=False)[0]
    if hidden.shape[-1] != head.in_features:
        return None
    return (backbone, head) if torch.equal(whole, head(hidden)) else None


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, every module's own mode afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with widening(next(model.parameters()).device):
            yield
    finally:
        for module, training in modes:
            module.training = training
