"""Does a model keep to its chat template? Greedy replies to short turns, looked at for what no user should see."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from langadapt.tokenizer.encoder import Tokenizer
from langadapt.tokenizer.templates import chat_templates

NEW_TOKENS = 128
"""Of a reply, at most: a model that has not stopped by then is taken not to stop."""
BATCH = 8
MARKER = re.compile(r"<\|[\w.-]+\|>|</?[a-z_]{1,20}>|\[/?[A-Z_]{2,20}\]")
"""What templates mark turns with."""


@dataclass(frozen=True)
class Replies:
    """Shares of replies, 0 to 1."""

    stops: float
    """Something was said, and then the end token came."""
    roles: float
    """No token of the template opens a turn inside of the reply."""
    markers: float
    """No marker of the template is spelt out in ordinary tokens."""
    count: int
    """Replies."""

    @property
    def good(self) -> float:
        """Mean of the three."""
        return (self.stops + self.roles + self.markers) / 3

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "good": self.good}


@torch.no_grad()
def check_replies(model: Any, tokenizer: Tokenizer, turns: Sequence[str], *, new_tokens: int = NEW_TOKENS) -> Replies:
    """Reply to each of ``turns`` greedily, and look.

    Args:
        model: a loaded causal LM in evaluation mode; its generation config names the end tokens.
        tokenizer: its tokenizer, with a chat template.
        turns: what the user says, each in a conversation of its own.
        new_tokens: of a reply, at most.
    """
    markers = set(MARKER.findall("\n".join(chat_templates(tokenizer.companions).values())))
    ends = end_tokens(model, tokenizer)
    turning = {id for id, token, _, _ in tokenizer.added_tokens() if token in markers} - ends
    stops = roles = clean = 0
    for reply in replies(model, tokenizer, turns, new_tokens):
        said = reply[: next((at for at, id in enumerate(reply) if id in ends), len(reply))]
        stops += 0 < len(said) < len(reply)
        roles += turning.isdisjoint(said)
        # Markers as ordinary tokens: the ids of markers themselves are left out of the text.
        text = tokenizer.decode([id for id in said if id not in turning])
        clean += not any(marker in text for marker in markers)
    count = max(1, len(turns))
    return Replies(stops / count, roles / count, clean / count, len(turns))


def end_tokens(model: Any, tokenizer: Tokenizer) -> set[int]:
    """Ids that end a reply."""
    named = model.generation_config.eos_token_id
    ids = set(named if isinstance(named, (list, tuple)) else [named])
    return {id for id in ids | {tokenizer.eos_token_id} if id is not None}


def replies(model: Any, tokenizer: Tokenizer, turns: Sequence[str], new_tokens: int) -> list[list[int]]:
    """Ids of the replies, end token included."""
    writer = tokenizer.to_transformers()
    prompts = [
        writer.apply_chat_template(
            [{"role": "user", "content": turn}], add_generation_prompt=True, tokenize=True, return_dict=False
        )
        for turn in turns
    ]
    ends = end_tokens(model, tokenizer)
    fill = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else next(iter(ends), 0)
    found: list[list[int]] = []
    for start in range(0, len(prompts), BATCH):
        part = prompts[start : start + BATCH]
        width = max(map(len, part))
        ids = torch.tensor([[fill] * (width - len(one)) + list(one) for one in part], device=model.device)
        mask = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in part], device=model.device)
        made = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=new_tokens,
            do_sample=False,
            # Of sampling, which an instruct model's generation config sets; without them greedy search warns.
            temperature=None,
            top_p=None,
            top_k=None,
            eos_token_id=sorted(ends),
            pad_token_id=fill,
        )
        for row in made[:, width:].tolist():
            end = next((at for at, id in enumerate(row) if id in ends), len(row) - 1)
            found.append(row[: end + 1])
    return found
