"""A small causal language model from nothing: the source model of the demo and of runs on a CPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from langadapt.artefacts.folders import new_folder, write_manifest
from langadapt.artefacts.stages import Run
from langadapt.corpus.build import build_corpus
from langadapt.machine import quiet_transformers
from langadapt.progress import Progress
from langadapt.recipe.plain_values import build
from langadapt.training.settings import TrainSettings


def train_from_scratch(
    run: Run, inputs: list[str], settings: Mapping[str, Any], *, progress: Progress | None = None
) -> Path:
    """Make a small model in ``run`` and return its folder, ``trained/final``.

    ``settings`` has the sections ``corpus`` (options of ``build_corpus``), ``tokenizer`` (of ``train_bpe``), ``model``
    (``seed`` and ``shape``, the fields of a ``LlamaConfig``) and ``train`` (:class:`TrainSettings`). A recipe with the
    same ``corpus`` options sets the same documents aside, so nothing that it measures on was trained on here.
    """
    # Long: the stages of the demo's source model from top to bottom.
    from langadapt.store import tokenize_corpus
    from langadapt.tokenizer.encoder import Tokenizer
    from langadapt.tokenizer.training import train_bpe
    from langadapt.training import StoreShare, train_model

    quiet_transformers()
    corpus, tokenizer, start, store = (run.folder / name for name in ("corpus", "tokenizer", "untrained", "store"))
    train_text = corpus / "train.jsonl.zst"
    run.stage(
        "corpus",
        corpus,
        lambda: build_corpus(inputs, corpus, **settings["corpus"], progress=progress).to_dict(),
        settings=settings["corpus"],
        inputs={path: Path(path) for path in inputs},
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
            build(TrainSettings, settings["train"], "train."),
            tokenizer=Tokenizer.from_pretrained(tokenizer),
        ).to_dict(),
        settings=settings["train"],
        inputs={"model": start, "store": store},
    )
    return run.folder / "trained" / "final"


def make_untrained_model(tokenizer: Path, out: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """A randomly initialised Llama of the given shape in bf16, with the tokenizer's files beside it."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from langadapt.tokenizer.encoder import Tokenizer

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
        model: Any = LlamaForCausalLM(config)
        model.to(torch.bfloat16)
    with new_folder(out) as folder:
        loaded.save_pretrained(folder)
        model.save_pretrained(folder)
        summary = {"parameters": model.num_parameters()}
        write_manifest(folder, "untrained", settings, {"tokenizer": loaded.fingerprint}, summary=summary)
    return summary
