"""The embedded default: a tiny English model, trained here from scratch, adapted to German.

English and German prose written for this project, and the recipe, ship in the package; nothing is downloaded. The demo
first makes its source model with the project's own tokenizer training and ``train_model``, then runs the recipe like
any other. Its numbers are whatever they are: a model of this size and a text of this length show the shape of the
method, not its worth.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import yaml

from langadapt.recipe import Recipe, build
from langadapt.stages import Run
from langadapt.training.settings import TrainSettings

Progress = Callable[[str, int, "int | None", str], None]
log = logging.getLogger(__name__)


def run_demo(out: Path, *, progress: Progress | None = None) -> dict[str, Any]:
    """Make the source model and adapt it; returns the results as :func:`langadapt.adapt` does."""
    from langadapt.pipeline import adapt

    out = Path(out)
    with as_file(files(__package__)) as bundled:
        settings = yaml.safe_load((bundled / "demo.yaml").read_text(encoding="utf-8"))
        texts = bundled / "texts"
        source = out / "source-model"
        run = Run(source, log.info)
        with run.locked():
            make_source_model(run, texts / "english.jsonl", settings["source_model"], progress)
        recipe = settings["recipe"]
        recipe["model"] = str(source / "trained" / "final")
        recipe["out"] = str(out)
        recipe["corpus"] |= {"target": [str(texts / "german.jsonl")], "source": [str(texts / "english.jsonl")]}
        recipe["evaluate"] |= {"parallel": str(texts / "parallel.jsonl")}
        return adapt(build(Recipe, recipe, ""), progress=progress)


def make_source_model(run: Run, text: Path, settings: dict[str, Any], progress: Progress | None) -> None:
    """A small Llama and its tokenizer, trained from scratch on ``text``; the documents that the recipe measures on are left out."""
    from langadapt.corpus import build_corpus
    from langadapt.store import tokenize_corpus
    from langadapt.tokenizer import Tokenizer
    from langadapt.tokenizer_training import train_bpe
    from langadapt.training import StoreShare, train_model

    corpus, tokenizer, start, store = (run.folder / name for name in ("corpus", "tokenizer", "untrained", "store"))
    train_text = corpus / "train.jsonl.zst"
    run.stage(
        "corpus",
        corpus,
        lambda: build_corpus([str(text)], corpus, **settings["corpus"], progress=progress).to_dict(),
        settings=settings["corpus"],
        inputs={"text": text},
    )

    def make_tokenizer() -> dict[str, Any]:
        trained = train_bpe([str(train_text)], **settings["tokenizer"], progress=progress)
        trained.save_pretrained(tokenizer)
        return {"vocab_size": trained.vocab_size}

    run.stage("tokenizer", tokenizer, make_tokenizer, settings=settings["tokenizer"], inputs={"text": train_text})

    def make_store() -> dict[str, Any]:
        made = tokenize_corpus([str(train_text)], Tokenizer.from_pretrained(tokenizer), store, progress=progress)
        return dict(made.manifest["summary"])

    run.stage("store", store, make_store, settings={}, inputs={"text": train_text, "tokenizer": tokenizer})
    run.stage(
        "untrained",
        start,
        lambda: make_untrained_model(tokenizer, start, settings["model"]),
        settings=settings["model"],
        inputs={"tokenizer": tokenizer},
    )
    run.stage(
        "train",
        run.folder / "trained" / "final",
        lambda: train_model(
            start,
            [StoreShare(store, 1.0, "source")],
            run.folder / "trained",
            build(TrainSettings, settings["train"], "source_model.train."),
            tokenizer=Tokenizer.from_pretrained(tokenizer),
        ).to_dict(),
        settings=settings["train"],
        inputs={"model": start, "store": store},
    )


def make_untrained_model(tokenizer: Path, out: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """A randomly initialised Llama of the given shape in bf16, with the tokenizer's files beside it."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from langadapt.manifest import new_folder
    from langadapt.tokenizer import Tokenizer

    loaded = Tokenizer.from_pretrained(tokenizer)
    config = LlamaConfig(
        **settings["shape"],
        vocab_size=loaded.vocab_size,
        bos_token_id=loaded.bos_token_id,
        eos_token_id=loaded.eos_token_id,
        pad_token_id=loaded.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(settings["seed"])
        model = LlamaForCausalLM(config).to(torch.bfloat16)
    with new_folder(out) as folder:
        loaded.save_pretrained(folder)
        model.save_pretrained(folder)
    return {"parameters": model.num_parameters()}
