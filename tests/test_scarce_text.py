"""How often a text is read, what that is worth, and when other text pays more."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from test_pipeline_flow import TEXTS, recipe

from langadapt.planning.plan import plan_recipe
from langadapt.recipe.recipe import Recipe
from langadapt.training import repetition

__all__ = ["recipe"]  # the fixture


def test_what_passes_are_worth() -> None:
    # Muennighoff et al.: up to 4 passes are almost new text, of a 16th pass little more than a third is left.
    assert repetition.worth_of_passes(1) == 1 and repetition.worth_of_passes(0.5) == 0.5
    assert repetition.worth_of_passes(4) == pytest.approx(3.73, abs=0.01)
    assert repetition.worth_of_pass(16) == pytest.approx(math.exp(-15 / 15.39))
    assert repetition.worth_of_passes(1e6) == pytest.approx(1 + 15.39)


def test_the_best_passes_fall_with_parameters_per_token_and_stay_within_what_was_measured() -> None:
    (low, most), (high, least) = repetition.ANCHORS
    assert repetition.best_passes(low, 1) == pytest.approx(most) and repetition.best_passes(high, 1) == pytest.approx(
        least
    )
    assert repetition.best_passes(low / 100, 1) == pytest.approx(most)
    assert repetition.best_passes(7e9, 1e6) == pytest.approx(least)
    assert least < repetition.best_passes(20, 1) < most


def test_beyond_the_best_a_share_of_source_text_is_named() -> None:
    told = repetition.note(16.0, 7e5, 8000, 1.0)
    assert "16.0 passes" in told and "worth 10.6 over new text" in told and "corpus.source_share=0.75" in told
    # Half of the run is source text already: the same reading asks for the rest.
    assert "corpus.source_share=0.87" in repetition.note(16.0, 7e5, 8000, 0.5)
    assert "source_share" not in repetition.note(6.0, 1e6, 1e6, 1.0)


def test_a_plan_tells_of_every_source(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    text = TEXTS / "german.jsonl"
    sources = [
        {"name": "news", "paths": [str(text)], "share": 0.5, "max_repeats": 2},
        {"name": "english", "paths": [str(TEXTS / "english.jsonl")], "language": "source", "share": 0.5},
    ]
    train = {"epochs": 40, "sequence_length": 32, "batch_sequences": 2, "device": "cpu"}
    wanted = recipe(
        corpus={"sources": sources}, train=train, tokenizer={"vocab_size": 4096}, budget={"gpus": "1 x h100-80gb"}
    )
    made = plan_recipe(wanted)
    news, english = made.sources
    assert (news.name, english.name) == ("news", "english")
    assert news.tokens == pytest.approx(text.stat().st_size / 4.3, rel=0.01)
    assert news.passes == pytest.approx(2, rel=0.02) and english.passes > 30
    assert news.used_up == pytest.approx(made.steps / 20, rel=0.05)
    notes = " ".join(made.notes)
    assert f"news: read as often as max_repeats allows after step {news.used_up:,}" in notes
    assert "tokenizer.vocab_size: 4,096 entries of 0.12 MB" in notes and "1,024 fit" in notes
    small = plan_recipe(recipe(tokenizer={"vocab_size": 512}, budget={"gpus": "1 x h100-80gb"}))
    assert "tokenizer.vocab_size" not in " ".join(small.notes) and [one.name for one in small.sources] == [
        "target",
        "source",
    ]
