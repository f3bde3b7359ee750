"""A tokenizer's pattern exchanged for one that goes on over combining marks, while all its tokens stay."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from typing import Any

from langadapt.corpus.samples import batches
from langadapt.errors import ConfigError
from langadapt.tokenizer.cutting import PATTERNS
from langadapt.tokenizer.encoder import Tokenizer

LETTERS = (r"\p{L}+", r"[\p{L}\p{M}]+")
"""A word, without marks and with them."""
OTHERS = (r"[^\s\p{L}\p{N}]", r"[^\s\p{L}\p{M}\p{N}]")
"""What is neither a word nor a number nor white space."""


def widened(source: Tokenizer) -> Tokenizer:
    """``source`` with a pattern whose words go on over combining marks; text without marks is cut as before.

    Raises:
        ConfigError: its words do so already, or its pattern is of another kind.
    """
    definition = json.loads(source.definition)
    steps = definition.get("pre_tokenizer") or {}
    steps = steps["pretokenizers"] if steps.get("type") == "Sequence" else [steps]
    found = [wide for step in steps for wide in wide_steps(step, source.name)]
    if found == steps:
        raise ConfigError(
            f"{source.name}: nothing to widen: its pattern goes on over combining marks already, or is none that "
            r"writes words as `\p{L}+`"
        )
    definition["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": found}
    content = json.dumps(definition, ensure_ascii=False, separators=(",", ":")).encode()
    return Tokenizer(content, source.companions, source.name)


def wide_steps(step: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """A step of the pre-tokenizer as the steps that stand for it, widened."""
    if step.get("type") == "ByteLevel" and step.get("use_regex", True):
        if step.get("add_prefix_space", True):
            raise ConfigError(
                f"{name}: cannot be widened: the space that it puts before a text comes before its pattern"
            )
        regex = {"Regex": wide_regex(PATTERNS["gpt2"])}
        split = {"type": "Split", "pattern": regex, "behavior": "Isolated", "invert": False}
        return [split, {**step, "use_regex": False}]
    if step.get("type") == "Split" and "Regex" in step["pattern"]:
        return [{**step, "pattern": {"Regex": wide_regex(step["pattern"]["Regex"])}}]
    return [step]


def wide_regex(regex: str) -> str:
    """The narrow change: marks are part of words, and of nothing else."""
    if r"\p{M}" in regex:
        return regex
    return regex.replace(*LETTERS).replace(*OTHERS)


def lines_kept(before: Tokenizer, after: Tokenizer, texts: Iterable[str]) -> dict[str, float]:
    """Share of lines that get the same ids from both, and the tokens that each needs for all lines."""
    lines = kept = old = new = 0
    for block in batches(line for text in texts for line in text.splitlines() if line.strip()):
        for one, other in zip(
            *([part.tolist() for part in rows(tokenizer, block)] for tokenizer in (before, after)), strict=True
        ):
            lines += 1
            kept += one == other
            old, new = old + len(one), new + len(other)
    return {"source_lines_kept": kept / max(lines, 1), "source_tokens_before": old, "source_tokens_after": new}


def rows(tokenizer: Tokenizer, texts: list[str]) -> list[Any]:
    """Ids of each text."""
    ids, offsets = tokenizer.encode_batch(texts)
    return [ids[start:end] for start, end in itertools.pairwise(offsets)]
