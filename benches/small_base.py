"""The small English model that benches adapt on a CPU, its settings, and the commands that such a bench has."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

STEP_TOKENS, WINDOW = 512, 128
CORPUS = {"validation_bytes": 80_000, "validation_share": 0.05}
TOKENIZER = {"vocab_size": 2048}
SHAPE = {
    "hidden_size": 96,
    "intermediate_size": 256,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "num_key_value_heads": 3,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
}
TRAIN: dict[str, Any] = {
    "sequence_length": WINDOW,
    "batch_sequences": STEP_TOKENS // WINDOW,
    "micro_batch": STEP_TOKENS // WINDOW,
    "learning_rate": 1.0e-3,
    "min_learning_rate": 1.0e-4,
    "embedding_learning_rate": 3.0e-3,
    "schedule": "cosine",
    "warmup": 0.1,
    "weight_decay": 0.1,
    "precision": "mixed-bf16",
    "rounding": "nearest",
    "checkpoint_minutes": None,
    "stale_every": 0,
    "log_every": 50,
    "threads": 1,
}
BASE: dict[str, Any] = {
    "corpus": CORPUS,
    "tokenizer": TOKENIZER,
    "model": {"seed": 1, "shape": SHAPE},
    "train": TRAIN
    | {
        "steps": 400,
        "batch_sequences": 32,
        "micro_batch": 32,
        "learning_rate": 3.0e-3,
        "embedding_learning_rate": None,
        "warmup": 0.04,
        "checkpoint_every": 100,
        "seed": 1,
    },
}


def commands(
    about: str | None, name: str, measure: Callable[[Path, Path, Path | None], None], table: Callable[[Path], str]
) -> None:
    """``prepare``, ``run`` and ``table`` of a bench.

    Args:
        about: for ``--help``.
        name: of its folder and of its rows.
        measure: called with the test data, the folder and the file of rows, none where it shall only prepare.
        table: of the rows, in Markdown.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("prepare", "run", "table"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("runs") / name.replace("_", "-"))
    parser.add_argument("--rows", type=Path, default=Path(f"docs/runs/{name}.jsonl"))
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    if arguments.what == "table":
        print(table(arguments.rows))
    else:
        measure(arguments.data, arguments.out, arguments.rows if arguments.what == "run" else None)
