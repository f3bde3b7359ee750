"""The bake-off on a user's text: the command, the recipe, the report; the same seed gives the same table."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from test_swap_cli import run, tiny_model, work  # noqa: F401  (`work` is a fixture)
from training_kit import settings, shares
from training_kit import tiny_model as memory_model

from langadapt import Tokenizer
from langadapt.errors import ConfigError, DataError, LangadaptError, TrainingStopped
from langadapt.pipeline.run import adapt
from langadapt.recipe.plain_values import build
from langadapt.recipe.recipe import Recipe
from langadapt.store import TokenStore
from langadapt.swap.rows.options import SwapOptions
from langadapt.training import StoreShare, TrainSettings
from langadapt.training.rehearsal import rehearse
from langadapt.trials.bake_off import Probe, bake_off
from langadapt.trials.inputs import MethodInputs, ProbeWish, choose_method
from langadapt.trials.probe import ProbeText, probe_methods, probe_settings, sample_text

PROBE = ("--probe-steps", 3, "--probe-tokens", 128, "--probe-rate", 1e-3)


def test_a_rehearsal_is_the_training_itself(tmp_path: Path) -> None:
    from langadapt.training import train_model

    kept, rehearsed = memory_model(), memory_model()
    result = train_model(kept, shares(), tmp_path / "out", settings(steps=5))
    assert rehearse(rehearsed, shares(), settings(steps=5), tokenizer=None).loss == result.loss
    for a, b in zip(kept.parameters(), rehearsed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_best_method_is_taken_and_the_table_kept(work, capsys) -> None:  # noqa: F811
    out = work / "chosen"
    files = ("--text", work / "de.txt", "--store", work / "store", "--vectors", work / "v.safetensors")
    command = ("swap", work / "model", "--tokenizer", work / "target", "--method", "auto", *PROBE, *files)
    assert run(*command, "--out", out) == 0
    printed = capsys.readouterr().out
    assert "Bake-off" in printed
    report = json.loads((out / "swap.json").read_text())
    methods = [row["method"] for row in report["ranking"]]
    assert report["method"] == methods[0]
    assert sorted(methods) == ["focus", "mean", "omp", "subword_mean", "zipf"]
    assert report["overlap"]["corpus_share"] > 0
    best = min(row["target"] for row in report["ranking"])
    assert report["ranking"][0]["target"] <= best * 1.002
    assert run(*command, "--candidate", "mean", "--candidate", "clp", "--dry-run", "--json") == 0
    rows = json.loads(capsys.readouterr().out)["ranking"]
    assert "helper" in rows[1]["failed"]


def test_the_same_seed_gives_the_same_table(work) -> None:  # noqa: F811
    wish = ProbeWish(3, 128, 1e-3, ("focus", "normal"), (str(work / "de.txt"),))

    def rows(seed: int) -> list[dict]:
        inputs = MethodInputs(model=work / "model", tokenizer=str(work / "target"), store=work / "store", seed=seed)
        torch.set_num_threads(1)
        return choose_method(inputs, wish, SwapOptions(seed=seed))[0].rows

    first = rows(1)
    assert first == rows(1)
    assert first != rows(2)


def test_text_alone_is_split(work, tmp_path) -> None:  # noqa: F811
    tokenizer = Tokenizer.from_pretrained(work / "target")
    documents = [f"Satz {i} steht am Fluss." for i in range(30)]
    text = sample_text(iter(documents), ["The house."], tokenizer, tmp_path / "store")
    assert text.target == documents[::10]
    assert list(text.source) == ["The house."]
    store = TokenStore.open(tmp_path / "store")
    assert [tokenizer.decode(ids).strip() for ids in store] == [d for i, d in enumerate(documents) if i % 10]
    with pytest.raises(DataError, match="corpus is empty"):
        sample_text(iter(documents[:1]), (), tokenizer, tmp_path / "other")


def test_without_text_there_is_no_bake_off(work, capsys) -> None:  # noqa: F811
    command = ("swap", work / "model", "--tokenizer", work / "target", "--method", "auto", "--dry-run")
    assert run(*command) == 2
    assert "give files of the target language with `--text`" in capsys.readouterr().err
    assert run(*command, "--text", work / "none.txt") == 1
    assert "none.txt" in capsys.readouterr().err
    assert run(*command, "--text", work / "de.txt", "--candidate", "fokus") == 2
    assert "unknown method 'fokus'" in capsys.readouterr().err
    assert run(*command, "--text", work / "de.txt", "--probe-steps", 0) == 2
    tokenizer = Tokenizer.from_pretrained(work / "target")
    with pytest.raises(ConfigError, match="no token store"):
        probe_methods(work / "model", tokenizer, ["mean"], ProbeText([], ["x"]), settings=TrainSettings())
    with pytest.raises(ConfigError, match="held-out text"):
        ProbeText(shares(), [])


def test_a_store_of_another_tokenizer_is_refused(work, capsys) -> None:  # noqa: F811
    command = ("swap", work / "model", "--tokenizer", work / "source", "--store", work / "store", "--dry-run")
    assert run(*command, "--method", "zipf") == 1
    assert "made with another tokenizer" in capsys.readouterr().err


def test_frequency_counts_reach_zipf(work) -> None:  # noqa: F811
    inputs = MethodInputs(
        model=work / "model",
        tokenizer=str(work / "target"),
        store=work / "store",
        source_text=[str(work / "de.txt")],
    )
    options = inputs.options("zipf")
    store = TokenStore.open(work / "store")
    assert np.array_equal(options["counts"], np.bincount(store.tokens, minlength=store.vocab_size))
    assert options["source_counts"].sum() > 0
    assert "vectors" not in inputs.options("mean")
    assert inputs.candidates() == ["subword_mean", "mean", "zipf", "focus", "omp"]


def test_a_stopped_probe_ends_the_bake_off() -> None:
    """SIGTERM is no method's failure."""
    model, text = memory_model(), settings(steps=50)

    def probe(method: str) -> Probe:
        def stop(trained: object, step: int) -> dict[str, float]:
            os.kill(os.getpid(), signal.SIGTERM)
            return {}

        rehearse(model, shares(), text, tokenizer=None, validate=stop)
        raise AssertionError(method)

    with pytest.raises(TrainingStopped, match="in the middle of a probe"):
        bake_off(["mean", "focus"], probe)


def test_a_lost_probe_is_a_row_and_not_the_end(work) -> None:  # noqa: F811
    tokenizer = Tokenizer.from_pretrained(work / "target")
    store = TokenStore.open(work / "store")
    text = ProbeText([StoreShare(store, 1.0, "target")], ["Das Haus steht am Fluss."])
    wild = probe_settings(settings(learning_rate=1e30, max_grad_norm=None), 4)
    with pytest.raises(LangadaptError, match="no method could run"):
        probe_methods(work / "model", tokenizer, ["mean"], text, settings=wild)


def test_a_recipe_may_leave_the_method_to_a_bake_off(work, tmp_path) -> None:  # noqa: F811
    texts = Path(__file__).parent / "texts"
    training = {"steps": 2, "sequence_length": 32, "batch_sequences": 2, "learning_rate": 1e-3, "device": "cpu"}
    recipe = build(
        Recipe,
        {
            "name": "auto",
            "model": str(work / "model"),
            "out": str(tmp_path / "run"),
            "corpus": {"target": [str(texts / "german.jsonl")], "source": [str(texts / "english.jsonl")]}
            | {"validation_bytes": 3000, "validation_share": 0.1},
            "tokenizer": {"vocab_size": 500},
            "vectors": {"dim": 8, "epochs": 1, "threads": 1},
            "swap": {"method": "auto", "probe_steps": 2, "candidates": ["mean", "focus"]},
            "train": training,
            "compare": ["mean"],
        },
        "",
    )
    results = adapt(recipe, progress=lambda *_: None)
    rows = results["bake_off"]
    assert results["method"] == rows[0]["method"]
    assert {row["method"] for row in rows} == {"mean", "focus"}
    assert set(results["training"]) == {rows[0]["method"], "mean"}
    assert results["swap"][rows[0]["method"]]["ranking"] == rows
    page = (tmp_path / "run" / "report" / "index.html").read_text(encoding="utf-8")
    assert "Chosen by a bake-off" in page
    assert f"{rows[1]['target']:.4f}" in page
    before = (tmp_path / "run" / "bake-off.json").read_bytes()
    assert adapt(recipe, progress=lambda *_: None)["bake_off"] == rows
    assert (tmp_path / "run" / "bake-off.json").read_bytes() == before
