"""Stages run once, again when something changed, and never on a damaged artefact."""

import fcntl
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from langadapt.artefacts.stages import Run, make_once
from langadapt.errors import ConfigError, DataError, LangadaptError
from langadapt.pipeline.run import cost


class Counter:
    """A stage that copies its input in upper case and counts how often it ran."""

    def __init__(self, folder: Path) -> None:
        self.run = Run(folder, lambda line: None)
        self.input = folder / "input.txt"
        self.input.write_text("hello")
        self.output = folder / "out.txt"
        self.times = 0

    def make(self) -> dict[str, Any]:
        self.times += 1
        self.output.write_text(self.input.read_text().upper())
        return {"times": self.times}

    def go(self, **settings: Any) -> dict[str, Any]:
        return self.run.stage("upper", self.output, self.make, settings=settings, inputs={"text": self.input})


@pytest.fixture
def counter(tmp_path: Path) -> Counter:
    return Counter(tmp_path)


def test_runs_once(counter: Counter) -> None:
    assert counter.go(a=1) == {"times": 1}
    assert counter.go(a=1) == {"times": 1}
    assert counter.times == 1


def test_runs_again_after_a_change(counter: Counter) -> None:
    counter.go(a=1)
    counter.go(a=2)
    counter.input.write_text("other")
    counter.go(a=2)
    assert counter.times == 3
    assert counter.output.read_text() == "OTHER"


def test_a_failed_stage_is_not_stamped(counter: Counter) -> None:
    good = counter.make

    def bad() -> dict[str, Any]:
        raise RuntimeError

    counter.make = bad  # type: ignore[method-assign]
    with pytest.raises(RuntimeError):
        counter.go()
    counter.make = good  # type: ignore[method-assign]
    assert counter.go() == {"times": 1}


def test_a_damaged_artefact_is_named(counter: Counter) -> None:
    counter.go()
    counter.output.write_text("HELLX")
    with pytest.raises(DataError, match=r"out\.txt: altered"):
        counter.go()


def test_a_half_written_stamp_counts_as_none(counter: Counter) -> None:
    counter.go()
    (counter.run.folder / "stages" / "upper.json").write_text('{"stage": "up')
    counter.go()
    assert counter.times == 2


def test_one_process_at_a_time(counter: Counter) -> None:
    with (counter.run.folder / "stages" / ".lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(LangadaptError, match="another langadapt process"), counter.run.locked():
            pass


def test_a_deleted_artefact_is_made_again(counter: Counter) -> None:
    counter.go(a=1)
    counter.output.unlink()
    counter.go(a=1)
    assert counter.times == 2


def test_gpu_hours_are_of_the_processes_that_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    def hours(device: str) -> Any:
        budget, train = SimpleNamespace(price_per_gpu_hour=2.0), SimpleNamespace(device=device)
        recipe: Any = SimpleNamespace(budget=budget, train=train)
        training: Any = SimpleNamespace(seconds=1800.0, layout={"processes": 4})
        found = cost(recipe, training, {"train-focus": 1.0})
        return found.gpu_hours, found.price

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    assert hours("auto") == hours("cuda") == (2.0, 4.0)
    assert hours("cpu") == (None, None)


def test_a_single_command_makes_a_thing_once(tmp_path: Path) -> None:
    text, out, said, made = tmp_path / "in.txt", tmp_path / "out.txt", [], []
    text.write_text("hello")

    def make() -> dict[str, Any]:
        made.append(text.read_text())
        out.write_text(made[-1].upper())
        return {"characters": len(made[-1])}

    def go(again: bool = False, known: bool = True, **settings: Any) -> dict[str, Any]:
        inputs = {"text": text} if known else None
        return make_once("upper", out, make, settings=settings, inputs=inputs, log=said.append, again=again)

    assert go(a=1) == go(a=1) == {"characters": 5} and made == ["hello"]
    assert said == [f"{out}: up to date"]
    go(a=2)
    text.write_text("other")
    go(a=2)
    go(a=2, again=True)
    # What is read from a pipe may be another text each time.
    go(a=2, known=False)
    go(a=2)
    assert made == ["hello", "hello", "other", "other", "other", "other"] and len(said) == 1
    out.write_text("OTHEX")
    with pytest.raises(DataError, match=r"out\.txt: altered"):
        go(a=2)
    with pytest.raises(ConfigError, match="belongs to, what it is to be made from"):
        make_once("upper", text, make, settings={}, inputs={"text": text}, log=said.append)


def test_a_stamp_knows_only_what_was_made(tmp_path: Path) -> None:
    """A tokenizer's files may lie among others, which come and go."""
    (tmp_path / "notes.txt").write_text("mine")

    def make() -> dict[str, Any]:
        (tmp_path / "made.txt").write_text("made")
        return {}

    for _ in range(2):
        make_once("some", tmp_path, make, settings={}, inputs={}, log=lambda _: None)
        (tmp_path / "notes.txt").write_text("edited")
    (tmp_path / "made.txt").write_text("edited")
    with pytest.raises(DataError, match=r"made\.txt: altered"):
        make_once("some", tmp_path, make, settings={}, inputs={}, log=lambda _: None)
