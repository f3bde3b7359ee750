"""Fuzz targets in Python, run by `fuzz.py`: `python tests/fuzz_targets.py NAME` with `FUZZ_SEED`, `FUZZ_SECONDS` and
`FUZZ_NOTE`, or `FUZZ_CASE` for one case alone. A case draws from the seed and its own number, and returns how many
inputs it tried."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_tokenizers import agree, random_definition, random_texts
from sample_tokenizers import ENGLISH, GERMAN, byte_level, metaspace, save, wordpiece

from langadapt import Tokenizer, TokenStore
from langadapt.errors import LangadaptError

Case = Callable[[random.Random], int]


def reference(work: Path) -> Case:
    """Tokenizers made at random, beside the `tokenizers` package: ids, with and without a template, and text again."""

    def case(draw: random.Random) -> int:
        definition = random_definition(draw)
        texts = random_texts(draw, definition)
        agree(definition, texts)
        return 1 + len(texts)

    return case


JUNK: list[Any] = [None, True, -1, 0, 2**32, 2**64, 1e308, "", "a", "\ud800", "▁", [], {}, [[]], {"type": "BPE"}]
JUNK += ["x" * 5000]


def mutate(draw: random.Random, value: Any) -> Any:
    """A JSON value with one part changed, gone, twice there or exchanged for another part."""
    places: list[tuple[Any, Any]] = []
    stack = [value]
    while stack:
        inner = stack.pop()
        items = inner.items() if isinstance(inner, dict) else enumerate(inner) if isinstance(inner, list) else ()
        for key, item in items:
            places.append((inner, key))
            stack.append(item)
    if not places:
        return deepcopy(draw.choice(JUNK))
    # Parts near the top decide more than single pieces of the vocabulary, of which there are hundreds.
    near = places[min(int(draw.expovariate(0.03)), len(places) - 1)]
    place, key = near if draw.random() < 0.7 else draw.choice(places)
    match draw.randrange(4):
        case 0:
            del place[key]
        case 1:
            other, name = draw.choice(places)
            place[key] = json.loads(json.dumps(other.get(name) if isinstance(other, dict) else None))
        case _:
            place[key] = deepcopy(draw.choice(JUNK))
    return value


def damaged(draw: random.Random, content: bytes) -> bytes:
    """A file with a part of its JSON changed, or some of its bytes."""
    if draw.random() < 0.7:
        try:
            value = json.loads(content)
        except ValueError:
            return content
        for _ in range(draw.randint(1, 3)):
            value = mutate(draw, value)
        return json.dumps(value).encode("utf-8", "replace")
    data = bytearray(content)
    for _ in range(draw.randint(1, 3)):
        at = draw.randrange(len(data) + 1)
        match draw.randrange(4):
            case 0:
                data[at : at + 1] = bytes([draw.randrange(256)])
            case 1:
                del data[at : at + draw.randint(1, 30)]
            case 2:
                del data[at:]
            case 3:
                data[at:at] = draw.choice([b"[" * 100_000, b"\xff", b"\0", b'"', b"{", b"}", b"," * 9, b"9" * 400])
    return bytes(data)


def refuses(work: Callable[[], Any]) -> Any:
    """What ``work`` returns; none where it refuses as a user may read it: one line, of a class that says so."""
    try:
        return work()
    except (LangadaptError, OSError, ValueError) as error:
        assert "\n" not in str(error), error
        return None


def tokenizer_files(work: Path) -> Case:
    """Folders of tokenizers of all kinds with a damaged file: read, or refused in one line."""
    kinds = {"bytes": byte_level(ENGLISH, 330), "spaces": metaspace(GERMAN, 340), "words": wordpiece(ENGLISH, 120)}
    roles = {"bytes": {"eos_token": "<|endoftext|>"}, "spaces": {"bos_token": "<s>"}, "words": {"pad_token": "[PAD]"}}
    files = {name: read_all(save(made, work / name, **roles[name])) for name, made in kinds.items()}
    for name, content in files.items():
        content["special_tokens_map.json"] = json.dumps(roles[name]).encode()
        content["added_tokens.json"] = b'{"<new>": 400}'
        content["chat_template.jinja"] = b"{% for m in messages %}{{ m.content }}{% endfor %}"
    out = work / "damaged"

    def case(draw: random.Random) -> int:
        content = dict(files[draw.choice(list(files))])
        name = "tokenizer.json" if draw.random() < 0.6 else draw.choice(list(content))
        content[name] = damaged(draw, content[name])
        write_all(out, content)
        tokenizer = refuses(lambda: Tokenizer.from_pretrained(out))
        if tokenizer is not None:
            for text in (GERMAN[0], "a<new> b  \n<s>"):
                ids = refuses(lambda text=text: tokenizer.encode(text))
                assert ids is None or not len(ids) or ids.max() < tokenizer.vocab_size
        return 1

    return case


def read_all(folder: Path) -> dict[str, bytes]:
    """All files of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def write_all(folder: Path, content: Mapping[str, bytes]) -> None:
    """A folder with these files alone."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, data in content.items():
        (folder / name).write_bytes(data)


def weights(work: Path) -> Case:
    """Weights, rewritten: what was not replaced is as it was for the package `safetensors`, what that package refuses
    is refused in one line."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file

    from langadapt.models.weights import DTYPES, read_header, rewrite

    dtypes = [torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool, torch.float64]
    source, out = work / "a.safetensors", work / "b.safetensors"

    def case(draw: random.Random) -> int:
        tensors = {}
        for n in range(draw.randint(1, 5)):
            shape = [draw.randint(0 if draw.random() < 0.1 else 1, 4) for _ in range(draw.randrange(4))]
            made = torch.from_numpy(np.frombuffer(draw.randbytes(8 * 64), dtype=np.int64).copy())
            count = int(np.prod(shape, dtype=int))
            tensors[draw.choice("abc") + f".ü{n}"] = made[:count].to(draw.choice(dtypes)).reshape(shape)
        save_file(tensors, source, {"format": "pt"} if draw.random() < 0.7 else None)
        whole = draw.random() < 0.5
        if not whole:
            source.write_bytes(damaged_weights(draw, source.read_bytes()))
        entries = (refuses(lambda: read_header(source)) or [{}])[0]
        # An empty tensor may say that its rows would be terabytes.
        tables = [item for item in entries.items() if item[1].shape and math.prod(item[1].shape[1:]) <= 4096]
        replaced, new = {}, torch.ones(0)
        if tables:
            name, entry = draw.choice(tables)
            replaced = {name: (draw.randint(1, 6), *entry.shape[1:])}
            rows = torch.ones(replaced[name], dtype=torch.uint8)
            new = rows if entry.dtype == "U8" else rows.to(DTYPES.get(entry.dtype, torch.float32))
            replaced = replaced if entry.dtype == "U8" or entry.dtype in DTYPES else {}
        made = refuses(lambda: rewrite(source, out, replaced, lambda name: new, advance=lambda n: None))
        try:
            expected = load_file(source)
        except (SafetensorError, KeyError, ValueError, RuntimeError, OverflowError) as error:
            assert not whole and made is None, f"safetensors refuses it: {error}"
            return 1
        if made is None:
            assert not whole
            return 1
        found = load_file(out)
        # The package's order of empty tensors at one place changes from call to call; the file's own must not.
        assert found.keys() == expected.keys() and list(read_header(out)[0]) == list(read_header(source)[0])
        for name, tensor in found.items():
            wanted = new if name in replaced else expected[name]
            assert tensor.dtype == expected[name].dtype and torch.equal(bits(tensor), bits(wanted)), name
        return 1

    return case


def bits(tensor: Any) -> Any:
    """The bytes, so that what is not a number equals itself."""
    import torch

    return tensor.contiguous().reshape(-1).view(torch.uint8)


def damaged_weights(draw: random.Random, data: bytes) -> bytes:
    """With a header that says something else, or other bytes."""
    length = int.from_bytes(data[:8], "little")
    header, rest = data[8 : 8 + length], data[8 + length :]
    match draw.randrange(4):
        case 0:
            header = damaged(draw, header)
        case 1:
            content = json.loads(header)
            entry = content[draw.choice([name for name in content if name != "__metadata__"])]
            key = draw.choice(["dtype", "shape", "data_offsets"])
            other = {"dtype": ["F32", "I8", "BF16", "XX", 3], "shape": [[], [1], [2, -1], [2**62, 4], "x", [1.5], [0]]}
            numbers = [[0, 0], [0, 8], [-4, 4], [8, 0], [2**63, 2**64], ["0", "4"], [1], None, [0.0, 4.0], [True, 4]]
            entry[key] = draw.choice(other.get(key, numbers))
            header = json.dumps(content).encode()
        case 2:
            return damaged(draw, data)
        case _:
            rest = rest[: draw.randrange(len(rest) + 1)] if draw.random() < 0.5 else rest + draw.randbytes(3)
    return len(header).to_bytes(8, "little") + header + rest


def store_files(work: Path) -> Case:
    """Stores whose files or manifest were damaged: opened and read within their bounds, or refused in one line."""
    from langadapt import tokenize_corpus

    store = tokenize_corpus(
        texts=GERMAN, tokenizer=Tokenizer(byte_level(GERMAN, 300).to_str().encode()), out=work / "store"
    )
    files, out = read_all(store.folder), work / "damaged"

    def read() -> int:
        opened = TokenStore.open(out)
        assert sum(len(document) for document in opened) == len(opened.tokens)
        return len(opened)

    def case(draw: random.Random) -> int:
        content = dict(files)
        name = "manifest.json" if draw.random() < 0.7 else draw.choice(list(content))
        content[name] = damaged(draw, content[name])
        write_all(out, content)
        refuses(read)
        return 1

    return case


TARGETS: dict[str, Callable[[Path], Case]] = {
    target.__name__: target for target in (reference, tokenizer_files, weights, store_files)
}


def main() -> None:
    """Run a target as the environment says."""
    given = os.environ
    seed, only = int(given.get("FUZZ_SEED") or 0), given.get("FUZZ_CASE")
    note = os.open(given.get("FUZZ_NOTE") or os.devnull, os.O_WRONLY | os.O_CREAT, 0o644)
    number, inputs = int(only or 0), 0
    with tempfile.TemporaryDirectory() as folder:
        case = TARGETS[sys.argv[1]](Path(folder))
        until = time.monotonic() + float(given.get("FUZZ_SECONDS") or 60)
        while time.monotonic() < until:
            os.pwrite(note, f"{number:>20} {inputs:>20}".encode(), 0)
            try:
                inputs += case(random.Random(f"{seed} {number}"))
            except BaseException:
                traceback.print_exc()
                sys.exit(f"failed: again with FUZZ_SEED={seed} FUZZ_CASE={number}")
            number += 1
            if only:
                break
        os.pwrite(note, f"{number:>20} {inputs:>20}".encode(), 0)


if __name__ == "__main__":
    main()
