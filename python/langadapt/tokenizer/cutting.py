"""How a tokenizer cuts text into the words that merges are learnt in."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from langadapt import _core
from langadapt.errors import ConfigError, nearest

METASPACE = "\u2581"
"""What SentencePiece writes for a space."""

PATTERNS: dict[str, str] = dict(_core.pretokenize_patterns())
"""Regexes by name."""

AUTO = "auto"
"""The pattern that goes on over combining marks where the text has any, and Llama 3's own spelling where not."""

Style: TypeAlias = Literal["byte_level", "sentencepiece"]

NORMALIZATION_FORMS = ("NFC", "NFD", "NFKC", "NFKD")


@dataclass
class Cutting:
    """How training text becomes words."""

    forms: list[str] = field(default_factory=list)
    """SentencePiece style: Unicode normalization forms, in order."""
    space_in_front: bool = False
    """SentencePiece style: whether a line begins with a space."""
    foreign: str | None = None
    """Why only the ``tokenizers`` package can do it, which is many times slower; none = the core does it."""


def regex_of(pattern: str) -> str:
    """The regex that a name or a regex stands for.

    Raises:
        ConfigError: it reads like a name, and nothing is called so.
    """
    if pattern in PATTERNS:
        return PATTERNS[pattern]
    if re.fullmatch(r"[\w.-]+", pattern):
        near = nearest(pattern.lower(), (AUTO, *PATTERNS))
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"pattern: {pattern!r} is none of {', '.join((AUTO, *PATTERNS))}, and no regex{hint}")
    return pattern


def steps_of(part: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The steps of a part of a ``tokenizer.json``: those of a ``Sequence``, nested ones too, or the part itself."""
    if not part:
        return []
    inner = next((part[key] for key in ("normalizers", "pretokenizers", "decoders") if key in part), None)
    return [dict(part)] if inner is None else [step for child in inner for step in steps_of(child)]


def cutting_of(definition: Mapping[str, Any], name: str) -> tuple[Cutting, Style]:
    """How the training text of a tokenizer must be cut, and its style."""
    normalizers = steps_of(definition.get("normalizer"))
    cutters = steps_of(definition.get("pre_tokenizer"))
    if any(cutter["type"] == "ByteLevel" for cutter in cutters):
        return byte_level_cutting(definition.get("normalizer"), definition.get("pre_tokenizer")), "byte_level"
    model = definition["model"]
    spaces = any(part.get("content") == METASPACE for part in normalizers) or any(
        cutter["type"] == "Metaspace" for cutter in cutters
    )
    if not (spaces or model.get("byte_fallback")):
        raise ConfigError(f"like: {name} is neither byte-level nor SentencePiece style; choose a style instead")
    return sentencepiece_cutting(normalizers, cutters), "sentencepiece"


def byte_level_cutting(normalizer: Any, pre_tokenizer: Any) -> Cutting:
    """Whether the core cuts as these parts do, or the package has to."""
    return Cutting(foreign=_core.foreign_cutting(json.dumps(normalizer), json.dumps(pre_tokenizer)))


def sentencepiece_cutting(normalizers: list[dict[str, Any]], cutters: list[dict[str, Any]]) -> Cutting:
    """Forms and dummy prefix, if the parts are the usual ones; else the package normalizes each line first."""
    forms: list[str] = []
    prefix = False
    for part in normalizers:
        if part["type"] in NORMALIZATION_FORMS and not prefix:
            forms.append(part["type"])
        elif part["type"] == "Prepend" and part["prepend"] == METASPACE:
            prefix = True
        elif not (part["type"] == "Replace" and part["pattern"] == {"String": " "} and part["content"] == METASPACE):
            return Cutting(foreign=f"normalizer {part['type']}")
    for cutter in cutters:
        if cutter["type"] == "Metaspace" and cutter.get("replacement") == METASPACE:
            prefix = prefix or cutter.get("prepend_scheme", "always") != "never"
        elif not (cutter["type"] == "Split" and cutter["pattern"] == {"String": " "}):
            return Cutting(foreign=f"pre-tokenizer {cutter['type']}")
    return Cutting(forms=forms, space_in_front=prefix)
