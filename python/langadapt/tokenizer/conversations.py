"""Conversations as tokens: a model's chat template around the turns, and which of the tokens are the assistant's."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from langadapt.errors import ConfigError, DataError
from langadapt.tokenizer.encoder import Tokenizer
from langadapt.tokenizer.templates import chat_templates

Messages: TypeAlias = "list[dict[str, Any]]"
GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
"""What a template marks the assistant's words with, where its author thought of training."""


@dataclass(frozen=True)
class Example:
    """One document to learn from."""

    ids: NDArray[np.uint32]
    """``[n]``, special tokens of the template included."""
    learnt: NDArray[np.bool_]
    """``[n]``: tokens of the assistant's turns, with those that end them."""
    text_bytes: int
    """UTF-8 bytes of the text that is learnt."""


def read_conversations(file: Path) -> Iterator[tuple[int, Messages]]:
    """Line number and messages of each line of a ``.jsonl`` or ``.jsonl.gz`` file, ``{"messages": [...]}``.

    Raises:
        ConfigError: a file of another kind.
        DataError: names the line and what is wrong with it.
    """
    if not file.name.endswith((".jsonl", ".jsonl.gz")):
        raise ConfigError(f"{file}: conversations are read from .jsonl or .jsonl.gz files, one `messages` a line")
    with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as lines:
        number = 0
        try:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, messages_of(json.loads(line))
        except (ValueError, UnicodeDecodeError, RecursionError) as error:
            raise DataError(f"{file}:{number}: no conversation: {error}") from None
        except (EOFError, gzip.BadGzipFile) as error:
            raise DataError(f"{file}: damaged or truncated after line {number}: {error}") from None


def messages_of(line: Any) -> Messages:
    """The checked messages of a line; raises ``ValueError`` with what is wrong."""
    if not isinstance(line, Mapping) or not isinstance(line.get("messages"), list):
        other = isinstance(line, Mapping) and "conversations" in line
        hint = "; rename `conversations`, `from` and `value` to `messages`, `role` and `content`" if other else ""
        raise ValueError(f'{{"messages": [{{"role": ..., "content": ...}}, ...]}} is expected{hint}')
    messages: Messages = line["messages"]
    for at, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise ValueError(f"message {at} has no `role`")
        if message.get("content") is None and not message.get("tool_calls"):
            raise ValueError(f"message {at} has no `content`")
    if not any(message["role"] == "assistant" for message in messages):
        raise ValueError("no message of the role `assistant`: there is nothing to learn from it")
    return messages


class ConversationEncoder:
    """Turns conversations into tokens by the chat template of a tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Raises ConfigError for a tokenizer without a template, or of a kind that knows no offsets."""
        templates = chat_templates(tokenizer.companions)
        if "default" not in templates:
            raise ConfigError(
                f"{tokenizer.name}: no chat template; `langadapt finish` brings one back, or add chat_template.jinja"
            )
        self.writer = tokenizer.to_transformers()
        if not self.writer.is_fast:
            raise ConfigError(f"{tokenizer.name}: has no fast tokenizer, which chat training needs to find the turns")
        self.added = np.array([id for id, *_ in tokenizer.added_tokens()], np.int64)
        self.marks = bool(GENERATION.search(templates["default"]))

    def encode(self, messages: Messages) -> list[Example]:
        """The conversation as one document; where the template rewrites earlier turns (it drops their reasoning, say),
        one for each reply, as it was seen when it was given.

        Raises:
            ValueError: the template cannot write these messages, or hides where a reply begins.
        """
        if self.marks:
            made = self.apply(messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
            text_bytes = sum(len(str(one.get("content") or "").encode()) for one in messages if is_reply(one))
            return [Example(np.array(made["input_ids"], "u4"), np.array(made["assistant_masks"], bool), text_bytes)]
        whole = self.apply(messages, tokenize=False)
        inside: list[tuple[int, int]] = []
        apart: list[Example] = []
        for at in range(len(messages)):
            if not is_reply(messages[at]):
                continue
            seen = self.apply(messages[: at + 1], tokenize=False)
            start, end = self.reply_in(seen, messages[:at])
            # Up to where both are the same: after the last turn some templates set an end that others do not have.
            both = zip(whole, seen[:end], strict=False)
            shared = next((n for n, (one, other) in enumerate(both) if one != other), min(end, len(whole)))
            said = str(messages[at].get("content") or "").strip()
            if shared == end or (said and said in whole[start:shared]):
                inside.append((start, shared))
            else:
                apart.append(self.example(seen, [(start, end)]))
        return [*apart, *([self.example(whole, inside)] if inside else [])]

    def apply(self, messages: Sequence[dict[str, Any]], **how: Any) -> Any:
        """The template's text, or its tokens."""
        try:
            return self.writer.apply_chat_template(list(messages), **how)
        # Templates raise what they like, and Jinja what it likes.
        except Exception as error:
            raise ValueError(f"the chat template refuses it: {str(error) or type(error).__name__}") from None

    def reply_in(self, seen: str, before: Messages) -> tuple[int, int]:
        """Where the last reply begins and ends in ``seen``, its end token included, white space after it not."""
        end = len(seen.rstrip())
        for prompt in (True, False):
            asked = self.apply(before, tokenize=False, add_generation_prompt=prompt) if before else ""
            if seen.startswith(asked) and len(asked) < end:
                return len(asked), end
        raise ValueError("the chat template writes the turns before a reply in another way than those of a prompt")

    def example(self, text: str, spans: Sequence[tuple[int, int]]) -> Example:
        """Tokens of ``text``, those that reach into one of ``spans`` learnt; added tokens must lie within: they reach
        over the white space beside them, too."""
        made = self.writer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids, offsets = np.array(made["input_ids"], "u4"), np.array(made["offset_mapping"], np.int64).reshape(-1, 2)
        added, learnt = np.isin(ids, self.added), np.zeros(len(ids), bool)
        for start, end in spans:
            reaches = (offsets[:, 1] > start) & (offsets[:, 0] < end)
            # At the end white space may follow: that an added token begins inside is enough, if all of it is there.
            within = (offsets[:, 0] >= start) & (offsets[:, 1] <= end + len(text[end:]) - len(text[end:].lstrip()))
            learnt |= reaches & (within | ~added)
        text_bytes = sum(len(text[start:end].encode()) for start, end in spans)
        return Example(ids, learnt, text_bytes)


def is_reply(message: Mapping[str, Any]) -> bool:
    """Whether the assistant says it."""
    return bool(message["role"] == "assistant")
