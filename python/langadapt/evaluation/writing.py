"""How a model goes on from held-out text: in its language or in another, with or without repeating itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from langadapt import _core
from langadapt.corpus.language import LEFT_OUT, language_of
from langadapt.errors import ConfigError
from langadapt.evaluation.bits_per_byte import prefix_token
from langadapt.evaluation.continuations import NEW_TOKENS, SECONDS, generating
from langadapt.evaluation.scoring import evaluating

TEXTS = 16
"""Beginnings of documents, one to each."""
BEGINNING = 32
"""Tokens of a beginning: all as long, so that they are written at once and no model meets padding."""
PIECE = 12
"""Characters of which a second occurrence is a repeat: words and white space are no matter."""
NO_CHARACTER = "\ufffd"
"""What bytes that are no UTF-8 are decoded to."""


@dataclass(frozen=True)
class Writing:
    """Rates of a few texts."""

    texts: int
    judged: int
    """Texts long enough to tell their language."""
    foreign: float | None
    """Share of those in another language or script; none where languages cannot be told apart."""
    repeated: float
    """Mean share of a text's pieces of :data:`PIECE` characters that occurred before in it."""
    broken: float
    """Share of texts with bytes that are no UTF-8 before their end."""
    unended: float
    """Share of texts that did not end before they had to."""

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self)


def judge_of(texts: dict[str, list[str]], language: str) -> _core.Language | None:
    """What tells a language from the others of a run; none where there is no other, or too little text of one.

    Args:
        texts: of all languages.
        language: one of them.
    """
    others = [text for name, some in texts.items() if name != language for text in some]
    try:
        return language_of(texts[language], others)
    except ConfigError:
        return None


def measure_writing(
    model: Any,
    tokenizer: Any,
    texts: Sequence[str],
    judge: _core.Language | None,
    *,
    seed: int | None = None,
    tokens: int = NEW_TOKENS,
    seconds: float = SECONDS,
) -> Writing | None:
    """Rates of what ``model`` writes after the beginnings of ``texts``; none where none of them is long enough.

    Args:
        model: a causal language model of transformers.
        tokenizer: a langadapt ``Tokenizer``.
        texts: documents; :data:`TEXTS` of them, evenly spread, are gone on from.
        judge: see :func:`judge_of`.
        seed: of drawing each token by its probability; none = the likeliest one.
        tokens: written per text, at most.
        seconds: for all together, at most.
    """
    ids = [encoded for text in texts if len(encoded := tokenizer.encode(text)) >= 2 * BEGINNING]
    if not ids:
        return None
    count = min(TEXTS, len(ids))
    begin = [prefix_token(tokenizer)]
    rows = [np.concatenate([begin, ids[at * len(ids) // count][:BEGINNING].astype(np.int64)]) for at in range(count)]
    given = torch.from_numpy(np.stack(rows)).to(model.get_input_embeddings().weight.device)
    with evaluating(model), generating(model, tokenizer, tokens, seconds, seed=seed):
        written = model.generate(given, attention_mask=torch.ones_like(given))[:, given.shape[1] :].cpu().numpy()
    return rates(written.astype(np.uint32), tokenizer, judge)


def rates(written: np.ndarray, tokenizer: Any, judge: _core.Language | None) -> Writing:
    """Rates of texts as ids, uint32[texts, tokens]; after its end a text holds anything."""
    end = getattr(tokenizer, "eos_token_id", None)
    ended = [row == end for row in written] if end is not None else [np.zeros(len(row), bool) for row in written]
    whole = [row[: int(mark.argmax())] if mark.any() else row for row, mark in zip(written, ended, strict=True)]
    texts = [tokenizer.decode(row, skip_special_tokens=True) for row in whole]
    verdicts = [one for one in judge.judge(texts) if one != "short"] if judge is not None else []
    # A character may be cut where a text had to end.
    cut = [text if mark.any() else text.rstrip(NO_CHARACTER) for text, mark in zip(texts, ended, strict=True)]
    return Writing(
        texts=len(texts),
        judged=len(verdicts),
        foreign=sum(one in LEFT_OUT for one in verdicts) / len(verdicts) if verdicts else None,
        repeated=float(np.mean([repeats(text) for text in texts])),
        broken=float(np.mean([NO_CHARACTER in text for text in cut])),
        unended=float(np.mean([not mark.any() for mark in ended])),
    )


def repeats(text: str) -> float:
    """The share of pieces of :data:`PIECE` characters that occurred before; 0 for a text without two of them."""
    pieces = [text[at : at + PIECE] for at in range(len(text) - PIECE + 1)]
    return 1 - len(set(pieces)) / len(pieces) if pieces else 0.0
