"""Training token vectors, beside gensim's FastText and fastText itself, from one token store with the same settings.

    pip install gensim fasttext-numpy2-wheel  # rivals
    python benches/vectors.py [--tokens N] [--dim D] [--threads N] [--rounds N] [--text FILE] [--tokenizer FOLDER]

Every contender runs in a process of its own, the rounds interleaved. Inside the timer: from the store (for gensim:
lists of strings in memory; for fastText: its text file on disk) to trained vectors, vocabulary building included.
Outside: imports and making those lists and files, which the rivals need and we do not. Quality is compared in
tests/test_vectors_quality.py. `cpu_s` counts all threads: on a busy machine it says more than the clock.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contenders import answer, rounds_of, timed
from machine import describe, write_report
from tables import seconds_table
from texts import SHARED, corpus, first_texts

LINE = 1024


def lines_of(folder: Path) -> list[list[str]]:
    """The tokens of a store, spelt, in lines of at most :data:`LINE`: what the rivals read."""
    from langadapt import TokenStore
    from langadapt.vectors.cbow import token_surfaces

    store = TokenStore.open(folder)
    surfaces = token_surfaces(store)
    return [[surfaces[token] for token in ids[at : at + LINE]] for ids in store for at in range(0, len(ids), LINE)]


def langadapt(folder: Path, dim: int, epochs: int, threads: int) -> Callable[[], object]:
    from langadapt.vectors.cbow import train_vectors

    return lambda: train_vectors(folder, dim=dim, epochs=epochs, threads=threads)


def gensim(folder: Path, dim: int, epochs: int, threads: int) -> Callable[[], object]:
    # Imported outside the timer.
    import gensim.models  # noqa: F401

    sentences = lines_of(folder)
    return lambda: by_gensim(sentences, dim, epochs, threads)


def by_gensim(sentences: list[list[str]], dim: int, epochs: int, threads: int, **more: Any) -> Any:
    """gensim's FastText with fastText's settings; its defaults differ in the noise exponent and the learning rate."""
    from gensim.models import FastText

    settings = {"negative": 10, "ns_exponent": 0.5, "sample": 1e-4, "min_count": 10, "alpha": 0.05, "min_alpha": 0.0}
    shape = {"vector_size": dim, "epochs": epochs, "sg": 0, "window": 5, "workers": threads}
    return FastText(sentences, **shape, **settings, **more)


def fasttext(folder: Path, dim: int, epochs: int, threads: int) -> Callable[[], object]:
    import fasttext as package

    path = folder.with_name("lines.txt")
    path.write_text("\n".join(" ".join(line) for line in lines_of(folder)), encoding="utf-8")
    settings = {"model": "cbow", "neg": 10, "minCount": 10, "verbose": 0}
    return lambda: package.train_unsupervised(str(path), dim=dim, epoch=epochs, thread=threads, **settings)


CONTENDERS = {"langadapt": langadapt, "gensim": gensim, "fasttext": fasttext}


def make_store(text: str, tokenizer: str, tokens: int, folder: Path) -> int:
    from langadapt import Tokenizer, tokenize_corpus

    texts = first_texts(Path(text), tokens * 4.3)
    return len(tokenize_corpus(iter(texts), Tokenizer.from_pretrained(tokenizer), folder).tokens)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=1_500_000)
    parser.add_argument("--dim", type=int, default=300)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--text", default=str(corpus("de")))
    parser.add_argument("--tokenizer", default=str(SHARED / "tokenizers" / "paper-de"))
    parser.add_argument("--out", type=Path, help="writes NAME.jsonl and NAME.md")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        name, folder = arguments.one
        _, used = timed(CONTENDERS[name](Path(folder), arguments.dim, arguments.epochs, arguments.threads))
        print(json.dumps(used))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "store"
        tokens = make_store(arguments.text, arguments.tokenizer, arguments.tokens, folder)
        shape = ["--dim", str(arguments.dim), "--epochs", str(arguments.epochs), "--threads", str(arguments.threads)]
        found = rounds_of(
            list(CONTENDERS), arguments.rounds, lambda name: answer(__file__, "--one", name, str(folder), *shape)
        )
    rows, table = seconds_table(found, "langadapt")
    print(table, end="")
    if arguments.out:
        work = f"{tokens:,} tokens x {arguments.epochs}, dim {arguments.dim}, {arguments.threads} threads"
        write_report(arguments.out, describe("gensim", "fasttext") | {"work": work}, rows, table)


if __name__ == "__main__":
    main()
