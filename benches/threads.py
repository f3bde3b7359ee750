"""How far threads carry: training a BPE tokenizer, encoding and tokenizing to disk at 1, 2, 4, ... threads.

    python benches/threads.py [--threads 1 2 4 8 16] [--jobs NAME...] [--text FILE] [--megabytes N] [--out NAME]

For any machine: thread counts are the powers of two up to its cores unless they are given, text is the German test
corpus unless it is, and the tokenizers are trained here. The text is repeated up to `--megabytes`, so that the largest
count still has work; one document in 14 has its letters exchanged in each turn, so that new words keep coming, but
caches of words find more than they would in as much real text.

Every job runs in a process of its own, the rounds of all thread counts interleaved. Inside the timer of `train`: from
the .jsonl file to the finished tokenizer; of `encode`: the first call of a process with a list of all documents, to
flat ids; of `store`: from the .jsonl file to ids on disk, synced. Outside: starting Python, imports, loading. Whatever
the count, the result must be the same to the last byte; where it is not, nothing is reported. `cpu_s` is of all
threads: what it is above that of one thread is what working together costs. On a machine that does other work the
clock of many threads says less than that of one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contenders import answer, rounds_of, timed
from machine import describe, write_report
from row_files import Row
from tables import markdown
from texts import corpus, stream, unpacked

VOCAB_SIZE = 32_768
STYLES = ("byte_level", "sentencepiece")
TEXT = "text.jsonl"
NEW_EVERY = 14


def train(style: str, folder: Path, threads: int) -> tuple[Callable[[], Any], Callable[[Any], bytes]]:
    """The work, and what of its result must be equal."""
    from langadapt import train_bpe

    work = lambda: train_bpe([str(folder / TEXT)], VOCAB_SIZE, style=style, threads=threads)  # noqa: E731
    return work, lambda tokenizer: tokenizer.definition


def encode(style: str, folder: Path, threads: int) -> tuple[Callable[[], Any], Callable[[Any], bytes]]:
    from langadapt import Tokenizer

    tokenizer = Tokenizer.from_file(folder / f"{style}.json")
    texts = list(unpacked(folder / TEXT))
    return lambda: tokenizer.encode_batch(texts, threads=threads), lambda encoded: encoded[0].tobytes()


def store(style: str, folder: Path, threads: int) -> tuple[Callable[[], Any], Callable[[Any], bytes]]:
    from langadapt import Tokenizer, tokenize_corpus

    tokenizer = Tokenizer.from_file(folder / f"{style}.json")
    out = folder / "store"
    # The one of the round before: taking it away is not the work.
    shutil.rmtree(out, ignore_errors=True)
    work = lambda: tokenize_corpus([str(folder / TEXT)], tokenizer, out, threads=threads)  # noqa: E731
    return work, lambda made: made.tokens.astype("uint32").tobytes()


JOBS = {
    f"{name}, {style}": (work, style)
    for name, work in {"train": train, "encode": encode, "store": store}.items()
    for style in STYLES
}


def once(job: str, threads: int, folder: Path) -> Row:
    """One job in this process."""
    kind, style = JOBS[job]
    work, essence = kind(style, folder, threads)
    result, used = timed(work)
    return used | {"digest": hashlib.sha256(essence(result)).hexdigest()}


def prepare(file: Path, megabytes: float, folder: Path) -> int:
    """The text, and a tokenizer of each style; bytes of text."""
    from langadapt import train_bpe

    size = 0
    with (folder / TEXT).open("w", encoding="utf-8") as out:
        for document in stream(file, int(megabytes * 1e6), NEW_EVERY):
            size += len(document)
            out.write(json.dumps({"text": document.decode().rstrip("\n")}, ensure_ascii=False) + "\n")
    for style in STYLES:
        definition = train_bpe([str(folder / TEXT)], VOCAB_SIZE, style=style).definition
        (folder / f"{style}.json").write_bytes(definition)
    return size


def measure(job: str, counts: list[int], rounds: int, folder: Path, size: int) -> list[Row]:
    """A row of each count."""
    names = [str(count) for count in counts]
    found = rounds_of(names, rounds, lambda count: answer(__file__, "--one", job, count, str(folder)))
    if len({row["digest"] for rows in found.values() for row in rows}) != 1 or not all(found.values()):
        raise SystemExit(f"{job}: not the same result for all of {', '.join(names)} threads; nothing is reported")
    rows: list[Row] = []
    for count, timings in zip(counts, found.values(), strict=True):
        wall = [row["wall_s"] for row in timings]
        row = {"job": job, "threads": count, "rounds": rounds, "wall_s": statistics.median(wall)}
        row |= {"wall_s_range": [min(wall), max(wall)], "cpu_s": statistics.median(row["cpu_s"] for row in timings)}
        rows.append(row | {"mb_per_s": round(size / 1e6 / row["wall_s"], 1)})
    for row in rows:
        row["times_the_first"] = round(rows[0]["wall_s"] / row["wall_s"], 2)
    return rows


def table(rows: list[Row]) -> str:
    heads = ["job", "threads", "seconds (least - most)", "MB/s", "CPU s", "times the first"]
    cells = []
    for row in rows:
        low, high = row["wall_s_range"]
        spread = f"{row['wall_s']:.2f} ({low:.2f} - {high:.2f})"
        times = f"{row['times_the_first']:.2f}"
        cells.append([row["job"], row["threads"], spread, row["mb_per_s"], f"{row['cpu_s']:.2f}", times])
    return markdown(heads, cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cores = len(os.sched_getaffinity(0))
    powers = [2**n for n in range(cores.bit_length())]
    parser.add_argument("--threads", type=int, nargs="+", default=powers)
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS))
    parser.add_argument("--text", type=Path, default=corpus("de"))
    parser.add_argument("--megabytes", type=float, default=200.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="writes NAME.jsonl and NAME.md")
    parser.add_argument("--one", nargs=3, metavar=("JOB", "THREADS", "FOLDER"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        job, threads, folder = asked.one
        print(json.dumps(once(job, int(threads), Path(folder))))
        return
    with tempfile.TemporaryDirectory() as temporary:
        size = prepare(asked.text, asked.megabytes, Path(temporary))
        rows = [row for job in asked.jobs for row in measure(job, asked.threads, asked.rounds, Path(temporary), size)]
    print(table(rows), end="")
    if asked.out:
        facts = {"text": f"{asked.text.name}, {size:,} bytes", "vocabulary": VOCAB_SIZE}
        write_report(asked.out, describe("langadapt") | facts, rows, table(rows))


if __name__ == "__main__":
    main()
