"""Stores of conversations: token stores that say of each token whether it is learnt."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from langadapt import _core
from langadapt.artefacts.folders import fingerprints, new_folder, write_manifest
from langadapt.errors import DataError
from langadapt.progress import Progress
from langadapt.store import LEARNT_NAME, STAGE, TokenStore
from langadapt.tokenizer.conversations import ConversationEncoder, Example, Messages, read_conversations
from langadapt.tokenizer.encoder import Tokenizer
from langadapt.tokenizer.files import TOKENIZER_FILE


def split_conversations(files: Sequence[Path], share: float, most: int) -> set[bytes]:
    """Keys of the conversations to measure with: the smallest, ``share`` of all and one at least, ``most`` at most.

    Raises:
        DataError: fewer than two different conversations, or one that is none.
    """
    keys = sorted({key_of(messages) for file in files for _, messages in read_conversations(file)})
    if len(keys) < 2:
        raise DataError(f"{len(keys)} different conversations in {', '.join(map(str, files))}; give at least two")
    return set(keys[: max(1, min(round(share * len(keys)), most, len(keys) - 1))])


def key_of(messages: Messages) -> bytes:
    """What equal conversations have in common."""
    return hashlib.sha256(json.dumps(messages, sort_keys=True).encode()).digest()[:16]


def different(files: Iterable[Path], keys: set[bytes], *, within: bool) -> Iterator[tuple[str, Messages]]:
    """Place and messages of the conversations whose key is in ``keys``, or is not, each once."""
    seen = set()
    for file in files:
        for number, messages in read_conversations(file):
            key = key_of(messages)
            if (key in keys) == within and key not in seen:
                seen.add(key)
                yield f"{file}:{number}", messages


def examples(encoder: ConversationEncoder, found: Iterable[tuple[str, Messages]]) -> Iterator[Example]:
    """All conversations as tokens.

    Raises:
        DataError: names the line that the template cannot write.
    """
    for place, messages in found:
        try:
            yield from encoder.encode(messages)
        except ValueError as error:
            raise DataError(f"{place}: {error}") from None


def store_conversations(
    files: Sequence[Path],
    tokenizer: Tokenizer,
    out: Path,
    *,
    held_out: set[bytes],
    progress: Progress | None = None,
) -> TokenStore:
    """Tokenize the conversations of ``files`` that are not in ``held_out`` into the folder ``out``.

    The store has ``learnt.bin`` beside the ids: a byte for each token, 1 where it is the assistant's. Its summary's
    ``bytes`` are those of the assistant's text.

    Raises:
        ConfigError: a tokenizer without a chat template.
        DataError: names a line that is no conversation, or that the template cannot write.
    """
    encoder = ConversationEncoder(tokenizer)
    with new_folder(out, files) as folder:
        writer, count, text_bytes, learnt = _core.StoreWriter(folder, tokenizer.vocab_size), 0, 0, 0
        with (folder / LEARNT_NAME).open("wb") as masks:
            for example in examples(encoder, different(files, held_out, within=False)):
                writer.append(example.ids, np.array([0, len(example.ids)], np.uint64))
                masks.write(example.learnt.astype(np.uint8).tobytes())
                count, text_bytes, learnt = count + 1, text_bytes + example.text_bytes, learnt + example.learnt.sum()
                if progress is not None:
                    progress("tokenize", count, None, "conversations")
        documents, tokens = writer.finish()
        (folder / TOKENIZER_FILE).write_bytes(tokenizer.definition)
        summary: dict[str, Any] = {
            "documents": documents,
            "tokens": tokens,
            "learnt_tokens": int(learnt),
            "bytes": text_bytes,
            "vocab_size": tokenizer.vocab_size,
            "dtype": "uint16" if tokenizer.vocab_size <= 1 << 16 else "uint32",
            "tokenizer": tokenizer.name,
        }
        made_from = fingerprints({str(file): file for file in files}) | {"tokenizer": tokenizer.fingerprint}
        write_manifest(folder, STAGE, {"data": "chat"}, made_from, summary=summary)
    return TokenStore.open(out)
