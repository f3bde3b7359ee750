"""Evaluation beside the matrix products that it cannot do without: bits per byte, and log-likelihoods of tasks.

One model has Gemma 3 270M's shape: 262,144 rows, so that logits cost more than all layers, and a window of 512 tokens
in most layers; the same with 32,768 rows; and a Llama of 0.11 billion parameters. Weights are drawn. Questions and text
are real German ones, read by a German tokenizer. `matrix products` are those of the layers' matrices with every token
that has to be read, once, of the output matrix with every place where a token is scored, and of attention with the keys
and values that tokens can see, in batches as large as they like; `those of weights` leave attention out. lm-eval is
asked through its own class, softmax in float32, and both must agree before anything is timed. `after its trial` is
without the three questions that are computed both ways first, which tasks of thousands do not feel. One thread,
processor seconds, rounds of all ways in turn.

    OMP_NUM_THREADS=1 python benches/evaluation.py [--data ../shared/data] [--out NAME]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM
from machine import describe, write_report
from tables import markdown
from texts import SHARED, byte_count, corpus, first_texts
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, Gemma3TextConfig, LlamaConfig

from langadapt.evaluation.bits_per_byte import cut, encode, measure_bits_per_byte, window_and_stride
from langadapt.evaluation.harness import Model
from langadapt.evaluation.items import make_items
from langadapt.evaluation.requests import rows_of
from langadapt.evaluation.suites import BATCH_SIZE, read_questions
from langadapt.models.attention import blocks
from langadapt.tokenizer.encoder import Tokenizer

GEMMA: dict[str, Any] = {
    "vocab_size": 262_144,
    "hidden_size": 640,
    "intermediate_size": 2048,
    "num_hidden_layers": 18,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "sliding_window": 512,
    "max_position_embeddings": 2048,
}
LLAMA: dict[str, Any] = {
    "vocab_size": 50_304,
    "hidden_size": 640,
    "intermediate_size": 1792,
    "num_hidden_layers": 16,
    "num_attention_heads": 10,
    "num_key_value_heads": 10,
    "head_dim": 64,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}
SHAPES: dict[str, Any] = {
    "gemma-3-270m": Gemma3TextConfig(**GEMMA),
    "the same, swapped": Gemma3TextConfig(**GEMMA | {"vocab_size": 32_768}),
    "llama-0.11b": LlamaConfig(**LLAMA),
}
PRODUCT_TOKENS, PRODUCT_ROWS = 2048, 4096
"""Tokens, and rows of a matrix, of one product: more would only ask the system for more memory."""
DIGITS = 0.05
"""Nats per token by which two ways may differ in bf16."""
Requests = list[tuple[tuple[str, str], list[int], list[int]]]


class Products:
    """The matrix products of a model, and nothing else of it."""

    def __init__(self, model: Any) -> None:
        self.layers = [one.weight for one in model.model.layers.modules() if isinstance(one, nn.Linear)]
        self.head = model.lm_head.weight
        self.config = model.config
        self.made = torch.empty(PRODUCT_TOKENS * PRODUCT_ROWS, dtype=self.head.dtype)

    def weights(self, tokens: int, logits: int) -> None:
        """All layers' products with so many tokens, the output matrix' with so many places."""
        for matrices, count in ((self.layers, tokens), ([self.head], logits)):
            for start in range(0, count, PRODUCT_TOKENS):
                size = min(PRODUCT_TOKENS, count - start)
                for rows in (part for matrix in matrices for part in matrix.split(PRODUCT_ROWS)):
                    given = torch.ones(size, rows.shape[1], dtype=rows.dtype)
                    torch.mm(given, rows.t(), out=self.made[: size * len(rows)].view(size, -1))

    def attention(self, lengths: Sequence[int]) -> None:
        """Of every layer over rows of so many tokens: with the keys and the values that a block of tokens can see."""
        shape = self.config
        kinds = getattr(shape, "layer_types", None) or ["full_attention"] * shape.num_hidden_layers
        for length in lengths:
            states = torch.ones(1, shape.num_attention_heads, length, shape.head_dim, dtype=self.head.dtype)
            for kind in kinds:
                window = shape.sliding_window if kind == "sliding_attention" else length
                for own, seen in blocks(length, window):
                    torch.matmul(torch.matmul(states[:, :, own], states[:, :, seen].mT), states[:, :, seen])

    def all(self, tokens: int, logits: int, lengths: Sequence[int]) -> None:
        """The one and the other."""
        self.weights(tokens, logits)
        self.attention(lengths)


def least(requests: Requests) -> tuple[int, int]:
    """Different beginnings of all texts, each a token to be read once within its question, and places to be scored."""
    tokens, places = set(), set()
    for (question, _), context, continuation in requests:
        ids = [*context, *continuation][:-1]
        tokens |= {(question, tuple(ids[: end + 1])) for end in range(len(ids))}
        places |= {(question, tuple(ids[: len(ids) - back])) for back in range(len(continuation))}
    return len(tokens), len(places)


def counted(model: Any, work: Callable[[], Any]) -> tuple[Any, int, int]:
    """What ``work`` returns, tokens through the layers, and tokens of which the whole model makes logits."""
    seen = {"tokens": 0, "logits": 0}

    def through(module: Any, inputs: Any, kept: Any) -> None:
        seen["tokens"] += (inputs[0] if inputs else kept["input_ids"]).numel()

    def read(module: Any, inputs: Any) -> None:
        seen["logits"] += inputs[0].numel() // inputs[0].shape[-1]

    hooks = [
        model.model.register_forward_pre_hook(through, with_kwargs=True),
        model.lm_head.register_forward_pre_hook(read),
    ]
    try:
        return work(), seen["tokens"], seen["logits"]
    finally:
        for hook in hooks:
            hook.remove()


def questions(data: Path, tokenizer: Any, model: Model, count: int, work: Path) -> Requests:
    """Requests of items from held-out text, of each kind ``count``, and of as many real questions on passages."""
    make_items(first_texts(corpus("de", data), 400_000), work / "items", count=count)
    asked: Requests = []
    for file in (*sorted((work / "items").glob("*.jsonl")), data / "eval" / "belebele_de.jsonl"):
        for number, one in enumerate(read_questions(file)[:count]):
            for choice in one["choices"]:
                asked.append(((f"{file.stem} {number}", choice), *model._encode_pair(one["prompt"], f" {choice}")))
    return asked


def seconds(ways: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Processor seconds of each way in turn."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            begun = time.process_time()
            way()
            taken[name].append(time.process_time() - begun)
    return taken


def tasks(model: Any, tokenizer: Any, asked: Requests, rounds: int) -> list[dict[str, Any]]:
    """Rows of the log-likelihoods of requests."""
    theirs = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=BATCH_SIZE, softmax_dtype="float32")

    def ours(*, tried: bool = False) -> tuple[Model, list[Any]]:
        made = Model(model, tokenizer, batch_size=BATCH_SIZE)
        made.likelihoods.shares_known = tried
        return made, made._loglikelihood_tokens(asked)

    bare, (tokens, places) = Products(model), least(asked)
    begun = time.process_time()
    expected, their_tokens, their_logits = counted(
        model, lambda: theirs._loglikelihood_tokens(asked, disable_tqdm=True)
    )
    theirs_took = time.process_time() - begun
    made, found = ours()
    for (value, _), (wanted, _), (_, _, continuation) in zip(found, expected, asked, strict=True):
        if abs(value - wanted) > DIGITS * len(continuation):
            raise SystemExit(f"{value} nats, but lm-eval has {wanted}")
    work, texts = made.likelihoods.work, {(*context, *continuation[:-1]) for _, context, continuation in asked}
    lengths = [row.length for row in rows_of(list(texts), BATCH_SIZE, made.likelihoods.attention)]
    ways = {
        "langadapt": ours,
        "langadapt, after its trial": lambda: ours(tried=True),
        "matrix products": lambda: bare.all(tokens, places, lengths),
        "those of weights": lambda: bare.weights(tokens, places),
    }
    taken = seconds(ways, rounds) | {"lm-eval": [theirs_took]}
    counts = {
        "lm-eval": (their_tokens, their_logits),
        "langadapt": (work.tokens, work.logits),
        "langadapt, after its trial": (work.tokens, work.logits),
        "matrix products": (tokens, places),
        "those of weights": (tokens, places),
    }
    return rows("tasks", counts, taken)


def text(model: Any, folder: Path, documents: Sequence[str], rounds: int) -> list[dict[str, Any]]:
    """Rows of bits per byte."""
    tokenizer, bare = Tokenizer.from_pretrained(folder), Products(model)
    window, stride = window_and_stride(model, None, None)
    windows = [piece for ids in encode(tokenizer, documents) for piece in cut(ids, window, stride)]
    tokens, places = sum(len(one.targets) for one in windows), sum(one.scored for one in windows)
    measured, seen, _ = counted(model, lambda: measure_bits_per_byte(model, tokenizer, documents))
    ways = {
        "langadapt": lambda: measure_bits_per_byte(model, tokenizer, documents),
        "matrix products": lambda: bare.all(tokens, places, [len(one.targets) for one in windows]),
        "those of weights": lambda: bare.weights(tokens, places),
    }
    counts = {"langadapt": (seen, measured.tokens)} | dict.fromkeys(list(ways)[1:], (tokens, places))
    return rows("bits per byte", counts, seconds(ways, rounds))


def measured(name: str, given: argparse.Namespace, work: Path) -> list[dict[str, Any]]:
    """Rows of one model."""
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(SHAPES[name], dtype=torch.bfloat16).eval()
    folder = given.data / "tokenizers" / "paper-de"
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    found: list[dict[str, Any]] = []
    if "tasks" in given.parts:
        asked = questions(given.data, tokenizer, Model(model, tokenizer, batch_size=BATCH_SIZE), given.questions, work)
        found += tasks(model, tokenizer, asked, given.rounds)
    if "text" in given.parts:
        documents = first_texts(corpus("de", given.data), 1000 * given.kilobytes, byte_count)
        found += text(model, folder, [one[: 500 * given.kilobytes] for one in documents], given.rounds)
    return [{"model": name, **row} for row in found]


def rows(what: str, counts: dict[str, tuple[int, int]], taken: dict[str, list[float]]) -> list[dict[str, Any]]:
    """A row for each way."""
    middle = {way: statistics.median(values) for way, values in taken.items()}
    return [
        {
            "what": what,
            "way": way,
            "tokens": counts[way][0],
            "logits": counts[way][1],
            "cpu_s": round(middle[way], 2),
            "times_those_of_weights": round(middle[way] / middle["those of weights"], 2),
            "times_products": round(middle[way] / middle["matrix products"], 2),
            "range": [round(min(taken[way]), 2), round(max(taken[way]), 2)],
        }
        for way in counts
    ]


def table(found: Sequence[dict[str, Any]]) -> str:
    """As Markdown."""
    heads = ["model", "what", "way", "tokens through the layers", "places with logits", "CPU seconds (range)"]
    heads += ["times products", "times those of weights"]
    cells = [
        [
            one["model"],
            one["what"],
            one["way"],
            f"{one['tokens']:,}",
            f"{one['logits']:,}",
            f"{one['cpu_s']:.2f} ({one['range'][0]:.2f} - {one['range'][1]:.2f})",
            f"{one['times_products']:.2f}",
            f"{one['times_those_of_weights']:.2f}",
        ]
        for one in found
    ]
    return markdown(heads, cells, words=(0, 1, 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SHARED)
    parser.add_argument("--questions", type=int, default=6, help="of each kind")
    parser.add_argument("--kilobytes", type=int, default=24, help="of text")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parts", nargs="+", default=["tasks", "text"], choices=["tasks", "text"])
    parser.add_argument("--models", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    found: list[dict[str, Any]] = []
    with torch.no_grad(), tempfile.TemporaryDirectory() as work:
        for name in given.models:
            found += measured(name, given, Path(work))
            print(table(found), flush=True)
    if given.out:
        machine = describe("torch", "transformers", "lm_eval") | {"threads": 1, "rounds": given.rounds}
        write_report(given.out, machine, found, table(found))


if __name__ == "__main__":
    main()
