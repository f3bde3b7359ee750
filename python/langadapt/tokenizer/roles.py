"""Special tokens by what they do: begin, end and fill a text, or mark the turns of a chat."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from langadapt.errors import DataError, shorten

ROLE_NAMES = {
    "bos": ("<s>", "<bos>", "<|begin_of_text|>", "<|startoftext|>", "[BOS]"),
    "eos": ("</s>", "<eos>", "<|end_of_text|>", "<|endoftext|>", "[EOS]"),
    "unk": ("<unk>", "[UNK]", "<|unk|>"),
    "pad": ("<pad>", "[PAD]", "<|pad|>", "<|finetune_right_pad_id|>"),
    "cls": ("[CLS]",),
    "sep": ("[SEP]",),
    "mask": ("[MASK]", "<mask>"),
}
"""Roles that a configuration names (``bos_token`` and so on), and the tokens that take them where it names none."""

FIELDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys((f"{role}_token" for role in ROLE_NAMES), (str, dict)),
    "extra_special_tokens": (list, dict),
    "additional_special_tokens": (list,),
    "added_tokens_decoder": (dict,),
    "tokenizer_class": (str,),
    "model_max_length": (int, float),
}
"""What fields of a configuration may hold besides nothing; of something else transformers makes an error, late."""

CHAT_ROLES = {
    "turn_start": ("<|im_start|>", "<|start_header_id|>", "<start_of_turn>", "[INST]", "<|start|>"),
    "turn_end": ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "[/INST]", "<|end|>", "<|return|>"),
    "header_end": ("<|end_header_id|>", "<|message|>"),
    "system": ("<|system|>", "[SYSTEM_PROMPT]", "<<SYS>>"),
    "user": ("<|user|>",),
    "assistant": ("<|assistant|>",),
    "tool": ("<|python_tag|>", "[TOOL_CALLS]", "<|tool_call|>", "<tool_call>"),
}
"""Chat markers of the well-known formats, by what they do."""


def roles_by_name(tokens: Iterable[str]) -> dict[str, str]:
    """``bos_token`` and so on to the one of ``tokens`` that conventionally has the role."""
    there = set(tokens)
    found = {role: next((name for name in names if name in there), None) for role, names in ROLE_NAMES.items()}
    return {f"{role}_token": name for role, name in found.items() if name is not None}


def read_json(files: Mapping[str, bytes], name: str, tokenizer: str = "tokenizer") -> dict[str, Any]:
    """The object in one of a tokenizer's files; empty where there is no such file.

    Raises:
        DataError: it is no JSON object.
    """
    try:
        content = json.loads(files.get(name, b"{}"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{tokenizer}: the {name} beside it is not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise DataError(f"{tokenizer}: the {name} beside it is no JSON object")
    return content


def tokenizer_config(files: Mapping[str, bytes], tokenizer: str = "tokenizer") -> dict[str, Any]:
    """The configuration of ``tokenizer``, as transformers puts it together from two of its files.

    ``special_tokens_map.json`` goes before ``tokenizer_config.json``, and is not read at all where that lists the
    added tokens.

    Raises:
        DataError: one of them is no JSON object.
    """
    config = read_json(files, "tokenizer_config.json", tokenizer)
    if "added_tokens_decoder" not in config:
        config |= read_json(files, "special_tokens_map.json", tokenizer)
    for name, kinds in FIELDS.items():
        value = config.get(name)
        listed = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        wrong = name.endswith("tokens") and any(not isinstance(token, (str, dict)) for token in listed)
        if value is not None and (wrong or not isinstance(value, kinds)):
            raise DataError(
                f"{tokenizer}: {name} in its configuration is {shorten(repr(value), 60)}, which transformers does not "
                "read; correct it in the tokenizer_config.json or special_tokens_map.json beside it"
            )
    return config


def special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """Role (``"bos_token"``, ...) to token, from what :func:`tokenizer_config` gives."""
    contents = {role: content_of(token) for role, token in config.items() if role.endswith("_token")}
    return {role: content for role, content in contents.items() if content is not None}


def extra_tokens(config: Mapping[str, Any]) -> list[str]:
    """Special tokens without a role of their own, from what :func:`tokenizer_config` gives."""
    found: list[Any] = []
    for key in ("extra_special_tokens", "additional_special_tokens"):
        listed = config.get(key) or ()
        found += listed.values() if isinstance(listed, dict) else listed
    return [content for content in map(content_of, found) if content is not None]


def content_of(token: Any) -> str | None:
    """The text of a token as configurations write it: plain, or an object with flags."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None
