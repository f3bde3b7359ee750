"""Text to token ids and back: an exact, fast encoder for Hugging Face tokenizers.

SentencePiece-style and byte-level BPE run natively, with ids identical to the ``tokenizers`` package; any other
``tokenizer.json`` runs through that package itself, which is logged and shown by :attr:`Tokenizer.backend`.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from langadapt import _core
from langadapt.errors import DataError, shorten

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

logger = logging.getLogger(__name__)

TOKENIZER_FILE = "tokenizer.json"

COMPANIONS = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
)
"""Files beside ``tokenizer.json`` that belong to a tokenizer; :meth:`Tokenizer.save_pretrained` keeps them."""

Progress = Callable[[str, int, "int | None", str], None]


class Backend(Protocol):
    """What encodes and decodes: the native encoder, or the ``tokenizers`` package behind the same methods."""

    @property
    def vocab_size(self) -> int: ...
    def encode(self, text: str, add_special_tokens: bool) -> NDArray[np.uint32]: ...
    def encode_batch(
        self, texts: Sequence[str], add_special_tokens: bool, threads: int, progress: Progress | None
    ) -> tuple[NDArray[np.uint32], NDArray[np.uint64]]: ...
    def decode(self, ids: NDArray[np.uint32], skip_special_tokens: bool) -> str: ...
    def token_to_id(self, token: str) -> int | None: ...
    def id_to_token(self, id: int) -> str | None: ...
    def added_tokens(self) -> list[tuple[int, str, bool, bool]]: ...


class Tokenizer:
    """A tokenizer read from a ``tokenizer.json``.

    Args:
        definition: the bytes of the ``tokenizer.json``.
        companions: files that belong to it, by name (see :data:`COMPANIONS`).
        name: what errors and logs call it.

    Raises:
        DataError: ``definition`` is not a ``tokenizer.json``.
        TypeError: it is a path; :meth:`from_pretrained` reads those.
    """

    def __init__(
        self, definition: bytes, companions: Mapping[str, bytes] | None = None, name: str | Path = TOKENIZER_FILE
    ) -> None:
        if not isinstance(definition, bytes):
            raise TypeError(f"{definition!r}: not the bytes of a tokenizer.json; Tokenizer.from_pretrained reads paths")
        self.definition = definition
        """The bytes of ``tokenizer.json``."""
        self.name = str(name)
        """Where it came from."""
        self.fingerprint: str = _core.hash_bytes(definition)
        """128-bit hash of ``tokenizer.json``, in hex: two tokenizers with the same one give the same ids."""
        self._companions = dict(companions or {})
        native, reason = _core.NativeTokenizer.load(definition, self.name)
        self.backend: Literal["native", "tokenizers"]
        """What does the work: ``"native"``, or ``"tokenizers"`` for kinds that the native encoder does not know."""
        self._backend: Backend
        if native is not None:
            self.backend, self._backend = "native", native
        else:
            logger.info("%s: encoded by the `tokenizers` package, slower: %s", self.name, shorten(str(reason)))
            self.backend, self._backend = "tokenizers", PackageTokenizer(definition, self.name)
        self.native = native
        """The native encoder, for other parts of the core; ``None`` with the other backend."""
        self.vocab_size: int = self._backend.vocab_size
        """One more than the largest id, added tokens included: the rows that an embedding matrix needs."""
        self._special = special_tokens(self._companions, self.name)
        self._transformers: PreTrainedTokenizerFast | None = None

    @classmethod
    def from_file(cls, path: str | Path) -> Tokenizer:
        """Read a ``tokenizer.json`` and the files that lie beside it.

        Raises:
            FileNotFoundError: there is no such file.
            DataError: it is not a ``tokenizer.json``.
        """
        path = Path(path)
        return cls(path.read_bytes(), read_companions(path.parent), path)

    @classmethod
    def from_pretrained(cls, name: str | Path) -> Tokenizer:
        """Read a tokenizer's folder, or fetch it from the Hugging Face hub.

        A folder with a SentencePiece ``tokenizer.model`` and no ``tokenizer.json`` is converted by transformers.

        Raises:
            FileNotFoundError: ``name`` looks like a folder and is none.
            DataError: the folder holds no tokenizer, or the hub has none under this name or cannot be reached.
        """
        folder = Path(name)
        if folder.is_file():
            return cls.from_file(folder)
        if not folder.is_dir():
            folder = fetch(str(name))
        if (folder / TOKENIZER_FILE).is_file():
            return cls.from_file(folder / TOKENIZER_FILE)
        return cls(convert(folder), read_companions(folder), folder)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``tokenizer.json`` and all files that came with it, so that ``AutoTokenizer`` loads the folder.

        Other files in ``folder`` stay as they are.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        files = {TOKENIZER_FILE: self.definition, **self._companions}
        # Without it transformers cannot tell the class.
        files.setdefault("tokenizer_config.json", b'{\n  "tokenizer_class": "PreTrainedTokenizerFast"\n}\n')
        for name, content in files.items():
            temporary = folder / f".{name}.{os.getpid()}.tmp"
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(folder / name)

    def encode(self, text: str, *, add_special_tokens: bool = False) -> NDArray[np.uint32]:
        """Ids of ``text``, uint32 ``[n]``.

        ``add_special_tokens`` puts the BOS, EOS or other tokens of the tokenizer's template around them. Nothing is
        ever truncated or padded, whatever the file says.
        """
        return self._backend.encode(text, add_special_tokens)

    def encode_batch(
        self,
        texts: Iterable[str],
        *,
        add_special_tokens: bool = False,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> tuple[NDArray[np.uint32], NDArray[np.uint64]]:
        """Ids of many texts, in parallel, other Python threads running on.

        Args:
            texts: any number of strings.
            add_special_tokens: see :meth:`encode`.
            threads: all cores by default; the result does not depend on it.
            progress: called as ``(phase, done, total, unit)``.

        Returns:
            ids uint32 ``[n]`` of all texts in a row, and offsets uint64 ``[len(texts) + 1]``: text ``i`` has
            ``ids[offsets[i]:offsets[i + 1]]``.

        Raises:
            ValueError: ``threads`` is not positive.
            TypeError: ``texts`` is one string, or holds what is none.
        """
        if isinstance(texts, str):
            raise TypeError("texts: one string; pass a list of them, or call `encode`")
        texts = texts if isinstance(texts, Sequence) else list(texts)
        return self._backend.encode_batch(texts, add_special_tokens, thread_count(threads), progress)

    def decode(self, ids: ArrayLike, *, skip_special_tokens: bool = False) -> str:
        """Text of ``ids`` (integers ``[n]``), as the tokenizer's decoder makes it.

        Ids that stand for nothing are left out, as ``tokenizers`` does; what is no UTF-8 becomes U+FFFD.

        Raises:
            ValueError: an id is negative or does not fit 32 bits.
            TypeError: ids are no integers.
        """
        array = np.asarray(ids)
        if array.size and array.dtype.kind not in "iu":
            raise TypeError(f"ids to decode: {array.dtype}; pass integers")
        if array.size and (array.min() < 0 or array.max() > 0xFFFF_FFFF):
            raise ValueError(f"ids to decode: found {array.min()}..{array.max()}, expected 0..{self.vocab_size - 1}")
        return self._backend.decode(np.ascontiguousarray(array, dtype=np.uint32).reshape(-1), skip_special_tokens)

    def token_to_id(self, token: str) -> int | None:
        """The id of a token as the file writes it (``▁und``, ``Ġund``, ``<s>``), if there is one."""
        return self._backend.token_to_id(token)

    def id_to_token(self, id: int) -> str | None:
        """The token of an id as the file writes it, if there is one."""
        return self._backend.id_to_token(id) if 0 <= id < self.vocab_size else None

    def added_tokens(self) -> list[tuple[int, str, bool, bool]]:
        """All added tokens by id: ``(id, content, special, normalized)``."""
        return self._backend.added_tokens()

    @property
    def special_token_ids(self) -> frozenset[int]:
        """Ids of all added tokens that the file marks as special."""
        return frozenset(id for id, _, special, _ in self._backend.added_tokens() if special)

    @property
    def bos_token_id(self) -> int | None:
        """Id of the token that begins a text, if the configuration names one."""
        return self._special_id("bos_token")

    @property
    def eos_token_id(self) -> int | None:
        """Id of the token that ends a text, if the configuration names one."""
        return self._special_id("eos_token")

    @property
    def pad_token_id(self) -> int | None:
        """Id of the token that fills up batches, if the configuration names one."""
        return self._special_id("pad_token")

    @property
    def unk_token_id(self) -> int | None:
        """Id of the token for unknown text, if the configuration names one."""
        return self._special_id("unk_token")

    def special_token(self, role: str) -> str | None:
        """The token that the configuration names for a role such as ``"bos_token"``."""
        return self._special.get(role)

    def _special_id(self, role: str) -> int | None:
        token = self._special.get(role)
        return None if token is None else self.token_to_id(token)

    def companion(self, name: str) -> bytes | None:
        """The contents of a file that came with ``tokenizer.json``, such as ``"tokenizer_config.json"``."""
        return self._companions.get(name)

    def to_transformers(self) -> PreTrainedTokenizerFast:
        """The same tokenizer as an object of transformers (loaded once, on first use)."""
        if self._transformers is None:
            from transformers import PreTrainedTokenizerFast

            with tempfile.TemporaryDirectory() as folder:
                self.save_pretrained(folder)
                self._transformers = PreTrainedTokenizerFast.from_pretrained(folder)
            # Not that of a folder which is gone.
            self._transformers.name_or_path = self.name
        return self._transformers

    def __len__(self) -> int:
        return self.vocab_size

    def __repr__(self) -> str:
        return f"Tokenizer({self.name!r}, vocab_size={self.vocab_size}, backend={self.backend!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return Tokenizer, (self.definition, self._companions, self.name)


class PackageTokenizer:
    """The ``tokenizers`` package behind the methods of the native encoder."""

    def __init__(self, definition: bytes, name: str) -> None:
        from tokenizers import Tokenizer as Package

        try:
            self._tokenizer = Package.from_str(definition.decode("utf-8"))
        except Exception as error:  # The package raises bare `Exception`.
            raise DataError(f"{name}: the `tokenizers` package cannot read it: {error}") from None
        # A corpus must never be cut or filled up by what a file was once saved with.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.vocab_size = max(self._tokenizer.get_vocab().values(), default=-1) + 1

    def encode(self, text: str, add_special_tokens: bool) -> NDArray[np.uint32]:
        ids = self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids
        return np.array(ids, dtype=np.uint32)

    def encode_batch(
        self, texts: Sequence[str], add_special_tokens: bool, threads: int, progress: Progress | None
    ) -> tuple[NDArray[np.uint32], NDArray[np.uint64]]:
        # `threads` cannot be honoured: the package has one pool for the whole process.
        texts = list(texts)
        lengths: list[int] = []
        parts = [np.empty(0, dtype=np.uint32)]
        for start in range(0, len(texts), 256):
            block = self._tokenizer.encode_batch_fast(texts[start : start + 256], add_special_tokens=add_special_tokens)
            lengths += [len(encoding) for encoding in block]
            parts += [np.array(encoding.ids, dtype=np.uint32) for encoding in block]
            if progress is not None:
                progress("tokenize", len(lengths), len(texts), "documents")
        offsets = np.zeros(len(texts) + 1, dtype=np.uint64)
        np.cumsum(np.array(lengths, dtype=np.uint64), out=offsets[1:])
        return np.concatenate(parts), offsets

    def decode(self, ids: NDArray[np.uint32], skip_special_tokens: bool) -> str:
        return str(self._tokenizer.decode(ids.tolist(), skip_special_tokens=skip_special_tokens))

    def token_to_id(self, token: str) -> int | None:
        id: int | None = self._tokenizer.token_to_id(token)
        return id

    def id_to_token(self, id: int) -> str | None:
        added = self._tokenizer.get_added_tokens_decoder().get(id)
        token: str | None = added.content if added is not None else self._tokenizer.id_to_token(id)
        return token

    def added_tokens(self) -> list[tuple[int, str, bool, bool]]:
        added = self._tokenizer.get_added_tokens_decoder()
        return [(id, token.content, token.special, token.normalized) for id, token in sorted(added.items())]


def thread_count(threads: int | None) -> int:
    """``threads``, or the cores that this process may use.

    Raises:
        ValueError: ``threads`` is not positive.
    """
    if threads is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if threads < 1:
        raise ValueError(f"threads: {threads}; give at least 1")
    return threads


def read_companions(folder: Path) -> dict[str, bytes]:
    """The files of :data:`COMPANIONS` that ``folder`` has."""
    return {name: (folder / name).read_bytes() for name in COMPANIONS if (folder / name).is_file()}


def special_tokens(companions: Mapping[str, bytes], tokenizer: str = "tokenizer") -> dict[str, str]:
    """Role (``"bos_token"``, ...) to token, from the configuration files of ``tokenizer``.

    Raises:
        DataError: one of them is no JSON object.
    """
    tokens: dict[str, str] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if name not in companions:
            continue
        try:
            settings = json.loads(companions[name])
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise DataError(f"{tokenizer}: the {name} beside it is not valid JSON: {error}") from None
        if not isinstance(settings, dict):
            raise DataError(f"{tokenizer}: the {name} beside it is no JSON object")
        for role, token in settings.items():
            content = token.get("content") if isinstance(token, dict) else token
            if role.endswith("_token") and isinstance(content, str):
                tokens[role] = content
    return tokens


def fetch(name: str) -> Path:
    """The local folder of a tokenizer on the hub."""
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name:
        raise FileNotFoundError(2, "No such folder, and not the name of a tokenizer on the hub", name)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=[TOKENIZER_FILE, *COMPANIONS]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DataError(f"{name}: no such folder here, and the hub does not give it: {reason}") from None


def convert(folder: Path) -> bytes:
    """The ``tokenizer.json`` that transformers makes of what ``folder`` holds."""
    if not any((folder / name).is_file() for name in ("tokenizer.model", "vocab.json", "tokenizer_config.json")):
        raise DataError(f"{folder}: no tokenizer.json and no tokenizer.model; name a folder that holds a tokenizer")
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        definition: str = tokenizer.backend_tokenizer.to_str()
    except Exception as error:
        raise DataError(f"{folder}: transformers cannot convert this tokenizer: {shorten(str(error))}") from None
    logger.info("%s: converted by transformers, there is no tokenizer.json", folder)
    return definition.encode("utf-8")
