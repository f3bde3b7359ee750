"""How a tokenizer cuts text into the words that merges are learnt in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from langadapt import _core
from langadapt.errors import ConfigError

METASPACE = "\u2581"
"""What SentencePiece writes for a space."""

PATTERNS: dict[str, str] = dict(_core.pretokenize_patterns())
"""Regexes by name; these have fast scanners."""

Style: TypeAlias = Literal["byte_level", "sentencepiece"]

NORMALIZATION_FORMS = ("NFC", "NFD", "NFKC", "NFKD")


@dataclass
class Cutting:
    """How training text becomes words."""

    forms: list[str] = field(default_factory=list)
    """Unicode normalization forms, in order."""
    regex: str | None = None
    """Byte-level style: the regex that cuts, if there is a scanner for it."""
    space_in_front: bool = False
    """Byte-level style: whether a document begins with a space; SentencePiece style: whether a line does."""
    by_package: bool = False
    """Whether only the ``tokenizers`` package can do it, which is many times slower."""


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
        return byte_level_cutting(normalizers, cutters), "byte_level"
    model = definition["model"]
    spaces = any(part.get("content") == METASPACE for part in normalizers) or any(
        cutter["type"] == "Metaspace" for cutter in cutters
    )
    if not (spaces or model.get("byte_fallback")):
        raise ConfigError(f"like: {name} is neither byte-level nor SentencePiece style; choose a style instead")
    return sentencepiece_cutting(normalizers, cutters), "sentencepiece"


def byte_level_cutting(normalizers: list[dict[str, Any]], cutters: list[dict[str, Any]]) -> Cutting:
    """The regex, if the parts are a known one followed by the byte mapping; else the package has to do it."""
    forms = [part["type"] for part in normalizers]
    mapping = cutters[-1]
    prefix = bool(mapping.get("add_prefix_space", True))
    regex: str | None = None
    if all(form in NORMALIZATION_FORMS for form in forms) and mapping["type"] == "ByteLevel":
        if len(cutters) == 1 and mapping.get("use_regex", True):
            regex = PATTERNS["gpt2"]
        elif len(cutters) == 2 and not mapping.get("use_regex", True) and not prefix:
            regex = known_split(cutters[0])
    if regex is None:
        return Cutting(by_package=True)
    return Cutting(forms=forms, regex=regex, space_in_front=prefix)


def known_split(part: Mapping[str, Any]) -> str | None:
    """The regex of a ``Split`` that has a scanner."""
    if part["type"] != "Split" or part.get("behavior") != "Isolated" or part.get("invert"):
        return None
    regex = part["pattern"].get("Regex")
    return regex if regex in PATTERNS.values() else None


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
            return Cutting(by_package=True)
    for cutter in cutters:
        if cutter["type"] == "Metaspace" and cutter.get("replacement") == METASPACE:
            prefix = prefix or cutter.get("prepend_scheme", "always") != "never"
        elif not (cutter["type"] == "Split" and cutter["pattern"] == {"String": " "}):
            return Cutting(by_package=True)
    return Cutting(forms=forms, space_in_front=prefix)
