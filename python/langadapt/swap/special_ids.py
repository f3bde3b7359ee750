"""Token ids inside configurations: which keys hold them, and what they become under another vocabulary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langadapt.errors import DataError
from langadapt.swap.matching import VocabularyMatch

ALWAYS = ("bos_token_id", "eos_token_id", "pad_token_id")
ID_LISTS = ("suppress_tokens", "begin_suppress_tokens")
ID_SEQUENCES = ("bad_words_ids", "force_words_ids")
WRITTEN = ("sep", "cls", "mask", "unk", "decoder_start", "forced_bos", "forced_eos", "forced_decoder")
"""Roles of tokens that a model or `generate` writes by itself: none of them is no token. What others name is looked for
in a text, such as the place of an image, and code expects a number."""
NOWHERE = -1
"""The id of what is looked for and is not to be found."""
MAX_UNUSED = 0.1
"""Models pad their rows, but by no larger share than this."""


def mismatch_notes(config: Mapping[str, Any], match: VocabularyMatch, rows: int) -> list[str]:
    """Signs that a model and its source tokenizer do not belong together: unused rows, other special tokens.

    Args:
        config: the model's configuration.
        match: of its tokenizer and the new one.
        rows: of the embedding matrices.
    """
    found = []
    if match.source_size < (1 - MAX_UNUSED) * rows:
        found.append(
            f"the model has {rows} embedding rows but its tokenizer only {match.source_size} ids; make sure that they "
            "belong together"
        )
    for role in ("bos", "eos"):
        value, own = config.get(f"{role}_token_id"), match.source.roles.get(role)
        known = value if isinstance(value, (list, tuple)) else [value]
        if value is not None and own is not None and own not in known:
            ids = f"config.json has {role}_token_id {value}, the model's tokenizer {own}"
            found.append(f"{ids}; make sure that they belong together")
    return found


def is_id(key: str) -> bool:
    """Whether a key of a configuration holds the id of one token."""
    return key.endswith(("_token_id", "_token_index"))


def translated_ids(
    config: Mapping[str, Any], match: VocabularyMatch, name: object = "the model's configuration"
) -> dict[str, Any]:
    """The keys of a configuration that hold token ids, with their values under the target vocabulary.

    ``bos_token_id`` and the like become what the target tokenizer says (none where it has no such token; a padding
    token that was the end token stays so). Of several end tokens, the target's own comes first, then those that have a
    counterpart. Every other ``*_token_id`` becomes its counterpart, or none, or :data:`NOWHERE`.

    Raises:
        DataError: a key holds something else than ids; calls the configuration by its ``name``.
    """
    changes: dict[str, Any] = {}
    # A file leaves out what is none; the target may have such a token.
    for key, value in {**dict.fromkeys(ALWAYS), **config}.items():
        if value is None and key not in ALWAYS:
            continue
        try:
            if key == "eos_token_id":
                changes[key] = end_tokens(value, match)
            elif is_id(key):
                changes[key] = counterpart(key.rpartition("_token_")[0], value, config, match)
            elif key in ID_LISTS:
                changes[key] = counterparts(value, match) or None
            elif key in ID_SEQUENCES:
                changes[key] = [whole for whole in (all_of(one, match) for one in value) if whole] or None
            elif key == "sequence_bias":
                changes[key] = biases(value, match) or None
            elif key == "forced_decoder_ids":
                # What is left behind a missing one would stand elsewhere.
                pairs = [[at, match.target_of(int(token))] for at, token in value]
                changes[key] = pairs if all(token is not None for _, token in pairs) else None
        except (TypeError, ValueError):
            raise DataError(f"{name}: {key} is {value!r}, which are no token ids; correct it there") from None
    return changes


def biases(value: Any, match: VocabularyMatch) -> list[list[Any]]:
    """`sequence_bias`, pairs of ids and a number, without those of which an id has no counterpart."""
    pairs = value.items() if isinstance(value, Mapping) else value
    found = ((all_of(ids, match), bias) for ids, bias in pairs)
    return [[ids, bias] for ids, bias in found if ids]


def all_of(ids: Sequence[int], match: VocabularyMatch) -> list[int]:
    """The counterparts of all ids, or nothing."""
    found = counterparts(ids, match)
    return found if len(found) == len(ids) else []


def end_tokens(value: int | list[int] | None, match: VocabularyMatch) -> int | list[int] | None:
    """The end tokens of generation."""
    own = match.target.roles.get("eos")
    if not isinstance(value, (list, tuple)):
        return own
    others = [token for token in value if token != match.source.roles.get("eos")]
    ids = dict.fromkeys(([own] if own is not None else []) + counterparts(others, match))
    return list(ids) or None


def counterpart(role: str, value: Any, config: Mapping[str, Any], match: VocabularyMatch) -> int | None:
    """What one ``{role}_token_id`` becomes."""
    if role in match.target.roles:
        return match.target.roles[role]
    none = None if f"{role}_token_id" in ALWAYS or role in WRITTEN else NOWHERE
    if not isinstance(value, int) or isinstance(value, bool):
        return none
    ends = config.get("eos_token_id")
    if role == "pad" and (value == ends or (isinstance(ends, (list, tuple)) and value in ends)):
        return match.target.roles.get("eos")
    # A role that the target tokenizer does not have must not point at some ordinary token.
    found = None if role in match.source.roles and role in ("bos", "pad", "unk") else match.target_of(value)
    return none if found is None else found


def counterparts(values: Any, match: VocabularyMatch) -> list[int]:
    """The counterparts of some ids, without those that have none."""
    found = (match.target_of(int(value)) for value in values)
    return [token for token in found if token is not None]
