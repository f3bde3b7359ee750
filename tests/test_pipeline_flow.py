"""A run goes through its stages once, and reads no byte twice to hash it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import byte_tokenizer, tiny_llama

from langadapt import _core
from langadapt.artefacts import folders
from langadapt.artefacts.stages import Run
from langadapt.cli.main import main
from langadapt.pipeline import adapt, train
from langadapt.recipe.plain_values import build
from langadapt.recipe.recipe import Recipe

TEXTS = Path(__file__).parent / "texts"


@pytest.fixture
def recipe(tmp_path: Path) -> Callable[..., Recipe]:
    """Recipes of a tiny model, all in one folder."""
    model = tmp_path / "model"
    tiny_llama(vocab=257, positions=64).save_pretrained(model)
    byte_tokenizer(eos_token="<e>").save_pretrained(model)

    def make(**changes: Any) -> Recipe:
        training = {"steps": 2, "sequence_length": 32, "batch_sequences": 2, "checkpoint_every": 1, "threads": 1}
        values = {
            "name": "flow",
            "model": str(model),
            "out": str(tmp_path / "run"),
            "corpus": {"target": [str(TEXTS / "german.jsonl")], "source": [str(TEXTS / "english.jsonl")]}
            | {"validation_bytes": 8000, "validation_share": 0.2, "source_share": 0.25},
            "tokenizer": {"vocab_size": 350},
            "vectors": {"dim": 8, "epochs": 1, "min_count": 1, "threads": 1},
            "train": {**training, "device": "cpu"},
            "evaluate": {"bytes_while_training": 500, "parallel": str(TEXTS / "parallel.jsonl")},
        }
        return build(Recipe, values | changes, "")

    return make


class Ledger:
    """What a process enters, makes and hashes, as if it had begun just now."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.entered: Counter[str] = Counter()
        self.made: list[str] = []
        self.hashed: Counter[tuple[int, int, int]] = Counter()
        """Bytes by the state of a file."""
        self.sizes: dict[tuple[int, int, int], int] = {}
        stage, hash_file = Run.stage, _core.hash_file

        def counted(run: Run, name: str, output: Path, make: Any, **options: Any) -> Any:
            def noted() -> Any:
                self.made.append(name)
                return make()

            self.entered[name] += 1
            return stage(run, name, output, noted, **options)

        def read(file: Any) -> str:
            status = Path(file).stat()
            state = (status.st_dev, status.st_ino, status.st_mtime_ns)
            self.hashed[state] += status.st_size
            self.sizes[state] = status.st_size
            return hash_file(file)

        patch.setattr(Run, "stage", counted)
        patch.setattr(_core, "hash_file", read)
        patch.setattr(folders, "_hashed", {})

    def check(self, stages: set[str]) -> None:
        """All of ``stages`` were entered, once; no byte was hashed twice."""
        assert dict(self.entered) == dict.fromkeys(stages, 1)
        assert self.hashed and dict(self.hashed) == self.sizes


TEXT = {"corpus-target", "corpus-source", "tokenizer"}
NEW = {"store-target-new", "store-source-new", "vectors"}
OWN = {"store-target-own", "store-source-own", "train-keep", "evaluate-keep-trained"}


def ways(method: str) -> set[str]:
    return {f"swap-{method}", f"evaluate-{method}-swapped", f"train-{method}", f"evaluate-{method}-trained"}


def test_a_comparison_enters_each_stage_once(recipe: Callable[..., Recipe]) -> None:
    plan = recipe(swap={"method": "focus"}, compare=["keep"])
    stages = TEXT | NEW | OWN | ways("focus") | {"held-out", "fertility", "evaluate-source"}
    with pytest.MonkeyPatch.context() as patch:
        first = Ledger(patch)
        results = adapt(plan)
    first.check(stages)
    assert set(first.made) == stages
    with pytest.MonkeyPatch.context() as patch:
        second = Ledger(patch)
        again = adapt(plan)
    second.check(stages)
    assert second.made == []
    assert {**again, "cost": None} == {**results, "cost": None}
    # Texts and models from elsewhere are known from the first time.
    outside = Path(plan.model) / "model.safetensors"
    assert (outside.stat().st_dev, outside.stat().st_ino, outside.stat().st_mtime_ns) not in second.hashed


def test_a_bake_off_enters_each_stage_once(recipe: Callable[..., Recipe]) -> None:
    plan = recipe(swap={"method": "auto", "probe_steps": 1, "candidates": ["mean", "focus"]}, compare=["mean"])
    with pytest.MonkeyPatch.context() as patch:
        ledger = Ledger(patch)
        results = adapt(plan)
    methods = {results["method"], "mean"}
    ledger.check(TEXT | NEW | {"held-out", "fertility", "evaluate-source", "bake-off"}.union(*map(ways, methods)))


def test_the_template_that_a_swap_keeps_is_the_trained_models(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    byte_tokenizer(eos_token="</s>", pad_token="<pad>").save_pretrained(tmp_path / "new")
    (tmp_path / "model" / "chat_template.jinja").write_text("{{ messages[0].content }}")
    train(recipe(swap={"method": "mean"}, tokenizer={"path": str(tmp_path / "new")}))
    for folder in (tmp_path / "run" / "swapped" / "mean", tmp_path / "run" / "trained" / "mean" / "final"):
        assert (folder / "chat_template.jinja").read_text() == "{{ messages[0].content }}"


def test_training_alone_enters_each_stage_once(recipe: Callable[..., Recipe]) -> None:
    plan = recipe(swap={"method": "focus"})
    with pytest.MonkeyPatch.context() as patch:
        ledger = Ledger(patch)
        train(plan)
    ledger.check(TEXT | NEW | {"swap-focus", "train-focus"})
    with pytest.MonkeyPatch.context() as patch:
        ledger = Ledger(patch)
        adapt(plan)
    ledger.check(TEXT | NEW | ways("focus") | {"held-out", "fertility", "evaluate-source"})
    assert set(ledger.made) == {
        "held-out",
        "fertility",
        "evaluate-source",
        "evaluate-focus-swapped",
        "evaluate-focus-trained",
    }


def test_single_commands_make_things_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, place = tmp_path / "model", {name: str(tmp_path / name) for name in ("c", "t", "s", "swapped")}
    tiny_llama(vocab=257, positions=64).save_pretrained(model)
    byte_tokenizer(eos_token="<e>").save_pretrained(model)
    text, vectors = tmp_path / "c" / "train.jsonl.zst", str(tmp_path / "v.safetensors")
    commands = [
        ["corpus", "build", str(TEXTS / "german.jsonl"), "--out", place["c"], "--min-chars", "1"],
        ["tokenizer", "train", str(text), "--vocab-size", "350", "--out", place["t"]],
        ["tokenizer", "extend", place["t"], str(text), "--new-tokens", "9", "--out", str(tmp_path / "more")],
        ["tokenizer", "trim", place["t"], str(text), "--out", str(tmp_path / "less")],
        ["tokenize", str(text), "--tokenizer", place["t"], "--out", place["s"]],
        ["vectors", "train", place["s"], "--out", vectors, "--dim", "8", "--epochs", "1", "--threads", "1"],
        ["swap", str(model), "--tokenizer", place["t"], "--out", place["swapped"], "--method", "mean", "--seed", "3"],
    ]

    def run(command: list[str]) -> tuple[str, str]:
        with pytest.raises(SystemExit) as left:
            main(command)
        assert not left.value.code, command
        return tuple(capsys.readouterr())

    for command in commands:
        first, second = run(command), run(command)
        assert "up to date" not in first[1] and "up to date" in second[1]
        assert second[0] == first[0]
    commands[0][-1] = "2"
    commands[-1][-1] = "4"
    for command in (commands[0], commands[-1]):
        assert "up to date" not in run(command)[1]
    with pytest.raises(SystemExit) as left:
        main(["corpus", "build", str(text), "--out", place["c"]])
    assert left.value.code == 2 and "would replace" in capsys.readouterr().err
    assert text.exists()
