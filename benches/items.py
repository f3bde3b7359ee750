"""Questions of held-out text must rank models that are known to be worse last: in German, Arabic and Swahili.

For each language a Llama of 1.2M parameters learns that language from nothing, with a tokenizer of its own. On 200
questions of each kind made of its held-out text by `langadapt items` it is measured beside

- `half`: itself at half of its training,
- `random rows`: itself with all embedding rows drawn anew, as a swap leaves them that finds no source for a row,
- `other script`: the model of another script, Arabic's for German and Swahili, German's for Arabic,

all on the same questions, so that differences are paired. One thread; a quarter of an hour of processor time.

    OMP_NUM_THREADS=1 python benches/items.py [--data ../shared/data] [--steps N] [--out NAME]
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import describe, write_report
from tables import markdown
from texts import SHARED, corpus
from transformers import LlamaConfig, LlamaForCausalLM

from langadapt import Tokenizer, read_documents, train_bpe
from langadapt.evaluation.bits_per_byte import measure_bits_per_byte
from langadapt.evaluation.bootstrap import paired_items
from langadapt.evaluation.items import CHANCE, KINDS, make_items
from langadapt.evaluation.suites import measure_suites
from langadapt.models.folder import load_model

OTHER = {"de": "ar", "ar": "de", "sw": "ar"}
NAMES = {"de": "German", "ar": "Arabic", "sw": "Swahili"}
VOCABULARY, WINDOW, ROWS = 4096, 128, 16
SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
HELD_OUT, READ = 600_000, 5_000_000
"""Characters that questions are made of, and that are trained on."""
MEASURED = 60_000
"""Characters of held-out text for bits per byte."""
RATE = 4e-3
MEAN = "all kinds"


def split(data: Path, language: str) -> tuple[list[str], list[str]]:
    """Documents to make questions of, and others to train on."""
    held_out: list[str] = []
    read: list[str] = []
    documents = read_documents([str(corpus(language, data))])
    for part, limit in ((held_out, HELD_OUT), (read, READ)):
        size = 0
        for text in documents:
            part.append(text)
            size += len(text)
            if size >= limit:
                break
    return held_out, read


def train(language: str, read: Sequence[str], steps: int, work: Path) -> None:
    """``work/LANGUAGE`` and ``work/LANGUAGE-half``, with their tokenizer."""
    tokenizer = train_bpe(
        texts=read, vocab_size=VOCABULARY, special_tokens={"bos_token": "<|begin|>", "eos_token": "<|end|>"}
    )
    torch.manual_seed(0)
    model: Any = LlamaForCausalLM(LlamaConfig(**SHAPE))
    ids = torch.from_numpy(np.concatenate([np.append([0], tokenizer.encode(text)) for text in read]).astype(np.int64))
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.1)
    draw = torch.Generator().manual_seed(0)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = (
            RATE * min(1, 20 * (step + 1) / steps) * (1 + math.cos(math.pi * step / steps)) / 2
        )
        starts = torch.randint(len(ids) - WINDOW, (ROWS,), generator=draw)
        batch = torch.stack([ids[at : at + WINDOW] for at in starts])
        # As evaluation begins every text.
        batch[:, 0] = 0
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step + 1 in (steps // 2, steps):
            save(model, tokenizer, work / (language if step + 1 == steps else f"{language}-half"))
            print(f"{language}: step {step + 1}, loss {float(loss):.3f}", flush=True)


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def random_rows(folder: Path, out: Path) -> None:
    """A copy whose rows are drawn from a normal distribution of their own spread."""
    shutil.copytree(folder, out)
    model: Any = load_model(folder)
    rows = model.get_input_embeddings().weight.data
    rows.copy_(torch.randn(rows.shape, generator=torch.Generator().manual_seed(0)) * rows.std())
    model.save_pretrained(out)


def measured(language: str, held_out: Sequence[str], work: Path, folder: Path) -> list[dict[str, Any]]:
    """A row for each model: shares of right answers, and how far the trained one is ahead.

    ``work`` has the models; ``folder`` is for what is made here.
    """
    make_items(held_out, folder / "items", count=200)
    models = {
        "trained": work / language,
        "half": work / f"{language}-half",
        "random rows": folder / f"{language}-random",
        "other script": work / OTHER[language],
    }
    random_rows(models["trained"], models["random rows"])
    scores: dict[str, dict[str, list[float]]] = {}
    rows = []
    for name, place in models.items():
        found = measure_suites(place, place, [folder / "items"])
        scores[name] = {kind: found.items[kind]["acc"] for kind in KINDS if kind in found.items}
        scores[name][MEAN] = [value for values in scores[name].values() for value in values]
        texts = [text[: MEASURED // 10] for text in held_out[:10]]
        bits = measure_bits_per_byte(load_model(place).eval(), Tokenizer.from_pretrained(place), texts)
        row: dict[str, Any] = {"language": language, "model": name, "bits_per_byte": round(bits.bits_per_byte, 3)}
        for kind, values in scores[name].items():
            row[kind] = {"items": len(values), "acc": round(sum(values) / len(values), 4)}
            ahead = paired_items(scores["trained"][kind], values) if name != "trained" else None
            if ahead is not None:
                row[kind] |= {
                    "behind": round(ahead.difference, 4),
                    "interval": [round(end, 4) for end in ahead.interval],
                }
        rows.append(row)
        print(json.dumps(row), flush=True)
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """As Markdown; intervals are those of the difference to the trained model."""
    cells = []
    for row in rows:
        shown = [NAMES[row["language"]], row["model"], f"{row['bits_per_byte']:.2f}"]
        for kind in (*KINDS, MEAN):
            found = row.get(kind)
            text = "-" if found is None else f"{found['acc']:.3f}"
            if found and "interval" in found:
                low, high = found["interval"]
                text += f" ({-high:+.3f} to {-low:+.3f})"
            shown.append(text)
        cells.append(shown)
    heads = ["text", "model", "bits per byte", *(kind.replace("_", " ") for kind in KINDS), MEAN]
    return markdown(heads, cells, words=(0, 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SHARED)
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--models", type=Path, help="to leave models in, and to take those of an earlier call from")
    parser.add_argument("--out", type=Path, help="of the report, without an ending")
    given = parser.parse_args()
    torch.set_num_threads(1)
    texts = {language: split(given.data, language) for language in NAMES}
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        work = given.models or Path(folder)
        for language, (_, read) in texts.items():
            if not (work / language).is_dir():
                train(language, read, given.steps, work)
        for language, (held_out, _) in texts.items():
            rows += measured(language, held_out, work, Path(folder))
    print(table(rows))
    if given.out:
        machine = describe("torch", "transformers", "lm_eval")
        write_report(given.out, machine | {"steps": given.steps, "chance": CHANCE}, rows, table(rows))


if __name__ == "__main__":
    main()
