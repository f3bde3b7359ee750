"""Moments of a byte beside those of bf16 and fp32: bits per byte of held-out text, with the same seeds.

A small Llama over bytes learns English, once, in mixed precision, and goes on with German in every arm, both by
`train_model`; a seed decides the data order and the random bits. `fp32` is mixed precision, whose moments are fp32; all
others are pure bf16. Measured on the exported model, on text that it was not trained on. The table of
`benches/precision.py` has an arm `int8`, too, on a prepared model of 3.8M parameters.

    python benches/states.py [--data ../shared/data] [--steps N] [--seeds N] [--out NAME]
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import math
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import describe, write_report
from tables import markdown
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from langadapt.corpus.documents import read_documents
from langadapt.training import StoreShare, TrainSettings, train_model

ARMS: dict[str, dict[str, Any]] = {
    "fp32": {"precision": "mixed-bf16"},
    "stochastic": {"rounding": "stochastic"},
    "stochastic, int8": {"rounding": "stochastic", "states": "int8"},
    "split8": {"rounding": "split8"},
    "split8, int8": {"rounding": "split8", "states": "int8"},
}
BYTES = {"fp32": 16.0, "stochastic": 8.0, "stochastic, int8": 6.125, "split8": 9.0, "split8, int8": 7.125}
VOCABULARY, WINDOW = 320, 128
MODEL: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": WINDOW,
    "tie_word_embeddings": False,
    "bos_token_id": 256,
    "eos_token_id": 256,
}
TRAIN: dict[str, Any] = {
    "sequence_length": WINDOW,
    "batch_sequences": 4,
    "micro_batch": 4,
    "learning_rate": 1e-3,
    "min_learning_rate": 3e-5,
    "schedule": "cosine",
    "warmup": 0.1,
    "weight_decay": 0.05,
    "checkpoint_minutes": None,
    "stale_every": 0,
    "threads": 1,
}
BASE: dict[str, Any] = {"precision": "mixed-bf16", "learning_rate": 3e-3, "steps": 150, "seed": 0}
TRAINED_BYTES, MEASURED_BYTES = 4_000_000, 60_000


class Bytes:
    """What training reads of a token store: documents as bytes."""

    def __init__(self, texts: list[bytes]) -> None:
        self.offsets = np.cumsum([0, *map(len, texts)]).astype(np.uint64)
        self.tokens = np.frombuffer(b"".join(texts), dtype=np.uint8).astype(np.uint16)
        self.manifest: dict[str, Any] = {"summary": {"vocab_size": VOCABULARY, "bytes": len(self.tokens)}, "inputs": {}}


def texts(file: Path) -> tuple[list[bytes], list[bytes]]:
    """Documents to measure on, and the next ones to train on."""
    documents = (text.encode() for text in read_documents([file]))

    def up_to(limit: int) -> Iterator[bytes]:
        taken = 0
        for document in documents:
            yield document
            taken += len(document)
            if taken >= limit:
                return

    return list(up_to(MEASURED_BYTES)), list(up_to(TRAINED_BYTES))


@torch.no_grad()
def bits_per_byte(folder: Path, held_out: list[bytes]) -> float:
    """Of windows of the held-out documents, the first byte of each given."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = torch.frombuffer(bytearray(b"".join(held_out)), dtype=torch.uint8).long()
    windows = ids[: len(ids) // WINDOW * WINDOW].view(-1, WINDOW)
    losses = [float(model(input_ids=batch, labels=batch).loss) * len(batch) for batch in windows.split(16)]
    return sum(losses) / len(windows) / math.log(2)


def base(file: Path, work: Path) -> Path:
    """The model that all arms begin with."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**MODEL))
    shares = [StoreShare(Bytes(texts(file)[1]), 1.0, "english")]
    result = train_model(model, shares, work / "base", TrainSettings(**TRAIN | BASE), progress=lambda *_: None)
    return Path(result.final)


def measured(arm: str, seed: int, steps: int, stores: tuple[list[bytes], list[bytes]], work: Path) -> dict[str, Any]:
    """One run from the base: a row."""
    out = work / "run"
    shutil.rmtree(out, ignore_errors=True)
    model = work / "base" / "final"
    settings = TrainSettings(**{"precision": "pure-bf16", **TRAIN, **ARMS[arm], "steps": steps, "seed": seed})
    begun = time.process_time()
    result = train_model(model, [StoreShare(Bytes(stores[1]), 1.0, "german")], out, settings, progress=lambda *_: None)
    seconds = time.process_time() - begun
    bits = bits_per_byte(Path(result.final), stores[0])
    return {"arm": arm, "seed": seed, "steps": steps, "bits_per_byte": round(bits, 5), "cpu_seconds": round(seconds, 1)}


def table(rows: list[dict[str, Any]]) -> str:
    """Means over seeds, and the largest difference to fp32 moments with the same seed."""
    found = {(row["arm"], row["seed"]): row["bits_per_byte"] for row in rows}
    seeds = sorted({row["seed"] for row in rows})
    cells = []
    for arm in ARMS:
        bits = [found[arm, seed] for seed in seeds]
        apart = [found[arm, seed] - found["fp32", seed] for seed in seeds]
        each = ", ".join(f"{one:+.4f}" for one in apart) if arm != "fp32" else "-"
        spread = f" ± {statistics.stdev(bits):.4f}" if len(bits) > 1 else ""
        cells.append([arm, f"{BYTES[arm]:g}", f"{statistics.fmean(bits):.4f}{spread}", each])
    heads = ["states", "bytes per parameter", "bits per byte", "beside fp32, seed by seed"]
    return markdown(heads, cells, words=(0,))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("states"), help="of the report, without an ending")
    arguments = parser.parse_args()
    logging.getLogger("langadapt").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    stores, rows = texts(arguments.data / "corpus" / "de.jsonl.zst"), []
    with tempfile.TemporaryDirectory() as work:
        begun = bits_per_byte(base(arguments.data / "corpus" / "en.jsonl.zst", Path(work)), stores[0])
        for seed, arm in itertools.product(range(1, arguments.seeds + 1), ARMS):
            rows.append(measured(arm, seed, arguments.steps, stores, Path(work)))
            print(json.dumps(rows[-1]), flush=True)
    size = LlamaForCausalLM(LlamaConfig(**MODEL)).num_parameters()
    facts = {
        **describe("torch", "transformers"),
        "parameters": size,
        "steps": arguments.steps,
        "before": round(begun, 4),
        "threads": 1,
    }
    write_report(arguments.out, facts, rows, table(rows))


if __name__ == "__main__":
    main()
