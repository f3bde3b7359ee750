"""Logits of new tokens that know how often their tokens come.

A row made of others' rows says what a token is like, not how often it is written, and after a swap most of the loss is
that. So the output row of each new token t is moved along the mean final hidden state m of text,

    w_t += b_t m / |m|^2,

which adds b_t <h, m> / |m|^2 to its logit: b_t on average, and nearly that everywhere, as hidden states of a language
model share much of m. The b_t are solved for by iterative scaling: b_t += log p_t - log mean_h softmax_t(h), with p_t
the token's frequency. Rows of tokens that both vocabularies have, and all else of the model, stay as they are.

Cost: a forward pass over a thousand tokens and three softmaxes of theirs, about what training on twice as many takes,
and the swapped model in memory.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langadapt.costs.devices import cpu
from langadapt.evaluation.scoring import evaluating, split_head
from langadapt.machine import choose_device, quiet_transformers
from langadapt.models.folder import load_model
from langadapt.progress import Progress
from langadapt.store import TokenStore
from langadapt.swap.loaded import swap_tokenizer
from langadapt.swap.matching import VocabularyMatch, match_vocabularies
from langadapt.swap.rows.options import SwapOptions
from langadapt.swap.rows.shift import LogitShift

log = logging.getLogger(__name__)

TOKENS = 1024
"""Of text, at most; four times as many gain nothing to speak of."""
WINDOW = 256
"""Tokens of a piece of it."""
MOST_LOGITS = 1 << 26
"""That are held at once: of a large vocabulary fewer tokens are read."""
ROUNDS = 3
"""Of scaling; the first two do nearly all of it."""
MOST_MEMORY = 0.6
"""Share of a machine's that a model may take."""
LARGEST = 3.0
"""Change of a logit in a round: what is rare everywhere would fall without end."""


@torch.no_grad()
def fit_frequencies(
    model: str | Path,
    store: TokenStore,
    source_tokenizer: Any,
    target_tokenizer: Any,
    *,
    swap: SwapOptions,
    trust_remote_code: bool = False,
    progress: Progress | None = None,
) -> LogitShift | None:
    """What the logits of new tokens lack to their frequencies, as ``SwapOptions.logit_shift``.

    Args:
        model: folder of the source model.
        store: target text under the new tokenizer.
        source_tokenizer: the model's own.
        target_tokenizer: the new one.
        swap: the swap that is to be made, whole.
        trust_remote_code: run model code that comes with the folder.
        progress: called as ``progress(phase, done, total, unit)``.

    Returns:
        None for a model that changes its logits after the output matrix, or without a new token or text.
    """
    match = match_vocabularies(source_tokenizer, target_tokenizer, fuzzy=swap.fuzzy)
    if not len(match.new_ids) or not fits_in_memory(Path(model)):
        return None
    quiet_transformers()
    loaded = load_model(model, dtype=torch.bfloat16, trust_remote_code=trust_remote_code)
    swap_tokenizer(loaded, source_tokenizer, target_tokenizer, swap=swap)
    return fit(loaded.to(choose_device("auto")), store.tokens, match, swap, progress=progress)


@torch.no_grad()
def shift_logits(model: Any, tokens: Any, source_tokenizer: Any, tokenizer: Any, *, swap: SwapOptions) -> None:
    """The same in place, for a loaded model that has just been swapped by ``swap``; ``tokens``: ids of the text."""
    shift = fit(model, tokens, match_vocabularies(source_tokenizer, tokenizer, fuzzy=swap.fuzzy), swap)
    if shift is not None:
        shift.add_to(model.get_output_embeddings().weight.data)


def fits_in_memory(folder: Path) -> bool:
    """Whether a model can be loaded beside what else there is; a swap of files alone takes hardly any memory."""
    needed = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    there = cpu().memory if choose_device("auto") == "cpu" else torch.cuda.mem_get_info()[0]
    if needed <= MOST_MEMORY * there:
        return True
    log.warning(
        "logits of new tokens are not shifted to their frequencies: %s takes %.1f GB of %.1f here; the swap goes on",
        *(folder, needed / 1e9, there / 1e9),
    )
    return False


def fit(
    model: Any, tokens: Any, match: VocabularyMatch, swap: SwapOptions, *, progress: Progress | None = None
) -> LogitShift | None:
    """`fit_frequencies` for a model that has been swapped; none, too, where there is nothing to fit."""
    if not len(match.new_ids) or len(tokens) < 2:
        return None
    counts = token_counts(tokens, match.target_size)
    with evaluating(model):
        windows = text_windows(tokens, len(counts), swap.seed).to(model.device)
        split = split_head(model, windows[:1, :4])
        if split is None:
            return None
        backbone, head = split
        found = []
        for number, window in enumerate(windows.split(1)):
            if progress is not None:
                progress("match frequencies", number * windows.shape[1], windows.numel(), "tokens")
            found.append(backbone(input_ids=window, use_cache=False)[0][0])
    # [n, d] and [n, v]: products of a mean state need more digits than training does.
    states = torch.cat(found).float()
    logits = states @ head.weight[: len(counts)].float().t()
    if head.bias is not None:
        logits += head.bias[: len(counts)].float()
    wanted = torch.from_numpy((counts + 0.5) / (counts.sum() + 0.5 * len(counts))).float().to(logits).log()
    direction = states.mean(0)
    direction /= direction.square().sum().clamp(min=1e-12)
    along, new = states @ direction, torch.from_numpy(match.new_ids).to(logits.device)
    amounts = torch.zeros_like(wanted)
    for _ in range(ROUNDS):
        means = torch.logsumexp((logits + along[:, None] * amounts).log_softmax(-1), 0) - np.log(len(logits))
        amounts[new] += (wanted - means)[new].clamp_(-LARGEST, LARGEST)
    return LogitShift(match.new_ids, amounts[new].cpu(), direction.cpu(), windows.numel())


def text_windows(tokens: Any, vocabulary: int, seed: int) -> Tensor:
    """Pieces of the text, int64 ``[windows, length]``, drawn by ``seed``."""
    total = len(tokens)
    length = min(WINDOW, total)
    count = max(1, min(TOKENS, MOST_LOGITS // vocabulary, total) // length)
    starts = np.sort(np.random.default_rng(seed).integers(0, total - length + 1, count))
    return torch.from_numpy(np.stack([tokens[at : at + length] for at in starts]).astype(np.int64))


def token_counts(tokens: Any, size: int) -> NDArray[np.int64]:
    """How often each of ``size`` tokens occurs in the ids of a store, which are read in blocks."""
    counts, block = np.zeros(size, dtype=np.int64), 1 << 24
    for start in range(0, len(tokens), block):
        counts += np.bincount(tokens[start : start + block], minlength=size)
    return counts
