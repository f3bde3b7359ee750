"""Reading documents and measuring fertility, beside what one would write in Python; and what each filter costs.

    pip install datasets zstandard  # rivals
    python benches/corpus.py [--text FILE.jsonl.zst] [--tokenizers FOLDER...] [--megabytes N] [--rounds N] [--out NAME]

Every contender runs in a process of its own, the rounds of all contenders interleaved, so that a busy machine is busy
for all. Inside the timer: from the file's name to the last document or figure. Outside: starting Python, imports,
loading tokenizers. Before anything is timed, all contenders must give the same documents or the same tokens per word.
`cpu_s` is the processor time of all threads of the Python process (the `zstd` beside it is left out): on a busy machine
it says more than the clock. Asymmetries: ours uses all cores; of the rivals, `datasets`, `json` and the loop of
`tokenizers` use one by nature, `encode_batch` all. Every contender's caches are cold: one call per process.
`build_corpus` has no rival here: its rows are one filter each, beside a run without any, from compressed file to
compressed files.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from contenders import Failed, answer, timed, turns
from machine import describe, write_report
from tables import markdown
from texts import SHARED, byte_count
from texts import corpus as corpus_of


def documents_of_langadapt(path: str) -> Iterator[str]:
    from langadapt import read_documents

    return read_documents(path)


def documents_of_json(path: str) -> Iterator[str]:
    """`zstd -dc` beside a loop over `json.loads`."""
    with subprocess.Popen(["zstd", "-dc", path], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for line in process.stdout:
            yield json.loads(line)["text"]


def documents_of_datasets(path: str) -> Iterator[str]:
    from datasets import load_dataset

    for row in load_dataset("json", data_files=path, split="train", streaming=True):
        yield row["text"]


READERS: dict[str, Callable[[str], Iterator[str]]] = {
    "langadapt.read_documents": documents_of_langadapt,
    "zstd -dc | json.loads": documents_of_json,
    "datasets, streaming": documents_of_datasets,
}


def read(name: str, path: str) -> dict[str, Any]:
    """Time one reader, then hash what it gave."""
    next(READERS[name](path))  # Imports; a generator of `datasets` opens the file again below.
    texts, used = timed(lambda: list(READERS[name](path)))
    digest = hashlib.sha256("\0".join(texts).encode()).hexdigest()
    return used | {"answer": [len(texts), digest]}


def fertility_of_langadapt(path: str, folders: list[str]) -> Callable[[], list[float | None]]:
    from langadapt import Tokenizer, measure_fertility

    tokenizers = {folder: Tokenizer.from_pretrained(folder) for folder in folders}

    def run() -> list[float | None]:
        report = measure_fertility(tokenizers, {"text": path})
        return [cells["text"].tokens_per_word for cells in report.cells.values()]

    return run


def packages(folders: list[str]) -> list[Any]:
    from tokenizers import Tokenizer

    loaded = [Tokenizer.from_file(f"{folder}/tokenizer.json") for folder in folders]
    for package in loaded:
        package.no_truncation()
        package.no_padding()
    return loaded


def fertility_of_loop(path: str, folders: list[str]) -> Callable[[], list[float | None]]:
    loaded = packages(folders)

    def run() -> list[float | None]:
        words, tokens = 0, [0] * len(loaded)
        for text in documents_of_json(path):
            words += len(text.split())
            for n, package in enumerate(loaded):
                tokens[n] += len(package.encode(text, add_special_tokens=False).ids)
        return [count / words for count in tokens]

    return run


def fertility_of_batches(path: str, folders: list[str]) -> Callable[[], list[float | None]]:
    loaded = packages(folders)

    def run() -> list[float | None]:
        texts = list(documents_of_json(path))
        words = sum(len(text.split()) for text in texts)
        return [
            sum(len(encoding) for encoding in package.encode_batch_fast(texts, add_special_tokens=False)) / words
            for package in loaded
        ]

    return run


MEASURES: dict[str, Callable[[str, list[str]], Callable[[], list[float | None]]]] = {
    "langadapt.measure_fertility": fertility_of_langadapt,
    "tokenizers, loop": fertility_of_loop,
    "tokenizers, encode_batch_fast": fertility_of_batches,
}


def measure(name: str, path: str, folders: list[str]) -> dict[str, Any]:
    """Time one way to the tokens per word of all tokenizers."""
    fertility, used = timed(MEASURES[name](path, folders))
    return used | {"answer": fertility}


FILTERS: dict[str, dict[str, Any]] = {
    "no filter": {},
    "length": {"min_chars": 200, "max_chars": 100_000},
    "regex": {"drop_pattern": r"(?i)lorem ipsum|cookie policy"},
    "repetition": {"repetition": True},
    "exact duplicates": {"exact_duplicates": True},
    "near duplicates": {"near_duplicates": True},
}
FILTERS["all of them"] = {option: value for one in FILTERS.values() for option, value in one.items()}


def build(name: str, path: str) -> dict[str, Any]:
    """Time one build; the answer is the same for all, that documents came out."""
    from langadapt import build_corpus

    with tempfile.TemporaryDirectory() as folder:
        _, used = timed(lambda: build_corpus(path, Path(folder) / "corpus", **FILTERS[name]))
        written = (Path(folder) / "corpus" / "train.jsonl.zst").stat().st_size
    return used | {"answer": written > 1000}


def in_process(job: str, name: str, *arguments: str) -> dict[str, Any]:
    """One contender once, in a process of its own."""
    try:
        return answer(__file__, "--job", job, "--name", name, "--arguments", *arguments)
    except Failed as reason:
        raise SystemExit(f"{job}: {name}: {reason}; nothing is timed") from None


def compare(job: str, names: list[str], rounds: int, megabytes: float, *arguments: str) -> list[dict[str, Any]]:
    """Check that all contenders agree, then time them in turns; one row each, ours first."""
    answers = {name: in_process(job, name, *arguments)["answer"] for name in names}
    for name, given in answers.items():
        if given != answers[names[0]]:
            raise SystemExit(f"{job}: {name} gives {given}, {names[0]} gives {answers[names[0]]}; nothing is timed")
    seconds: dict[str, list[float]] = {name: [] for name in names}
    cpu: dict[str, list[float]] = {name: [] for name in names}
    for _, name in turns(names, rounds):
        used = in_process(job, name, *arguments)
        seconds[name].append(used["wall_s"])
        cpu[name].append(used["cpu_s"])
    ours = statistics.median(seconds[names[0]])
    return [
        {
            "job": job,
            "contender": name,
            "median_s": round(statistics.median(runs), 4),
            "min_s": round(min(runs), 4),
            "max_s": round(max(runs), 4),
            "cpu_s": round(statistics.median(cpu[name]), 4),
            "mb_per_s": round(megabytes / statistics.median(runs), 1),
            "ours_is_faster_by": round(statistics.median(runs) / ours, 2),
        }
        for name, runs in seconds.items()
    ]


def sample(path: Path, megabytes: float, folder: Path) -> tuple[Path, float]:
    """The first documents of a corpus up to so many megabytes of text, and how many there are."""
    out, size = folder / "sample.jsonl.zst", 0
    lines = []
    for text in documents_of_json(str(path)):
        lines.append(json.dumps({"text": text, "source": "sample"}, ensure_ascii=False))
        size += byte_count(text)
        if size >= megabytes * 1e6:
            break
    subprocess.run(["zstd", "-q", "-o", str(out)], input="\n".join(lines).encode(), check=True)
    return out, size / 1e6


def run(text: Path, folders: list[str], megabytes: float, rounds: int) -> list[dict[str, Any]]:
    """All rows of both benches."""
    with tempfile.TemporaryDirectory() as folder:
        part, size = sample(text, megabytes, Path(folder))
        whole = sum(byte_count(document) for document in documents_of_json(str(text))) / 1e6
        rows = compare("read", list(READERS), rounds, whole, str(text))
        rows += compare("measure", list(MEASURES), rounds, size, str(part), *folders)
        return rows + compare("build", list(FILTERS), rounds, whole, str(text))


def table(rows: list[dict[str, Any]]) -> str:
    heads = ["job", "contender", "seconds (least - most)", "MB/s", "CPU s", "times the first"]
    cells = []
    for row in rows:
        spread = f"{row['median_s']:.3f} ({row['min_s']:.3f} - {row['max_s']:.3f})"
        name = row["contender"].replace("|", "\\|")
        times = f"{row['ours_is_faster_by']}x"
        cells.append([row["job"], name, spread, row["mb_per_s"], f"{row['cpu_s']:.3f}", times])
    return markdown(heads, cells, words=(0, 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, default=corpus_of("de"))
    names = ("paper-de", "phi-3-mini", "phi-2", "roberta-base")
    parser.add_argument("--tokenizers", nargs="+", default=[str(SHARED / "tokenizers" / name) for name in names])
    parser.add_argument("--megabytes", type=float, default=10.0, help="text for the slow fertility rivals")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="writes NAME.jsonl and NAME.md")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    parser.add_argument("--name", help=argparse.SUPPRESS)
    parser.add_argument("--arguments", nargs="*", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.job == "read":
        print(json.dumps(read(asked.name, *asked.arguments)))
    elif asked.job == "measure":
        print(json.dumps(measure(asked.name, asked.arguments[0], asked.arguments[1:])))
    elif asked.job == "build":
        print(json.dumps(build(asked.name, *asked.arguments)))
    else:
        machine = describe("tokenizers", "datasets", "zstandard")
        rows = run(asked.text, asked.tokenizers, asked.megabytes, asked.rounds)
        print(table(rows), end="")
        if asked.out:
            write_report(asked.out, machine, rows, table(rows))


if __name__ == "__main__":
    main()
