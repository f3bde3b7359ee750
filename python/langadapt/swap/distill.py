"""Token distillation (Dobler et al., 2025, arXiv 2505.20133): the old model teaches the rows of new tokens.

Snippets of target text are read twice: in old tokens by the source model, in new tokens by the same body with the new
vocabulary. Wherever both have read the same bytes, the final hidden states are to be the same:

    min over the rows of new tokens  mean_(i, j) | h_new(snippet)_i - h_old(snippet)_j |^2 / mean | h_old |^2

where i and j are the places of a cut that both tokenizers make. Nothing but these rows is trained. Output rows of an
untied model do not act on hidden states: they learn from the same states which token comes next; tied rows do both.
The paper makes one token of a snippet new and leaves the others old; here all tokens of a snippet are new, so that a
pass teaches as many rows as the snippet has tokens. The start is FOCUS, or ``subword_mean`` without vectors.

Cost: a forward pass of the old model on its own, more, tokens, and a forward and a backward pass of the new one without
gradients of its body: 1.5 to 3 times what training takes for as many tokens, of which a bake-off takes one time off its
steps. Memory: two models.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langadapt import _core
from langadapt.errors import ConfigError, DataError
from langadapt.machine import choose_device
from langadapt.models.embeddings import find_token_tables
from langadapt.models.folder import load_model
from langadapt.models.products import is_slow
from langadapt.models.skeleton import skeleton_of
from langadapt.progress import Progress
from langadapt.store import TokenStore
from langadapt.swap.loaded import swap_tokenizer
from langadapt.swap.matching import VocabularyMatch, match_vocabularies
from langadapt.swap.rows.learnt import LearntRows
from langadapt.swap.rows.options import DEFAULTS, SwapOptions
from langadapt.tokenizer.alignment import Alignment
from langadapt.training.optimizer import RowTrainer
from langadapt_kernels import FusedAdamW

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class DistillSettings:
    """How long and how fast rows are taught."""

    length: int = 64
    """New tokens of a snippet."""
    each: int = 20
    """Snippets that show each new token, where the text has as many."""
    most: int = 40_000
    """Snippets in all."""
    batch: int = 16
    """Snippets per step."""
    rate: float = 0.1
    """Peak of AdamW's rate, in units of the rows' root mean square; it falls by a cosine to a tenth."""


def distil_rows(
    model: str | Path,
    store: TokenStore,
    source_tokenizer: Any,
    target_tokenizer: Any,
    *,
    settings: DistillSettings = DistillSettings(),
    swap: SwapOptions = DEFAULTS,
    progress: Progress | None = None,
) -> LearntRows:
    """Rows of the new tokens, for ``swap_tokenizer(..., method="distill", learnt_rows=...)``.

    Args:
        model: folder of the source model.
        store: target text under the new tokenizer.
        source_tokenizer: the model's own.
        target_tokenizer: the new one.
        settings: see there.
        swap: vectors and seed; all but the method.
        progress: called as ``progress(phase, done, total, unit)``.

    Raises:
        ConfigError: the model has token tables beside input and output, which nobody teaches.
        DataError: no snippet of the store shows a new token.
    """
    match = match_vocabularies(source_tokenizer, target_tokenizer, fuzzy=swap.fuzzy)
    device = torch.device(choose_device("auto"))
    start = replace(swap, method=swap.start, output_method=None)
    teacher, student = (load_model(model, dtype=torch.float32).to(device).eval() for _ in range(2))
    if find_token_tables(skeleton_of(student)).others:
        raise ConfigError(
            "distill: this model has tables by token id beside its input and output, which it cannot teach"
        )
    swap_tokenizer(student, source_tokenizer, target_tokenizer, swap=start)
    lesson = Lesson(teacher, student, match, settings)
    snippets = choose(store, match, settings, swap.seed) if len(match.new_ids) else []
    for number in range(0, len(snippets), settings.batch):
        if progress is not None:
            progress("distil", number, len(snippets), "snippets")
        lesson.step(snippets[number : number + settings.batch], (number + settings.batch) / len(snippets))
    return lesson.learnt(sum(map(len, snippets)))


def choose(store: TokenStore, match: VocabularyMatch, settings: DistillSettings, seed: int) -> list[Integers]:
    """Snippets that show the new tokens, see `snippets.rs`."""
    wanted = np.zeros(store.vocab_size, dtype=np.bool_)
    wanted[match.new_ids[match.new_ids < store.vocab_size]] = True
    length = settings.length
    wish = {"length": length, "each": settings.each, "most": settings.most, "seed": seed}
    starts = _core.choose_snippets(np.asarray(store.tokens), np.asarray(store.offsets), wanted, **wish).astype(np.int64)
    if not len(starts):
        raise DataError(f"distill: no {length} tokens of one document of {store.folder} show a new token; add text")
    return [store.tokens[start : start + length].astype(np.int64) for start in starts]


class Lesson:
    """Both models, and the rows that are taught."""

    def __init__(self, teacher: Any, student: Any, match: VocabularyMatch, settings: DistillSettings) -> None:
        """``student``: the teacher's twin after a swap."""
        self.teacher, self.student, self.match = teacher.requires_grad_(False), student.requires_grad_(False), match
        self.alignment, self.device = Alignment(match.source, match.target), student.device
        self.starts = [which.roles.get("bos", which.roles.get("eos")) for which in (match.source, match.target)]
        weights = {"input": student.get_input_embeddings().weight, "output": student.get_output_embeddings().weight}
        self.tied = weights["input"] is weights["output"]
        if self.tied:
            del weights["output"]
        for weight in weights.values():
            weight.requires_grad_(True)
        self.rows = RowTrainer(list(weights.items()), torch.from_numpy(match.new_ids))
        sizes = [
            copy.detach().square().mean().sqrt() if copy.numel() else torch.ones(()) for _, copy in self.rows.named
        ]
        self.peaks = [settings.rate * float(size) for size in sizes]
        groups = [{"params": [copy]} for _, copy in self.rows.named]
        self.optimizer = FusedAdamW(groups, betas=(0.9, 0.95), weight_decay=0.0)

    def step(self, snippets: Sequence[Integers], done: float) -> tuple[float, float]:
        """Teach a batch; ``done``: share of the lesson after it. Returns both losses, before the update."""
        # Rows of weights are fp32, as steps this small would be rounded away; products need not be, if that is faster.
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type != "cpu" or not is_slow()):
            hidden, logits = self.losses(snippets)
        (hidden + logits).backward()
        self.rows.take_gradients()
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * (0.55 + 0.45 * math.cos(math.pi * min(done, 1.0)))
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.rows.put_back()
        return float(hidden.detach()), float(logits.detach())

    def losses(self, snippets: Sequence[Integers]) -> tuple[Tensor, Tensor]:
        """Distance of hidden states, relative to the teacher's; mean cross-entropy of the next token."""
        cuts = [self.alignment.cuts(snippet) for snippet in snippets]
        old, more_old = self.batch([np.zeros(0, np.int64) if cut is None else cut.tokens for cut in cuts], 0)
        new, more_new = self.batch(snippets, 1)
        with torch.no_grad():
            wanted = self.teacher.base_model(old, use_cache=False).last_hidden_state
        found = self.student.base_model(new, use_cache=False).last_hidden_state
        shared = [
            np.stack([np.full(len(cut.new), i), cut.new + more_new, cut.old + more_old])
            for i, cut in enumerate(cuts)
            if cut is not None
        ]
        places = np.concatenate([np.zeros((3, 0), np.int64), *shared], axis=1)
        row, at_new, at_old = torch.from_numpy(places).to(self.device)
        goal = wanted[row, at_old].float()
        distance = (found[row, at_new].float() - goal).square().sum() / goal.square().sum().clamp(min=1e-12)
        states = found[:, :-1] if self.tied else found[:, :-1].detach()
        lengths = torch.tensor([len(one) + more_new for one in snippets], device=self.device)
        inside = torch.arange(1, new.shape[1], device=self.device)[None] < lengths[:, None]
        logits = self.student.get_output_embeddings()(states[inside]).float()
        return distance, torch.nn.functional.cross_entropy(logits, new[:, 1:][inside])

    def batch(self, snippets: Sequence[Integers], side: int) -> tuple[Tensor, int]:
        """Snippets behind a start token, filled up to one length, which causal models do not see; and how many tokens
        stand before each."""
        start = [] if self.starts[side] is None else [self.starts[side]]
        ids = torch.zeros(len(snippets), max(1, *map(len, snippets)) + len(start), dtype=torch.int64)
        for row, snippet in enumerate(snippets):
            whole = [*start, *snippet.tolist()]
            ids[row, : len(whole)] = torch.tensor(whole)
        return ids.to(self.device), len(start)

    def learnt(self, tokens: int) -> LearntRows:
        """What came of it."""
        copies = [copy.detach().cpu() for _, copy in self.rows.named]
        return LearntRows(self.match.new_ids, copies[0], copies[-1], tokens)
