"""Bits per byte: how well a model predicts text, on a scale that no tokenizer can bend.

Loss per token falls when tokens get shorter, so it cannot compare two tokenizers. Bits per byte divides the negative
log2-likelihood of *all* tokens of a text by the UTF-8 bytes of the *original* text, which are the same for every
tokenizer. Two details keep it fair:

- The first token is scored too, conditioned on the beginning-of-sequence token. Leaving it out would give a tokenizer
  with longer first tokens more text for free.
- Every window of a long document begins with that token again. Models that were trained with it on every sequence fall
  apart without it (Gemma's perplexity goes from single digits to billions).

Cost: one forward pass over ``window / stride`` times the tokens of long documents. Logits are made for some positions
and some entries at a time, so that a vocabulary of 256k entries does not decide how much memory is needed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import Any

import numpy as np
import torch
from torch import nn

from langadapt.errors import ConfigError, DataError, MismatchError
from langadapt.evaluation.scoring import Scorer, Window, text_config
from langadapt.evaluation.suites import evaluate_suites
from langadapt.models.folder import stated_context
from langadapt.progress import Progress

__all__ = ["BitsPerByte", "bits_per_byte", "evaluate_suites", "measure_bits_per_byte"]

DEFAULT_WINDOW = 2048
"""Tokens per forward pass where neither the caller nor the model's context asks for less."""
BUFFERED_BATCHES = 64
"""Batches of windows gathered before they are sorted by length: bounds memory, keeps padding low."""
ENCODED_AT_ONCE = 256
"""Texts per call of the tokenizer."""


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
    document_bits: list[float] = field(default_factory=list, repr=False)
    """``bits`` of each text, in order: what differences between models are resampled from."""
    document_bytes: list[int] = field(default_factory=list, repr=False)
    """``bytes`` of each text."""


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
    batch_tokens: int | None = None,
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
        batch_tokens: input tokens per forward pass, padding included, at least a window. Default: 8192, CPUs 2048.
        progress: called as ``(phase, done, total, "bytes")``; the total is none while there is more text to read.

    Raises:
        ConfigError: window or stride out of range.
        DataError: no text at all, or a text that is not valid Unicode.
        MismatchError: the tokenizer has neither BOS nor EOS, or ids that the model does not have.
    """
    # Long: each argument and each way to fail has its line.
    window, stride = window_and_stride(model, window, stride)
    scorer = Scorer(model, prefix_token(tokenizer), window, batch_tokens)
    nats: list[tuple[int, float]] = []
    sizes: list[int] = []
    done = tokens = 0
    pending: list[Window] = []

    def score(total: int | None) -> None:
        nonlocal done
        begun, size = done, sum(sizes) - done
        for share, found in scorer.score(pending):
            nats.extend(found)
            done = begun + int(share * size)
            if progress:
                progress("bits per byte", done, total, "bytes")
        pending.clear()

    for block in blocks(texts):
        first = len(sizes)
        sizes += [utf8_bytes(text, first + at) for at, text in enumerate(block)]
        for document, ids in enumerate(encode(tokenizer, block), first):
            tokens += len(ids)
            pending.extend(cut(ids, window, stride, document))
        if sum(len(piece.targets) for piece in pending) >= BUFFERED_BATCHES * scorer.batch_tokens:
            score(None)
    score(sum(sizes))
    return totals(nats, sizes, tokens)


def totals(nats: Sequence[tuple[int, float]], sizes: list[int], tokens: int) -> BitsPerByte:
    """Sums of (document, nats) of all windows, together and by document, and of the documents' bytes."""
    if sum(sizes) == 0:
        raise DataError(f"bits per byte of nothing: {len(sizes)} texts with no byte; give texts that are not empty")
    windows: list[list[float]] = [[] for _ in sizes]
    for document, value in nats:
        windows[document].append(value)
    # fsum is exact, so that the order of windows, and with it the batch size, does not matter to the sum.
    total = math.fsum(value for _, value in nats)
    bits, size, each = total / math.log(2), sum(sizes), [math.fsum(values) / math.log(2) for values in windows]
    return BitsPerByte(bits / size, bits, size, tokens, len(sizes), total / max(tokens, 1), each, sizes)


def window_and_stride(model: nn.Module, window: int | None, stride: int | None) -> tuple[int, int]:
    """Checked values, defaults filled in."""
    config = text_config(model)
    return check_windows(stated_context(vars(config)) if config is not None else None, window, stride)


def check_windows(context: int | None, window: int | None, stride: int | None) -> tuple[int, int]:
    """The same for a model that was made for ``context`` tokens, if it says so.

    Raises:
        ConfigError: a window that is longer, or a stride longer than the window.
    """
    if window is None:
        window = min(context or DEFAULT_WINDOW, DEFAULT_WINDOW)
    if window < 1 or (context is not None and window > context):
        raise ConfigError(f"window: {window} tokens is not within 1 and the model's context of {context}")
    if stride is None:
        stride = max(1, window // 2)
    if not 1 <= stride <= window:
        raise ConfigError(f"stride: {stride} tokens is not within 1 and the window of {window}")
    return window, stride


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


def cut(ids: np.ndarray, window: int, stride: int, document: int = 0) -> Iterator[Window]:
    """Windows that score each token of a document once."""
    end = min(len(ids), window)
    if end:
        yield Window(ids[:end], end, document)
    while end < len(ids):
        scored = min(stride, len(ids) - end)
        end += scored
        yield Window(ids[end - window : end], scored, document)
