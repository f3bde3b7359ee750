"""Which initialisation pays: an English base model, made here, swapped to German and to Arabic by every method.

Bits per byte of the target and of the source language right after the swap, after 50 and after 500 steps of continued
pretraining on target text alone, three seeds. A seed decides the data order and the draws of rows; base model, corpora,
tokenizers and token vectors are the same for all. `keep` trains the model as it is with its own tokenizer; a step
has as many tokens, so it reads fewer bytes. All figures are on text that no model was trained on.

    python benches/initialisers.py prepare --data ../shared/data --out runs/initialisers   # base model, stores, vectors
    python benches/initialisers.py run --data ../shared/data --out runs/initialisers --rows docs/runs/initialisers.jsonl
    python benches/initialisers.py vectors --data ../shared/data --out runs/initialisers --rows docs/runs/vectors.jsonl
    python benches/initialisers.py table --rows docs/runs/initialisers.jsonl

Both are resumable: finished stages and rows are not made again. `clp` gets a helper model trained here for as many
steps as a run has, on the target language with the target tokenizer; `wechsel` gets word vectors from gensim's FastText
on the same text and a dictionary of words that translate each other in aligned sentences.

`vectors` compares where FOCUS gets its similarities from: our CBOW against gensim's FastText, two seeds each, on one
store of German with the same settings; the swapped model is measured right away and after 50 steps.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import re
import statistics
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from row_files import RowFile, read_rows
from tables import markdown
from transformers import AutoModelForCausalLM
from vectors import by_gensim, lines_of

from langadapt.artefacts.stages import Run
from langadapt.corpus.documents import read_documents
from langadapt.demo.scratch import make_untrained_model, train_from_scratch
from langadapt.evaluation.bits_per_byte import bits_per_byte
from langadapt.machine import versions
from langadapt.pipeline import text
from langadapt.pipeline.job import Job
from langadapt.recipe.plain_values import build
from langadapt.recipe.recipe import Recipe
from langadapt.store import TokenStore, tokenize_corpus
from langadapt.swap.files import input_rows
from langadapt.swap.frequencies import token_counts
from langadapt.swap.loaded import swap_tokenizer
from langadapt.swap.rows.names import VECTOR_METHODS
from langadapt.swap.rows.options import SwapOptions
from langadapt.swap.rows.wechsel import vectors_from_files
from langadapt.tokenizer.encoder import Tokenizer
from langadapt.training import StoreShare, TrainSettings, train_model
from langadapt.training.rehearsal import rehearse
from langadapt.trials.probe import ProbeText, probe_methods
from langadapt.vectors.cbow import load_vectors, token_surfaces, train_vectors

LANGUAGES = {"german": "de", "arabic": "ar"}
METHODS = ("focus", "subword_mean", "omp", "mean", "random", "zipf")
OTHERS = ("normal", "wechsel", "clp")
"""Made after the others, as they need data of their own."""
KEEP = "keep"
STEPS, MARKS = 500, (0, 50, 500)
SEEDS = (1, 2, 3)
MEASURED_BYTES = 30_000
VECTOR_TOKENS = 1_500_000
WORD = re.compile(r"\w+")
CORPUS = {"validation_bytes": 60_000, "validation_share": 0.05}
TOKENIZER = {"vocab_size": 8192, "style": "sentencepiece"}
VECTORS = {"dim": 100, "epochs": 3, "min_count": 10, "threads": 1}
SHAPE = {
    "hidden_size": 160,
    "intermediate_size": 448,
    "num_hidden_layers": 4,
    "num_attention_heads": 5,
    "num_key_value_heads": 5,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
}
TRAIN = {
    "sequence_length": 256,
    "batch_sequences": 2,
    "micro_batch": 2,
    "learning_rate": 1.0e-3,
    "min_learning_rate": 1.0e-4,
    "schedule": "wsd",
    "warmup": 0.04,
    "anneal": 0.2,
    "precision": "mixed-bf16",
    "weight_decay": 0.1,
    "checkpoint_minutes": None,
    "stale_every": 0,
    "log_every": 50,
}
BASE = {
    "corpus": CORPUS,
    "tokenizer": TOKENIZER,
    "model": {"seed": 1, "shape": SHAPE},
    "train": TRAIN
    | {
        "steps": 1200,
        "batch_sequences": 16,
        "micro_batch": 16,
        "learning_rate": 3.0e-3,
        "min_learning_rate": 1.0e-4,
        "schedule": "cosine",
        "checkpoint_every": 200,
        "seed": 1,
    },
}


HELPER_SHAPE = SHAPE | {"hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 2}
HELPER_SHAPE |= {"num_attention_heads": 3, "num_key_value_heads": 3}
HELPER_TRAIN = BASE["train"] | {"steps": STEPS, "batch_sequences": 8, "micro_batch": 8}
HELPER_TRAIN |= {"embedding_learning_rate": None}


class Experiment:
    """The fixed part: one base model; per language a corpus, a tokenizer, stores and vectors."""

    def __init__(self, data: Path, out: Path) -> None:
        self.data, self.out = data, out
        self.english = str(data / "corpus" / "en.jsonl.zst")
        run = Run(out / "english-base", logging.info)
        with run.locked():
            self.base = train_from_scratch(run, [self.english], BASE)
        self.tokenizer = Tokenizer.from_pretrained(self.base)
        self.counts = TokenStore.open(out / "english-base" / "store")
        self.sides = {language: self.side(language) for language in LANGUAGES}

    def side(self, language: str) -> Job:
        """Everything of a language up to its vectors, by the stages of a recipe."""
        target = str(self.data / "corpus" / f"{LANGUAGES[language]}.jsonl.zst")
        recipe = build(
            Recipe,
            {
                "name": language,
                "model": str(self.base),
                "out": str(self.out / language),
                "corpus": {"target": [target], "source": [self.english], **CORPUS},
                "tokenizer": TOKENIZER,
                "vectors": VECTORS,
                "train": {"sequence_length": TRAIN["sequence_length"]},
                "seed": 1,
            },
            "",
        )
        side = Job(recipe, Run(Path(recipe.out), logging.info), self.base)
        with side.run.locked():
            corpora = text.corpora(side)
            tokenizer = text.tokenizer(side, corpora)
            stores = text.stores(side, corpora, tokenizer)
            text.vectors(side, text.target_store(side, corpora, tokenizer, stores))
            text.stores(side, corpora, self.base)
        return side

    def watched(self, language: str) -> dict[str, list[str]]:
        """Held-out text of both languages, what trainings are watched with."""
        side = self.sides[language]
        with side.run.locked():
            corpora = text.corpora(side)
        return {which: corpus.held_out(MEASURED_BYTES).watched for which, corpus in corpora.items()}

    def extras(self, language: str, method: str) -> dict[str, Any]:
        """What a method needs besides the two tokenizers."""
        side = self.sides[language]
        if method in VECTOR_METHODS:
            return {"vectors": load_vectors(side.folder / "vectors.safetensors")}
        if method == "zipf":
            return {
                "counts": counted(TokenStore.open(side.folder / "stores" / "target-new")),
                "source_counts": counted(self.counts),
            }
        if method == "clp":
            return {"helper_rows": input_rows(self.helper(language))}
        if method == "wechsel":
            files = (self.words("english"), self.words(language), self.dictionary(language))
            vectors, source_vectors = vectors_from_files(self.base, side.folder / "tokenizer", files)
            return {"vectors": vectors, "source_vectors": source_vectors}
        return {}

    def helper(self, language: str) -> Path:
        """A small model of the target language with the target tokenizer, for `clp`."""
        side = self.sides[language]
        start = side.folder / "helper-untrained"
        tokenizer = side.folder / "tokenizer"
        if not start.exists():
            make_untrained_model(tokenizer, start, {"seed": 2, "shape": HELPER_SHAPE})
        store = StoreShare(side.folder / "stores" / "target-new", 1.0, "target")
        settings = build(TrainSettings, HELPER_TRAIN, "train.")
        return train_model(start, [store], side.folder / "helper", settings, tokenizer=str(tokenizer)).final

    def words(self, language: str) -> Path:
        """Word vectors of half of a language's training text, by gensim's FastText, for `wechsel`."""
        file = self.out / f"words-{language}.bin"
        if file.exists():
            return file
        from gensim.models import FastText
        from gensim.models.fasttext import save_facebook_model

        folder = self.sides["german"].folder if language == "english" else self.sides[language].folder
        corpus = folder / "corpus" / ("source" if language == "english" else "target") / "train.jsonl.zst"
        lines = [
            WORD.findall(line) for text in read_documents([str(corpus)]) for line in text.splitlines() if line.strip()
        ]
        model = FastText(
            lines[: len(lines) // 2],
            vector_size=100,
            epochs=3,
            min_count=5,
            negative=10,
            bucket=200_000,
            workers=1,
            seed=1,
        )
        save_facebook_model(model, str(file))
        return file

    def dictionary(self, language: str) -> Path:
        """Pairs of words that occur in the same aligned sentences more than anywhere else (Dice, best both ways)."""
        file = self.out / f"dictionary-{language}.txt"
        if file.exists():
            return file
        folder = self.data / "parallel" / "ntrex"
        sides = [
            [set(WORD.findall(line.lower())) for line in (folder / f"{code}.txt").read_text("utf-8").splitlines()]
            for code in ("en", LANGUAGES[language])
        ]
        totals = [Counter(word for line in side for word in line) for side in sides]
        both = Counter((a, b) for left, right in zip(*sides, strict=True) for a in left for b in right)
        scores = {(a, b): 2 * n / (totals[0][a] + totals[1][b]) for (a, b), n in both.items() if n >= 3}
        best: list[dict[str, tuple[float, str]]] = [{}, {}]
        for (a, b), score in scores.items():
            best[0][a] = max(best[0].get(a, (0.0, "")), (score, b))
            best[1][b] = max(best[1].get(b, (0.0, "")), (score, a))
        pairs = [(a, b) for a, (score, b) in best[0].items() if score >= 0.5 and best[1][b][1] == a]
        file.write_text("".join(f"{a}\t{b}\n" for a, b in sorted(pairs)), encoding="utf-8")
        return file

    def run(self, language: str, method: str, seed: int) -> dict[str, Any]:
        """One row: swap, train, measure at the marks."""
        side = self.sides[language]
        model = AutoModelForCausalLM.from_pretrained(self.base, dtype=torch.float32)
        tokenizer, store, row = self.tokenizer, "target-own", {}
        if method != KEEP:
            tokenizer, store = Tokenizer.from_pretrained(side.folder / "tokenizer"), "target-new"
            report = swap_tokenizer(
                model, self.tokenizer, tokenizer, method=method, seed=seed, **self.extras(language, method)
            )
            row = {"copied": report.copied, "combined": report.combined, "drawn": report.drawn}
        texts = self.watched(language)
        marks: dict[str, dict[str, float]] = {}

        def validate(trained: Any, step: int) -> dict[str, float]:
            if step in MARKS:
                marks[str(step)] = {
                    which: round(bits_per_byte(trained, tokenizer, some, window=256), 5)
                    for which, some in texts.items()
                }
            return {}

        begun = time.monotonic()
        settings = build(TrainSettings, TRAIN | {"steps": STEPS, "validate_every": 50, "seed": seed}, "train.")
        share = StoreShare(side.folder / "stores" / store, 1.0, "target")
        rehearse(model, [share], settings, tokenizer=tokenizer, validate=validate)
        seconds = round(time.monotonic() - begun, 1)
        return {"language": language, "method": method, "seed": seed, "marks": marks, "seconds": seconds, **row}


def measure(experiment: Experiment, rows_file: Path) -> None:
    """All rows that are not there yet, one seed after the other; written as they come."""
    about = {
        "model": {"shape": SHAPE, "train": BASE["train"]},
        "corpus": CORPUS,
        "tokenizer": TOKENIZER,
        "vectors": VECTORS,
        "train": TRAIN | {"steps": STEPS},
        "versions": versions(),
    }
    found = RowFile(rows_file, about)
    done = {(row["language"], row["method"], row["seed"]) for row in found.rows}
    # Where time is short, every method comes once before the first four come again.
    order = [(method, SEEDS[0]) for method in (KEEP, *METHODS)]
    for methods in (METHODS[:4], METHODS[4:]):
        order += [(method, seed) for seed in SEEDS[1:] for method in methods]
    order += [(method, seed) for method in OTHERS for seed in SEEDS] + [(KEEP, seed) for seed in SEEDS[1:]]
    for (method, seed), language in itertools.product(order, LANGUAGES):
        if (language, method, seed) in done:
            continue
        found.add(experiment.run(language, method, seed))


def compare_vectors(experiment: Experiment, rows_file: Path) -> None:
    """FOCUS by our vectors and by gensim's, from the first :data:`VECTOR_TOKENS` tokens of the German store."""
    side = experiment.sides["german"]
    tokenizer = Tokenizer.from_pretrained(side.folder / "tokenizer")
    store = experiment.out / "vector-store"
    if not store.exists():
        whole = TokenStore.open(side.folder / "stores" / "target-new")
        last = int(np.searchsorted(whole.offsets, VECTOR_TOKENS))
        tokenize_corpus((tokenizer.decode(whole[i]) for i in range(last)), tokenizer, store)
    about = {"tokens": len(TokenStore.open(store).tokens), "settings": VECTORS, "versions": versions()}
    found = RowFile(rows_file, about)
    done = {(row["vectors"], row["seed"]) for row in found.rows}
    for seed, (name, make) in itertools.product((1, 2), {"ours": our_vectors, "gensim": gensim_vectors}.items()):
        if (name, seed) in done:
            continue
        begun = time.monotonic()
        vectors = make(store, seed)
        seconds = round(time.monotonic() - begun, 1)
        share = StoreShare(side.folder / "stores" / "target-new", 1.0, "target")
        measured = ProbeText([share], experiment.watched("german")["target"], window=256)
        settings = build(TrainSettings, TRAIN | {"steps": 50, "schedule": "constant", "seed": 1}, "train.")
        ranking = probe_methods(
            experiment.base,
            tokenizer,
            ["focus"],
            measured,
            settings=settings,
            swap=SwapOptions(vectors=vectors, seed=1),
        )
        found.add({"vectors": name, "seed": seed, "seconds": seconds, **ranking.rows[0]})


def counted(store: TokenStore) -> Any:
    """Occurrences of each token."""
    return token_counts(store.tokens, store.vocab_size)


def our_vectors(store: Path, seed: int) -> Any:
    """By the compiled core, one thread."""
    return train_vectors(store, **VECTORS, seed=seed)


def gensim_vectors(store: Path, seed: int) -> Any:
    """By gensim, on the same lines."""
    surfaces = token_surfaces(TokenStore.open(store))
    model = by_gensim(lines_of(store), VECTORS["dim"], VECTORS["epochs"], 1, seed=seed)
    vectors = np.zeros((len(surfaces), VECTORS["dim"]), dtype=np.float32)
    for token, surface in enumerate(surfaces):
        if surface in model.wv.key_to_index:
            vectors[token] = model.wv[surface]
    return vectors


def table(rows_file: Path) -> str:
    """Markdown: methods by bits per byte of the target after the last mark, mean and half the range over seeds."""
    _, rows = read_rows(rows_file)
    lines = []
    for language in LANGUAGES:
        found: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            if row["language"] == language:
                found.setdefault(row["method"], []).append(row["marks"])
        lines += ["", f"{language.capitalize()}:", ""]
        heads = [f"{which}, {mark}" for which in ("target", "source") for mark in MARKS]
        last, methods = str(MARKS[-1]), []
        for method in sorted(found, key=lambda name: statistics.mean(m[last]["target"] for m in found[name])):
            cells = []
            for which in ("target", "source"):
                for mark in map(str, MARKS):
                    values = [marks[mark][which] for marks in found[method]]
                    spread = f" ±{(max(values) - min(values)) / 2:.3f}" if len(values) > 1 else ""
                    cells.append(f"{statistics.mean(values):.3f}{spread}")
            methods.append([method, len(found[method]), *cells])
        lines.append(markdown(["method", "seeds", *heads], methods).rstrip())
    return "\n".join(lines).strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("prepare", "run", "vectors", "table"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("runs/initialisers"))
    parser.add_argument("--rows", type=Path, default=Path("docs/runs/initialisers.jsonl"))
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    if arguments.what == "table":
        print(table(arguments.rows))
        return
    experiment = Experiment(arguments.data, arguments.out)
    if arguments.what == "run":
        measure(experiment, arguments.rows)
    elif arguments.what == "vectors":
        compare_vectors(experiment, arguments.rows)


if __name__ == "__main__":
    main()
