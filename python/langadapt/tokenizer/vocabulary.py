"""What the tokens of any tokenizer stand for, in one form: the bytes that they add to a text.

``Ġhaus`` of a byte-level tokenizer, ``▁haus`` of a metaspace one and ``haus`` of WordPiece are all ``b" haus"``;
``<0xC3>`` and a lone ``Ã`` of a byte-level vocabulary are both ``b"\\xc3"``. Special tokens stand for no text: they are
known by role.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from langadapt import _core
from langadapt.tokenizer.cutting import METASPACE, steps_of
from langadapt.tokenizer.encoder import Tokenizer, open_tokenizer
from langadapt.tokenizer.package import load_package
from langadapt.tokenizer.roles import ROLE_NAMES, roles_by_name

BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")

BYTE_TO_CHARACTER = _core.byte_characters()
"""The printable stand-ins of bytes in byte-level vocabularies (GPT-2), by byte."""
CHARACTER_BYTES = {character: byte for byte, character in enumerate(BYTE_TO_CHARACTER)}


@dataclass(frozen=True)
class Vocabulary:
    """All tokens of a tokenizer by id. An id that no token has is a hole: name, text and kind are empty."""

    names: list[str]
    """The tokenizer's own strings."""
    ids: dict[str, int]
    """The same, string to id."""
    texts: list[bytes]
    """What each token adds to a text; empty for special tokens and holes."""
    kinds: list[str]
    """``normal``, ``byte`` (part of a character, or ``<0xNN>``), ``added`` (literal), ``special``, or empty."""
    roles: dict[str, int]
    """Role to id, e.g. ``{"bos": 1}``."""
    family: str
    """``byte_level``, ``metaspace``, ``wordpiece`` or ``plain``."""
    tokenizer: Tokenizer = field(repr=False, compare=False)
    """The tokenizer itself."""
    backend: Any = field(repr=False, compare=False)
    """The same as a ``tokenizers.Tokenizer``."""

    def __len__(self) -> int:
        """One more than the highest id."""
        return len(self.names)

    @property
    def identity(self) -> str:
        """Hash of all names by id: the same for every file and object form of one vocabulary."""
        return str(_core.hash_bytes("\0".join(self.names).encode()))

    def surface(self, token: int) -> str:
        """The token as readable text, white space as ``▁``, broken characters as ``<0xNN>``."""
        return readable(self.texts[token]) or self.names[token]

    def pieces(self, text: bytes) -> list[int]:
        """Ids that spell ``text`` inside a running text; empty where the vocabulary cannot spell it.

        Goes to the model directly: normalizers that strip white space or put a space in front would change the text.
        """
        if self.family == "byte_level":
            return self._model_pieces("".join(BYTE_TO_CHARACTER[byte] for byte in text))
        if self.family == "wordpiece":
            return self._word_pieces(text.decode("utf-8", "ignore"))
        found: list[int] = []
        for part in split_broken(text):
            if isinstance(part, int):
                token = self.ids.get(f"<0x{part:02X}>")
                found += [token] if token is not None else []
            else:
                found += self._model_pieces(part.replace(" ", METASPACE) if self.family == "metaspace" else part)
        return found

    def _model_pieces(self, text: str) -> list[int]:
        unknown = self.roles.get("unk")
        return [token.id for token in self.backend.model.tokenize(text) if token.id != unknown]

    def _word_pieces(self, text: str) -> list[int]:
        """Greedy longest match; a text without a leading space goes on a word, which the model alone cannot express."""
        known = self.ids
        normalizer, splitter = self.backend.normalizer, self.backend.pre_tokenizer
        text_normal = normalizer.normalize_str(text) if normalizer is not None else text
        words = [word for word, _ in splitter.pre_tokenize_str(text_normal)] if splitter else text_normal.split()
        found: list[int] = []
        for i, word in enumerate(words):
            inside = i == 0 and not text.startswith(" ")
            at = 0
            while at < len(word):
                prefix = "##" if inside or at > 0 else ""
                ends = (end for end in range(len(word), at, -1) if prefix + word[at:end] in known)
                end = next(ends, None)
                if end is None:
                    at += 1
                    continue
                found.append(known[prefix + word[at:end]])
                at = end
        return found


def is_utf8(text: bytes) -> bool:
    """Whether ``text`` is whole characters."""
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def split_broken(text: bytes) -> list[str | int]:
    """``text`` as stretches of whole characters and single bytes of broken ones."""
    parts: list[str | int] = []
    # `surrogateescape` turns exactly the undecodable bytes into U+DC80..U+DCFF.
    for match in re.finditer(r"[^\udc80-\udcff]+|[\udc80-\udcff]", text.decode("utf-8", "surrogateescape")):
        part = match.group()
        parts.append(ord(part) - 0xDC00 if 0xDC80 <= ord(part[0]) <= 0xDCFF else part)
    return parts


def readable(text: bytes) -> str:
    """``text`` with ``▁`` for spaces and ``<0xNN>`` for bytes that are no characters."""
    parts = (f"<0x{part:02X}>" if isinstance(part, int) else part for part in split_broken(text))
    return "".join(parts).replace(" ", METASPACE)


def read_vocabulary(tokenizer: Any) -> Vocabulary:
    """The vocabulary of a tokenizer.

    Args:
        tokenizer: in any form that :func:`langadapt.tokenizer.encoder.open_tokenizer` takes.

    Raises:
        ConfigError, DataError, FileNotFoundError: as that function.
    """
    if isinstance(tokenizer, Vocabulary):
        return tokenizer
    source = open_tokenizer(tokenizer)
    data, backend = json.loads(source.definition), load_package(source.definition, source.name)
    family = family_of(data)
    special = {entry["content"]: bool(entry.get("special")) for entry in data.get("added_tokens") or ()}
    ids: dict[str, int] = backend.get_vocab(with_added_tokens=True)
    size = max(ids.values(), default=-1) + 1
    names, texts, kinds = [""] * size, [b""] * size, [""] * size
    for name, token in ids.items():
        names[token] = name
        kinds[token], texts[token] = token_form(name, family, special.get(name), data["model"])
    named = {role: taker for role in map("{}_token".format, ROLE_NAMES) if (taker := source.special_token(role))}
    if not named:
        named = roles_by_name(name for name in ids if special.get(name, True))
    known_roles = {role.removesuffix("_token"): ids[name] for role, name in named.items() if name in ids}
    unknown = data["model"].get("unk_token")
    if "unk" not in known_roles and unknown in ids:
        known_roles["unk"] = ids[unknown]
    for token in known_roles.values():
        kinds[token], texts[token] = "special", b""
    return Vocabulary(names, ids, texts, kinds, known_roles, family, source, backend)


def token_form(name: str, family: str, special: bool | None, model: dict[str, Any]) -> tuple[str, bytes]:
    """Kind and bytes of a token; ``special`` is none for a token of the model's own vocabulary."""
    if special:
        return "special", b""
    if special is not None:
        return "added", (name.replace(METASPACE, " ") if family == "metaspace" else name).encode()
    if family == "byte_level":
        # Characters outside the alphabet of bytes stand for themselves.
        text = b"".join(bytes([CHARACTER_BYTES[c]]) if c in CHARACTER_BYTES else c.encode() for c in name)
        return ("normal" if is_utf8(text) else "byte"), text
    if family == "wordpiece":
        prefix = model.get("continuing_subword_prefix", "##")
        return "normal", (name.removeprefix(prefix) if name.startswith(prefix) else f" {name}").encode()
    byte = BYTE_TOKEN.fullmatch(name)
    if byte:
        return "byte", bytes([int(byte.group(1), 16)])
    suffix = model.get("end_of_word_suffix")
    if suffix and name.endswith(suffix):
        name = name.removesuffix(suffix) + " "
    return "normal", (name.replace(METASPACE, " ") if family == "metaspace" else name).encode()


def family_of(data: dict[str, Any]) -> str:
    """How the vocabulary of a parsed ``tokenizer.json`` writes bytes and spaces."""
    if data["model"].get("type") == "WordPiece":
        return "wordpiece"
    steps = [step for key in ("normalizer", "pre_tokenizer", "decoder") for step in steps_of(data.get(key))]
    kinds = {step.get("type") for step in steps}
    if "ByteLevel" in kinds:
        return "byte_level"
    replaces = any(
        step.get("type") == "Replace" and METASPACE in (step.get("content"), (step.get("pattern") or {}).get("String"))
        for step in steps
    )
    prepends = any(step.get("type") == "Prepend" and step.get("prepend") == METASPACE for step in steps)
    return "metaspace" if "Metaspace" in kinds or replaces or prepends else "plain"
