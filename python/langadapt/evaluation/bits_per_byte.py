"""Bits per byte: how well a model predicts text, on a scale that no tokenizer can bend.

Loss per token falls when tokens get shorter, so it cannot compare two tokenizers. Bits per byte divides the negative
log2-likelihood of *all* tokens of a text by the UTF-8 bytes of the *original* text, which are the same for every
tokenizer. Two details keep it fair:

- The first token is scored too, conditioned on the beginning-of-sequence token. Leaving it out would give a tokenizer
  with longer first tokens more text for free.
- Every window of a long document begins with that token again. Models that were trained with it on every sequence fall
  apart without it (Gemma's perplexity goes from single digits to billions).

Cost: one forward pass over ``window / stride`` times the tokens of long documents. Logits are made for a bounded number
of positions at a time, so that a vocabulary of 128k entries does not decide how much memory is needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any

import numpy as np
import torch
from torch import nn

from langadapt.errors import ConfigError, DataError, MismatchError
from langadapt.evaluation.suites import evaluate_suites
from langadapt.models.folder import stated_context
from langadapt.progress import Progress

__all__ = ["BitsPerByte", "bits_per_byte", "evaluate_suites", "measure_bits_per_byte"]

DEFAULT_WINDOW = 2048
"""Tokens per forward pass where neither the caller nor the model's context asks for less."""
BATCH_TOKENS = 8192
"""Input tokens, padding included, per forward pass."""
LOGIT_BYTES = 128 << 20
"""Memory for float32 logits at a time. Smaller chunks would read the output matrix too often for its arithmetic."""
WHOLE_LOGIT_BYTES = 1 << 30
"""The same for models whose logits cannot be had in pieces."""
BUFFERED_BATCHES = 64
"""Batches of windows gathered before they are sorted by length: bounds memory, keeps padding low."""
ENCODED_AT_ONCE = 256
"""Texts per call of the tokenizer."""
LOGIT_CHANGES = (
    "final_logit_softcapping",
    "logit_scale",
    "logits_scaling",
    "lm_head_multiplier",
    "output_multiplier_scale",
)
"""Config entries of models that change logits after the output matrix: cutting the model there would miss it."""


@dataclass(frozen=True)
class BitsPerByte:
    """What was measured on a set of texts."""

    bits_per_byte: float
    """``bits / bytes``."""
    bits: float
    """Sum of -log2 p over all tokens."""
    bytes: int
    """UTF-8 bytes of the original texts."""
    tokens: int
    """Tokens scored; the beginning-of-sequence token is not among them."""
    documents: int
    """Texts, empty ones included."""
    nats_per_token: float
    """The usual cross-entropy: comparable between models with the same tokenizer only."""


@dataclass(frozen=True)
class Window:
    """A piece of one document for one forward pass."""

    targets: np.ndarray
    """int64[n], n <= window: tokens to predict; the inputs are the prefix token and all of these but the last."""
    scored: int
    """The last ``scored`` targets count; those before are context only."""


def bits_per_byte(
    model: nn.Module, tokenizer: Any, texts: Iterable[str], *, window: int | None = None, stride: int | None = None
) -> float:
    """Bits that ``model`` needs per UTF-8 byte of ``texts``; lower is better. See :func:`measure_bits_per_byte`."""
    return measure_bits_per_byte(model, tokenizer, texts, window=window, stride=stride).bits_per_byte


# Not inference mode: tensors that a model keeps from this call (gathered shards, growing buffers of rotary embeddings)
# could not be used in training afterwards.
@torch.no_grad()
def measure_bits_per_byte(
    model: nn.Module,
    tokenizer: Any,
    texts: Iterable[str],
    *,
    window: int | None = None,
    stride: int | None = None,
    batch_tokens: int = BATCH_TOKENS,
    progress: Progress | None = None,
) -> BitsPerByte:
    """Bits per byte and the counts behind it.

    The sum of -log2 p over all tokens of each text, the first one conditioned on the tokenizer's BOS (or EOS, or
    separator, where it has no BOS), divided by the texts' UTF-8 bytes. A text longer than ``window`` tokens slides by
    ``stride``: each token is scored once, and after the first window sees at least ``window - stride`` tokens.

    Args:
        model: a causal language model; its mode (train, eval) and device stay as they are. A sharded model
            (``fully_shard``) works if all ranks call this with the same texts.
        tokenizer: a langadapt ``Tokenizer`` or one of transformers.
        texts: documents; read once, in bounded memory.
        window: tokens per forward pass; default: the model's context, 2048 at most.
        stride: tokens scored per window after the first; default: half a window.
        batch_tokens: input tokens per forward pass, padding included; a window is never cut for it.
        progress: called as ``(phase, done, None, "bytes")``.

    Raises:
        ConfigError: window or stride out of range.
        DataError: no text at all, or a text that is not valid Unicode.
        MismatchError: the tokenizer has neither BOS nor EOS, or ids that the model does not have.
    """
    # Long: each argument and each way to fail has its line.
    window, stride = window_and_stride(model, window, stride)
    prefix = prefix_token(tokenizer)
    scorer = Scorer(model, prefix, max(1, batch_tokens // window) * window)
    nats: list[float] = []
    documents = size = tokens = 0
    pending: list[Window] = []
    for block in blocks(texts):
        size += sum(utf8_bytes(text, documents + at) for at, text in enumerate(block))
        documents += len(block)
        for ids in encode(tokenizer, block):
            tokens += len(ids)
            pending.extend(cut(ids, window, stride))
        if sum(len(piece.targets) for piece in pending) >= BUFFERED_BATCHES * batch_tokens:
            nats.extend(scorer.score(pending))
            pending.clear()
            if progress:
                progress("bits per byte", size, None, "bytes")
    if size == 0:
        raise DataError(f"bits per byte of nothing: {documents} texts with no byte; give texts that are not empty")
    nats.extend(scorer.score(pending))
    if progress:
        progress("bits per byte", size, size, "bytes")
    # fsum is exact, so that the order of windows, and with it the batch size, does not matter to the sum.
    total = math.fsum(nats)
    bits = total / math.log(2)
    return BitsPerByte(bits / size, bits, size, tokens, documents, total / max(tokens, 1))


def window_and_stride(model: nn.Module, window: int | None, stride: int | None) -> tuple[int, int]:
    """Checked values, defaults filled in."""
    config = text_config(model)
    context = stated_context(vars(config)) if config is not None else None
    if window is None:
        window = min(context or DEFAULT_WINDOW, DEFAULT_WINDOW)
    if window < 1 or (context is not None and window > context):
        raise ConfigError(f"window: {window} tokens is not within 1 and the model's context of {context}")
    if stride is None:
        stride = max(1, window // 2)
    if not 1 <= stride <= window:
        raise ConfigError(f"stride: {stride} tokens is not within 1 and the window of {window}")
    return window, stride


def text_config(model: nn.Module) -> Any:
    """The config of the language model, also where it is a part of a larger one."""
    config: Any = getattr(model, "config", None)
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def call_if_there(model: nn.Module, name: str) -> Any:
    """What the model's method ``name`` returns; none where there is no such method."""
    method: Any = getattr(model, name, None)
    return method() if method is not None else None


def prefix_token(tokenizer: Any) -> int:
    """The token that a document's first token is conditioned on."""
    for name in ("bos_token_id", "eos_token_id", "sep_token_id", "cls_token_id"):
        token = getattr(tokenizer, name, None)
        if token is not None:
            return int(token)
    raise MismatchError(
        "the tokenizer has no BOS, EOS or separator token to put before a text; "
        "without one its first token cannot be scored: set `bos_token` or `eos_token` in tokenizer_config.json"
    )


def utf8_bytes(text: str, index: int) -> int:
    """Length of ``text`` in bytes."""
    if not isinstance(text, str):
        raise DataError(f"text {index}: {type(text).__name__}, not a string")
    try:
        return len(text.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise DataError(f"text {index}: a lone surrogate at character {error.start} is no valid Unicode") from None


def blocks(texts: Iterable[str]) -> Iterator[list[str]]:
    """Lists of at most :data:`ENCODED_AT_ONCE` texts."""
    if isinstance(texts, str):
        raise ConfigError("texts: a list of texts is expected, got one string; wrap it as [text]")
    iterator = iter(texts)
    while block := list(islice(iterator, ENCODED_AT_ONCE)):
        yield block


def encode(tokenizer: Any, texts: Sequence[str]) -> Iterator[np.ndarray]:
    """int64 ids of each text, without special tokens."""
    if hasattr(tokenizer, "encode_batch") and not hasattr(tokenizer, "convert_tokens_to_ids"):
        ids, offsets = tokenizer.encode_batch(list(texts))
        ids = np.asarray(ids).astype(np.int64)
        for start, end in pairwise(offsets):
            yield ids[int(start) : int(end)]
    else:
        encoded = tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False)
        for one in encoded["input_ids"]:
            yield np.asarray(one, dtype=np.int64)


def cut(ids: np.ndarray, window: int, stride: int) -> Iterator[Window]:
    """Windows that score each token of a document once."""
    end = min(len(ids), window)
    if end:
        yield Window(ids[:end], end)
    while end < len(ids):
        scored = min(stride, len(ids) - end)
        end += scored
        yield Window(ids[end - window : end], scored)


class Scorer:
    """Runs a model over windows."""

    def __init__(self, model: nn.Module, prefix: int, batch_tokens: int) -> None:
        self.model = model
        self.prefix = prefix
        self.batch_tokens = batch_tokens
        weight = getattr(call_if_there(model, "get_input_embeddings"), "weight", None)
        if weight is None or weight.device.type == "meta":
            weight = next(model.parameters())
            self.rows = None
        else:
            self.rows = int(weight.shape[0])
        self.device = weight.device
        self.split: tuple[nn.Module, nn.Linear] | None = None
        self.split_known = False

    def score(self, windows: Sequence[Window]) -> list[float]:
        """Nats of each window's scored tokens, in any order."""
        longest_first = sorted(windows, key=lambda one: len(one.targets), reverse=True)
        nats: list[float] = []
        with evaluating(self.model):
            while longest_first:
                # The first is the longest: all others are padded to it.
                rows = max(1, self.batch_tokens // len(longest_first[0].targets))
                nats.extend(self.score_batch(longest_first[:rows]))
                del longest_first[:rows]
        return nats

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
        if self.rows is not None and largest >= self.rows:
            raise MismatchError(
                f"the tokenizer gives id {largest}, but the model has {self.rows} embedding rows; "
                "this tokenizer does not belong to this model"
            )

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
        hidden = backbone(input_ids=inputs, attention_mask=mask, use_cache=False)[0].flatten(0, 1)
        return nats_in_chunks(lambda chosen: head(hidden[chosen]), head.out_features, positions, targets)

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
            nats.append(nats_in_chunks(logits.__getitem__, logits.shape[-1], chosen, targets[inside]))
        return torch.cat(nats)


def nats_in_chunks(
    logits_at: Callable[[torch.Tensor], torch.Tensor], vocabulary: int, positions: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """-log p of ``targets`` in float32, :data:`LOGIT_BYTES` of logits at a time."""
    rows = max(1, LOGIT_BYTES // (4 * vocabulary))
    nats = []
    for chosen, wanted in zip(positions.split(rows), targets.split(rows), strict=True):
        logits = logits_at(chosen).float()
        nats.append(torch.logsumexp(logits, -1) - logits.gather(-1, wanted.unsqueeze(-1)).squeeze(-1))
    return torch.cat(nats)


def split_head(model: nn.Module, probe: torch.Tensor) -> tuple[nn.Module, nn.Linear] | None:
    """The model as (backbone, output matrix), or none where the two do not make up the whole model.

    None also for sharded parameters, which are gathered only inside the whole model's forward pass. ``probe`` is a
    batch of ids on which both ways must agree to the bit.
    """
    backbone = getattr(model, "base_model", None)
    head = call_if_there(model, "get_output_embeddings")
    if not isinstance(backbone, nn.Module) or backbone is model or not isinstance(head, nn.Linear):
        return None
    config = text_config(model)
    if any(getattr(config, name, None) not in (None, 1, 1.0) for name in LOGIT_CHANGES):
        return None
    if any(type(parameter).__name__ == "DTensor" for parameter in model.parameters()):
        return None
    whole = model(input_ids=probe, use_cache=False).logits
    return (backbone, head) if torch.equal(whole, head(backbone(input_ids=probe, use_cache=False)[0])) else None


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, every module's own mode afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
