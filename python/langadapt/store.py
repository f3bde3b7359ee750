"""Token stores: a tokenized corpus on disk, read through a memory map."""

from __future__ import annotations

import logging
import operator
import shutil
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, SupportsIndex, cast, overload

import numpy as np
from numpy.typing import NDArray

from langadapt import _core
from langadapt.artefacts.engine import Engine
from langadapt.artefacts.folders import MANIFEST_NAME, fingerprints, new_folder, read_manifest, verify, write_manifest
from langadapt.artefacts.shards import Shard, inputs_of, parts_beside, settings_of
from langadapt.artefacts.stages import Log, check_stage, make_once
from langadapt.corpus.documents import Documents, Inputs, Reading, files_of
from langadapt.corpus.samples import batches
from langadapt.errors import ConfigError, DataError, MismatchError
from langadapt.machine import thread_count
from langadapt.progress import Progress
from langadapt.tokenizer.encoder import Tokenizer, open_tokenizer
from langadapt.tokenizer.files import TOKENIZER_FILE

logger = logging.getLogger(__name__)

STAGE = "tokenize"
"""Name of this stage in manifests."""
LEARNT_NAME = "learnt.bin"
"""Of stores in which not every token is learnt."""


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

    @property
    def folders(self) -> list[Path]:
        """Where the files lie: the store's folder, or those of its parts."""
        parts = self.manifest["summary"].get("parts")
        return [self.folder] if parts is None else [self.folder / str(name) for name in parts]

    @cached_property
    def tokens(self) -> NDArray[np.unsignedinteger[Any]]:
        """Ids of all documents in a row, uint16 or uint32 ``[tokens]``, read-only and memory-mapped.

        Of a store in several parts a :class:`JoinedIds`, which gives arrays for slices and is copied by ``np.asarray``.
        """
        kind = "<" + np.dtype(self.dtype).str[1:]
        files = [folder / "tokens.bin" for folder in self.folders]
        maps: list[Any] = [np.memmap(file, dtype=kind, mode="r") for file in files if file.stat().st_size]
        return maps[0] if len(maps) == 1 else cast("NDArray[Any]", JoinedIds(maps, np.dtype(kind)))

    @cached_property
    def offsets(self) -> NDArray[np.uint64]:
        """Where documents begin and end in :attr:`tokens`: uint64 ``[len(self) + 1]``, memory-mapped.

        Raises:
            DataError: they do not rise from 0 to the number of tokens.
        """
        maps: list[NDArray[np.uint64]] = [
            np.memmap(folder / "offsets.bin", dtype="<u8", mode="r") for folder in self.folders
        ]
        found: NDArray[np.uint64] = maps[0] if len(maps) == 1 else end_to_end(maps)
        if found[0] != 0 or found[-1] != len(self.tokens) or (found[1:] < found[:-1]).any():
            raise DataError(f"{self.folder / 'offsets.bin'}: damaged; delete the folder and make it again")
        return found

    @cached_property
    def learnt(self) -> NDArray[np.bool_] | None:
        """Whether each token is learnt, bool ``[tokens]``, memory-mapped; none where all are: a store of text."""
        file = self.folder / LEARNT_NAME
        return np.memmap(file, dtype=np.bool_, mode="r") if LEARNT_NAME in self.manifest["files"] else None

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


class JoinedIds:
    """Arrays end to end, read as one: a slice within one array is a view of it, one across several is copied."""

    def __init__(self, arrays: Sequence[NDArray[Any]], dtype: np.dtype[Any]) -> None:
        self.arrays, self.dtype = list(arrays), dtype
        self.starts = np.cumsum([0, *map(len, self.arrays)], dtype=np.int64)

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def shape(self) -> tuple[int]:
        """That of the whole."""
        return (len(self),)

    def __getitem__(self, at: SupportsIndex | slice) -> Any:
        if not isinstance(at, slice):
            number = range(len(self))[operator.index(at)]
            part = int(np.searchsorted(self.starts, number, side="right")) - 1
            return self.arrays[part][number - int(self.starts[part])]
        start, stop, step = at.indices(len(self))
        if step != 1:
            raise IndexError("ids of a store in parts are read in slices of step 1")
        pieces = []
        while start < stop:
            part = int(np.searchsorted(self.starts, start, side="right")) - 1
            first, end = int(self.starts[part]), min(stop, int(self.starts[part + 1]))
            pieces.append(self.arrays[part][start - first : end - first])
            start = end
        return pieces[0] if len(pieces) == 1 else np.concatenate([np.empty(0, self.dtype), *pieces])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        whole: NDArray[Any] = self[:]
        return whole if dtype is None else whole.astype(dtype)


def end_to_end(offsets: Sequence[NDArray[np.uint64]]) -> NDArray[np.uint64]:
    """Offsets of parts as those of the whole."""
    found: list[NDArray[np.uint64]] = [np.zeros(1, np.uint64)]
    base = np.uint64(0)
    for one in offsets:
        found.append(one[1:] + base)
        base += one[-1]
    return np.concatenate(found)


def merge_stores(parts: Sequence[Path], out: Path | None) -> dict[str, Any]:
    """Make one store of its parts, in order; returns the summary.

    Args:
        parts: as :func:`langadapt.artefacts.shards.find_parts` gives them.
        out: folder to copy them to, byte for byte what :func:`tokenize_corpus` writes for all text; none leaves them
            where they are, all in one folder, and adds a manifest with which that folder opens as one store.

    Raises:
        DataError: a part is not whole, or there is no text in any.
        ConfigError: parts that are to stay lie in several folders.
    """
    manifests = [verify(part, hashes=False) for part in parts]
    found = [manifest["summary"] for manifest in manifests]
    documents, tokens, text = (sum(one[name] for one in found) for name in ("documents", "tokens", "bytes"))
    if tokens == 0:
        raise DataError(f"{parts[0].parent}: no text in any part: the corpus is empty")
    skipped = None if any(one["skipped_lines"] is None for one in found) else sum(one["skipped_lines"] for one in found)
    summary = {**found[0], "documents": documents, "tokens": tokens, "bytes": text, "skipped_lines": skipped}
    summary["bytes_per_token"] = round(text / tokens, 4)
    settings = settings_of(parts[0])
    if out is None:
        if len({part.parent for part in parts}) > 1:
            raise ConfigError("the parts lie in several folders; name one to copy them to with --out")
        files = {
            f"{p.name}/{file}": known
            for p, one in zip(parts, manifests, strict=True)
            for file, known in one["files"].items()
        }
        summary["parts"] = [part.name for part in parts]
        write_manifest(parts[0].parent, STAGE, settings, inputs_of(parts), summary=summary, files=files)
        return summary
    with new_folder(out, parts) as folder:
        with (folder / "tokens.bin").open("wb") as ids, (folder / "offsets.bin").open("wb") as offsets:
            base = np.uint64(0)
            offsets.write(base.tobytes())
            for part in parts:
                with (part / "tokens.bin").open("rb") as file:
                    shutil.copyfileobj(file, ids, 16 << 20)
                own = np.fromfile(part / "offsets.bin", dtype="<u8")
                (own[1:] + base).tofile(offsets)
                base += own[-1]
        shutil.copyfile(parts[0] / TOKENIZER_FILE, folder / TOKENIZER_FILE)
        write_manifest(folder, STAGE, settings, inputs_of(parts), summary=summary)
    return summary


def tokenize_corpus(
    inputs: Inputs | None = None,
    tokenizer: Any = None,
    out: str | Path | None = None,
    *,
    texts: Documents | None = None,
    text_field: str = "text",
    strict: bool = False,
    shard: Shard | None = None,
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
        shard: the part of the files to read, into a folder of its own below ``out``.
        threads: all cores by default.
        progress: called as ``(phase, done, total, unit)``.

    Raises:
        FileNotFoundError: an input does not exist.
        DataError: an input is damaged, or there is no text at all.
        ConfigError: ``out`` is what another stage made.
    """
    tokenizer = open_tokenizer(tokenizer)
    if out is None:
        raise ConfigError("out: name a folder for the store")
    check_stage(Path(out), STAGE)
    reading = Reading(inputs, texts, text_field=text_field, strict=strict)
    settings: dict[str, Any] = {"text_field": text_field}
    if shard is not None:
        names, settings["shard"] = shard.names(reading.names)
        reading, out = Reading(names, **{**reading.how, "allow_empty": True}), Path(out) / shard.name
    files = reading.files() or {}
    with new_folder(Path(out), files) as folder:
        summary = write_ids(folder, reading, tokenizer, threads=thread_count(threads), progress=progress)
        # Who reads the ids later may need to know what they stand for.
        (folder / TOKENIZER_FILE).write_bytes(tokenizer.definition)
        made_from = fingerprints(files) | {"tokenizer": tokenizer.fingerprint}
        write_manifest(folder, STAGE, settings, made_from, summary=summary)
    return TokenStore.open(out)


def make_store(
    inputs: Inputs,
    tokenizer: str,
    out: str | Path,
    *,
    shard: Shard | None = None,
    engine: Engine | None = None,
    again: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
    log: Log = logger.info,
    **options: Any,
) -> dict[str, Any]:
    """:func:`tokenize_corpus`, or a shard's part of it, unless that is there and whole; returns its summary.

    Args:
        inputs, out, shard, threads, progress, options: as for :func:`tokenize_corpus`.
        tokenizer: its folder, file or hub id.
        engine: makes the parts as its tasks, in a folder beside ``out``, where they stay.
        again: even where nothing has changed.
        log: told where nothing is made.
    """
    loaded, place = Tokenizer.from_pretrained(tokenizer), Path(out)
    settings, files = {**options, "tokenizer": loaded.fingerprint}, files_of(inputs)
    if shard is not None:
        names, settings["shard"] = shard.names(Reading(inputs).names)
        files, place = files_of(names), place / shard.name

    def make() -> dict[str, Any]:
        if engine is not None:
            arguments = {"inputs": inputs, "tokenizer": tokenizer, "again": again, **options}
            parts = engine.run(make_store, parts_beside(place), arguments, title=STAGE, progress=progress)
            return merge_stores(parts, place)
        made = tokenize_corpus(inputs, loaded, out, shard=shard, **options, threads=threads, progress=progress)
        return dict(made.manifest["summary"])

    return make_once(STAGE, place, make, settings=settings, inputs=files, log=log, again=again)


def write_ids(
    folder: Path, reading: Reading, tokenizer: Tokenizer, *, threads: int, progress: Progress | None
) -> dict[str, Any]:
    """Write the ids of all documents and their offsets; returns the summary of the manifest."""
    writer = _core.StoreWriter(folder, tokenizer.vocab_size)
    text_bytes, skipped = 0, None
    if reading.names == []:
        skipped = 0
    elif reading.names is not None and tokenizer.native is not None:
        with reading.local(folder) as names:
            report = writer.tokenize_files(tokenizer.native, names, reading.how, threads, progress)
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
    if tokens == 0 and not reading.allow_empty:
        raise DataError("no text to tokenize: the corpus is empty")
    return {
        "documents": documents,
        "tokens": tokens,
        "bytes": text_bytes,
        "bytes_per_token": round(text_bytes / max(tokens, 1), 4),
        "skipped_lines": skipped,
        "vocab_size": tokenizer.vocab_size,
        "dtype": "uint16" if tokenizer.vocab_size <= 1 << 16 else "uint32",
        "tokenizer": tokenizer.name,
        "backend": tokenizer.backend,
    }
