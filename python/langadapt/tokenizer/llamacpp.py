"""Which of llama.cpp's tokenizers reads text as a given one does, known before anything is trained.

llama.cpp has two ways that matter here: ``gpt2``, byte-level BPE whose cutting is one of a fixed list of names
(``tokenizer.ggml.pre``), and ``llama``, SentencePiece-like merging by scores. It has no regex of a file's own and no
Unicode normalization. What is said here is checked against llama.cpp itself when a model is exported.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from langadapt.tokenizer.cutting import METASPACE, NORMALIZATION_FORMS, steps_of
from langadapt.tokenizer.encoder import Tokenizer

CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
CASED = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+{0}"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*{0}"
)
TAIL = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*" + TAIL
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
QWEN35 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*" + TAIL
O200K = CASED.replace("{0}", f"{CONTRACTIONS}?") + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*" + TAIL
TEKKEN = CASED.replace("{0}", "") + r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*" + TAIL

DIGITS = r"\p{N}" + f"|{GPT2}"
"""Stands for two steps: digits apart, then the cutting of GPT-2."""

CASE_NOTE = "llama.cpp takes letters outside ASCII for both cases, so it cuts mixed-case words elsewhere"


@dataclass(frozen=True)
class Pre:
    """A cutting of llama.cpp: its names without and with whole words first (``ignore_merges``)."""

    merging: str | None
    whole: str | None
    note: str | None = None
    """Where it differs from the regex that it stands for."""


KNOWN: dict[str, Pre] = {
    GPT2: Pre("gpt-2", None),
    DIGITS: Pre("starcoder", None),
    LLAMA3: Pre("dbrx", "llama-bpe"),
    QWEN2: Pre("qwen2", None),
    QWEN35: Pre("qwen35", None),
    O200K: Pre("gpt-4o", "granite-embed-multi-97m", CASE_NOTE),
    TEKKEN: Pre(None, "tekken", CASE_NOTE),
}
"""By regex, as the llama.cpp of llama-cpp-python 0.3.36 has them."""


@dataclass(frozen=True)
class LlamaCppForm:
    """How llama.cpp is told of a tokenizer."""

    model: str | None
    """``tokenizer.ggml.model``: ``gpt2`` or ``llama``; none where it has nothing like it."""
    pre: str = "default"
    """``tokenizer.ggml.pre``."""
    space_in_front: bool = False
    """``tokenizer.ggml.add_space_prefix``."""
    forms: tuple[str, ...] = ()
    """Unicode normalization that the tokenizer does and llama.cpp does not."""
    differences: tuple[str, ...] = ()
    """Where it is known to read other text than the tokenizer; empty: nowhere."""
    nearest: str | None = None
    """Where there is none: a pattern that it knows."""

    def __str__(self) -> str:
        """For people."""
        if self.model is None:
            return f"llama.cpp: no, {'; '.join(self.differences)}; the nearest that it knows is {self.nearest}"
        name = f"`{self.model}`" + (f", cutting `{self.pre}`" if self.model == "gpt2" else "")
        return f"llama.cpp: yes ({name})" + "".join(f"; but {what}" for what in self.differences)


def llamacpp_form(tokenizer: Tokenizer) -> LlamaCppForm:
    """What llama.cpp has for a tokenizer."""
    return form_of(json.loads(tokenizer.definition))


def form_of(definition: Mapping[str, Any]) -> LlamaCppForm:
    """The same from a ``tokenizer.json``, whose vocabulary may still be missing."""
    model = definition["model"]
    if (model.get("type") or "BPE") != "BPE" or "merges" not in model:
        kind = model.get("type") or "model"
        return LlamaCppForm(None, differences=(f"it has no {kind} tokenizer that gives these ids",), nearest="llama3")
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        return LlamaCppForm(None, differences=("it has no marks for parts of words",), nearest="llama3")
    steps = steps_of(definition.get("pre_tokenizer"))
    if any(step["type"] == "ByteLevel" for step in steps):
        return byte_level_form(definition, steps)
    return sentencepiece_form(definition, steps)


def byte_level_form(definition: Mapping[str, Any], steps: list[dict[str, Any]]) -> LlamaCppForm:
    """The same for byte-level BPE."""
    regex = regex_of(steps)
    whole = bool(definition["model"].get("ignore_merges"))
    pre = KNOWN.get(regex or "")
    if regex is None or pre is None:
        return LlamaCppForm(None, differences=("it does not know this pattern",), nearest=nearest_pattern(regex))
    differences = normalizer_notes(definition)
    if steps[-1].get("add_prefix_space", True):
        differences.append("it puts no space in front of a text")
    name = pre.whole if whole and pre.whole else pre.merging or pre.whole
    if (whole and pre.whole is None) or (not whole and pre.merging is None):
        differences.append("a word that is a token may come out whole, or not, where here it is the other way")
    notes = (*differences, *([pre.note] if pre.note else []))
    return LlamaCppForm("gpt2", str(name), forms=forms_of(definition), differences=notes)


def regex_of(steps: list[dict[str, Any]]) -> str | None:
    """The one regex that cuts; none where it is not one."""
    if len(steps) == 1 and steps[0].get("use_regex", True):
        return GPT2
    if len(steps) == 2 and steps[0].get("individual_digits") and steps[1].get("use_regex", True):
        return DIGITS
    if len(steps) == 2 and steps[0]["type"] == "Split" and not steps[1].get("use_regex", True):
        split = steps[0]
        if split.get("behavior") == "Isolated" and not split.get("invert"):
            regex: str | None = split["pattern"].get("Regex")
            return regex
    return None


def nearest_pattern(regex: str | None) -> str:
    """The pattern of llama.cpp to train with instead, by what the regex says of numbers, marks and case."""
    if regex is None:
        return "gpt2"
    if r"\p{Lu}" in regex:
        return "o200k"
    if r"\p{M}" in regex:
        return "qwen35"
    if r"\p{N}{1,3}" in regex:
        return "llama3"
    return "qwen2" if r"[\r\n]" in regex else "gpt2"


def forms_of(definition: Mapping[str, Any]) -> tuple[str, ...]:
    """Unicode normalization forms."""
    kinds = (step["type"] for step in steps_of(definition.get("normalizer")))
    return tuple(kind for kind in kinds if kind in NORMALIZATION_FORMS)


def normalizer_notes(definition: Mapping[str, Any]) -> list[str]:
    """Differences by normalization."""
    kinds = [step["type"] for step in steps_of(definition.get("normalizer"))]
    others = [kind for kind in kinds if kind not in (*NORMALIZATION_FORMS, "Prepend", "Replace")]
    notes = [f"it does not normalize to {form}: text in another form gets other ids" for form in forms_of(definition)]
    return notes + [f"it has no normalizer `{kind}`" for kind in others]


def sentencepiece_form(definition: Mapping[str, Any], steps: list[dict[str, Any]]) -> LlamaCppForm:
    """The same for SentencePiece-style BPE."""
    normalizers = steps_of(definition.get("normalizer"))
    prepends = any(step["type"] == "Prepend" and step.get("prepend") == METASPACE for step in normalizers)
    spaces = prepends or any(step.get("content") == METASPACE for step in normalizers)
    differences = normalizer_notes(definition)
    for step in steps:
        if step["type"] == "Metaspace":
            spaces, scheme = True, step.get("prepend_scheme", "always")
            prepends = prepends or scheme != "never"
            if scheme == "first":
                differences.append("it puts a space behind special tokens, too")
        elif not (step["type"] == "Split" and step.get("pattern") == {"String": " "}):
            differences.append(f"it has no pre-tokenizer `{step['type']}` in this style")
    for step in normalizers:
        if step["type"] == "Replace" and (step["content"], step["pattern"]) != (METASPACE, {"String": " "}):
            differences.append(f"it does not replace {step['pattern']} by {step['content']!r}")
    if not spaces or not definition["model"].get("byte_fallback"):
        missing = "it has no SentencePiece style without byte fallback" if spaces else "it does not know this style"
        return LlamaCppForm(None, differences=(missing,), nearest="llama3")
    vocabulary, forms = definition["model"].get("vocab"), forms_of(definition)
    lacking = [token for byte in range(256) if (token := f"<0x{byte:02X}>") not in vocabulary] if vocabulary else []
    if lacking:
        differences.append(
            f"it fails on text that needs one of {len(lacking)} byte tokens that lack, such as {lacking[0]}"
        )
    return LlamaCppForm("llama", space_in_front=prepends, forms=forms, differences=tuple(differences))
