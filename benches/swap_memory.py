"""Memory and time of swapping a 7B model on a CPU: Mistral's shapes in bf16, untied, in three files.

The embedding rows are random, all other tensors are holes in sparse files: their values are only copied. The source
tokenizer is Phi-3-mini's (32,064 ids), the target the paper's German one (32,768 ids), the vectors are trained on
German text. The swap runs in a process of its own; its peak memory is the kernel's count of resident pages, memory maps
included, and the part that was there before the swap began (torch, transformers) is given beside it. Needs 15 GB of
disk.

    python benches/swap_memory.py [--data FOLDER] [--folder FOLDER] [--methods focus] [--out NAME]
"""

from __future__ import annotations

import argparse
import json
import shutil
import struct
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from contenders import answer
from machine import describe, write_report
from tables import markdown
from texts import SHARED, corpus, first_texts
from transformers import AutoModelForCausalLM, MistralConfig

from langadapt import Tokenizer, save_vectors, tokenize_corpus, train_vectors

SOURCE, TARGET = "phi-3-mini", "paper-de"
TEXT_CHARACTERS = 8_000_000
CHILD = """
import json, re, sys, time
from langadapt.swap import swap_folder
def peak():  # not `ru_maxrss`, which a child takes over from its parent
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
model, tokenizer, vectors, out, method = sys.argv[1:]
before, begun = peak(), time.monotonic()
report = swap_folder(model, tokenizer, out, method=method, vectors=vectors if method in ("focus", "omp") else None)
print(json.dumps({"method": method, "seconds": round(time.monotonic() - begun, 1), "peak_bytes": peak(),
                  "before_bytes": before, "parameters": report.parameters_after, "combined": report.combined}))
"""


def make_model(folder: Path, tokenizer: Path) -> None:
    """A model of Mistral-7B's shapes; about 0.5 GB on disk, 14.5 GB by its size."""
    config = MistralConfig(vocab_size=32_064, tie_word_embeddings=False)
    with torch.device("meta"):
        shapes = {
            name: list(value.shape) for name, value in AutoModelForCausalLM.from_config(config).named_parameters()
        }
    names = list(shapes)
    for part in range(3):
        write_sparse(folder / f"model-{part + 1:05}-of-00003.safetensors", {n: shapes[n] for n in names[part::3]})
    index = {name: f"model-{at % 3 + 1:05}-of-00003.safetensors" for at, name in enumerate(names)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    config.save_pretrained(folder)
    for file in tokenizer.iterdir():
        shutil.copyfile(file, folder / file.name)


def write_sparse(file: Path, shapes: dict[str, list[int]]) -> None:
    """A safetensors file in bf16 whose tensors are holes but for matrices with a row per token."""
    header, at = {}, 0
    for name, shape in shapes.items():
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    with file.open("wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        start = out.tell()
        out.truncate(start + at)
        for name, shape in shapes.items():
            if shape[0] == 32_064:
                out.seek(start + header[name]["data_offsets"][0])
                rows = (torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 0.02).to(torch.bfloat16)
                out.write(rows.view(torch.uint8).numpy().data)


def make_vectors(data: Path, folder: Path) -> Path:
    """Vectors of 300 on some German text."""
    texts = first_texts(corpus("de", data), TEXT_CHARACTERS)
    tokenizer = Tokenizer.from_pretrained(data / "tokenizers" / TARGET)
    store = tokenize_corpus(iter(texts), tokenizer, folder / "store")
    save_vectors(train_vectors(store, epochs=1), folder / "vectors.safetensors", store=store)
    return folder / "vectors.safetensors"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SHARED)
    parser.add_argument("--folder", type=Path, help="for temporary files")
    parser.add_argument("--methods", nargs="+", default=["focus", "subword_mean"])
    parser.add_argument("--out", type=Path, help="writes NAME.jsonl and NAME.md")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        folder = Path(temporary)
        (folder / "model").mkdir()
        make_model(folder / "model", arguments.data / "tokenizers" / SOURCE)
        vectors = make_vectors(arguments.data, folder)
        places = [folder / "model", arguments.data / "tokenizers" / TARGET, vectors, folder / "out"]
        for method in arguments.methods:
            begun = time.monotonic()
            found = answer("-c", CHILD, *map(str, places), method)
            rows.append(found | {"process_seconds": round(time.monotonic() - begun, 1)})
            shutil.rmtree(folder / "out")
    print(table(rows), end="")
    if arguments.out:
        write_report(arguments.out, describe("torch", "transformers"), rows, table(rows))


def table(rows: list[dict[str, Any]]) -> str:
    heads = ["method", "rows combined", "GB at the peak", "of which before the swap", "seconds of the swap"]
    cells = []
    for row in rows:
        peak, before = (f"{row[name] / 1e9:.2f}" for name in ("peak_bytes", "before_bytes"))
        cells.append([f"`{row['method']}`", f"{row['combined']:,}", peak, before, f"{row['seconds']:.0f}"])
    return markdown(heads, cells)


if __name__ == "__main__":
    main()
