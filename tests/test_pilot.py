"""Pilots: short trainings at several shares of source text, and what they recommend."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import byte_tokenizer, tiny_llama
from training_kit import Stop, crash_after

from langadapt.cli.main import main
from langadapt.errors import ConfigError
from langadapt.planning import pilot
from langadapt.recipe.plain_values import build
from langadapt.recipe.recipe import Recipe
from langadapt.training.signals import ask_to_anneal

Cli = Callable[..., tuple[int, str]]


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """A byte model, two languages of a few words, no swap."""
    random = np.random.default_rng(0)
    for name, words in (("target", ("der", "Fluss", "tritt", "Ufer")), ("source", ("the", "river", "bank", "over"))):
        lines = [json.dumps({"text": " ".join(random.choice(words, 40))}) for _ in range(40)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    model = tmp_path / "model"
    tiny_llama(vocab_size=257).save_pretrained(model)
    byte_tokenizer(eos_token="<e>").save_pretrained(model)
    train = {"steps": 30, "sequence_length": 32, "batch_sequences": 2, "micro_batch": 2, "learning_rate": 1e-2}
    values = {
        "name": "pilot",
        "model": str(model),
        "out": str(tmp_path / "run"),
        "corpus": {
            "target": [str(tmp_path / "target.jsonl")],
            "source": [str(tmp_path / "source.jsonl")],
            "validation_bytes": 500,
            "validation_share": 0.2,
        },
        "swap": {"method": "keep"},
        "train": {**train, "device": "cpu", "threads": 1, "schedule": "wsd"},
        "evaluate": {"bytes_while_training": 200},
        "budget": {"gpus": "1 x h100-80gb"},
    }
    made: Recipe = build(Recipe, values, "")
    return made


def small(recipe: Recipe) -> pilot.Advice:
    return pilot.pilot_recipe(recipe, (0.0, 0.25, 0.5), 4)


def test_pilots_go_on_where_they_stopped_and_leave_their_logs_alone(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    recipe.train = replace(recipe.train, checkpoint_every=1, tensorboard=True)
    with monkeypatch.context() as patch, pytest.raises(Stop):
        crash_after(2, patch)
        small(recipe)
    half = Path(recipe.out) / "pilots" / "share-0"
    assert [path.name for path in (half / "checkpoints").iterdir()] == ["step-00000002"]
    with pytest.raises(ConfigError, match="no unfinished training run"):
        ask_to_anneal(Path(recipe.out))
    advice = small(recipe)
    assert "pilot 3 of 3: 50 % source text" in caplog.text and "made anew" not in caplog.text
    assert advice.tokens == 30 * 64 and advice.extrapolation == pytest.approx(30 / 4)
    assert advice.between[0] <= advice.share <= advice.between[1]
    pilots = Path(recipe.out) / "pilots"
    assert {path.name for path in pilots.rglob("*") if path.is_file()} == {"log.jsonl"}
    lines = [json.loads(line) for line in (half / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "validation" in line] == [0, 1, 2, 3, 4]

    # Nothing to train again for another budget; all of it at another rate.
    with monkeypatch.context() as patch:
        patch.setattr("langadapt.pipeline.training.train_model", lambda *_, **__: pytest.fail("trained again"))
        recipe.train = replace(recipe.train, steps=300, log_every=5)
        assert small(recipe).extrapolation == pytest.approx(300 / 4)
    recipe.train = replace(recipe.train, learning_rate=2e-3)
    small(recipe)
    assert caplog.text.count("of other settings or texts, made anew") == 3


def test_what_cannot_be_planned_costs_no_pilot(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("langadapt.pipeline.training.train_model", lambda *_, **__: pytest.fail("trained"))
    recipe.train = replace(recipe.train, steps=None, hours=1e-12)
    with pytest.raises(ConfigError, match="less than one step"):
        small(recipe)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="start it without torchrun"):
        small(recipe)
    with pytest.raises(ConfigError, match=r"corpus\.source: a pilot needs text in the source language"):
        small(replace(recipe, corpus=replace(recipe.corpus, source=[])))


def test_a_calibration_takes_the_micro_batch_of_the_recipe(recipe: Recipe) -> None:
    from langadapt.planning.calibration import calibrate_recipe

    recipe.train = replace(recipe.train, batch_sequences=32, micro_batch=16)
    assert calibrate_recipe(recipe, target_seconds=0.01)["micro_batch"] == 16


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    def run(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as left:
            main(list(arguments))
        captured = capsys.readouterr()
        return int(left.value.code or 0), captured.out + captured.err

    return run


def test_a_pilot_says_how_sure_it_is(recipe: Recipe, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    advice = pilot.Advice(
        0.1,
        "why",
        12_000,
        [{"share": 0.1, "target": 1.0, "source": 2.0}],
        {"target": 0.01, "source": 0.02},
        (0, 0.3),
        37.5,
    )
    monkeypatch.setattr(pilot, "pilot_recipe", lambda _: advice)
    (tmp_path / "r.yaml").write_text(recipe.to_yaml())
    code, text = cli("plan", str(tmp_path / "r.yaml"), "--pilot")
    assert code == 0 and "recommend 0 to 0.3; the run is 38 x as long as a pilot" in text
    code, text = cli("plan", str(tmp_path / "r.yaml"), "--pilot", "--calibrate")
    assert code == 2 and "give one of them" in text


@pytest.mark.parametrize(("factor", "noise", "off", "covered"), [(1, 0.005, 0.05, 12), (10, 0.001, 0.1, 9)])
def test_a_known_law_gives_its_best_share(factor: int, noise: float, off: float, covered: int) -> None:
    """Twelve laws whose exponents are none of the grid's; the right share is known."""

    def law(share: Any, units: float) -> Any:
        return 1.0 + 0.05 * (share * units + 0.05) ** -beta + 0.02 * (share + epsilon) ** -gamma * units**alpha

    grid = np.arange(0, 0.75, 0.05)
    bounds = ((0.15, 0.5), (0.3, 0.9), (0.03, 0.2), (0.0, 0.25))
    found = []
    for seed in range(12):
        random = np.random.default_rng(seed)
        beta, gamma, epsilon, alpha = (random.uniform(*pair) for pair in bounds)
        truth, right = law(grid, factor), random.integers(2, 7)
        target, source = [], []
        for share in pilot.SHARES:
            for units in (0.25, 0.5, 0.75, 1.0):
                noises = random.normal(0, noise, 2)
                target.append(pilot.Point(1 - share, 1e6 * units, law(1 - share, units) + noises[0]))
                source.append(pilot.Point(share, 1e6 * units, law(share, units) + noises[1]))
        advice = pilot.advise(target, source, truth[right] / 1.02 * 1.0005, 1_000_000 * factor)
        inside = advice.between[0] - 1e-9 <= grid[right] <= advice.between[1] + 1e-9
        found.append((abs(advice.share - grid[right]), inside))
    assert np.median([far for far, _ in found]) <= off
    assert sum(inside for _, inside in found) >= covered
