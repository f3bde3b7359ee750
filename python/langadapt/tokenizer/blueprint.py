"""Everything about a tokenizer that is not learnt: its parts, special tokens and templates.

A :class:`Blueprint` comes from a style, or from an existing tokenizer (``like``); together with learnt tokens and
merges :meth:`Blueprint.build` makes a complete tokenizer of it.
"""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from langadapt import _core
from langadapt.errors import ConfigError
from langadapt.tokenizer.carrying import carried_tokens, white_space_runs
from langadapt.tokenizer.cutting import (
    AUTO,
    METASPACE,
    NORMALIZATION_FORMS,
    Cutting,
    Style,
    byte_level_cutting,
    cutting_of,
    regex_of,
)
from langadapt.tokenizer.encoder import Tokenizer
from langadapt.tokenizer.files import CONFIG_FILE, TEMPLATE_FILES, json_bytes
from langadapt.tokenizer.roles import extra_tokens, roles_by_name, special_tokens, tokenizer_config

logger = logging.getLogger(__name__)

DEFAULT_PATTERN = "llama3-marks"
"""Numbers in groups of up to three, contractions in any case, new lines apart from spaces; words go on over combining
marks, which most scripts of South and South-East Asia write their vowels with."""
UNMARKED_PATTERN = "llama3"
"""Cuts text without marks as the default does, in the spelling that converters to other runtimes know by heart."""

Roles: TypeAlias = "Mapping[str, str]"

DEFAULT_ROLES: dict[str, dict[str, str]] = {
    "byte_level": {
        "bos_token": "<|begin_of_text|>",
        "eos_token": "<|end_of_text|>",
        "pad_token": "<|pad|>",
    },
    "sentencepiece": {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"},
}
"""Special tokens of a style, in the order of their ids."""

LEARNT = "learnt"
"""Stands for vocabulary and merges, last in the model, until the core writes them."""


@dataclass
class Blueprint:
    """A tokenizer without its vocabulary. JSON parts are as in ``tokenizer.json``."""

    style: Style
    cutting: Cutting
    added: list[dict[str, Any]]
    """Added tokens in the order of their ids, without ids."""
    normalizer: dict[str, Any] | None
    pre_tokenizer: dict[str, Any] | None
    post_processor: dict[str, Any] | None
    decoder: dict[str, Any] | None
    model: dict[str, Any]
    """Fields of the model but vocabulary and merges."""
    config: dict[str, Any]
    """``tokenizer_config.json``."""
    companions: dict[str, bytes] = field(default_factory=dict)
    runs: list[str] = field(default_factory=list)
    """Runs of white space that code needs, as the vocabulary writes them."""

    @property
    def special(self) -> list[str]:
        """The added tokens' texts."""
        return [token["content"] for token in self.added]

    def build(self, trained: _core.TrainedTokens, name: str = "trained") -> Tokenizer:
        """The tokenizer with a vocabulary whose first ids are the added tokens."""
        ids = {token: id for id, token in enumerate(self.special)}
        definition = {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [{"id": ids[token["content"]], **token} for token in self.added],
            "normalizer": self.normalizer,
            "pre_tokenizer": self.pre_tokenizer,
            "post_processor": with_ids(self.post_processor, ids),
            "decoder": self.decoder,
            "model": {**self.model, LEARNT: None},
        }
        head, _, tail = json.dumps(definition, ensure_ascii=False).rpartition(f'"{LEARNT}": null')
        content = f'{head}"vocab": {trained.vocab_json()}, "merges": {trained.merges_json()}{tail}'.encode()
        return Tokenizer(content, {**self.companions, CONFIG_FILE: json_bytes(self.config)}, name)


def added_token(content: str, *, special: bool = True) -> dict[str, Any]:
    """An added token that is found in raw text, wherever it stands."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"content": content, **flags, "special": special}


def with_ids(part: Any, ids: Mapping[str, int]) -> Any:
    """A post-processor with the ids of its special tokens taken from ``ids``.

    Raises:
        ConfigError: it needs a token that is not in ``ids``.
    """
    if not isinstance(part, dict):
        return part
    part = copy.deepcopy(part)

    def id_of(token: str) -> int:
        if token not in ids:
            raise ConfigError(f"the post-processor needs {token!r}, which is no token; add it to special_tokens")
        return ids[token]

    if part.get("type") == "Sequence":
        part["processors"] = [with_ids(inner, ids) for inner in part["processors"]]
    elif part.get("type") == "TemplateProcessing":
        for entry in part["special_tokens"].values():
            entry["ids"] = [id_of(token) for token in entry["tokens"]]
    elif part.get("type") in ("BertProcessing", "RobertaProcessing"):
        for end in ("sep", "cls"):
            part[end] = [part[end][0], id_of(part[end][0])]
    return part


def roles_of(style: Style, given: Sequence[str] | Roles) -> tuple[dict[str, str], list[str]]:
    """Roles and, in the order of their ids, special tokens that a user asked for; the style's own if none."""
    if isinstance(given, str):
        raise ConfigError(f"special_tokens: {given!r}; give a list of tokens or a mapping of roles to tokens")
    if isinstance(given, Mapping):
        roles, tokens = dict(given), list(dict.fromkeys(given.values()))
    elif given:
        tokens = list(dict.fromkeys(given))
        roles = roles_by_name(tokens)
    else:
        roles = dict(DEFAULT_ROLES[style])
        tokens = list(roles.values())
    if style == "sentencepiece" and "unk_token" not in roles:
        roles = {"unk_token": "<unk>", **roles}
        tokens = ["<unk>", *tokens]
    if any(not token for token in tokens):
        raise ConfigError("special_tokens: an empty token")
    return roles, tokens


def new_blueprint(
    style: Style, special: Sequence[str] | Roles, pattern: str | None, normalization: str | None
) -> Blueprint:
    """The blueprint of a style.

    Raises:
        ConfigError: an unknown style, pattern or form.
    """
    if style not in DEFAULT_ROLES:
        raise ConfigError(f'style: {style!r}; it is "byte_level" or "sentencepiece"')
    if normalization not in (None, *NORMALIZATION_FORMS):
        raise ConfigError(
            f"normalization: {normalization!r}; it is None (lossless) or {', '.join(NORMALIZATION_FORMS)}"
        )
    if pattern not in (None, AUTO) and style != "byte_level":
        raise ConfigError(f"pattern: {pattern!r}; only the byte_level style cuts with a regex")
    roles, tokens = roles_of(style, special)
    forms = [] if normalization is None else [normalization]
    make = byte_level_parts if style == "byte_level" else sentencepiece_parts
    parts = make(forms, regex_of(DEFAULT_PATTERN if pattern in (None, AUTO) else str(pattern)))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 10**30,
        **{role: token for role, token in roles.items() if role != "additional_special_tokens"},
    }
    template = bos_template(roles["bos_token"]) if "bos_token" in roles else None
    if style == "byte_level" and template is not None:
        template = {"type": "Sequence", "processors": [parts["post_processor"], template]}
    parts["post_processor"] = template or parts["post_processor"]
    added = [added_token(token) for token in tokens]
    return Blueprint(style=style, added=added, config=config, runs=white_space_runs(style), **parts)


def bos_template(bos: str) -> dict[str, Any]:
    """A post-processor that begins every text with ``bos``; :func:`with_ids` fills in the id."""
    special: dict[str, Any] = {"SpecialToken": {"id": bos, "type_id": 0}}
    first: dict[str, Any] = {"Sequence": {"id": "A", "type_id": 0}}
    second = [{"SpecialToken": {"id": bos, "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}}]
    return {
        "type": "TemplateProcessing",
        "single": [special, first],
        "pair": [special, first, *second],
        "special_tokens": {bos: {"id": bos, "ids": [], "tokens": [bos]}},
    }


def model_fields(**fields: Any) -> dict[str, Any]:
    """A BPE model's fields but vocabulary and merges."""
    plain = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None}
    return {
        **plain,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        **fields,
    }


def byte_level_parts(forms: list[str], regex: str) -> dict[str, Any]:
    """Parts of a byte-level blueprint: a regex cuts, then bytes are written as printable characters."""
    mapping = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
    normalizer = sequence("Normalizer", [{"type": form} for form in forms])
    pre_tokenizer = {"type": "Sequence", "pretokenizers": [split, mapping]}
    return {
        "cutting": byte_level_cutting(normalizer, pre_tokenizer),
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": {**mapping, "use_regex": True},
        "decoder": {**mapping, "use_regex": True},
        "model": model_fields(),
    }


def sentencepiece_parts(forms: list[str], _: str = "") -> dict[str, Any]:
    """Parts of a Llama-2 style blueprint.

    The unguarded ``Prepend`` keeps it lossless: a text that begins with a space gets one more, which decoding drops.
    """
    steps: list[dict[str, Any]] = [
        *({"type": form} for form in forms),
        {"type": "Prepend", "prepend": METASPACE},
        {"type": "Replace", "pattern": {"String": " "}, "content": METASPACE},
    ]
    decoders = [
        {"type": "Replace", "pattern": {"String": METASPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0},
    ]
    return {
        "cutting": Cutting(forms=forms, space_in_front=True),
        "normalizer": sequence("Normalizer", steps),
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": model_fields(unk_token="<unk>", fuse_unk=True, byte_fallback=True),
    }


def sequence(kind: str, parts: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Parts in a row: none, one, or a ``Sequence``."""
    if len(parts) <= 1:
        return parts[0] if parts else None
    return {"type": "Sequence", f"{kind.lower()}s": parts}


def blueprint_like(source: Tokenizer, special: Sequence[str] | Roles = (), *, keep_reserved: bool = True) -> Blueprint:
    """The blueprint of an existing tokenizer; ``special`` are tokens to add to its own.

    Without ``keep_reserved`` its tokens that mean nothing yet are left out (:data:`.carrying.RESERVED`).

    Raises:
        ConfigError: it is no BPE tokenizer, or of neither style.
    """
    definition = json.loads(source.definition)
    model = definition["model"]
    kind = model.get("type") or "BPE"
    if kind != "BPE" or "merges" not in model:
        raise ConfigError(f"like: {source.name} is a {kind} tokenizer; only BPE can be trained, or choose a style")
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        raise ConfigError(f"like: {source.name} marks word parts with a prefix or suffix; choose a style instead")
    cutting, style = cutting_of(definition, source.name)
    added = added_tokens_like(source, definition, special, keep_reserved=keep_reserved)
    config = tokenizer_config(source.companions, source.name)
    roles = special_tokens(config) or roles_by_name(token["content"] for token in added)
    for stale in ("added_tokens_decoder", "auto_map", "vocab_size", "name_or_path", "tokenizer_file", "legacy"):
        config.pop(stale, None)
    config |= {**roles, **(special if isinstance(special, Mapping) else {})}
    if extra := extra_tokens(config):
        config["extra_special_tokens"] = extra
        config.pop("additional_special_tokens", None)
    # The slow classes rebuild parts of the tokenizer from files that a new vocabulary does not have.
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    # It removes spaces before punctuation, which is right for WordPiece alone.
    config["clean_up_tokenization_spaces"] = False
    unlearnt = {key: value for key, value in model.items() if key not in ("vocab", "merges")}
    parts = {key: definition.get(key) for key in ("normalizer", "pre_tokenizer", "post_processor", "decoder")}
    model = model_fields(**{**unlearnt, "type": "BPE", "dropout": None})
    runs = white_space_runs(style, definition["model"]["vocab"])
    companions = templates_of(source)
    return Blueprint(
        style=style, cutting=cutting, added=added, model=model, config=config, companions=companions, runs=runs, **parts
    )


def templates_of(source: Tokenizer) -> dict[str, bytes]:
    """The files of chat templates beside a tokenizer, which stay true with another vocabulary."""
    return {name: content for name, content in source.companions.items() if name.startswith(TEMPLATE_FILES)}


def added_tokens_like(
    source: Tokenizer, definition: Mapping[str, Any], special: Sequence[str] | Roles, *, keep_reserved: bool
) -> list[dict[str, Any]]:
    """The source's added tokens in the order of their ids, its unknown token, then ``special``.

    Special tokens are found in raw text: looked for in normalized text (``▁<s>``), as some converted SentencePiece
    models have it, they are neither found nor left out by ``skip_special_tokens``.
    """
    added, decided = carried_tokens(source, definition, keep_reserved=keep_reserved)
    logger.info("added tokens of %s: %s", source.name, decided)
    for entry in added:
        if entry.get("special"):
            entry["normalized"] = False
    known = {token["content"] for token in added}
    unknown = definition["model"].get("unk_token")
    if unknown is not None and unknown not in known:
        added.insert(0, added_token(unknown))
        known.add(unknown)
    for token in special.values() if isinstance(special, Mapping) else special:
        if token not in known:
            added.append(added_token(token))
            known.add(token)
    return added
