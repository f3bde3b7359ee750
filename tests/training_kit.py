"""A store in memory, a model of a few thousand parameters, settings that train it in a second. Also a script: one
training run in a process of its own, to be killed, or under_torchrun twice."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from functools import partialmethod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny import tiny_llama
from transformers import LlamaForCausalLM

from langadapt.training import StoreShare, TrainResult, TrainSettings, checkpoint, parallel, train_model

VOCABULARY = 64
MISTRAL = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 32000,
    "tie_word_embeddings": False,
}
"""Of Mistral-7B, what a plan reads of its configuration."""


class MemoryStore:
    """What training reads of a token store; text with a pattern to learn."""

    def __init__(self, seed: int = 0, documents: int = 120, longest: int = 120, stride: int = 3) -> None:
        random = np.random.default_rng(seed)
        lengths = random.integers(1, longest, documents)
        self.offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.uint64)
        count = int(lengths.sum())
        self.tokens = ((np.arange(count) * stride + random.integers(0, 2, count)) % (VOCABULARY - 4) + 4).astype(
            np.uint16
        )
        self.manifest: dict[str, Any] = {"summary": {"vocab_size": VOCABULARY, "bytes": 4 * count}, "inputs": {}}


def tiny_model(tied: bool = False, **changes: Any) -> LlamaForCausalLM:
    """Two layers, 32 wide, bf16; ``changes`` to its configuration."""
    shape = {
        "vocab_size": VOCABULARY,
        "intermediate_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "initializer_range": 0.02,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "tie_word_embeddings": tied,
    }
    return tiny_llama(**{**shape, **changes}).to(torch.bfloat16).train()


def settings(**changes: Any) -> TrainSettings:
    """Twelve quick steps."""
    values: dict[str, Any] = {
        "sequence_length": 32,
        "batch_sequences": 4,
        "micro_batch": 2,
        "learning_rate": 1e-2,
        "min_learning_rate": 1e-3,
        "warmup": 0.01,
        "rounding": "split",
        "log_every": 2,
        "checkpoint_minutes": None,
        "threads": 1,
        "stale_every": 0,
    }
    if not {"tokens", "epochs", "hours"} & changes.keys():
        values["steps"] = 12
    return TrainSettings(**{**values, **changes})


def shares() -> list[StoreShare]:
    """Target and replayed source, 3 : 1."""
    return [StoreShare(MemoryStore(0), 3, "target"), StoreShare(MemoryStore(1, stride=5), 1, "source")]


def train(
    out: Path,
    model: Any = None,
    stores: Any = None,
    *,
    extend: bool = False,
    new_rows: Any = None,
    validate: Any = None,
    **changes: Any,
) -> TrainResult:
    """A short run into ``out``; quiet."""
    return train_model(
        tiny_model() if model is None else model,
        shares() if stores is None else stores,
        out,
        settings(**changes),
        progress=lambda *_: None,
        extend=extend,
        new_rows=new_rows,
        validate=validate,
    )


def scripted(bits: dict[int, float]) -> Any:
    """A validation that finds so many bits per byte of target text after these steps."""
    return lambda model, step: {"bits_per_byte_target": bits[step]}


def journal(out: Path) -> list[dict[str, Any]]:
    """Lines of the log."""
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def losses(out: Path) -> list[float]:
    """Logged training losses in order."""
    return [line["loss"] for line in journal(out) if "loss" in line]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Tensors of a model folder."""
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def killed_again_and_again(out: Path, seed: int, run: dict[str, Any]) -> int:
    """Train in forked children that are killed at random moments until one gets through; returns how many were killed.

    This process has imported everything and computed nothing, so children start at once and inherit no threads.
    """
    moments, kills, longest = random.Random(seed), 0, 0.25
    while not (out / "final").exists():
        child = os.fork()
        if child == 0:
            train(out, **run)
            os._exit(0)
        time.sleep(moments.random() * longest)
        os.kill(child, signal.SIGKILL)
        kills += os.waitpid(child, 0)[1] == signal.SIGKILL
        # Short at first, so that a fast machine is killed often enough; then longer, so that a slow one gets there.
        longest *= 1.15
    return kills


class Stop(Exception):
    """Pretended crash."""


def crash_after(step: int, monkeypatch: Any) -> None:
    """Raise `Stop` instead of doing the step after ``step``."""
    from langadapt.training.step import Stepper

    plain = Stepper.step

    def crashing(self: Any, batch: Any, number: int, **rates: Any) -> None:
        if number == step:
            raise Stop
        plain(self, batch, number, **rates)

    monkeypatch.setattr(Stepper, "step", crashing)


def in_background() -> None:
    """From now on checkpoints are written while training goes on, as on a GPU, and slowly."""
    plain, save = checkpoint.Writer.__init__, checkpoint.save_file

    def writer(self: Any, root: Path, processes: Any, keep: int, background: bool, **more: Any) -> None:
        plain(self, root, processes, keep, True, **more)

    def slow(tensors: Any, file: Path) -> None:
        time.sleep(0.1)
        save(tensors, file)

    checkpoint.Writer.__init__ = writer  # type: ignore[method-assign]
    checkpoint.save_file = slow


def torchrun(processes: int, nodes: int = 1, **run: Any) -> None:
    """This script under torchrun, on as many pretended machines."""
    place = ["--standalone"]
    if nodes > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            place = [f"--nnodes={nodes}", "--master_addr=127.0.0.1", f"--master_port={free.getsockname()[1]}"]
    command = [sys.executable, "-m", "torch.distributed.run", *place, f"--nproc_per_node={processes}"]
    started = []
    for node in range(nodes):
        extra = [f"--node_rank={node}"] if nodes > 1 else []
        started.append(
            subprocess.Popen(
                [*command, *extra, __file__, json.dumps(run)],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        )
    errors = [process.communicate(timeout=240)[1].decode()[-4000:] for process in started]
    assert not any(process.returncode for process in started), "\n".join(errors)


if __name__ == "__main__":
    run = json.loads(sys.argv[1])
    out, seed = Path(run.pop("out")), run.pop("kill", None)
    if run.pop("background", False):
        in_background()
    if bits := run.pop("bits", None):
        run["validate"] = scripted({int(step): value for step, value in bits.items()})
    if backend := run.pop("backend", None):
        torch.nn.Module.compile = partialmethod(torch.nn.Module.compile, backend=backend)
    if seed is not None:
        sys.stdout.write(str(killed_again_and_again(out, seed, run)))
    else:
        train(out, **run)
    parallel.leave()
