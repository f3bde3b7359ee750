"""The best model is kept, over-fitting is named, a run that diverges is stopped, and a good one is not."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from training_kit import Stop, crash_after, journal, losses, scripted, tiny_model, torchrun, train, weights

from langadapt.errors import LangadaptError, MismatchError, TrainingDiverged
from langadapt.training import TrainSettings
from langadapt.training.watch import TARGET, Watch

FALLS_AND_RISES = {0: 5.0, 4: 3.0, 8: 2.0, 12: 2.2, 16: 2.4}
STEPS = {"steps": 16, "validate_every": 4, "schedule": "constant"}


def model_after(out: Path, step: int) -> dict[str, torch.Tensor]:
    """Weights in a checkpoint."""
    saved = load_file(out / "checkpoints" / f"step-{step:08d}" / "shard-00000.safetensors")
    return {name.removeprefix("model."): tensor for name, tensor in saved.items() if name.startswith("model.")}


def same_model(out: Path, expected: dict[str, torch.Tensor]) -> bool:
    found = weights(out / "final")
    expected = {name.removeprefix("model."): tensor for name, tensor in expected.items()}
    return all(torch.equal(tensor, expected[name.removeprefix("model.")]) for name, tensor in found.items())


def test_the_best_model_is_the_result_and_the_last_where_it_is_asked_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run: dict[str, Any] = {**STEPS, "checkpoint_every": 4, "keep_checkpoints": 9, "validate": scripted(FALLS_AND_RISES)}
    with caplog.at_level(logging.WARNING):
        best = train(tmp_path / "best", **run)
        last = train(tmp_path / "last", keep="last", **run)
    assert (best.best_step, best.kept_step, best.overfit_from) == (8, 8, 8)
    assert best.validation == {TARGET: 2.0} and last.validation == {TARGET: 2.4}
    assert (last.best_step, last.kept_step, last.overfit_from) == (8, 16, 8)
    assert same_model(tmp_path / "best", model_after(tmp_path / "last", 8))
    assert same_model(tmp_path / "last", model_after(tmp_path / "last", 16))
    told = [record.getMessage() for record in caplog.records if "over-fitting" in record.getMessage()]
    assert told == 2 * [
        "over-fitting since step 8: 2.0000 bits per byte of target text then, 2.4000 now, while the training loss falls"
    ]
    # One more copy of the weights in checkpoints that are not the best themselves, and no other file.
    sizes = {
        name: [folder.stat().st_size for folder in sorted((tmp_path / name).glob("checkpoints/*/*.safetensors"))]
        for name in ("best", "last")
    }
    parameters = sum(tensor.nbytes for tensor in weights(tmp_path / "last" / "final").values())
    more = [one - other for one, other in zip(sizes["best"], sizes["last"], strict=True)]
    assert more[:2] == [0, 0] and all(parameters <= size < 1.2 * parameters for size in more[2:])


def test_what_is_best_may_weigh_both_languages(tmp_path: Path) -> None:
    def validate(model: Any, step: int) -> dict[str, float]:
        return {"bits_per_byte_target": 5.0 - 0.1 * step, "bits_per_byte_source": 2.0 + 0.05 * step**1.5}

    assert train(tmp_path / "target", validate=validate, **STEPS).kept_step == 16
    assert train(tmp_path / "both", validate=validate, source_weight=1.0, **STEPS).kept_step == 0


@pytest.mark.parametrize("crash", [7, 9, 14])
def test_the_best_is_kept_through_interruptions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crash: int) -> None:
    run: dict[str, Any] = {**STEPS, "checkpoint_every": 3, "log_every": 5, "validate": scripted(FALLS_AND_RISES)}
    whole = train(tmp_path / "whole", **run)
    with monkeypatch.context() as patch, pytest.raises(Stop):
        crash_after(crash, patch)
        train(tmp_path / "crashed", **run)
    crashed = train(tmp_path / "crashed", **run)
    assert same_model(tmp_path / "crashed", model_after_best(tmp_path / "whole"))
    told = ("kept_step", "best_step", "overfit_from", "validation", "loss")
    assert [getattr(crashed, name) for name in told] == [getattr(whole, name) for name in told]
    # Losses of lines that a checkpoint came between are those of the whole run, too.
    assert losses(tmp_path / "crashed") == pytest.approx(losses(tmp_path / "whole"), rel=1e-12)


def model_after_best(out: Path) -> dict[str, torch.Tensor]:
    return weights(out / "final")


def test_patience_ends_a_run_early(tmp_path: Path) -> None:
    result = train(tmp_path, patience=1, checkpoint_every=2, validate=scripted(FALLS_AND_RISES), **STEPS)
    assert result.steps == 12 and result.stopped_early and result.kept_step == 8
    assert train(tmp_path, patience=1, checkpoint_every=2, validate=scripted(FALLS_AND_RISES), **STEPS) == result
    # Given more steps it goes on.
    more = scripted({**FALLS_AND_RISES, 20: 1.9})
    longer = {**STEPS, "steps": 20}
    again = train(tmp_path, patience=9, checkpoint_every=2, validate=more, extend=True, **longer)
    assert again.steps == again.kept_step == 20 and not again.stopped_early


def bits_per_byte(model: Any, step: int) -> dict[str, float]:
    """Of the pattern that the stores are made of, which a lost model knows no more."""
    ids = (torch.arange(256)[None] * 3) % 60 + 4
    with torch.no_grad():
        loss = float(model(input_ids=ids, labels=ids).loss)
    return {"bits_per_byte_target": loss / math.log(2) / 4}


def test_a_rate_that_is_far_too_high_stops_early_and_names_the_repair_that_works(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run: dict[str, Any] = {"steps": 400, "validate": bits_per_byte, "validate_every": 20, "checkpoint_every": 50}
    with caplog.at_level(logging.WARNING), pytest.raises(TrainingDiverged) as caught:
        train(tmp_path, tiny_model(), learning_rate=1.0, **run)
    result = caught.value.result
    assert result.steps <= 100 and result.diverged == str(caught.value) and "\n" not in str(caught.value)
    assert "lower learning_rate first (1 here, try 0.01)" in str(caught.value)
    assert "worse than before training" in caplog.text
    # What is left is the best there was, and the same call does not take it for a success.
    assert bits_per_byte_of(result.final) == pytest.approx(result.validation[TARGET], rel=0.02)
    with pytest.raises(TrainingDiverged):
        train(tmp_path, tiny_model(), learning_rate=1.0, **run)
    with pytest.raises((MismatchError, LangadaptError)):
        train(tmp_path, tiny_model(), learning_rate=1.0, extend=True, **{**run, "steps": 10})
    # The repair, in the same folder.
    repaired = train(tmp_path, tiny_model(), learning_rate=0.01, **run)
    assert not repaired.diverged and repaired.steps == 400
    assert repaired.validation[TARGET] < 0.6 * result.validation[TARGET]


def bits_per_byte_of(folder: Path) -> float:
    from transformers import AutoModelForCausalLM

    return bits_per_byte(AutoModelForCausalLM.from_pretrained(folder).eval(), 0)[TARGET]


def test_a_run_without_validation_is_stopped_by_its_loss_and_leaves_no_model(tmp_path: Path) -> None:
    with pytest.raises(TrainingDiverged, match=r"the training loss is .* lower learning_rate first"):
        train(tmp_path, learning_rate=1.0, steps=400, log_every=1)
    assert not (tmp_path / "final").exists()
    assert journal(tmp_path)[-1]["step"] < 100


def test_a_run_that_only_made_it_worse_is_no_success(tmp_path: Path) -> None:
    worse = scripted({0: 2.0, 4: 2.1, 8: 2.15, 12: 2.15, 16: 2.1})
    with pytest.raises(TrainingDiverged, match=r"no validation was better; .*final has the model as it was before"):
        train(tmp_path, validate=worse, **STEPS)
    within_noise = scripted({0: 2.0, 4: 2.1, 8: 2.15, 12: 2.05, 16: 2.01})
    assert train(tmp_path / "noise", validate=within_noise, **STEPS).kept_step == 0


def curve(start: float, end: float, steps: int, noise: float, seed: int = 0) -> list[float]:
    """A training loss that falls, fast first."""
    random = np.random.default_rng(seed)
    return [end + (start - end) * math.exp(-5 * step / steps) + random.normal(0, noise) for step in range(steps)]


def watched(curve: list[float], every: int = 5) -> tuple[Watch, list[str]]:
    watch, told = Watch(), []
    for step in range(every, len(curve) + 1, every):
        told.append(watch.saw_loss(step, float(np.mean(curve[step - every : step])), every, len(curve)))
        if watch.over:
            break
    return watch, [text for text in told if text]


@pytest.mark.parametrize("seed", range(5))
def test_noise_and_spikes_do_not_stop_a_good_run(seed: int) -> None:
    swap = curve(12.0, 3.0, 600, noise=0.8, seed=seed)
    assert watched(swap)[1] == []
    flat = curve(2.6, 2.4, 600, noise=0.5, seed=seed)
    assert watched(flat)[1] == []
    spiked = curve(4.0, 2.5, 600, noise=0.2, seed=seed)
    spiked[300:315] = [7.0] * 15
    watch, told = watched(spiked)
    assert not watch.diverged and not watch.suspicious and len(told) <= 1


def test_a_loss_that_does_not_come_back_is_named_then_stops_the_run() -> None:
    lost = curve(4.0, 2.5, 600, noise=0.2)
    lost[200:] = [8.0] * 400
    watch, told = watched(lost)
    assert len(told) == 1 and "the run may be diverging" in told[0]
    assert watch.diverged and "8." not in watch.diverged[:24]
    assert watch.high_since is not None and 200 < watch.high_since <= 215


@pytest.mark.parametrize(
    ("bits", "stopped"),
    [
        ([1.2, 1.35, 1.32, 1.25, 1.18], None),
        ([9.5, 9.8, 8.1, 5.0, 4.0], None),
        ([5.0, 9.0, 7.0, 4.0, 3.0], None),
        ([5.0, 9.0, 36.9, 36.0, 36.0], 2),
        ([1.2, 1.9, 2.0, 2.0, 2.0], 2),
        ([1.2, math.nan, math.nan, 1.1, 1.0], 2),
    ],
)
def test_validations_of_runs_that_come_back_and_of_those_that_do_not(bits: list[float], stopped: int | None) -> None:
    watch, at = Watch(), None
    for number, value in enumerate(bits):
        watch.saw_validation(10 * number, {TARGET: value}, TrainSettings(), 40)
        if watch.over and at is None:
            at = number
    assert at == stopped


def test_text_learnt_by_heart_is_over_fitting_and_no_divergence() -> None:
    watch = Watch()
    for number, (loss, bits) in enumerate([(4.0, 2.0), (3.0, 1.5), (2.0, 2.0), (1.0, 3.2), (0.3, 3.6)]):
        watch.saw_loss(50 * number + 1, loss, 50, 250)
        watch.saw_validation(50 * number, {TARGET: bits}, TrainSettings(), 250)
    assert not watch.over and watch.overfit_from == 50 and watch.state() == "over-fitting since step 50"


@pytest.mark.slow
def test_two_processes_keep_the_best_as_one_does(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path / "model")
    bits = {str(step): value for step, value in FALLS_AND_RISES.items()}
    run: dict[str, Any] = {**STEPS, "model": str(tmp_path / "model"), "precision": "fp32", "rounding": "nearest"}
    one = train(tmp_path / "one", validate=scripted(FALLS_AND_RISES), **run)
    torchrun(2, out=str(tmp_path / "two"), bits=bits, checkpoint_every=3, **run)
    assert one.kept_step == 8
    first, second = weights(tmp_path / "one" / "final"), weights(tmp_path / "two" / "final")
    for name in first:
        torch.testing.assert_close(second[name].float(), first[name].float(), rtol=1e-2, atol=1e-4)
    # Two processes' checkpoint has the best in two parts; one process goes on with it.
    for folder in sorted((tmp_path / "two" / "checkpoints").iterdir())[-1:]:
        assert len(list(folder.glob("*.safetensors"))) == 2
