"""Rewrite the safetensors files of a model, tensor by tensor: what does not change is copied as bytes."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import torch
from torch import Tensor

from langadapt.errors import DataError

COPY_BYTES = 16 << 20
INDEX = "model.safetensors.index.json"
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True)
class Entry:
    """A tensor in a file."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    """First byte in the file."""
    end: int

    @property
    def size(self) -> int:
        """Elements."""
        count = 1
        for length in self.shape:
            count *= length
        return count


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that make up the model in ``folder``.

    Raises:
        DataError: there are none, or the index is none, or names a file that is missing or outside of the folder.
    """
    index, names = folder / INDEX, ["model.safetensors"]
    if index.is_file():
        try:
            names = sorted({str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()})
        except (ValueError, KeyError, TypeError, AttributeError):
            raise DataError(f"{index}: not an index of weights; get the file again") from None
    for name in names:
        parts = PurePosixPath(name)
        if parts.is_absolute() or ".." in parts.parts or parts.suffix != ".safetensors":
            raise DataError(f"{index}: names {name!r}, which is no safetensors file in this folder")
    files = [folder / name for name in names]
    missing = [file for file in files if not file.is_file()]
    if missing or not files:
        problem = f"{missing[0]}: missing" if missing else f"{index}: names no files"
        raise DataError(f"{problem}; langadapt reads safetensors only, save the model in that format first")
    return files


def read_header(file: Path) -> tuple[dict[str, Entry], dict[str, str]]:
    """The tensors of a file in the order of their bytes, and the file's metadata.

    Raises:
        DataError: it is no whole safetensors file.
    """
    size = file.stat().st_size
    try:
        with file.open("rb") as handle:
            (length,) = struct.unpack("<Q", handle.read(8))
            if length > size - 8:
                raise DataError(
                    f"{file}: its header would be {length} bytes of {size}; the file is cut or no safetensors"
                )
            header = json.loads(handle.read(length))
    except (struct.error, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: not a safetensors file: {error}") from None
    described = isinstance(header, dict) and all(
        name == "__metadata__" or (isinstance(entry, dict) and {"dtype", "shape", "data_offsets"} <= entry.keys())
        for name, entry in header.items()
    )
    if not described:
        raise DataError(f"{file}: not a safetensors file: its header lists no tensors")
    metadata = header.pop("__metadata__", {})
    entries = {}
    for name, tensor in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        start, end = (8 + length + offset for offset in tensor["data_offsets"])
        if end > size:
            raise DataError(f"{file}: cut short, `{name}` ends at byte {end} of {size}; get the file again")
        entries[name] = Entry(file, tensor["dtype"], tuple(tensor["shape"]), start, end)
    return entries, metadata


def read_tensor(entry: Entry) -> Tensor:
    """A floating tensor, in memory.

    Raises:
        DataError: a dtype that rows cannot be made of.
    """
    dtype = DTYPES.get(entry.dtype)
    if dtype is None:
        raise DataError(f"{entry.file}: embeddings are stored as {entry.dtype}; swap the unquantised model")
    data = bytearray(entry.end - entry.start)
    with entry.file.open("rb") as file:
        file.seek(entry.start)
        file.readinto(data)
    return torch.frombuffer(data, dtype=dtype).reshape(entry.shape)


def rewrite(
    source: Path,
    out: Path,
    replaced: Mapping[str, tuple[int, ...]],
    make: Callable[[str], Tensor],
    *,
    advance: Callable[[int], None],
) -> int:
    """Write ``source`` to ``out`` with some tensors replaced.

    Args:
        source: a safetensors file.
        out: the new one.
        replaced: new shape of each tensor to replace; others are copied.
        make: the tensor of a name in ``replaced``, of the old dtype; called when it is written, one at a time.
        advance: told the bytes written.

    Returns:
        Bytes of all tensors.
    """
    entries, metadata = read_header(source)
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    at = 0
    for name, entry in entries.items():
        shape = replaced.get(name, entry.shape)
        old_rows, new_rows = (entry.shape[0], shape[0]) if name in replaced else (1, 1)
        size = (entry.end - entry.start) // old_rows * new_rows
        header[name] = {"dtype": entry.dtype, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with source.open("rb") as old, out.open("wb") as new:
        new.write(struct.pack("<Q", len(text)) + text)
        for name, entry in entries.items():
            parts = tensor_bytes(make(name)) if name in replaced else copied_bytes(old, entry)
            for part in parts:
                new.write(part)
                advance(len(part))
    return at


def copied_bytes(file: BinaryIO, entry: Entry) -> Iterator[bytes]:
    """The bytes of a tensor in pieces."""
    file.seek(entry.start)
    left = entry.end - entry.start
    while left:
        part = file.read(min(left, COPY_BYTES))
        if not part:
            raise DataError(f"{entry.file}: ended while it was copied; get the file again")
        left -= len(part)
        yield part


def tensor_bytes(tensor: Tensor) -> Iterator[memoryview]:
    """The bytes of a tensor in pieces, without a second copy of it."""
    flat = tensor.contiguous().view(torch.uint8).reshape(-1).numpy().data
    for start in range(0, len(flat), COPY_BYTES):
        yield flat[start : start + COPY_BYTES]
