"""Replace, extend, trim: rows follow the ids, and all ways come out on one scale."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from test_swap_cli import run, work  # noqa: F401  (`work` is a fixture)
from transformers import AutoModelForCausalLM

from langadapt import Tokenizer
from langadapt.swap.loaded import swap_tokenizer
from langadapt.swap.matching import match_vocabularies
from langadapt.tokenizer.editing import extend_tokenizer, trim_tokenizer
from langadapt.trials.vocabularies import kind_of

TEXTS = Path(__file__).parent / "texts"
GERMAN, ENGLISH = str(TEXTS / "german.jsonl"), str(TEXTS / "english.jsonl")


@pytest.mark.parametrize("side", ["source", "target"])
def test_trimmed_rows_are_the_rows_of_the_id_map(work, side) -> None:  # noqa: F811
    own = Tokenizer.from_pretrained(work / side)
    trimmed = trim_tokenizer(own, iter(["The house by the river. Das Haus am Fluss."]))
    match = match_vocabularies(own, trimmed.tokenizer)
    kept = np.flatnonzero(trimmed.id_map >= 0)
    assert len(kept) < own.vocab_size
    assert np.array_equal(match.source_ids[trimmed.id_map[kept]], kept)
    assert len(match.new_ids) == 0
    assert kind_of(match) == "trim"
    rows = torch.randn(own.vocab_size, 8)
    from langadapt import initialize_embeddings

    assert torch.equal(initialize_embeddings("subword_mean", rows, match)[trimmed.id_map[kept]], rows[kept])


def test_a_trimmed_model_says_what_the_whole_one_says(work) -> None:  # noqa: F811
    own = Tokenizer.from_pretrained(work / "source")
    text = "The house stands by the river."
    trimmed = trim_tokenizer(own, iter([text]))
    model = AutoModelForCausalLM.from_pretrained(work / "model")
    ids = torch.tensor(own.encode(text).astype(np.int64))[None]
    before = model(ids).logits[0, :, torch.from_numpy(np.flatnonzero(trimmed.id_map >= 0))]
    report = swap_tokenizer(model, own, trimmed.tokenizer, method="mean", pad_to_multiple_of=1)
    assert (report.combined, report.drawn) == (0, 0)
    ids = torch.tensor(trimmed.tokenizer.encode(text).astype(np.int64))[None]
    after = model(ids).logits[0][:, torch.from_numpy(trimmed.id_map[trimmed.id_map >= 0])]
    assert torch.allclose(before, after, atol=1e-6)


def test_an_extended_model_reads_old_text_as_before(work) -> None:  # noqa: F811
    own = Tokenizer.from_pretrained(work / "source")
    extended = extend_tokenizer(own, [GERMAN], 50)
    assert kind_of(match_vocabularies(own, extended)) == "extend"
    assert kind_of(match_vocabularies(own, own)) == "keep"
    assert kind_of(match_vocabularies(own, work / "target")) == "replace"
    model = AutoModelForCausalLM.from_pretrained(work / "model")
    rows = model.get_input_embeddings().weight[: own.vocab_size].clone()
    assert swap_tokenizer(model, own, extended, method="subword_mean").combined == 50
    assert torch.equal(model.get_input_embeddings().weight[: own.vocab_size], rows)


def test_all_ways_on_one_scale(work, capsys) -> None:  # noqa: F811
    out = work / "compared"
    texts = []
    for name in (GERMAN, ENGLISH):
        lines = Path(name).read_text(encoding="utf-8").splitlines(keepends=True)
        texts.append(work / Path(name).name)
        texts[-1].write_text("".join(lines[:12]), encoding="utf-8")
    command = ("tokenizer", "compare", work / "model", "replace", "extend", "trim", work / "target", "--out", out)
    command += ("--method", "subword_mean", "--text", texts[0], "--source-text", texts[1])
    command += ("--probe-steps", 3, "--probe-tokens", 256, "--vocab-size", 500, "--new-tokens", 60)
    assert run(*command) == 0
    assert "replace" in capsys.readouterr().out
    rows = json.loads((out / "comparison.json").read_text())
    assert [row["kind"] for row in rows] == ["keep", "replace", "extend", "trim", "replace"]
    keep, new, more, fewer, _ = rows
    assert (new["vocabulary"], more["vocabulary"]) == (500, keep["vocabulary"] + 60)
    assert fewer["vocabulary"] < keep["vocabulary"]
    assert fewer["parameters"] < keep["parameters"] < more["parameters"]
    assert keep["bytes_per_token"] == fewer["bytes_per_token"] < more["bytes_per_token"] < new["bytes_per_token"]
    for row in rows:
        assert row["trained_bytes"] == pytest.approx(keep["trained_bytes"], rel=0.35)
        assert row["tokens_per_second"] * row["bytes_per_token"] == pytest.approx(row["bytes_per_second"])
        assert row["target"] > 0 < row["source"]
    assert Tokenizer.from_pretrained(out / "extend").vocab_size == more["vocabulary"]


def test_what_cannot_be_compared_is_named(work, capsys) -> None:  # noqa: F811
    compare = ("tokenizer", "compare", work / "model", "--method")
    assert run(*compare, "mean", "replace") == 2
    assert "--text" in capsys.readouterr().err
    assert run(*compare, "mean", "expand", "--text", GERMAN) == 2
    assert "'expand' is none of replace, extend, trim" in capsys.readouterr().err
    assert run(*compare, "auto", "trim", "--text", GERMAN) == 2
    assert "auto" in capsys.readouterr().err
    command = ("swap", work / "model", "--method", "mean")
    assert run(*command, "--compare", "expand", "--text", GERMAN) == 2
    assert "`swap --compare` is called `tokenizer compare` now" in capsys.readouterr().err
    assert run(*command[:2], "--method", "auto", "--compare", "trim", "--text", GERMAN) == 2
    assert "needs one method for all" in capsys.readouterr().err
    assert run(*command, "--out", work / "x") == 2
    assert "--tokenizer" in capsys.readouterr().err
