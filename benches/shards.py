"""What working in shards costs one worker, beside the plain command.

    python benches/shards.py TEXT.jsonl.zst --files 24 --shards 8 --rounds 3

The text is dealt to files; each step is then done plainly, in one shard and in several by one process, merge included,
and what comes out is compared byte for byte. Figures are CPU seconds of the process, best of the rounds, which other
work on the machine does not move much; starting Python is not in them.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tables import markdown

from langadapt import Tokenizer, build_corpus, read_documents, tokenize_corpus, train_bpe
from langadapt.artefacts.shards import Shard, find_parts
from langadapt.corpus.parts import build_corpus_part, merge_corpus
from langadapt.store import merge_stores
from langadapt.tokenizer.counting import count_words
from langadapt.tokenizer.counts import merge_counts

Step = tuple[Callable[[Path], Any], Callable[[Path, Shard], Any], Callable[[list[Path], Path], Any]]


def steps(inputs: str, tokenizer: Tokenizer, block: int) -> dict[str, Step]:
    """Plain call, one shard's and the merge, by name."""
    found: dict[str, Step] = {}
    for name, options in {
        "corpus": {},
        "corpus, exact duplicates": {"exact_duplicates": True},
        "corpus, exact and near duplicates": {"exact_duplicates": True, "near_duplicates": True},
    }.items():
        chosen: dict[str, Any] = {**options, "block_bytes": block, "threads": 1}
        found[name] = (
            lambda out, chosen=chosen: build_corpus(inputs, out, **chosen),
            lambda out, shard, chosen=chosen: build_corpus_part(inputs, out, shard, **chosen),
            lambda parts, out: merge_corpus(parts, out, threads=1),
        )
    found["word counts"] = (
        lambda out: count_words(inputs, out, threads=1),
        lambda out, shard: count_words(inputs, out, shard=shard, threads=1),
        merge_counts,
    )
    found["token store"] = (
        lambda out: tokenize_corpus(inputs, tokenizer, out, threads=1),
        lambda out, shard: tokenize_corpus(inputs, tokenizer, out, shard=shard, threads=1),
        merge_stores,
    )
    return found


def contents(folder: Path) -> dict[str, bytes]:
    """Bytes by name."""
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def measure(work: Path, step: Step, counts: list[int]) -> tuple[list[float], float]:
    """CPU seconds of the plain way and of each number of shards, and wall-clock seconds of the plain way."""
    plain, part, merge = step
    shutil.rmtree(work, ignore_errors=True)
    wall, begun = time.perf_counter(), time.process_time()
    plain(work / "plain")
    spent, wall = [time.process_time() - begun], time.perf_counter() - wall
    for count in counts:
        begun = time.process_time()
        for number in range(count):
            part(work / str(count), Shard(number, count))
        merge(find_parts([work / str(count)]), work / "merged")
        spent.append(time.process_time() - begun)
        if contents(work / "merged") != contents(work / "plain"):
            sys.exit(f"{step}: {count} shards make other bytes")
    return spent, wall


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", nargs="+")
    parser.add_argument("--files", type=int, default=24)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        inputs, size = Path(folder) / "in", 0
        inputs.mkdir()
        files = [(inputs / f"{number:03}.txt").open("w", encoding="utf-8") for number in range(given.files)]
        for number, text in enumerate(read_documents(given.text)):
            size += len(text.encode())
            files[number % len(files)].write(" ".join(text.split()) + "\n")
        for file in files:
            file.close()
        tokenizer = train_bpe(str(inputs), vocab_size=8000)
        rows = []
        for name, step in steps(str(inputs), tokenizer, size // given.files).items():
            rounds = [measure(Path(folder) / "work", step, [1, given.shards]) for _ in range(given.rounds)]
            best = [min(one[0][at] for one in rounds) for at in range(3)]
            more = [f"{100 * (seconds / best[0] - 1):+.1f} %" for seconds in best[1:]]
            rows.append([name, f"{best[0]:.2f}", f"{size / best[0] / 1e6:.1f}", *more])
    heads = ["step", "plain: CPU s", "MB of text per CPU s", "1 shard", f"{given.shards} shards, one worker"]
    print(f"{size / 1e6:.1f} MB of text in {given.files} files\n\n{markdown(heads, rows)}")


if __name__ == "__main__":
    main()
