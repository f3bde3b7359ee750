"""What the tokens of any tokenizer stand for, in one form: the bytes that they add to a text.

``Ġhaus`` of a byte-level tokenizer, ``▁haus`` of a metaspace one and ``haus`` of WordPiece are all ``b" haus"``;
``<0xC3>`` and a lone ``Ã`` of a byte-level vocabulary are both ``b"\\xc3"``. Special tokens stand for no text: they are
known by role.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from langadapt import _core
from langadapt.errors import DataError

METASPACE = "▁"
BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")

ROLE_KEYS = ("bos", "eos", "unk", "pad", "cls", "sep", "mask")
"""Roles that a tokenizer's configuration names (``bos_token`` and so on)."""

CONVENTIONAL_NAMES = {
    "bos": ("<s>", "<bos>", "<|begin_of_text|>", "<|startoftext|>", "[BOS]"),
    "eos": ("</s>", "<eos>", "<|end_of_text|>", "<|endoftext|>", "[EOS]"),
    "unk": ("<unk>", "[UNK]", "<|unk|>"),
    "pad": ("<pad>", "[PAD]", "<|pad|>", "<|finetune_right_pad_id|>"),
    "cls": ("[CLS]",),
    "sep": ("[SEP]",),
    "mask": ("[MASK]", "<mask>"),
}
"""Where a bare ``tokenizer.json`` names no roles, a special token of one of these names takes the role."""

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


def byte_characters() -> dict[str, int]:
    """The printable stand-ins of bytes in byte-level vocabularies (GPT-2), character to byte."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    table.update({chr(256 + i): byte for i, byte in enumerate(others)})
    return table


CHARACTER_BYTES = byte_characters()
BYTE_TO_CHARACTER = {byte: character for character, byte in CHARACTER_BYTES.items()}


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
    fingerprint: str
    """Hash of the ``tokenizer.json``."""
    backend: Any = field(repr=False, compare=False)
    """The ``tokenizers.Tokenizer``."""

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
        tokenizer: a folder or ``tokenizer.json``, a ``langadapt.Tokenizer``, a ``transformers`` tokenizer or a
            ``tokenizers.Tokenizer``.

    Raises:
        DataError: it has no ``tokenizer.json`` form, or that is malformed.
    """
    if isinstance(tokenizer, Vocabulary):
        return tokenizer
    text, roles = tokenizer_json(tokenizer)
    from tokenizers import Tokenizer as Backend

    try:
        data = json.loads(text)
        backend = Backend.from_str(text)
    except Exception as error:  # The backend raises bare exceptions.
        raise DataError(f"{describe(tokenizer)}: not a valid tokenizer.json: {error}") from None
    # Files of sentence encoders cut and pad every text, which would falsify all counts.
    backend.no_truncation()
    backend.no_padding()
    family = family_of(data)
    special = {entry["content"]: bool(entry.get("special")) for entry in data.get("added_tokens") or ()}
    ids: dict[str, int] = backend.get_vocab(with_added_tokens=True)
    size = max(ids.values(), default=-1) + 1
    names, texts, kinds = [""] * size, [b""] * size, [""] * size
    for name, token in ids.items():
        names[token] = name
        kinds[token], texts[token] = token_form(name, family, special.get(name), data["model"])
    known_roles = {role: ids[name] for role, name in roles.items() if name in ids}
    for role, candidates in CONVENTIONAL_NAMES.items():
        found = next((ids[name] for name in candidates if name in ids and special.get(name, True)), None)
        if role not in known_roles and not roles and found is not None:
            known_roles[role] = found
    unknown = data["model"].get("unk_token")
    if "unk" not in known_roles and unknown in ids:
        known_roles["unk"] = ids[unknown]
    for token in known_roles.values():
        kinds[token], texts[token] = "special", b""
    fingerprint = str(_core.hash_bytes(text.encode()))
    return Vocabulary(names, ids, texts, kinds, known_roles, family, fingerprint, backend)


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
    steps = [step for key in ("normalizer", "pre_tokenizer", "decoder") for step in flatten(data.get(key))]
    kinds = {step.get("type") for step in steps}
    if "ByteLevel" in kinds:
        return "byte_level"
    replaces = any(
        step.get("type") == "Replace" and METASPACE in (step.get("content"), (step.get("pattern") or {}).get("String"))
        for step in steps
    )
    prepends = any(step.get("type") == "Prepend" and step.get("prepend") == METASPACE for step in steps)
    return "metaspace" if "Metaspace" in kinds or replaces or prepends else "plain"


def flatten(step: dict[str, Any] | None) -> list[dict[str, Any]]:
    """A component of a ``tokenizer.json`` and all that it is a sequence of."""
    if not step:
        return []
    inner = step.get("pretokenizers") or step.get("normalizers") or step.get("decoders") or []
    return [step, *(nested for part in inner for nested in flatten(part))]


def tokenizer_json(tokenizer: Any) -> tuple[str, dict[str, str]]:
    """The text of its ``tokenizer.json`` and its roles, role to token string."""
    from langadapt.tokenizer.encoder import Tokenizer

    if isinstance(tokenizer, (str, Path)):
        return folder_json(Path(tokenizer))
    if isinstance(tokenizer, Tokenizer):
        named = {role: tokenizer.special_token(f"{role}_token") for role in ROLE_KEYS}
        return tokenizer.definition.decode(), {role: name for role, name in named.items() if name is not None}
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        named = {role: getattr(tokenizer, f"{role}_token", None) for role in ROLE_KEYS}
        return backend.to_str(), {role: str(name) for role, name in named.items() if name is not None}
    if hasattr(tokenizer, "to_str"):
        return str(tokenizer.to_str()), {}
    raise DataError(f"{describe(tokenizer)}: has no tokenizer.json; convert it to a fast tokenizer first")


def folder_json(path: Path) -> tuple[str, dict[str, str]]:
    """``tokenizer.json`` in (or at) ``path``, with the roles that the files beside it name."""
    from langadapt.tokenizer.encoder import TOKENIZER_FILE, Tokenizer, read_companions, special_tokens

    file = path / TOKENIZER_FILE if path.is_dir() else path
    if not file.is_file():
        # Converts a SentencePiece model, asks the hub, or says what is missing.
        return tokenizer_json(Tokenizer.from_pretrained(path))
    roles = special_tokens(read_companions(file.parent), str(file))
    found = {role: roles[f"{role}_token"] for role in ROLE_KEYS if f"{role}_token" in roles}
    return file.read_text(encoding="utf-8"), found


def describe(tokenizer: Any) -> str:
    """A short name for messages."""
    if isinstance(tokenizer, (str, Path)):
        return str(tokenizer)
    return str(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__)
