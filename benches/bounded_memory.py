"""Memory of training on a corpus larger than memory, from a pipe.

    python benches/bounded_memory.py [--gigabytes 20] [--style byte_level] [--out benches/reports/NAME]

A generator writes real text over and over into the standard input of a process that trains. So that words do not run
out, as they would not in real text, the letters of one document in `--new-every` are exchanged by a permutation drawn
anew: all its words of two letters or more are then new. With the default, a stream of 20 GB holds several times as many
different words as the law fitted to web text, 3.45 n^0.62 for n words (gigatoken's report), says for that size.

Reported: the peak of the resident memory of the training process (`VmHWM`), and its resident memory against the bytes
read. Nothing is equal or faster here; there is no rival.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from row_files import write_rows
from texts import corpus, stream


def status(field: str) -> float:
    """A field of this process's memory, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024 / 1e6


def train(style: str, vocab_size: int, options: dict[str, Any]) -> dict[str, Any]:
    """Trains on the standard input, in this process."""
    from langadapt import train_bpe

    samples: list[dict[str, Any]] = []
    started = time.perf_counter()

    def note(phase: str, done: int, total: int | None, unit: str) -> None:
        if not samples or samples[-1]["phase"] != phase or time.perf_counter() - started > samples[-1]["seconds"] + 5:
            seconds = round(time.perf_counter() - started, 1)
            samples.append({"phase": phase, "done": done, "unit": unit, "rss_mb": status("VmRSS"), "seconds": seconds})

    tokenizer = train_bpe(["-"], vocab_size, style=style, progress=note, **options)  # type: ignore[arg-type]
    return {
        "seconds": round(time.perf_counter() - started, 1),
        "peak_mb": status("VmHWM"),
        "vocab_size": tokenizer.vocab_size,
        "samples": samples,
    }


def measure(asked: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--work", asked.style, "--options", asked.options]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin is not None and child.stdout is not None
    written = 0
    with child.stdin as pipe:
        for document in stream(asked.corpus, int(asked.gigabytes * 1e9), asked.new_every):
            pipe.write(document)
            written += len(document)
    result: dict[str, Any] = json.loads(child.stdout.read())
    if child.wait() != 0:
        raise SystemExit("training failed")
    machine = {"processor": platform.processor() or platform.machine(), "cores": len(os.sched_getaffinity(0))}
    return {
        "date": time.strftime("%Y-%m-%d"),
        **machine,
        "style": asked.style,
        "options": json.loads(asked.options),
        "corpus": asked.corpus.name,
        "new_every": asked.new_every,
        "gigabytes": written / 1e9,
        **result,
    }


def page(report: dict[str, Any], samples: list[dict[str, Any]]) -> str:
    lines = [
        "# Memory of training on a stream",
        "",
        f"{report['date']}, {report['cores']} cores. {report['gigabytes']:.1f} GB of {report['corpus']} over and over;",
        f"one document in {report['new_every']} has its letters exchanged. Style {report['style']},",
        f"{report['vocab_size']} entries, options {report['options']}.",
        "",
        f"**Peak {report['peak_mb']:.0f} MB**, {report['seconds']:.0f} s from the first byte to the tokenizer.",
        "",
        "| phase | done | unit | resident MB | s |",
        "|---|--:|---|--:|--:|",
    ]
    shown = [
        sample
        for at, sample in enumerate(samples)
        if at % max(1, len(samples) // 16) == 0 or sample["phase"] != samples[at - 1]["phase"] or at == len(samples) - 1
    ]
    for one in shown:
        done = f"{one['done']:,}"
        lines.append(f"| {one['phase']} | {done} | {one['unit']} | {one['rss_mb']:.0f} | {one['seconds']:.0f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, default=corpus("de"))
    parser.add_argument("--gigabytes", type=float, default=20.0)
    parser.add_argument("--new-every", type=int, default=14)
    parser.add_argument("--style", default="byte_level", choices=["byte_level", "sentencepiece"])
    parser.add_argument("--options", default="{}", help="more arguments of train_bpe, as JSON")
    parser.add_argument("--out", type=Path, help="writes NAME.jsonl and NAME.md")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.work:
        print(json.dumps(train(asked.work, 32_768, json.loads(asked.options))))
        return
    report = measure(asked)
    samples = report.pop("samples")
    print(page(report, samples), end="")
    if asked.out:
        write_rows(asked.out.with_suffix(".jsonl"), report, samples)
        asked.out.with_suffix(".md").write_text(page(report, samples))


if __name__ == "__main__":
    main()
