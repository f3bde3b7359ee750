"""What `auto` comes to, by budget and text; that a run keeps it; what a user is told before the first step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from training_kit import MemoryStore, Stop, crash_after, journal, tiny_model, train, weights

from langadapt.errors import ConfigError
from langadapt.planning.plan import Corpus, plan
from langadapt.training import TrainSettings, choices
from langadapt.training.choices import Facts, settle

AUTO = {"sequence_length": "auto", "batch_sequences": None, "micro_batch": "auto", "warmup": "auto"}


def batch(facts: Facts, **changes: Any) -> tuple[int, int]:
    """(windows of a step, steps)."""
    found = settle(TrainSettings(**changes), facts)
    return found.sequences_per_step, choices.steps_of(found, facts) or 0


@given(st.floats(1e4, 1e11), st.sampled_from([1, 2, 3, 4, 8]), st.floats(0.3, 1.0), st.integers(64, 4096))
def test_a_batch_leaves_five_hundred_steps_and_divides(text: float, processes: int, share: float, context: int) -> None:
    facts = Facts(text=text, share=share, processes=processes, context=context)
    found = settle(TrainSettings(), facts)
    windows, steps = found.sequences_per_step, choices.steps_of(found, facts) or 0
    assert found.window == min(2048, context)
    assert windows % processes == 0
    assert steps >= 500 or windows == processes
    # Within the power of two that is nearest, and what processes round, of Step Law.
    useful = 0.58 * facts.one_pass**0.571 / found.window
    assert windows <= max(processes, 1.4143 * useful + processes)
    if facts.one_pass >= 1e9:
        assert windows >= useful / 3


def test_batches_of_known_budgets() -> None:
    swahili = Facts(text=1_250_000)
    assert batch(swahili) == (1, 611)
    assert batch(replace(swahili, context=512)) == (4, 611)
    assert batch(replace(swahili, context=512), epochs=4) == (8, 1221)
    assert batch(replace(swahili, share=0.5)) == (1, 1221)
    assert batch(Facts(text=8e9)) == (128, 30518)
    assert batch(Facts(), tokens=100_000_000) == (8, 6104)
    # Of given steps each takes what one pass gives it, up to the old batch of half a million tokens.
    assert batch(swahili, steps=100) == (4, 100)
    assert batch(Facts(text=8e9), steps=1000) == (256, 1000)
    assert batch(Facts(), steps=1000) == (256, 1000)
    # Hours buy what the machine can read in them; a limit cuts the budget.
    assert batch(Facts(text=1e9, speed=1000.0), hours=1) == (2, 879)
    assert batch(Facts(text=1e9, speed=1000.0), limit_hours=1) == (2, 879)
    # A short text to replay is not asked for more than it has.
    assert batch(Facts(text=8e9, least=50_000.0)) == (16, 244141)
    # A given micro-batch is filled on every process.
    assert batch(replace(swahili, processes=2), micro_batch=4) == (8, 77)


def test_what_is_given_stays_as_it_is() -> None:
    given_all = TrainSettings(steps=7, sequence_length=64, batch_tokens=640, warmup=0.02)
    assert choices.is_settled(given_all) and settle(given_all, Facts(text=1e9, context=32)) == given_all
    before = TrainSettings(steps=7, batch_tokens=None, sequence_length=2048, warmup=0.01)
    assert before.sequences_per_step == 256 and choices.is_settled(before)
    assert settle(TrainSettings(batch_sequences=3), Facts(text=1e6)).tokens_per_step == 3 * 2048
    with pytest.raises(ConfigError, match="batch_tokens: 1000 is not a multiple of sequence_length: 512"):
        settle(TrainSettings(batch_tokens=1000), Facts(context=512))
    with pytest.raises(ConfigError, match="batch_tokens: auto waits for budget and text"):
        _ = TrainSettings(sequence_length=64).tokens_per_step


@pytest.mark.parametrize(
    ("changes", "warmup"),
    [
        ({"steps": 500}, 0.08),
        ({"steps": 7680}, 0.01),
        ({"steps": 12}, 0.1),
        ({"steps": 500, "betas": (0.9, 0.999)}, 0.1),
        ({"steps": 100, "schedule": "wsd", "anneal": 0.95}, 0.05),
        ({"hours": 2}, 0.01),
    ],
)
def test_warm_ups(changes: dict[str, Any], warmup: float) -> None:
    assert settle(TrainSettings(**changes), Facts(text=1e9)).warmup == pytest.approx(warmup)


def test_intervals_follow_the_run() -> None:
    auto, given_both = TrainSettings(), TrainSettings(log_every=7, validate_every=None)
    assert [choices.log_interval(auto, steps) for steps in (20, 500, 9000, None)] == [1, 5, 10, 10]
    assert [choices.validations(auto, steps) for steps in (20, 999, 1000, None)] == [10, 10, 20, 20]
    assert choices.log_interval(given_both, 20) == 7 and choices.validations(given_both, 9000) == 10


def test_a_run_goes_on_with_what_it_was_begun_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choices, "STEPS", 40)
    run: dict[str, Any] = {**AUTO, "epochs": 1, "log_every": "auto", "checkpoint_every": 20}

    def go(name: str, **changes: Any) -> Any:
        model, stores = tiny_model(max_position_embeddings=16), [(MemoryStore(documents=40), 1, "target")]
        return train(tmp_path / name, model, stores, **{**run, **changes})

    whole = go("whole")
    # 2,400 tokens in windows of 16: three would leave 50 steps.
    assert whole.tokens == whole.steps * 32 and whole.steps >= 60
    with monkeypatch.context() as patch, pytest.raises(Stop):
        crash_after(50, patch)
        go("run")
    # Another version might choose otherwise.
    monkeypatch.setattr(choices, "STEPS", 400)
    again = go("run")
    assert again.steps == whole.steps and again.tokens == whole.tokens
    first, second = weights(tmp_path / "whole" / "final"), weights(tmp_path / "run" / "final")
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert [line["step"] for line in journal(tmp_path / "whole")] == [
        line["step"] for line in journal(tmp_path / "run")
    ]
    # Of a larger budget it keeps the batch, too, of which a run's steps are made.
    longer = go("run", epochs=1.5, extend=True)
    assert longer.steps > again.steps and longer.tokens == longer.steps * 32


def test_a_plan_says_what_training_does(tmp_path: Path) -> None:
    store = MemoryStore(documents=60)
    model = tiny_model(max_position_embeddings=16)
    made = plan(model.config.to_dict(), TrainSettings(epochs=1), corpus=Corpus(len(store.tokens), 4.0, True))
    result = train(tmp_path, model, [(store, 1, "target")], **AUTO, epochs=1)
    assert made.settings.tokens_per_step == result.tokens // result.steps
    # Tokens that begin and end documents are the difference.
    assert made.steps == pytest.approx(result.steps, rel=0.05)


def test_notes_are_the_same_in_plan_and_training() -> None:
    small = Facts(text=25_000, parameters=1_300_000, context=512, trained_at=3e-3)
    asked = settle(TrainSettings(epochs=10, learning_rate=2e-2), small)
    found = choices.notes(asked, small)
    assert len(found) == 3
    assert "10.0 passes over the target text are worth 7.8 over new text, the last one 56%" in found[0]
    assert "windows have 512 tokens" in found[1]
    assert "6.7 times the 0.003 that the model was trained with" in found[2]
    made = plan(
        tiny_model(max_position_embeddings=512).config.to_dict(),
        TrainSettings(epochs=10, learning_rate=2e-2),
        corpus=Corpus(25_000, 4.0, True),
        trained_at=3e-3,
    )
    found = choices.notes(asked, replace(small, parameters=made.parameters))
    assert len(found) == 3 and [note for note in made.notes if note in found] == found
    unknown = replace(small, trained_at=None, context=None, text=1e6)
    assert choices.notes(settle(TrainSettings(), unknown), unknown) == []
    hot = choices.notes(settle(TrainSettings(learning_rate=2e-2), unknown), unknown)
    assert len(hot) == 1 and "7.3 times the 0.003 at which models of this size are usually pretrained" in hot[0]
    assert (
        choices.notes(settle(TrainSettings(learning_rate=3e-4), replace(unknown, parameters=7_000_000_000)), unknown)
        == []
    )


def test_few_steps_are_told_with_the_remedy_that_works() -> None:
    facts = Facts(text=50_000)
    (note,) = choices.notes(settle(TrainSettings(), facts), facts)
    assert note.startswith("25 optimizer steps are few") and "train.epochs=4 makes 98 steps" in note
    facts = Facts(text=10_000_000)
    (note,) = choices.notes(settle(TrainSettings(batch_sequences=256), facts), facts)
    assert "lower train.batch_tokens (524,288 here)" in note
    long = settle(TrainSettings(sequence_length=4096, batch_sequences=1), facts)
    assert "exceeds the model's context of 2048" in choices.notes(long, replace(facts, context=2048))[0]
