"""A made-up run's folder, with everything that the report can show."""

import json
import math
import random
from pathlib import Path
from typing import Any

METHODS = ("focus", "keep", "random")
DOCUMENTS = 140


def fertility(scale: float = 1.0) -> dict[str, Any]:
    """As `FertilityReport.to_dict` has it."""

    def cell(words: float, bytes_: float) -> dict[str, Any]:
        return {
            "tokens": int(18_210 * words),
            "tokens_per_word": words * scale,
            "bytes_per_token": bytes_ / scale,
            "parity": None,
            "unknown_share": 0.0,
        }

    counts = {"documents": 120, "bytes": 128_900, "characters": 127_000, "words": 18_210, "skipped": 0}
    return {
        "reference": None,
        "rare_below": 10,
        "corpora": {"German": counts, "English": counts},
        "summary": {name: {"vocab_size": 2048, "backend": "native", "gini": 0.2} for name in ("source", "new")},
        "tokenizers": {
            "source": {"German": cell(2.134, 3.318), "English": cell(1.391, 4.21)},
            "new": {"German": cell(1.496, 4.732), "English": cell(2.006, 2.92)},
        },
    }


def documents() -> tuple[list[int], list[float]]:
    """Bytes of the tested documents, and how hard each is for any model."""
    chance = random.Random(7)
    return [chance.randrange(400, 9000) for _ in range(DOCUMENTS)], [chance.gauss(1, 0.1) for _ in range(DOCUMENTS)]


def bits_of(bits_per_byte: float, seed: str, count: int = DOCUMENTS) -> list[float]:
    """Bits of the first documents, which come to ``bits_per_byte``; models agree on what is hard."""
    sizes, hard = documents()
    chance = random.Random(seed)
    bits = [size * much * chance.gauss(1, 0.03) for size, much in zip(sizes[:count], hard, strict=False)]
    scale = bits_per_byte * sum(sizes[:count]) / sum(bits)
    return [round(scale * one, 2) for one in bits]


def held_out(count: int = DOCUMENTS) -> dict[str, Any]:
    """As the stage of that name leaves it."""
    sizes = documents()[0][:count]
    prompt = {"text": "Am Morgen nach dem Regen", "goes_on": " lag die Stadt still."}
    watched = {"watched_documents": 40, "watched_bytes": 180_000, "apart": count >= 100}
    xz = {"xz_bits_per_byte": 2.71, "watched_xz_bits_per_byte": 2.83}
    return {side: {"document_bytes": sizes, **watched, **xz, "prompts": [prompt]} for side in ("target", "source")}


def measured(found: dict[str, Any], count: int = DOCUMENTS) -> dict[str, Any]:
    """``found`` with figures of ``count`` documents that agree with its rows."""
    found["held_out"] = held_out(count)
    for one in found["rows"]:
        bits = one["bits_per_byte"]
        one["document_bits"] = {side: bits_of(value, f"{one['label']} {side}", count) for side, value in bits.items()}
    return found


def writing(foreign: float | None) -> dict[str, Any]:
    return {"texts": 16, "judged": 15, "foreign": foreign, "repeated": 0.7, "broken": 0.0, "unended": 1.0}


def row(label: str, method: str | None, phase: str, tokenizer: str, target: float, source: float) -> dict[str, Any]:
    accuracy = 0.2 + 0.1 / target
    return {
        "label": label,
        "method": method,
        "phase": phase,
        "tokenizer": tokenizer,
        "parameters": 1_246_592 if tokenizer == "target" else 1_180_160,
        "bits_per_byte": {"source": source, "target": target},
        "samples": {"target": [f" {label} <schreibt> weiter."]},
        "drawn": {"target": [f" {label} würfelt."]},
        "writing": {"target": {"greedy": writing(target / 10), "drawn": writing(None)}},
        "suites": {
            "belebele_de": {"acc": accuracy, "acc_stderr": 0.021, "acc_norm": accuracy + 0.01, "items": 399},
            "xquad_mc_de": {"acc": accuracy + 0.05, "acc_stderr": 0.019, "items": 450},
        },
    }


def results() -> dict[str, Any]:
    swap = {
        "output_method": "focus",
        "tied": False,
        "rows_before": 2048,
        "rows_after": 2048,
        "width": 128,
        "copied": 611,
        "combined": 1302,
        "drawn": 135,
        "overlap": {
            "tokens": 2048,
            "matched": 611,
            "exact": 598,
            "fuzzy": 9,
            "by_role": 4,
            "script": {"Latin": {"tokens": 1700, "matched": 401}},
        },
        "notes": ["135 rows have no source; train them first: `train.embeddings_first_steps`"],
        "ranking": [],
        "prognosis": "Prognosis good: 29.9% fewer tokens on the target language, 6.6% of the rows have no anchor.",
    }
    training = {
        "out": "runs/demo/trained",
        "steps": 200,
        "tokens": 819_200,
        "loss": 4.1,
        "validation": {},
        "seconds": 88.4,
        "tokens_per_second": 9266.9,
        "epochs": {"target": 0.5},
        "fullness": {"target": 0.99},
        "layout": {},
    }
    text = {
        "documents": 2556,
        "bytes": 34_722_910,
        "train": {"documents": 2505, "bytes": 33_722_001},
        "validation": {"documents": 51, "bytes": 1_000_909},
        "skipped": 3,
    }
    found = {
        "name": "demo",
        "languages": {"source": "English", "target": "German"},
        "versions": {"python": "3.11.7", "langadapt": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0"},
        "device": "CPU, 2 cores",
        "method": "focus",
        "tokenizers": {
            "source": {"name": "final", "vocab_size": 2048, "backend": "native"},
            "target": {"name": "new", "vocab_size": 2048, "backend": "native"},
        },
        "fertility": {"text": fertility(), "aligned": fertility(1.03)},
        "corpus": {"target": text, "source": {**text, "documents": 3049, "bytes": 35_812_400, "skipped": 0}},
        "swap": {
            "focus": {"method": "focus", **swap},
            "random": {"method": "random", **swap, "combined": 0, "drawn": 1437},
        },
        "bake_off": [],
        "rows": [
            row("source model", None, "source", "source", 3.412, 2.104),
            row("focus, before training", "focus", "swapped", "target", 4.021, 3.877),
            row("focus, trained", "focus", "trained", "target", 2.318, 2.871),
            row("trained without a swap", "keep", "trained", "source", 2.402, 2.655),
            row("random, before training", "random", "swapped", "target", 6.112, 6.204),
            row("random, trained", "random", "trained", "target", 2.497, 3.310),
        ],
        "training": {name: {**training, "log": f"trained/{name}/log.jsonl"} for name in METHODS},
        "cost": {
            "seconds": {
                "corpus-target": 1.2,
                "tokenizer": 2.9,
                "vectors": 14.8,
                "swap-focus": 3.1,
                "train-focus": 88.4,
                "train-keep": 84.0,
                "train-random": 87.2,
                "evaluate-source": 4.0,
            },
            "gpu_hours": None,
            "price": None,
        },
    }
    return measured(found)


def earlier(found: dict[str, Any]) -> dict[str, Any]:
    """``found`` as the version before wrote it."""
    del found["held_out"]
    for one in found["rows"]:
        for name in ("document_bits", "samples", "drawn", "writing"):
            del one[name]
    for report in found["swap"].values():
        report["advice"] = report.pop("prognosis").replace("Prognosis good", "Go")
    return found


def log_lines(method: str) -> list[dict[str, Any]]:
    start = {"focus": 4.05, "keep": 3.43, "random": 6.13}[method]
    end = {"focus": 2.31, "keep": 2.40, "random": 2.50}[method]
    lines: list[dict[str, Any]] = []
    for step in range(201):
        done = math.exp(-step / 35)
        if step % 25 == 0:
            target = end + (start - end) * done
            source = 2.1 + 0.75 * (1 - done) + (start - 3.4 if method != "keep" else 0) * done
            lines.append(
                {
                    "step": step,
                    "validation": {"bits_per_byte_target": target, "bits_per_byte_source": source},
                    "time": 1.0,
                }
            )
        if step:
            rate = 1.5e-3 * min(1, step / 10) * (0.55 + 0.45 * math.cos(math.pi * step / 200))
            lines.append(
                {
                    "step": step,
                    "progress": step / 200,
                    "tokens": step * 4096,
                    "loss": 1.9 * (end + (start - end) * done) * (1 + 0.03 * math.sin(step * 12.9898) ** 3),
                    "learning_rate": {"matrices": rate, "norms": rate, "embeddings": rate},
                    "grad_norm": 1 + 3 * done + 0.2 * math.sin(step * 7.1),
                    "tokens_per_second": 9300 + 250 * math.sin(step * 3.3),
                    "bytes_per_second": 36_000 + 900 * math.sin(step * 3.3),
                    "seconds": step * 0.44,
                    **({"stale_share": 0.31 + 0.3 * step / 200} if step % 10 == 0 else {}),
                }
            )
    return lines


RECIPE = """\
name: demo
source_language: English
target_language: German
model: runs/demo/source-model/trained/final
out: runs/demo
corpus: {target: [german.jsonl], source: [english.jsonl], source_share: 0.1}
train: {steps: 200, precision: pure-bf16, rounding: stochastic, learning_rate: 1.5e-3, schedule: cosine,
  sequence_length: 2048, warmup: 0.01, seed: 42}
"""


def make_run(folder: Path, found: dict[str, Any] | None = None) -> Path:
    """Write the run and return its folder."""
    for name in METHODS:
        trained = folder / "trained" / name
        (trained / "final").mkdir(parents=True)
        (trained / "final" / "config.json").write_text("{}")
        lines = "".join(json.dumps(line) + "\n" for line in log_lines(name))
        # As a killed process leaves it.
        (trained / "log.jsonl").write_text(lines + '{"step": 201, "lo')
    for name in ("target-new", "target-own"):
        store = folder / "stores" / name
        store.mkdir(parents=True)
        summary = {"documents": 2505, "tokens": 7_000_000, "bytes": 33_000_000}
        (store / "manifest.json").write_text(json.dumps({"summary": summary}))
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "results.json").write_text(json.dumps(results() if found is None else found))
    return folder
