"""Encoding and tokenizing to disk, beside all rivals on PyPI.

    pip install gigatoken tokie tiktoken sentencepiece datasets  # rivals; those that are absent are left out
    python benches/bpe_encoding.py [--jobs NAME...] [--rounds N] [--out benches/reports/NAME]

Every contender runs in a process of its own, the rounds of all contenders interleaved, so that a busy machine is busy
for all. Reported are the median and the spread of all rounds, for the clock and for the processor time of all threads,
which says more than the clock on a busy machine. Before a contender is timed its ids on the whole text are compared
with those of Hugging Face `tokenizers`; where they differ that is said in the row, and it is no rival.

Inside the timer of `encode`: one call with a list of all documents as Python strings, to flat ids (a call's own kind
of array counts as such). Cold is the first call in a process, warm the second. Outside: starting Python, imports,
loading the tokenizer and the text. Inside the timer of `store`: from the file's name to ids on disk. Asymmetries:
sentencepiece normalizes white space, so it never gives the same ids; tiktoken is given the merges of the byte-level
tokenizer and the regex of GPT-2; `datasets` writes its Arrow cache besides, as it always does; ours also writes
offsets and a manifest and syncs the files to disk.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from contenders import Failed, answer, timed, turns
from machine import describe, write_report
from tables import markdown
from texts import SHARED
from texts import corpus as corpus_of

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

Texts = list[str]
Encode = Callable[[Texts], Any]
Flatten = Callable[[Any], np.ndarray]


def langadapt_encoder(folder: Path) -> tuple[Encode, Flatten]:
    from langadapt import Tokenizer

    tokenizer = Tokenizer.from_file(folder / "tokenizer.json")
    assert tokenizer.backend == "native"
    return tokenizer.encode_batch, lambda encoded: encoded[0]


def gigatoken_encoder(folder: Path) -> tuple[Encode, Flatten]:
    import awkward
    import gigatoken

    tokenizer = gigatoken.Tokenizer(str(folder / "tokenizer.json"))
    return tokenizer.encode_batch, lambda encoded: np.asarray(awkward.flatten(encoded))


def tokenizers_encoder(folder: Path) -> tuple[Encode, Flatten]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def encode(texts: Texts) -> Any:
        return tokenizer.encode_batch_fast(texts, add_special_tokens=False)

    return encode, lambda encoded: np.concatenate([np.array(one.ids, dtype=np.uint32) for one in encoded])


def tokie_encoder(folder: Path) -> tuple[Encode, Flatten]:
    import tokie

    tokenizer = tokie.Tokenizer.from_json(str(folder / "tokenizer.json"))

    def encode(texts: Texts) -> Any:
        return tokenizer.encode_batch(texts, add_special_tokens=False)

    def flatten(encoded: Any) -> np.ndarray:
        return np.concatenate([np.array(getattr(one, "ids", one), dtype=np.uint32) for one in encoded])

    return encode, flatten


def sentencepiece_encoder(folder: Path) -> tuple[Encode, Flatten]:
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    threads = len(os.sched_getaffinity(0))

    def encode(texts: Texts) -> Any:
        return processor.encode(texts, num_threads=threads)

    return encode, lambda encoded: np.concatenate([np.array(one, dtype=np.uint32) for one in encoded])


def tiktoken_encoder(folder: Path) -> tuple[Encode, Flatten]:
    import tiktoken

    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    byte_of = {character: byte for byte, character in enumerate(byte_characters())}
    pieces = {
        bytes(byte_of[c] for c in piece): id for piece, id in model["vocab"].items() if set(piece) <= set(byte_of)
    }
    merged = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
    order = sorted(piece for piece in pieces if len(piece) == 1)
    order += [bytes(byte_of[c] for c in left + right) for left, right in merged]
    ranks = {piece: rank for rank, piece in enumerate(dict.fromkeys(order))}
    ids = np.array([pieces[piece] for piece in ranks], dtype=np.uint32)
    encoding = tiktoken.Encoding("bench", pat_str=GPT2, mergeable_ranks=ranks, special_tokens={})
    threads = len(os.sched_getaffinity(0))

    def encode(texts: Texts) -> Any:
        return encoding.encode_ordinary_batch(texts, num_threads=threads)

    return encode, lambda encoded: ids[np.concatenate([np.array(one, dtype=np.uint32) for one in encoded])]


def byte_characters() -> list[str]:
    """The printable stand-ins of the bytes, as byte-level files write them."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


ENCODERS: dict[str, Callable[[Path], tuple[Encode, Flatten]]] = {
    "langadapt": langadapt_encoder,
    "gigatoken": gigatoken_encoder,
    "tokie": tokie_encoder,
    "tokenizers": tokenizers_encoder,
    "sentencepiece": sentencepiece_encoder,
    "tiktoken": tiktoken_encoder,
}


def langadapt_store(folder: Path, corpus: Path, out: Path) -> None:
    from langadapt import Tokenizer, tokenize_corpus

    tokenize_corpus(str(corpus), Tokenizer.from_file(folder / "tokenizer.json"), out / "store")
    (out / "store" / "tokens.bin").rename(out / "tokens.bin")


def gigatoken_store(folder: Path, corpus: Path, out: Path) -> None:
    import awkward
    import gigatoken

    tokenizer = gigatoken.Tokenizer(str(folder / "tokenizer.json"))
    encoded = tokenizer.encode_files(gigatoken.JsonlFileSource([str(corpus)], field="text"))
    np.asarray(awkward.flatten(encoded)).astype(np.uint16).tofile(out / "tokens.bin")


def datasets_store(folder: Path, corpus: Path, out: Path) -> None:
    """`map` in two processes and a memory map, as the paper's code does it."""
    import datasets
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    data = datasets.load_dataset("json", data_files=str(corpus), split="train", cache_dir=str(out / "cache"))
    data = data.map(
        lambda batch: {"ids": tokenizer(batch["text"], add_special_tokens=False)["input_ids"]},
        batched=True,
        num_proc=len(os.sched_getaffinity(0)),
        remove_columns=data.column_names,
    )
    size = sum(len(row) for row in data["ids"])
    tokens = np.memmap(out / "tokens.bin", dtype=np.uint16, mode="w+", shape=(size,))
    at = 0
    for row in data.with_format("numpy")["ids"]:
        tokens[at : at + len(row)] = row
        at += len(row)
    tokens.flush()


STORES: dict[str, Callable[[Path, Path, Path], None]] = {
    "langadapt": langadapt_store,
    "gigatoken": gigatoken_store,
    "datasets": datasets_store,
}

JOBS: dict[str, tuple[str, str, str, list[str]]] = {
    "encode German, paper's tokenizer": (
        "encode", "paper-de", "de", ["langadapt", "gigatoken", "tokie", "tokenizers", "sentencepiece"]
    ),
    "encode Arabic, paper's tokenizer": (
        "encode", "paper-ar", "ar", ["langadapt", "gigatoken", "tokie", "tokenizers", "sentencepiece"]
    ),
    "encode German, byte-level, 50,000": (
        "encode", "focus-de-bpe-50k", "de", ["langadapt", "gigatoken", "tokie", "tokenizers"]
    ),
    "encode English, GPT-2's vocabulary": (
        "encode", "roberta-base", "en", ["langadapt", "gigatoken", "tokie", "tokenizers", "tiktoken"]
    ),
    "German .jsonl.zst to ids on disk": ("store", "paper-de", "de", ["langadapt", "gigatoken", "datasets"]),
}  # fmt: skip


def documents(corpus: Path) -> Texts:
    raw = subprocess.run(["zstd", "-dc", str(corpus)], stdout=subprocess.PIPE, check=True).stdout
    return [json.loads(line)["text"] for line in raw.splitlines() if line.strip()]


def digest(ids: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(ids, dtype=np.uint32).tobytes()).hexdigest()


def work_on(kind: str, contender: str, folder: Path, corpus: Path) -> dict[str, Any]:
    """One contender once, in this process."""
    if kind == "encode":
        texts = documents(corpus)
        encode, flatten = ENCODERS[contender](folder)
        _, cold = timed(lambda: encode(texts), children=True)
        encoded, warm = timed(lambda: encode(texts), children=True)
        runs = {"cold": cold, "warm": warm}
        ids = flatten(encoded)
    else:
        with tempfile.TemporaryDirectory(dir="/var/tmp") as out:
            _, whole = timed(lambda: STORES[contender](folder, corpus, Path(out)), children=True)
            runs = {"whole": whole}
            ids = np.fromfile(Path(out) / "tokens.bin", dtype=np.uint16)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"runs": runs, "digest": digest(ids), "tokens": len(ids), "peak_mib": round(peak)}


def in_process(kind: str, contender: str, folder: Path, corpus: Path) -> dict[str, Any]:
    return answer(__file__, "--work", kind, contender, str(folder), str(corpus))


def compare(job: str, rounds: int, wanted: list[str] | None) -> list[dict[str, Any]]:
    """All rows of one job: ids first, then times in turns."""
    kind, tokenizer, language, contenders = JOBS[job]
    folder, corpus = SHARED / "tokenizers" / tokenizer, corpus_of(language)
    megabytes = sum(len(text.encode()) for text in documents(corpus)) / 1e6
    contenders = [name for name in contenders if not wanted or name in {"langadapt", *wanted}]
    contenders = [name for name in contenders if importlib.util.find_spec(name) is not None]
    expected = in_process("encode", "tokenizers", folder, corpus)["digest"]
    timings: dict[str, list[dict[str, Any]]] = {name: [] for name in contenders}
    for at, name in turns(contenders, rounds):
        print(f"{job}: round {at + 1}, {name}", file=sys.stderr)
        try:
            timings[name].append(in_process(kind, name, folder, corpus))
        except Failed as reason:
            if name == "langadapt":
                raise SystemExit(f"{name}: {reason}") from None
            # A rival that does not work here costs its own rows, not those of the others.
            print(f"{name}: {reason}", file=sys.stderr)
    timings = {name: results for name, results in timings.items() if results}
    rows = []
    for phase in timings[contenders[0]][0]["runs"]:
        for name, results in timings.items():
            same = all(result["digest"] == expected for result in results)
            if name == "langadapt" and not same:
                raise SystemExit(f"{job}: langadapt's ids are not those of `tokenizers`; no timing counts")
            rows.append(
                row_of(job, phase, name, [result["runs"][phase] for result in results], megabytes)
                | {
                    "same_ids": same,
                    "tokens": results[0]["tokens"],
                    "peak_mib": max(result["peak_mib"] for result in results),
                }
            )
    return add_ratios(rows)


def row_of(job: str, phase: str, name: str, runs: list[dict[str, float]], megabytes: float) -> dict[str, Any]:
    seconds = [run["wall_s"] for run in runs]
    cpu = [run["cpu_s"] for run in runs]
    return {
        "job": job,
        "phase": phase,
        "contender": name,
        "mb_per_s": round(megabytes / statistics.median(seconds), 1),
        "slowest_mb_per_s": round(megabytes / max(seconds), 1),
        "fastest_mb_per_s": round(megabytes / min(seconds), 1),
        "mb_per_cpu_s": round(megabytes / statistics.median(cpu), 1),
        "rounds": len(runs),
    }


def add_ratios(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """How many times faster ours is, by the clock and by processor time."""
    ours = {row["phase"]: row for row in rows if row["contender"] == "langadapt"}
    for row in rows:
        for name in ("mb_per_s", "mb_per_cpu_s"):
            row[f"ours_by_{name}"] = round(ours[row["phase"]][name] / row[name], 2)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    heads = [
        "job",
        "phase",
        "contender",
        "MB/s (slowest - fastest)",
        "MB/CPU s",
        "ours, clock",
        "ours, CPU",
        "same ids",
    ]
    cells = []
    for row in rows:
        spread = f"{row['mb_per_s']} ({row['slowest_mb_per_s']} - {row['fastest_mb_per_s']})"
        ours = [f"{row[f'ours_by_{name}']}x" for name in ("mb_per_s", "mb_per_cpu_s")]
        same = "yes" if row["same_ids"] else "**no**"
        cells.append([row["job"], row["phase"], row["contender"], spread, row["mb_per_cpu_s"], *ours, same])
    return markdown(heads, cells, words=(0, 1, 2, 7))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS))
    parser.add_argument("--contenders", nargs="+", choices=sorted({*ENCODERS, *STORES}), help="leave others out")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="writes NAME.jsonl and NAME.md")
    parser.add_argument("--work", nargs=4, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.work:
        kind, contender, folder, corpus = asked.work
        print(json.dumps(work_on(kind, contender, Path(folder), Path(corpus))))
        return
    rows = [row for job in asked.jobs for row in compare(job, asked.rounds, asked.contenders)]
    machine = describe("gigatoken", "tokie", "tokenizers", "sentencepiece", "tiktoken", "datasets")
    print(table(rows), end="")
    if asked.out:
        write_report(asked.out, machine, rows, table(rows))


if __name__ == "__main__":
    main()
