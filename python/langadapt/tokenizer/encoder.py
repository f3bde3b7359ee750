"""Text to token ids and back: an exact, fast encoder for Hugging Face tokenizers.

SentencePiece-style and byte-level BPE run natively, with ids identical to the ``tokenizers`` package; any other
``tokenizer.json`` runs through that package itself, which is logged and shown by :attr:`Tokenizer.backend`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from langadapt import _core
from langadapt.artefacts.folders import scratch_folder
from langadapt.errors import ConfigError, DataError, shorten
from langadapt.machine import thread_count
from langadapt.progress import Progress
from langadapt.tokenizer.files import (
    CONFIG_FILE,
    TOKENIZER_FILE,
    complete,
    convert,
    fetch,
    json_bytes,
    read_files,
    write_files,
)
from langadapt.tokenizer.package import CANNOT_ENCODE, load_package, package_errors
from langadapt.tokenizer.roles import roles_by_name, special_tokens, tokenizer_config
from langadapt.tokenizer.templates import PROCESSOR_FILE, chat_templates, template_files

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

logger = logging.getLogger(__name__)


class Tokenizer:
    """A tokenizer read from a ``tokenizer.json``.

    Args:
        definition: the bytes of the ``tokenizer.json``.
        companions: other files of the tokenizer, by name (see :data:`TOKENIZER_FILES <.files.TOKENIZER_FILES>`).
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
        self.companions = dict(companions or {})
        """The other files that came with it, by name."""
        native, reason = _core.NativeTokenizer.load(definition, self.name)
        self.backend: Literal["native", "tokenizers"]
        """What does the work: ``"native"``, or ``"tokenizers"`` for kinds that the native encoder does not know."""
        self._backend: _core.NativeTokenizer | PackageTokenizer
        if native is not None:
            self.backend, self._backend = "native", native
        else:
            logger.info("%s: encoded by the `tokenizers` package, slower: %s", self.name, shorten(str(reason)))
            self.backend, self._backend = "tokenizers", PackageTokenizer(definition, self.name)
        self.foreign: str | None = None if native is not None else shorten(str(reason))
        """What keeps it from running natively."""
        self.native = native
        """The native encoder, for other parts of the core; ``None`` with the other backend."""
        self.vocab_size: int = self._backend.vocab_size
        """One more than the largest id, added tokens included: the rows that an embedding matrix needs."""
        self._special = special_tokens(tokenizer_config(self.companions, self.name))
        chat_templates(self.companions, self.name)  # which are refused here, not late
        self._transformers: PreTrainedTokenizerFast | None = None

    @classmethod
    def from_file(cls, path: str | Path) -> Tokenizer:
        """Read a ``tokenizer.json`` and the files that lie beside it.

        Raises:
            FileNotFoundError: there is no such file.
            DataError: it is not a ``tokenizer.json``.
        """
        path = Path(path)
        files = {**read_files(path.parent), TOKENIZER_FILE: path.read_bytes()}
        files = complete(files, path.parent) if path.name == TOKENIZER_FILE else files
        return cls(files.pop(TOKENIZER_FILE), files, path)

    @classmethod
    def from_pretrained(cls, name: str | Path) -> Tokenizer:
        """Read a tokenizer's folder, or fetch it from the Hugging Face hub.

        Ids, special tokens and length are those of ``AutoTokenizer``, also where tokens stand beside the
        ``tokenizer.json`` alone; text is cut as the ``tokenizer.json`` says. A folder with a SentencePiece
        ``tokenizer.model`` and no ``tokenizer.json`` is converted by transformers.

        Raises:
            FileNotFoundError: ``name`` looks like a folder and is none.
            DataError: the folder holds no tokenizer, or the hub has none under this name or cannot be reached, or a
                special token is named that does not exist.
        """
        folder = Path(name)
        if folder.is_file():
            return cls.from_file(folder)
        if not folder.is_dir():
            folder = fetch(str(name))
        if (folder / TOKENIZER_FILE).is_file():
            return cls.from_file(folder / TOKENIZER_FILE)
        files = convert(folder)
        return cls(files.pop(TOKENIZER_FILE), files, folder)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``tokenizer.json`` and all files that came with it, so that ``AutoTokenizer`` loads the folder.

        Files of another tokenizer in ``folder`` go, all others stay as they are.
        """
        write_files(self.files(), Path(folder))

    def files(self) -> dict[str, bytes]:
        """What :meth:`save_pretrained` writes, by name."""
        files = {TOKENIZER_FILE: self.definition, **self.companions}
        # Without it transformers can tell neither the class nor the special tokens.
        if CONFIG_FILE not in files:
            named = self._special or self._roles_by_name()
            files[CONFIG_FILE] = json_bytes({"tokenizer_class": "PreTrainedTokenizerFast", **named})
        if PROCESSOR_FILE in files and not chat_templates({**files, PROCESSOR_FILE: b"{}"}):
            # A tokenizer of transformers does not look at a processor's.
            files |= template_files(chat_templates(files))
        return files

    def _roles_by_name(self) -> dict[str, str]:
        return roles_by_name(token for _, token, special, _ in self.added_tokens() if special)

    def with_named_roles(self) -> Tokenizer:
        """This tokenizer with the roles that its special tokens have by name, where its configuration names none: what
        reads it then means the same tokens as a model's configuration."""
        if self._special or CONFIG_FILE not in self.companions:
            return self
        config = tokenizer_config(self.companions, self.name) | self._roles_by_name()
        return Tokenizer(self.definition, {**self.companions, CONFIG_FILE: json_bytes(config)}, self.name)

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
            ConfigError: ``threads`` is not positive.
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

    def with_templates_of(self, other: Tokenizer) -> tuple[Tokenizer, list[str]]:
        """This tokenizer with the chat templates of ``other``, where it has none of its own but all their markers.

        Returns:
            It, and what a user should know.
        """
        kept, notes = {}, []
        theirs = {} if chat_templates(self.companions) else chat_templates(other.companions)
        special = sorted(token for _, token, special, _ in other.added_tokens() if special)
        for name, template in theirs.items():
            which = "the chat template" if name == "default" else f"the chat template `{name}`"
            lacking = [token for token in special if token in template and self.token_to_id(token) is None]
            if lacking:
                notes.append(f"{which} was left out: the new tokenizer lacks {', '.join(lacking)}")
            else:
                kept[name] = template
                notes.append(f"{which} of the source model was kept")
        return Tokenizer(self.definition, {**self.companions, **template_files(kept)}, self.name), notes

    def special_token(self, role: str) -> str | None:
        """The token that the configuration names for a role such as ``"bos_token"``."""
        return self._special.get(role)

    def _special_id(self, role: str) -> int | None:
        token = self._special.get(role)
        return None if token is None else self.token_to_id(token)

    def companion(self, name: str) -> bytes | None:
        """The contents of a file that came with ``tokenizer.json``, such as ``"tokenizer_config.json"``."""
        return self.companions.get(name)

    def to_transformers(self) -> PreTrainedTokenizerFast:
        """The same tokenizer as an object of transformers (loaded once, on first use)."""
        if self._transformers is None:
            from transformers import PreTrainedTokenizerFast

            with scratch_folder("langadapt-tokenizer") as folder:
                self.save_pretrained(folder)
                self._transformers = PreTrainedTokenizerFast.from_pretrained(folder)
            # Not that of a folder which is gone.
            self._transformers.name_or_path = self.name
        return self._transformers

    def __call__(self, text: Any, *more: Any, **options: Any) -> Any:
        """What the same tokenizer of transformers makes of ``text``, special tokens added as it does: ``input_ids`` and
        ``attention_mask``, and what else ``options`` (``padding``, ``return_tensors``, ...) ask for."""
        return self.to_transformers()(text, *more, **options)

    def __len__(self) -> int:
        return self.vocab_size

    def __repr__(self) -> str:
        return f"Tokenizer({self.name!r}, vocab_size={self.vocab_size}, backend={self.backend!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return Tokenizer, (self.definition, self.companions, self.name)


class PackageTokenizer:
    """The ``tokenizers`` package behind the methods of the native encoder."""

    def __init__(self, definition: bytes, name: str) -> None:
        self._tokenizer = load_package(definition, name)
        self._failure = f"{name}: {CANNOT_ENCODE}"
        vocabulary = self._tokenizer.get_vocab()
        self.vocab_size = max(vocabulary.values(), default=-1) + 1
        # Tables go by id.
        if self.vocab_size > 4 * len(vocabulary) + (1 << 21):
            raise DataError(f"{name}: an id of {self.vocab_size - 1} in a vocabulary of {len(vocabulary)} pieces")

    def encode(self, text: str, add_special_tokens: bool) -> NDArray[np.uint32]:
        with package_errors(self._failure):
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
            part = texts[start : start + 256]
            with package_errors(self._failure):
                block = self._tokenizer.encode_batch_fast(part, add_special_tokens=add_special_tokens)
            lengths += [len(encoding) for encoding in block]
            parts += [np.array(encoding.ids, dtype=np.uint32) for encoding in block]
            if progress is not None:
                progress("tokenize", len(lengths), len(texts), "documents")
        offsets = np.zeros(len(texts) + 1, dtype=np.uint64)
        np.cumsum(np.array(lengths, dtype=np.uint64), out=offsets[1:])
        return np.concatenate(parts), offsets

    def decode(self, ids: NDArray[np.uint32], skip_special_tokens: bool) -> str:
        with package_errors(self._failure.replace("encode this text", "decode these ids")):
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


def open_tokenizer(source: Any, argument: str = "tokenizer") -> Tokenizer:
    """A :class:`Tokenizer` out of any of the forms in which callers have one.

    Args:
        source: a :class:`Tokenizer`, a fast tokenizer of transformers, a ``tokenizers.Tokenizer``, or the folder, file
            or hub id of one.
        argument: what it is called where it was passed, for the error.

    Raises:
        ConfigError: something else.
        DataError, FileNotFoundError: see :meth:`Tokenizer.from_pretrained`.
    """
    if isinstance(source, Tokenizer):
        return source
    if isinstance(source, str | os.PathLike):
        return Tokenizer.from_pretrained(os.fspath(source))
    if hasattr(source, "backend_tokenizer") and hasattr(source, "save_pretrained"):
        with scratch_folder("langadapt-tokenizer") as folder:
            source.save_pretrained(folder)
            files = read_files(folder)
        name = getattr(source, "name_or_path", "") or argument
        return Tokenizer(files.pop(TOKENIZER_FILE), files, name)
    if hasattr(source, "to_str"):
        return Tokenizer(source.to_str().encode(), name=argument)
    kind = type(source).__name__
    raise ConfigError(f"{argument}: {kind}; give a path, a Tokenizer, or a fast tokenizer of transformers")
