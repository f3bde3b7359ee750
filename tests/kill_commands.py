"""What `kills.py` runs: every command that writes, on inputs so small that a run takes seconds."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from finish_kit import TEMPLATE
from kill_kit import start, wait
from tiny import byte_tokenizer, tiny_llama

from langadapt.tokenizer.templates import DEFAULT_FILE

TEXTS = Path(__file__).parent / "texts"
TRAIN = {
    "steps": 4,
    "sequence_length": 32,
    "batch_sequences": 2,
    "micro_batch": 1,
    "checkpoint_every": 2,
    "device": "cpu",
    "threads": 1,
}


@dataclass(frozen=True)
class Command:
    """Arguments, run in a folder of its own; what is written there is called `out`."""

    arguments: list[str]
    other: Sequence[str] = ()
    """Arguments to go behind those in an earlier run, whose result lies there, and is one artefact: until the new one
    is whole, the old one is."""
    before: Path | None = None
    """A folder whose content must lie there already."""
    torch: bool = True
    """Whether it loads torch, which does not even start in 1 GB of address space."""
    once: bool = False
    """Whether it refuses to replace its own result."""


def recipe(inputs: Path) -> dict[str, Any]:
    """A small adaptation of the prepared model."""
    return {
        "name": "kills",
        "model": str(inputs / "model"),
        "out": "out",
        "corpus": {"target": [str(inputs / "german.jsonl")], "validation_bytes": 3000, "validation_share": 0.2},
        "tokenizer": {"vocab_size": 340},
        "vectors": {"dim": 8, "epochs": 1, "min_count": 1, "threads": 1},
        "swap": {"method": "focus"},
        "train": TRAIN,
        "evaluate": {"bytes_while_training": 300},
    }


def commands(inputs: Path) -> dict[str, Command]:
    """By name."""
    text, tokenizer, store = str(inputs / "german.jsonl"), str(inputs / "tokenizer"), str(inputs / "store")
    model, tuned, run = str(inputs / "model"), str(inputs / "tuned"), inputs / "run"
    to, cpu, adapted = ["--out", "out"], ["--device", "cpu"], str(run / "out")
    chat = ["finish", adapted, "--instruct", str(inputs / "instruct"), *to, *cpu]
    wish = ["--model", model, "--text", text, "--language", "de", "--gpus", "24gb", "--hours", "1"]
    return {
        "corpus build": Command(
            ["corpus", "build", text, *to, "--near-duplicates", "--threads", "2"], ["--min-chars", "900"], torch=False
        ),
        "tokenizer train": Command(
            ["tokenizer", "train", text, "--vocab-size", "340", *to], ["--vocab-size", "320"], torch=False
        ),
        "tokenizer extend": Command(
            ["tokenizer", "extend", tokenizer, text, "--new-tokens", "30", *to], ["--new-tokens", "20"], torch=False
        ),
        "tokenizer trim": Command(
            ["tokenizer", "trim", tokenizer, text, "--min-count", "3", *to], ["--min-count", "9"], torch=False
        ),
        "corpus build --shard": Command(
            ["corpus", "build", text, *to, "--exact-duplicates", "--shard", "1/2"], torch=False
        ),
        "tokenizer count": Command(["tokenizer", "count", text, *to], torch=False),
        "merge": Command(["merge", str(inputs / "parts"), *to], torch=False),
        "tokenizer compare": Command(["tokenizer", "compare", model, "--text", text, *COMPARE, *to]),
        "tokenize": Command(["tokenize", text, "--tokenizer", tokenizer, *to], ["--tokenizer", model], torch=False),
        "vectors train": Command(["vectors", "train", store, *to, *VECTORS], ["--dim", "4"]),
        "swap": Command(["swap", model, "--tokenizer", tokenizer, "--method", "mean", *to], ["--method", "random"]),
        "swap auto": Command(["swap", model, "--tokenizer", tokenizer, "--method", "auto", "--text", text, *AUTO, *to]),
        "train": Command(["train", str(inputs / "recipe.yaml")]),
        "adapt": Command(["adapt", str(inputs / "recipe.yaml")]),
        "report": Command(["report", "out"], before=run),
        "finish": Command([*chat, "--scale", "1"], ["--scale", "0.5"]),
        "finish auto": Command([*chat, "--text", text, "--prompt", "Hallo"]),
        "dial": Command(["dial", model, tuned, "--amount", "0.5", *to], ["--amount", "0.25"]),
        "dial measure": Command(["dial", "out", "--at", "0,1", *cpu], before=run),
        "export gguf": Command(["export", "gguf", adapted, *to, "--no-proof"], ["--type", "f16"]),
        "export vllm": Command(["export", "vllm", model]),
        "items": Command(["items", text, *to, "--count", "5"], ["--count", "4"], torch=False),
        "sheet": Command(["sheet", model, tuned, "--text", text, "--count", "2", "--tokens", "3", *cpu, *to]),
        "evaluate": Command(["evaluate", adapted, "--max-bytes", "500", *cpu]),
        "init": Command(["init", *wish, *to], once=True),
    }


VECTORS = ["--dim", "8", "--epochs", "1", "--threads", "1"]
AUTO = ["--probe-steps", "1", "--probe-tokens", "64", "--candidate", "mean", "--candidate", "random"]
COMPARE = ["trim", "--method", "mean", "--probe-steps", "1", "--probe-tokens", "64"]


def write_models(inputs: Path) -> None:
    """The model to adapt, the same after some training, and one that chats."""
    for name in ("model", "tuned", "instruct"):
        model: Any = tiny_llama(vocab_size=257, max_position_embeddings=64)
        if name != "model":
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(torch.randn(parameter.shape) * 0.1)
        model.save_pretrained(inputs / name)
        byte_tokenizer(eos_token="<e>").save_pretrained(inputs / name)
    (inputs / "instruct" / DEFAULT_FILE).write_text(TEMPLATE.replace("{{ bos_token }}", ""), "utf-8")


def write_inputs(inputs: Path, names: Sequence[str]) -> None:
    """Text, a tokenizer, a store, models, a recipe and, where a command of ``names`` takes it, a run; made by the
    commands themselves."""
    lines = (TEXTS / "german.jsonl").read_text("utf-8").splitlines(keepends=True)
    (inputs / "german.jsonl").write_text("".join(lines[:60]), "utf-8")
    (inputs / "recipe.yaml").write_text(yaml.safe_dump(recipe(inputs)), "utf-8")
    # What computes is a child: a pool of threads that this process had would be missing in all that it forks.
    models = os.fork()
    if models == 0:
        try:
            write_models(inputs)
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(models, 0)[1] == 0
    text, run = str(inputs / "german.jsonl"), inputs / "run"
    run.mkdir()
    chosen = [commands(inputs)[name] for name in names]
    adapted = [(["adapt", str(inputs / "recipe.yaml")], run)]
    if not any(command.before == run or str(run / "out") in command.arguments for command in chosen):
        adapted = []
    parts = [text, "--near-duplicates", "--out", "parts"]
    for arguments, folder in (
        (["tokenizer", "train", text, "--vocab-size", "340", "--out", "tokenizer"], inputs),
        (["tokenize", text, "--tokenizer", "tokenizer", "--out", "store"], inputs),
        *((["corpus", "build", *parts, "--shard", f"{n}/2"], inputs) for n in (0, 1)),
        *adapted,
    ):
        status, said = wait(start(arguments, folder))
        assert status == 0, said


def earlier(command: Command, work: Path) -> Path:
    """The folder in which an earlier run with other settings has left its result."""
    folder = work / "earlier"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    if command.before is not None:
        shutil.copytree(command.before, folder, dirs_exist_ok=True)
    status, said = wait(start([*command.arguments, *command.other], folder))
    assert status == 0, said
    return folder
