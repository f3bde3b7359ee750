"""What of another tokenizer's vocabulary goes into a new one that is trained like it, and why."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from langadapt.tokenizer.cutting import METASPACE, Style
from langadapt.tokenizer.encoder import Tokenizer
from langadapt.tokenizer.roles import special_tokens, tokenizer_config
from langadapt.tokenizer.templates import chat_templates

RESERVED = re.compile(
    r"<unused\d+>|\[unused\d+\]|<SPECIAL_\d+>|<\|?(reserved|extra|dummy|place_?holder|unused)[\w▁]*?\d+\|?>"
    r"|>>UNUSED_\d+<<|<｜place▁holder▁no▁\d+｜>",
    re.IGNORECASE,
)
"""Names of tokens that mean nothing yet: Gemma's ``<unused0>``, Llama 3's ``<|reserved_special_token_0|>``, Tekken's
``<SPECIAL_20>``, GPT-OSS's ``<|reserved_200000|>``, Qwen's ``<|extra_0|>`` and their like."""

STANDARD_RUNS = {" ": 16, "\t": 8, "\n": 4}
"""Longest run of each white space that gets a token where no source says which."""

STAND_INS: dict[Style, dict[str, str]] = {
    "byte_level": {" ": "Ġ", "\t": "ĉ", "\n": "Ċ"},
    "sentencepiece": {" ": METASPACE, "\t": "\t", "\n": "\n"},
}
"""White space as a vocabulary writes it."""


def carried_tokens(
    source: Tokenizer, definition: Mapping[str, Any], *, keep_reserved: bool
) -> tuple[list[dict[str, Any]], str]:
    """The source's added tokens to take over, in the order of their ids and without ids, and what was decided.

    Runs of stand-ins (``▁▁``) go: no text becomes them as added tokens, :func:`white_space_runs` makes pieces of them.
    """
    config = tokenizer_config(source.companions, source.name)
    roles = set(special_tokens(config).values())
    templates = "".join(chat_templates(source.companions).values())
    processor = json.dumps(definition.get("post_processor"), ensure_ascii=False)
    kept, why = [], Counter[str]()
    for token in sorted(definition["added_tokens"], key=lambda token: token["id"]):
        content = token["content"]
        if content in roles or json.dumps(content, ensure_ascii=False) in processor:
            reason = "with a role"
        elif content in templates:
            reason = "of the chat template"
        elif RESERVED.fullmatch(content) and not keep_reserved:
            why["reserved left out"] += 1
            continue
        elif len(content) > 1 and set(content) <= {METASPACE}:
            continue
        else:
            reason = "special" if token.get("special") else "literal"
        why[reason] += 1
        kept.append({key: value for key, value in token.items() if key != "id"})
    return kept, ", ".join(f"{count:,} {reason}" for reason, count in why.items()) or "none"


def white_space_runs(style: Style, vocabulary: Iterable[str] | None = None) -> list[str]:
    """Runs of spaces, tabs or line feeds that code needs, shorter ones first, as the vocabulary writes them.

    Args:
        style: of the vocabulary.
        vocabulary: whose runs; none = up to :data:`STANDARD_RUNS`.
    """
    stand_ins = STAND_INS[style]
    if vocabulary is None:
        runs = {stand_ins[space] * length for space, most in STANDARD_RUNS.items() for length in range(2, most + 1)}
    else:
        known = set(stand_ins.values())
        runs = {token for token in vocabulary if len(token) > 1 and token[0] in known and len(set(token)) == 1}
    return sorted(runs, key=lambda run: (len(run), run))
