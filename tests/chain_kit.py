"""A small adaptation in a process of its own, killed again and again: `python chain_kit.py FOLDER SEED` (0: never)."""

from __future__ import annotations

import builtins
import os
import random
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

import langadapt.demo
import langadapt.pipeline
import langadapt.report
import langadapt.swap.files
import langadapt.training
from langadapt.artefacts.stages import Run
from langadapt.demo.scratch import train_from_scratch
from langadapt.recipe.plain_values import build
from langadapt.recipe.recipe import Recipe

assert transformers.__version__  # loaded once, before the children are made

STEPS = {
    "steps": 6,
    "sequence_length": 64,
    "batch_sequences": 2,
    "micro_batch": 1,
    "rounding": "stochastic",
    "checkpoint_every": 2,
    "validate_every": 3,
    "device": "cpu",
}
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 128,
}
CORPUS = {"validation_bytes": 8000, "validation_share": 0.2}


def chain(out: Path) -> None:
    """The source model, then its adaptation."""
    torch.set_num_threads(1)
    texts = Path(__file__).parent / "texts"
    source = Run(out / "source", lambda _: None)
    settings = {
        "corpus": CORPUS,
        "tokenizer": {"vocab_size": 400},
        "model": {"seed": 1, "shape": SHAPE},
        "train": STEPS,
    }
    with source.locked():
        model = train_from_scratch(source, [str(texts / "english.jsonl")], settings)
    recipe = {
        "name": "chain",
        "model": str(model),
        "out": str(out / "run"),
        "source_language": "English",
        "target_language": "German",
        "corpus": {
            **CORPUS,
            "target": [str(texts / "german.jsonl")],
            "source": [str(texts / "english.jsonl")],
            "source_share": 0.25,
        },
        "tokenizer": {"vocab_size": 400},
        "vectors": {"dim": 8, "epochs": 1, "min_count": 1, "threads": 1},
        "swap": {"method": "focus"},
        "train": STEPS,
        "evaluate": {"bytes_while_training": 500},
    }
    langadapt.pipeline.adapt(build(Recipe, recipe, ""))


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def doom(chance: random.Random, attempt: int) -> None:
    """Arrange this process's death: after a while, or at a file's opening for writing, flushing or renaming."""
    if chance.random() < 0.5:
        threading.Timer(chance.uniform(0.02, 0.25 * attempt), die).start()
        return
    left = [chance.randint(1, 12 * attempt)]

    def counting(call: Callable[..., Any], changes: Callable[..., bool]) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            if changes(*arguments):
                left[0] -= 1
                if left[0] == 0:
                    die()
            return call(*arguments, **named)

        return counted

    for name in ("replace", "rename", "fsync"):
        setattr(os, name, counting(getattr(os, name), lambda *_: True))
    builtins.open = counting(open, lambda _, mode="r", *rest: mode[0] != "r")  # type: ignore[assignment]


def main() -> None:
    out, seed = Path(sys.argv[1]), int(sys.argv[2])
    if not seed:
        chain(out)
        return
    chance = random.Random(seed)
    for attempt in range(1, 60):
        child = os.fork()
        if child == 0:
            doom(chance, attempt)
            chain(out)
            # No hook of the interpreter's end, no timer that still waits.
            os._exit(0)
        chance.random()
        status = os.waitpid(child, 0)[1]
        if status == 0:
            sys.stdout.write(f"{attempt - 1}\n")
            return
        if os.WIFEXITED(status):
            sys.exit(f"attempt {attempt} failed by itself")
    sys.exit("never came to an end")


if __name__ == "__main__":
    main()
