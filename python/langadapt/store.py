"""Token stores: a tokenized corpus on disk, read through a memory map."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, SupportsIndex, overload

import numpy as np
from numpy.typing import NDArray

from langadapt import _core
from langadapt.artefacts.folders import MANIFEST_NAME, fingerprints, new_folder, read_manifest, verify, write_manifest
from langadapt.corpus.documents import Documents, Inputs, Reading
from langadapt.corpus.samples import batches
from langadapt.errors import ConfigError, DataError, MismatchError
from langadapt.machine import thread_count
from langadapt.progress import Progress
from langadapt.tokenizer.encoder import Tokenizer, open_tokenizer
from langadapt.tokenizer.files import TOKENIZER_FILE

STAGE = "tokenize"
"""Name of this stage in manifests."""


class TokenStore:
    """Ids of all documents of a corpus, without special tokens, in files that are mapped into memory.

    ``tokens.bin`` holds all ids in a row, uint16 where the vocabulary has at most 65,536 entries, else uint32;
    ``offsets.bin`` holds ``len(store) + 1`` uint64; both little-endian. Open one with :meth:`open`.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder = folder
        self.manifest = manifest
        """The manifest; ``manifest["summary"]`` has documents, tokens, bytes (of text), vocab_size and dtype."""

    @classmethod
    def open(cls, folder: str | Path) -> TokenStore:
        """Open the store in ``folder`` after comparing the sizes of its files with its manifest.

        Raises:
            DataError: ``folder`` is no whole token store; the message names the file.
        """
        folder = Path(folder)
        manifest = read_manifest(folder)
        if manifest["stage"] != STAGE:
            raise DataError(f"{folder}: made by stage `{manifest['stage']}`; not a token store")
        summary = manifest.get("summary")
        found = summary if isinstance(summary, dict) else {}
        if not isinstance(found.get("vocab_size"), int) or found.get("dtype") not in ("uint16", "uint32"):
            raise DataError(f"{folder / MANIFEST_NAME}: says nothing of the ids; delete the folder and make it again")
        return cls(folder, verify(folder, hashes=False))

    @cached_property
    def tokens(self) -> NDArray[np.unsignedinteger[Any]]:
        """Ids of all documents in a row, uint16 or uint32 ``[tokens]``, read-only and memory-mapped."""
        return np.memmap(self.folder / "tokens.bin", dtype="<" + np.dtype(self.dtype).str[1:], mode="r")

    @cached_property
    def offsets(self) -> NDArray[np.uint64]:
        """Where documents begin and end in :attr:`tokens`: uint64 ``[len(self) + 1]``, memory-mapped."""
        return np.memmap(self.folder / "offsets.bin", dtype="<u8", mode="r")

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the ids."""
        return np.dtype(self.manifest["summary"]["dtype"])

    @property
    def vocab_size(self) -> int:
        """Size of the tokenizer's vocabulary: all ids are smaller."""
        return int(self.manifest["summary"]["vocab_size"])

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, document: SupportsIndex) -> NDArray[np.unsignedinteger[Any]]: ...
    @overload
    def __getitem__(self, document: slice) -> list[NDArray[np.unsignedinteger[Any]]]: ...
    def __getitem__(
        self, document: SupportsIndex | slice
    ) -> NDArray[np.unsignedinteger[Any]] | list[NDArray[np.unsignedinteger[Any]]]:
        """Ids of one document, a view of :attr:`tokens`; negative numbers count from the end. A list for a slice."""
        if isinstance(document, slice):
            return [self[number] for number in range(*document.indices(len(self)))]
        number = operator.index(document)
        if not -len(self) <= number < len(self):
            raise IndexError(f"document {number} of a store of {len(self)}")
        number %= len(self)
        return self.tokens[int(self.offsets[number]) : int(self.offsets[number + 1])]

    def __iter__(self) -> Iterator[NDArray[np.unsignedinteger[Any]]]:
        return (self[document] for document in range(len(self)))

    def __repr__(self) -> str:
        return f"TokenStore({str(self.folder)!r}, documents={len(self)}, tokens={len(self.tokens)}, dtype={self.dtype})"

    def check_tokenizer(self, tokenizer: Tokenizer) -> None:
        """Make sure that this store was made with ``tokenizer``.

        Raises:
            MismatchError: it was made with another one.
        """
        made_with = self.manifest["inputs"].get("tokenizer")
        if made_with != tokenizer.fingerprint:
            raise MismatchError(
                f"{self.folder}: made with another tokenizer (fingerprint {made_with}) than {tokenizer.name} "
                f"({tokenizer.fingerprint}); tokenize the corpus again"
            )


def tokenize_corpus(
    inputs: Inputs | None = None,
    tokenizer: Any = None,
    out: str | Path | None = None,
    *,
    texts: Documents | None = None,
    text_field: str = "text",
    strict: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> TokenStore:
    """Tokenize a corpus into the folder ``out``; the files are the same for any number of threads.

    Args:
        inputs: files, folders or patterns, or an iterable of texts; see :func:`langadapt.read_documents`.
        tokenizer: what makes the ids: a :class:`Tokenizer`, a fast tokenizer of transformers, or the folder, file or
            hub id of one. Documents are stored without special tokens.
        texts: documents in place of ``inputs``: any iterable of strings, or of mappings that hold one.
        out: folder of the store. It appears when it is whole; an older one is replaced at that moment.
        text_field: JSON key or Parquet column that holds the text.
        strict: stop at the first line without a document instead of counting it.
        threads: all cores by default.
        progress: called as ``(phase, done, total, unit)``.

    Raises:
        FileNotFoundError: an input does not exist.
        DataError: an input is damaged, or there is no text at all.
    """
    tokenizer = open_tokenizer(tokenizer)
    if out is None:
        raise ConfigError("out: name a folder for the store")
    reading = Reading(inputs, texts, text_field=text_field, strict=strict)
    files = reading.files() or {}
    with new_folder(Path(out), files) as folder:
        summary = write_ids(folder, reading, tokenizer, threads=thread_count(threads), progress=progress)
        # Who reads the ids later may need to know what they stand for.
        (folder / TOKENIZER_FILE).write_bytes(tokenizer.definition)
        made_from = fingerprints(files) | {"tokenizer": tokenizer.fingerprint}
        write_manifest(folder, STAGE, {"text_field": text_field}, made_from, summary=summary)
    return TokenStore.open(out)


def write_ids(
    folder: Path, reading: Reading, tokenizer: Tokenizer, *, threads: int, progress: Progress | None
) -> dict[str, Any]:
    """Write the ids of all documents and their offsets; returns the summary of the manifest."""
    writer = _core.StoreWriter(folder, tokenizer.vocab_size)
    text_bytes, skipped = 0, None
    if reading.names is not None and tokenizer.native is not None:
        report = writer.tokenize_files(tokenizer.native, reading.names, reading.how, threads, progress)
        text_bytes, skipped = report["bytes"], sum(report["skipped"].values())
    else:
        documents = 0
        for batch in batches(reading.documents()):
            ids, offsets = tokenizer.encode_batch(batch, threads=threads)
            writer.append(ids, offsets)
            text_bytes += sum(len(text.encode()) for text in batch)
            documents += len(batch)
            if progress is not None:
                progress("tokenize", documents, None, "documents")
    documents, tokens = writer.finish()
    if tokens == 0:
        raise DataError("no text to tokenize: the corpus is empty")
    return {
        "documents": documents,
        "tokens": tokens,
        "bytes": text_bytes,
        "bytes_per_token": round(text_bytes / tokens, 4),
        "skipped_lines": skipped,
        "vocab_size": tokenizer.vocab_size,
        "dtype": "uint16" if tokenizer.vocab_size <= 1 << 16 else "uint32",
        "tokenizer": tokenizer.name,
        "backend": tokenizer.backend,
    }
