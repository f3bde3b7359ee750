"""What a model writes: continuations of a few beginnings of held-out documents, in bounded time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from langadapt.evaluation.bits_per_byte import prefix_token
from langadapt.evaluation.scoring import evaluating

PROMPT_CHARACTERS = 120
"""Of a document's beginning, at most."""
CONTINUED_CHARACTERS = 200
"""Shown of what follows, at most."""
NEW_TOKENS = 48
"""Written per prompt, at most."""
SECONDS = 20.0
"""For all prompts of a model together, at most: a slow machine writes less."""


def prompts(texts: Sequence[str], count: int) -> list[tuple[str, str]]:
    """Beginnings of ``count`` documents, evenly spread over ``texts``, and how each really goes on.

    A beginning ends before a space where there is one in its second half, and leaves at least as much text to come.
    """
    long_enough = [text for one in texts if len(text := " ".join(one.split())) >= 2 * PROMPT_CHARACTERS]
    chosen = [long_enough[at * len(long_enough) // count] for at in range(min(count, len(long_enough)))]
    found = []
    for text in chosen:
        space = text.rfind(" ", PROMPT_CHARACTERS // 2, PROMPT_CHARACTERS)
        end = space if space > 0 else PROMPT_CHARACTERS // 2
        found.append((text[:end], text[end : end + CONTINUED_CHARACTERS]))
    return found


@torch.no_grad()
def continuations(
    model: Any,
    tokenizer: Any,
    beginnings: Sequence[str],
    *,
    seed: int | None = None,
    tokens: int = NEW_TOKENS,
    seconds: float = SECONDS,
) -> list[str]:
    """What ``model`` writes after each of ``beginnings``.

    Args:
        model: a causal language model of transformers; its mode and generation config stay as they are.
        tokenizer: a langadapt ``Tokenizer``; the first token follows its BOS (or EOS), as bits per byte are measured.
        beginnings: texts to go on from.
        seed: of drawing each token by its probability; none = the likeliest one.
        tokens: written per text, at most; its end-of-sequence token ends a text before that.
        seconds: for all texts together, at most; the text that was being written stays as short as it was.
    """
    device = model.get_input_embeddings().weight.device
    found = []
    with evaluating(model), generating(model, tokenizer, tokens, seconds / max(1, len(beginnings)), seed=seed):
        for text in beginnings:
            ids = np.concatenate([[prefix_token(tokenizer)], np.asarray(tokenizer.encode(text), dtype=np.int64)])
            given = torch.from_numpy(ids)[None].to(device)
            written = model.generate(given, attention_mask=torch.ones_like(given))[0, len(ids) :]
            text = tokenizer.decode(written.cpu().numpy().astype(np.uint32), skip_special_tokens=True)
            found.append(text[:CONTINUED_CHARACTERS])
    return found


@contextmanager
def generating(model: Any, tokenizer: Any, tokens: int, seconds: float, *, seed: int | None = None) -> Iterator[None]:
    """Greedy generation inside, or by the model's probabilities as they are where there is a ``seed``; the model's own
    settings and the state of torch's generators afterwards: what a config leaves open, ``generate`` takes from the
    model's, which may ask for sampling or punish repetition."""
    from transformers import GenerationConfig

    own, end = model.generation_config, getattr(tokenizer, "eos_token_id", None)
    drawn = {} if seed is None else {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
    model.generation_config = GenerationConfig(
        do_sample=seed is not None,
        **drawn,
        max_new_tokens=tokens,
        max_time=seconds,
        eos_token_id=end,
        pad_token_id=0 if end is None else end,
    )
    try:
        with torch.random.fork_rng(enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            yield
    finally:
        model.generation_config = own
