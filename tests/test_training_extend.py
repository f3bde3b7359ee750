"""Other plans for a run that is under way or over: annealed now, extended, begun again at a lower rate."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from training_kit import (
    Stop,
    crash_after,
    journal,
    losses,
    train,
)

from langadapt.errors import ConfigError, LangadaptError, MismatchError
from langadapt.training import checkpoint

KIT = Path(__file__).with_name("training_kit.py")


def test_anneal_now_by_signal_or_file_ends_the_run_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from langadapt.training.signals import ask_to_anneal
    from langadapt.training.step import Stepper

    plain = Stepper.step

    def asking(self: Any, batch: Any, number: int, **rates: Any) -> None:
        plain(self, batch, number, **rates)
        if number == 19:
            ask_to_anneal(tmp_path)

    with monkeypatch.context() as patch:
        patch.setattr(Stepper, "step", asking)
        result = train(tmp_path / "run", steps=1000, schedule="wsd", stale_every=0)
    rates = [line["learning_rate"]["matrices"] for line in journal(tmp_path / "run") if "loss" in line]
    assert 22 <= result.steps <= 26 and rates[-1] == pytest.approx(1e-3)
    assert not list(tmp_path.rglob("anneal-now"))


def rates(out: Path) -> dict[int, float]:
    """Rate of matrices by step."""
    return {line["step"]: line["learning_rate"]["matrices"] for line in journal(out) if "loss" in line}


@pytest.mark.parametrize("schedule", ["wsd", "infinite"])
def test_a_finished_run_is_extended_as_if_it_had_been_longer_from_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, schedule: str
) -> None:
    plan = {"schedule": schedule, "log_every": 1, "cooldown": 0.2}
    train(tmp_path / "run", **plan)
    # The last checkpoint before the decay is kept beside the last ones.
    kept = [path.name for path in checkpoint.found(tmp_path / "run" / "checkpoints")]
    assert kept == ["step-00000010", "step-00000012"]
    with pytest.raises(MismatchError, match="go on by `extend`"):
        train(tmp_path / "run", **plan, steps=20)
    with monkeypatch.context() as patch, pytest.raises(Stop):
        crash_after(11, patch)
        train(tmp_path / "run", **plan, steps=20, extend=True)
    with monkeypatch.context() as patch, pytest.raises(Stop):
        crash_after(14, patch)
        train(tmp_path / "run", **plan, steps=20, extend=True, checkpoint_every=1)
    # Checkpoints of the decay that was left behind are gone, of the same number or not.
    assert [path.name for path in checkpoint.found(tmp_path / "run" / "checkpoints")] == [
        "step-00000010",
        "step-00000013",
        "step-00000014",
    ]
    result = train(tmp_path / "run", **plan, steps=20, extend=True)
    assert result.steps == 20 and train(tmp_path / "run", **plan, steps=20) == result
    if schedule == "wsd":
        train(tmp_path / "long", **plan, steps=20)
        assert rates(tmp_path / "run") == pytest.approx(rates(tmp_path / "long"), rel=1e-9)
        assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "long"), rel=1e-6)
    # The new decay's beginning is kept now, and the old one no longer.
    assert checkpoint.found(tmp_path / "run" / "checkpoints")[0].name == "step-00000017"


def test_an_extension_begins_at_the_checkpoint_that_is_named(tmp_path: Path) -> None:
    run = {"schedule": "wsd", "log_every": 1, "checkpoint_every": 4, "keep_checkpoints": 3}
    train(tmp_path, **run)
    with pytest.raises(ConfigError, match="no checkpoint of step 5; there are those of steps 8, 10, 12"):
        train(tmp_path, **run, steps=14, extend=5)
    # Nothing has happened: the run is what it was.
    assert json.loads((tmp_path / "run.json").read_text())["settings"]["steps"] == 12
    # A short budget after a checkpoint of the constant phase is an anneal from there.
    assert train(tmp_path, **run, steps=9, extend=8).steps == 9
    assert rates(tmp_path)[8] == 1e-2 and rates(tmp_path)[9] == pytest.approx(1e-3)
    assert train(tmp_path, **run, steps=9, extend=8).steps == 9
    with pytest.raises(ConfigError, match="cannot extend to 8 steps: 8 are done"):
        train(tmp_path, **run, steps=8, extend=8)
    # From the newest, whose rate has fallen, up to the peak again.
    train(tmp_path, **run, steps=29, warmup=0.3, extend="newest")
    found = rates(tmp_path)
    assert found[9] < found[10] < found[14] < found[15] == pytest.approx(1e-2)


def test_an_early_anneal_leaves_the_checkpoint_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from langadapt.training.step import Stepper

    plain = Stepper.step

    def asking(self: Any, batch: Any, number: int, **rates: Any) -> None:
        plain(self, batch, number, **rates)
        if number == 11:
            os.kill(os.getpid(), signal.SIGUSR2)

    run = {"schedule": "wsd", "log_every": 1}
    with monkeypatch.context() as patch:
        patch.setattr(Stepper, "step", asking)
        result = train(tmp_path, **run, steps=40)
    names = [path.name for path in checkpoint.found(tmp_path / "checkpoints")]
    assert result.steps == 14 and names == ["step-00000012", "step-00000014"]
    train(tmp_path, **run, steps=20, extend=True)
    assert all(rates(tmp_path)[step] == 1e-2 for step in range(12, 18))


def test_a_run_that_is_lost_goes_on_from_its_last_good_checkpoint_at_a_lower_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message says all that is needed: which checkpoint, which to delete, and that `extend` takes other rates."""
    from langadapt.training.step import Stepper

    plain, calls = Stepper.forward_backward, []

    def poisoned(self: Any, *arguments: Any, **named: Any) -> Any:
        calls.append(1)
        return plain(self, *arguments, **named) * (float("nan") if len(calls) > 12 else 1.0)

    expected = r"step 7: the loss .*The last good checkpoint is \S*step-00000005 \(delete \S*step-00000006, which leads"
    with monkeypatch.context() as patch, pytest.raises(LangadaptError, match=expected):
        patch.setattr(Stepper, "forward_backward", poisoned)
        train(tmp_path, steps=20, checkpoint_every=1)
    shutil.rmtree(tmp_path / "checkpoints" / "step-00000006")
    mended = {"steps": 20, "learning_rate": 2e-3}
    with pytest.raises(MismatchError, match=r"learning_rate: 0.01 there, 0.002 here\); go on by `extend`"):
        train(tmp_path, **mended)
    with pytest.raises(MismatchError, match=r"seed: 42 there, 7 here\); give another folder"):
        train(tmp_path, **mended, seed=7, extend=True)
    result = train(tmp_path, **mended, extend=True)
    rates = {line["step"]: line["learning_rate"]["matrices"] for line in journal(tmp_path) if "loss" in line}
    assert result.steps == 20 and rates[4] > 5e-3 and max(rates[step] for step in rates if step > 6) <= 2e-3
    assert train(tmp_path, **mended) == result
    assert checkpoint.good_checkpoints(tmp_path / "none", 3).startswith("There is no checkpoint from before")


def test_asking_to_anneal_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from langadapt.artefacts.stages import Run
    from langadapt.cli.main import main

    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"name: a\nmodel: {tmp_path}\nout: {tmp_path / 'run'}\ncorpus: {{target: [{recipe}]}}\n")

    def ask() -> tuple[int, str]:
        with pytest.raises(SystemExit) as left:
            main(["train", str(recipe), "--anneal"])
        captured = capsys.readouterr()
        return int(left.value.code or 0), captured.out + captured.err

    code, text = ask()
    assert code == 2 and "no unfinished training run" in text.replace("\n", " ")
    folder = tmp_path / "run" / "trained" / "focus"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    assert ask() == (0, f"asked {folder} to anneal; nothing trains there now, it will when the run goes on\n")
    assert (folder / "anneal-now").exists()
    with Run(tmp_path / "run", lambda _: None).locked():
        assert ask() == (0, f"asked {folder} to anneal\n")
