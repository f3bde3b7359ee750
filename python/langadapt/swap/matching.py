"""Match two vocabularies: which target token is which source token, and which source tokens spell the others.

Pure data, no tensors: everything that :mod:`langadapt.swap.rows.initialize` needs to know about the two tokenizers.

The rule, in this order, for a target token:

1. A *special* token takes the source token of the same role (bos, eos, pad, ...; where the source lacks the role, the
   nearest one of :data:`ROLE_FALLBACKS`), else the special token of the same name, else the chat marker that does the
   same (``<|im_end|>`` and ``<|eot_id|>``). It is never matched to ordinary text.
2. Any other token takes the source token that stands for the same bytes (see :mod:`langadapt.tokenizer.vocabulary`). Of
   several (``A`` and ``<0x41>``), one of its own kind comes first, then ``normal``, ``added``, ``byte``, then the
   lowest id.
3. With ``fuzzy=True``, a token without such a partner takes one that differs only in case or in a leading space; of
   several, one with the same leading space comes first, then one of the same case, then the lowest id.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langadapt.tokenizer.roles import CHAT_ROLES
from langadapt.tokenizer.vocabulary import Vocabulary, read_vocabulary

NEW, EXACT, FUZZY, ROLE = 0, 1, 2, 3
"""How a target token was matched: not at all, by its bytes, up to case and leading space, by role or special name."""

ROLE_FALLBACKS = {
    "bos": ("cls", "eos"),
    "eos": ("sep", "bos"),
    "pad": ("unk", "eos"),
    "unk": (),
    "cls": ("bos",),
    "sep": ("eos",),
    "mask": (),
}
"""Source roles that stand in for a role that the source does not have."""

KIND_ORDER = ("normal", "added", "byte")


@dataclass(frozen=True)
class VocabularyMatch:
    """Target tokens against source tokens. All arrays are indexed by target id."""

    source: Vocabulary
    """The source tokenizer's tokens."""
    target: Vocabulary
    """The target tokenizer's tokens."""
    source_ids: NDArray[np.int64]
    """``[target]``: the source token of each target token, -1 for none."""
    how: NDArray[np.uint8]
    """``[target]``: :data:`NEW`, :data:`EXACT`, :data:`FUZZY` or :data:`ROLE`."""
    piece_starts: NDArray[np.int64]
    """``[target + 1]``: the pieces of token ``i`` are ``piece_ids[piece_starts[i]:piece_starts[i + 1]]``."""
    piece_ids: NDArray[np.int64]
    """Source ids that spell the target tokens without a partner; special tokens have none."""
    piece_lengths: NDArray[np.int64]
    """Characters of each piece, at least 1."""

    @property
    def source_size(self) -> int:
        """One more than the highest source id."""
        return len(self.source)

    @property
    def target_size(self) -> int:
        """One more than the highest target id."""
        return len(self.target)

    @property
    def overlap_ids(self) -> NDArray[np.int64]:
        """Target ids with a source partner."""
        return np.flatnonzero(self.source_ids >= 0)

    @property
    def new_ids(self) -> NDArray[np.int64]:
        """Target ids without one."""
        return np.flatnonzero(self.source_ids < 0)

    def target_of(self, source_id: int) -> int | None:
        """The target token that stands for a source token, such as a special token of a configuration, or none."""
        role = next((role for role, token in self.source.roles.items() if token == source_id), None)
        if role is not None and role in self.target.roles:
            return self.target.roles[role]
        # -1 stands for no partner.
        found = np.flatnonzero((self.source_ids == source_id) & (self.source_ids >= 0))
        return int(found[0]) if len(found) else None

    def keeps_ids(self) -> bool:
        """Whether the target extends the source: every source token has the same id and name in the target."""
        return self.target.names[: self.source_size] == self.source.names


def match_vocabularies(source_tokenizer: Any, target_tokenizer: Any, *, fuzzy: bool = False) -> VocabularyMatch:
    """Match the vocabularies of two tokenizers by the module's rule.

    Args:
        source_tokenizer: the model's tokenizer: a folder or ``tokenizer.json``, a ``langadapt.Tokenizer``, a
            ``transformers`` tokenizer or a ``tokenizers.Tokenizer``.
        target_tokenizer: the new tokenizer, likewise.
        fuzzy: also match up to case and leading space.

    Raises:
        DataError: a tokenizer has no ``tokenizer.json`` form.
    """
    source, target = read_vocabulary(source_tokenizer), read_vocabulary(target_tokenizer)
    source_ids = np.full(len(target), -1, dtype=np.int64)
    how = np.zeros(len(target), dtype=np.uint8)
    exact, loose = by_text(source), by_loose_text(source) if fuzzy else {}
    for token, (text, kind) in enumerate(zip(target.texts, target.kinds, strict=True)):
        if kind == "special":
            found = special_partner(source, target, token)
            partner = (found, ROLE) if found is not None else None
        else:
            partner = text_partner(text, kind, exact, loose)
        if partner is not None:
            source_ids[token], how[token] = partner
    starts, ids, lengths = spell(source, target, source_ids)
    return VocabularyMatch(source, target, source_ids, how, starts, ids, lengths)


def by_text(vocabulary: Vocabulary) -> dict[bytes, list[tuple[int, str]]]:
    """Text to ``(id, kind)`` of the tokens that stand for it, best first for a token of no particular kind."""
    index: dict[bytes, list[tuple[int, str]]] = defaultdict(list)
    for token, (text, kind) in enumerate(zip(vocabulary.texts, vocabulary.kinds, strict=True)):
        if kind in KIND_ORDER:
            index[text].append((token, kind))
    for entries in index.values():
        entries.sort(key=lambda entry: (KIND_ORDER.index(entry[1]), entry[0]))
    return index


def by_loose_text(vocabulary: Vocabulary) -> dict[str, list[tuple[int, str]]]:
    """Loose text to ``(id, text)`` of ordinary tokens."""
    index: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for token, (text, kind) in enumerate(zip(vocabulary.texts, vocabulary.kinds, strict=True)):
        key = loose_text(text)
        if kind in ("normal", "added") and key:
            index[key].append((token, text.decode()))
    return index


def loose_text(text: bytes) -> str:
    """``text`` without case and outer spaces; empty where it is no whole characters."""
    try:
        return text.decode().strip(" ").lower()
    except UnicodeDecodeError:
        return ""


def text_partner(
    text: bytes,
    kind: str,
    exact: dict[bytes, list[tuple[int, str]]],
    loose: dict[str, list[tuple[int, str]]],
) -> tuple[int, int] | None:
    """Rules 2 and 3: source id and how it was found."""
    if kind not in KIND_ORDER:
        return None
    entries = exact.get(text)
    if entries:
        own_kind = [token for token, other in entries if other == kind]
        return (own_kind or [entries[0][0]])[0], EXACT
    candidates = loose.get(loose_text(text)) if kind != "byte" else None
    if not candidates:
        return None
    whole = text.decode()

    def distance(entry: tuple[int, str]) -> tuple[bool, bool, int]:
        token, other = entry
        same_case = whole.strip(" ") == other.strip(" ")
        return whole.startswith(" ") != other.startswith(" "), not same_case, token

    return min(candidates, key=distance)[0], FUZZY


def special_partner(source: Vocabulary, target: Vocabulary, token: int) -> int | None:
    """Rule 1: the source's special token that does what the target's does."""
    roles = [role for role, other in target.roles.items() if other == token]
    for role in roles:
        if role in source.roles:
            return source.roles[role]
    name = target.names[token]
    if name in source.ids and source.kinds[source.ids[name]] == "special":
        return source.ids[name]
    for role in roles:
        for stand_in in ROLE_FALLBACKS.get(role, ()):
            if stand_in in source.roles:
                return source.roles[stand_in]
    for alternatives in CHAT_ROLES.values():
        if name in alternatives:
            return next((source.ids[other] for other in alternatives if other in source.ids), None)
    return None


def spell(
    source: Vocabulary, target: Vocabulary, source_ids: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The source pieces of all target tokens without a partner: starts, ids, lengths in characters."""
    starts = np.zeros(len(target) + 1, dtype=np.int64)
    ids: list[int] = []
    for token in range(len(target)):
        if source_ids[token] < 0 and target.texts[token]:
            ids += source.pieces(target.texts[token])
        starts[token + 1] = len(ids)
    lengths = [max(1, len(source.texts[piece].decode("utf-8", "ignore"))) for piece in ids]
    return starts, np.array(ids, dtype=np.int64), np.array(lengths, dtype=np.int64)
