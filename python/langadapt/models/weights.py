"""Rewrite the safetensors files of a model, tensor by tensor: what does not change is copied as bytes."""

from __future__ import annotations

import json
import logging
import math
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import torch
from torch import Tensor

from langadapt.errors import ConfigError, DataError
from langadapt.models.folder import read_config, text_config, write_json
from langadapt.progress import Progress

COPY_BYTES = 16 << 20
WHOLE = "model.safetensors"
INDEX = f"{WHOLE}.index.json"
BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
}
"""Of one element, by the dtypes of the format."""
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}

DEQUANTISE = {
    method: ", or write one: `AutoModelForCausalLM.from_pretrained(MODEL, dtype='bfloat16', quantization_config="
    f"{name}(dequantize=True)).save_pretrained(OUT)`, and the tokenizer beside it"
    for method, name in {"fp8": "FineGrainedFP8Config", "mxfp4": "Mxfp4Config"}.items()
}
"""What transformers undoes by itself, and how."""
log = logging.getLogger(__name__)


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
        return math.prod(self.shape)


def is_sharded(folder: Path) -> bool:
    """Whether an index says which files there are: beside a ``model.safetensors`` transformers does not look at it."""
    return (folder / INDEX).is_file() and not (folder / WHOLE).is_file()


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that make up the model in ``folder``.

    Raises:
        DataError: there are none, or the index is none, or names a file that is missing or outside of the folder.
    """
    index, names = folder / INDEX, [WHOLE]
    if is_sharded(folder):
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
    except (struct.error, ValueError, RecursionError) as error:
        raise DataError(f"{file}: not a safetensors file: {error}") from None
    if not isinstance(header, dict):
        raise DataError(f"{file}: not a safetensors file: its header lists no tensors")
    metadata = header.pop("__metadata__", None)
    metadata = {} if metadata is None else metadata
    plain = isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values())
    broken = [name for name, tensor in header.items() if not is_described(tensor)]
    if broken or not plain:
        raise DataError(f"{file}: not a safetensors file: its header says nothing of `{(broken or ['metadata'])[0]}`")
    entries, at = {}, 8 + length
    for name, tensor in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        start, end = (8 + length + offset for offset in tensor["data_offsets"])
        if end > size:
            raise DataError(f"{file}: cut short, `{name}` ends at byte {end} of {size}; get the file again")
        entry = Entry(file, tensor["dtype"], tuple(tensor["shape"]), start, end)
        # Tensors lie one behind the other, as long as their shapes say: else some bytes would be two tensors', or none.
        if start != at or 8 * (end - start) != entry.size * BITS[entry.dtype]:
            raise DataError(f"{file}: damaged, `{name}` does not lie where its header says; get the file again")
        entries[name], at = entry, end
    if at != size:
        raise DataError(f"{file}: damaged, {size - at} bytes are no tensor's; get the file again")
    return entries, metadata


def read_entries(folder: Path) -> dict[str, Entry]:
    """All tensors of a model by name.

    Raises:
        DataError: see :func:`weight_files` and :func:`read_header`.
    """
    return {name: entry for file in weight_files(folder) for name, entry in read_header(file)[0].items()}


def check_precision(folder: Path) -> None:
    """Say what becomes of fp16 weights in training, and refuse quantised ones, which training would read as they are,
    without their scales.

    Raises:
        ConfigError: the weights are quantised, by their files or by ``config.json``.
    """
    found = {entry.dtype for entry in read_entries(folder).values()}
    quantised = sorted(dtype for dtype in found if dtype.startswith("F") and BITS[dtype] < 16)
    config = read_config(folder)
    stated = config.get("quantization_config") or text_config(config).get("quantization_config")
    if stated or quantised:
        method = str((stated or {}).get("quant_method") or quantised[0])
        way = DEQUANTISE.get(method.partition("_")[0].lower(), "")
        raise ConfigError(
            f"{folder}: its weights are quantised ({method}), and training needs them as bf16: take the release that "
            f"is not quantised{way}"
        )
    if "F16" in found:
        log.info(
            "%s: its weights are fp16; they are trained and written as bf16, with 8 bits of precision for 11", folder
        )


def is_described(tensor: Any) -> bool:
    """Whether a header's entry has a dtype of the format, a shape and offsets."""
    if not isinstance(tensor, dict) or tensor.keys() != {"dtype", "shape", "data_offsets"}:
        return False
    shape, offsets = tensor["shape"], tensor["data_offsets"]
    numbers = isinstance(shape, list) and isinstance(offsets, list) and len(offsets) == 2
    return (
        numbers
        and all(type(number) is int and 0 <= number < 1 << 63 for number in (*shape, *offsets))
        and offsets[0] <= offsets[1]
        and isinstance(tensor["dtype"], str)
        and tensor["dtype"] in BITS
    )


def read_tensor(entry: Entry) -> Tensor:
    """A floating tensor, in memory.

    Raises:
        DataError: a dtype that rows cannot be made of.
    """
    dtype = DTYPES.get(entry.dtype)
    if dtype is None:
        raise DataError(f"{entry.file}: weights are stored as {entry.dtype}; take the unquantised model")
    data = bytearray(entry.end - entry.start)
    with entry.file.open("rb") as file:
        file.seek(entry.start)
        file.readinto(data)
    return torch.frombuffer(data, dtype=dtype).reshape(entry.shape)


def read_elements(entry: Entry, start: int, stop: int) -> Tensor:
    """Elements ``start`` to ``stop`` of a floating tensor, in the order of the file.

    Raises:
        DataError: a dtype that cannot be computed with, or a file that has become shorter.
    """
    dtype = DTYPES.get(entry.dtype)
    if dtype is None:
        raise DataError(f"{entry.file}: weights are stored as {entry.dtype}; take the unquantised model")
    data = bytearray((stop - start) * dtype.itemsize)
    with entry.file.open("rb") as file:
        file.seek(entry.start + start * dtype.itemsize)
        if file.readinto(data) != len(data):
            raise DataError(f"{entry.file}: ended while it was read; get the file again")
    return torch.frombuffer(data, dtype=dtype)


def same_values(one: Entry, other: Entry) -> bool:
    """Whether two floating tensors are the same, types apart; read piece by piece."""
    pieces = ((start, min(start + COPY_BYTES, one.size)) for start in range(0, one.size, COPY_BYTES))
    return one.shape == other.shape and all(
        torch.equal(read_elements(one, *piece).double(), read_elements(other, *piece).double()) for piece in pieces
    )


def rewrite_shards(
    folder: Path,
    out: Path,
    replaced: Mapping[str, tuple[int, ...]],
    make: Callable[[str], Tensor],
    *,
    entries: Mapping[str, Entry],
    progress: Progress | None = None,
) -> None:
    """Write the model of ``folder`` into ``out``: its files under the names that they have, in subfolders too, and
    their index.

    Args:
        folder, out: of the old model and of the new one.
        replaced, make: see :func:`rewrite`.
        entries: see :func:`read_entries`.
        progress: called as ``("write weights", done, total, "bytes")``.
    """
    done, total = 0, sum(entry.end - entry.start for entry in entries.values())

    def advance(n: int) -> None:
        nonlocal done
        done += n
        if progress is not None:
            progress("write weights", done, max(total, done), "bytes")

    size = 0
    for file in weight_files(folder):
        copy = out / file.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        size += rewrite(file, copy, replaced, make, advance=advance)
    if is_sharded(folder):
        content = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        metadata = content.get("metadata")
        content["metadata"] = {**(metadata if isinstance(metadata, dict) else {}), "total_size": size}
        write_json(out / INDEX, content)


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
        size = math.prod(shape) * BITS[entry.dtype] // 8
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
