"""How much text a tokenizer needs, and how large its vocabulary should be: tokens per word of held-out text.

    python benches/how_much_text.py --rows docs/runs/how_much_text.jsonl

Every tenth document is held out; tokenizers are trained on whole documents from the beginning of the rest.
"""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path

from row_files import RowFile
from tables import markdown
from texts import SHARED, byte_count, corpus

from langadapt import read_documents, train_bpe

LANGUAGES = {"de": "German", "ar": "Arabic", "sw": "Swahili", "en": "English"}
MEGABYTES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
SIZES = (2_048, 4_096, 8_192, 16_384, 32_768, 65_536)
HELD_OUT_BYTES = 1_000_000
STYLES = ("byte_level", "sentencepiece")


def split(path: Path) -> tuple[list[str], list[str]]:
    """Documents to train on, and about a megabyte of others."""
    training, held, size = [], [], 0
    for number, text in enumerate(read_documents([str(path)])):
        if number % 10:
            training.append(text)
        elif size < HELD_OUT_BYTES:
            held.append(text)
            size += byte_count(text)
    return training, held


def beginning(texts: list[str], megabytes: float) -> tuple[list[str], int]:
    """Whole documents of at least so many megabytes, or all, and their bytes."""
    size = 0
    for number, text in enumerate(texts):
        size += byte_count(text)
        if size >= 1e6 * megabytes:
            return texts[: number + 1], size
    return texts, size


def run(rows: RowFile, language: str, style: str) -> None:
    """All amounts of text and sizes of one language that are not there yet."""
    training, held = split(corpus(language))
    words = sum(len(text.split()) for text in held)
    done = {(row["language"], row["style"], row["vocab_size"], row["megabytes"]) for row in rows.rows}
    for megabytes in MEGABYTES:
        texts, size = beginning(training, megabytes)
        if size < 0.9e6 * megabytes:
            break
        for vocab_size in SIZES:
            if (language, style, vocab_size, megabytes) in done:
                continue
            begun = time.perf_counter()
            tokenizer = train_bpe(texts=texts, vocab_size=vocab_size, style=style, accept_fewer=True)
            seconds = time.perf_counter() - begun
            tokens = sum(len(ids) for ids in tokenizer.encode_batch(held))
            rows.add(
                {
                    "language": language,
                    "style": style,
                    "vocab_size": vocab_size,
                    "entries": tokenizer.vocab_size,
                    "megabytes": megabytes,
                    "tokens_per_word": round(tokens / words, 4),
                    "bytes_per_token": round(sum(map(byte_count, held)) / tokens, 4),
                    "seconds": round(seconds, 2),
                }
            )


def table(rows: RowFile, style: str) -> str:
    """Tokens per word: a table for each language, amounts of text down, sizes across."""
    parts = []
    for language, name in LANGUAGES.items():
        found = {
            (row["megabytes"], row["vocab_size"]): row
            for row in rows.rows
            if (row["language"], row["style"]) == (language, style)
        }
        lines = []
        for megabytes in MEGABYTES:
            cells = [found.get((megabytes, size)) for size in SIZES]
            # A vocabulary that the text cannot fill is smaller than was asked for.
            full = [
                "-" if row is None or row["entries"] < row["vocab_size"] else f"{row['tokens_per_word']:.2f}"
                for row in cells
            ]
            if any(cells):
                lines.append([f"{megabytes:g} MB", *full])
        if lines:
            parts.append(f"{name}:\n\n" + markdown(["text", *(f"{size:,}" for size in SIZES)], lines))
    return "\n".join(parts)


def main() -> None:
    """Measure what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, required=True)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    rows = RowFile(arguments.rows, {"data": "corpus/*.jsonl.zst of the test data", "held_out_bytes": HELD_OUT_BYTES})
    for language in LANGUAGES:
        if not (SHARED / "corpus" / f"{language}.jsonl.zst").exists():
            parser.error(f"no test data in {SHARED}")
        for style in STYLES:
            run(rows, language, style)
    for style in STYLES:
        print(f"## {style}\n\n{table(rows, style)}")


if __name__ == "__main__":
    main()
