"""Tasks that cannot tell models apart: by guessing, and over the checkpoints of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from report_run import make_run
from tiny import byte_tokenizer, tiny_llama
from training_kit import MemoryStore, settings
from typer.testing import CliRunner

from langadapt.cli.comparison import rows_of
from langadapt.cli.main import app
from langadapt.errors import ConfigError, DataError, MismatchError
from langadapt.evaluation.telling import FEWEST, GUESSED, OVER_TRAINING, WAVERS, read_course, wavering, wavers, word
from langadapt.models.folder import load_model
from langadapt.pipeline.finished import is_checkpoint, models_of_training
from langadapt.report.page import page
from langadapt.report.run import read_run
from langadapt.training import StoreShare, train_model
from langadapt.training.checkpoint import Reader, folder_of, read_state
from langadapt.training.loop import Trainer
from langadapt.training.model import gather
from langadapt.training.snapshot import fill, model_at


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([0.25, 0.3, 0.4], False),
        ([0.25, 0.4, 0.38], False),
        ([0.25, 0.4, 0.3], True),
        # As much as the whole way, in its midst.
        ([0.2, 0.4, 0.2, 0.4], True),
        ([0.2, 0.3, 0.25, 0.4], False),
        # Forgotten steadily.
        ([0.6, 0.5, 0.45], False),
        ([0.6, 0.4, 0.55], True),
        ([0.5, 0.5, 0.5], True),
        ([0.5, 0.4], False),
    ],
)
def test_scores_of_one_training(scores: list[float], expected: bool) -> None:
    assert wavers(scores) is expected
    assert wavers([-score for score in scores]) is expected
    course = [{"task": {"acc": score, "acc_stderr": score, "items": 9, "chance": 0.2}} for score in scores]
    assert wavering(course) == ({("task", "acc")} if expected else set())


def test_words() -> None:
    low, high = ({"acc": acc, "acc_stderr": 0.02, "chance": 0.25} for acc in (0.27, 0.4))
    assert word([low, low], "acc", over_training=True) == GUESSED
    assert word([low, high], "acc", over_training=True) == WAVERS
    assert word([low, high], "acc", over_training=False) == word([], "acc", over_training=False) == ""
    assert wavering([]) == wavering([{"a": {"acc": 0.1}}, {"a": {"acc": None}}, {"a": {"acc": 0.1}}]) == set()


def test_beside_the_task_in_terminal_and_report(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    models = [
        {"parameters": 1, "bits_per_byte": {}, "suites": {"belebele_de": {"acc": acc, "chance": 0.25}}}
        for acc in (0.4, 0.5, 0.41)
    ]
    assert [name for name, _ in rows_of(models, {("belebele_de", "acc")})][
        1
    ] == "belebele_de, acc (chance 0.25), wavers"
    assert [name for name, _ in rows_of(models)][1] == "belebele_de, acc (chance 0.25)"
    before = page(read_run(run))
    assert WAVERS not in before
    course = {str(at): one["suites"] for at, one in enumerate(models)}
    (run / OVER_TRAINING).write_text(json.dumps({"models": course}))
    text = page(read_run(run))
    assert '<th scope="row">belebele_de <small>wavers</small></th>' in text
    assert "goes to and fro" in text
    (run / OVER_TRAINING).write_text('{"models": [3]}')
    with pytest.raises(DataError, match=r"tasks-over-training\.json: cannot be read; .* writes it anew"):
        read_course(run)


def trained_run(folder: Path, **changes: Any) -> Path:
    """A training of twelve steps with all its checkpoints, in a run's folder."""
    tokenizer = byte_tokenizer(bos_token="<s>", eos_token="</s>")
    swapped = folder / "swapped" / "focus"
    tiny_llama(max_position_embeddings=256).to(torch.bfloat16).save_pretrained(swapped)
    tokenizer.save_pretrained(swapped)
    shares = [StoreShare(MemoryStore(), 1.0, "target")]
    wanted = settings(**{"checkpoint_every": 3, "keep_checkpoints": 9, "precision": "pure-bf16", **changes})
    train_model(swapped, shares, folder / "trained" / "focus", wanted, progress=lambda *_: None)
    recipe: dict[str, Any] = {
        "name": "small",
        "out": str(folder),
        "model": str(swapped),
        "corpus": {"target": ["t.txt"]},
        "swap": {"method": "focus"},
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of all weights."""
    return trained_run(tmp_path_factory.mktemp("run"))


def exported_at_checkpoints(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, torch.Tensor]]:
    """By the names of checkpoints, what the export would write when they are, filled while a run goes on."""
    found, plain = {}, Trainer.save

    def save(trainer: Trainer) -> None:
        found[folder_of(Path(), trainer.step).name] = {
            name: value.clone() for name, value in gather(trainer.model, True).items()
        }
        plain(trainer)

    monkeypatch.setattr(Trainer, "save", save)
    return found


def questions(tmp_path: Path) -> Path:
    file = tmp_path / "few.jsonl"
    items = [{"question": f"Wo ist {n}?", "choices": ["hier", f"dort {n}"], "answer": n % 2} for n in range(6)]
    file.write_text("".join(json.dumps(one) + "\n" for one in items), encoding="utf-8")
    return file


LORA = {"adapter": {"kind": "lora", "rank": 4}, "learning_rate": 3e-2}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {**LORA, "rounding": "split"},
        {**LORA, "rounding": "nearest", "precision": "mixed-bf16"},
        {**LORA, "rounding": "nearest", "precision": "fp32"},
    ],
    ids=["whole", "lora", "lora-mixed", "lora-fp32"],
)
def test_checkpoints_are_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]) -> None:
    if "adapter" in changes:
        pytest.importorskip("peft")
    exported = exported_at_checkpoints(monkeypatch)
    places = models_of_training(trained_run(tmp_path, **changes))
    assert list(places) == ["before", "step 3", "step 6", "step 9", "trained"]
    assert [is_checkpoint(folder) for folder in places.values()] == [False, True, True, True, False]
    ends: Any = {"start": places["before"], "trained": places["trained"], "device": "cpu"}
    final = load_model(places["trained"], dtype="auto").state_dict()
    names = {name.rpartition(".layers.")[2] for name in final}
    for number in (3, 6, 9, 12):
        checkpoint = places["trained"].parent / "checkpoints" / f"step-{number:08d}"
        model = model_at(checkpoint, **ends)
        found = model.state_dict()
        assert not model.training and {one.dtype for one in found.values()} == {torch.bfloat16}
        assert found.keys() == final.keys() == exported[checkpoint.name].keys()
        assert all(torch.equal(value, exported[checkpoint.name][name]) for name, value in found.items())
        # What the training ended with is the trained model; before, every kind of matrix was another.
        same = {name.rpartition(".layers.")[2] for name, value in found.items() if torch.equal(value, final[name])}
        assert same == names if number == 12 else all("norm" in name for name in same)


def test_checkpoints_of_another_model_are_refused(run: Path, tmp_path: Path) -> None:
    places = models_of_training(run)
    other: Any = tiny_llama(num_hidden_layers=1)
    with pytest.raises(MismatchError, match=r"holds `model\.layers\.1\..*`, which the trained model does not have"):
        fill(other, Reader(places["step 3"], read_state(places["step 3"])))
    pytest.importorskip("peft")
    adapted = models_of_training(trained_run(tmp_path, **LORA))
    ends: Any = {"trained": adapted["trained"], "device": "cpu"}
    with pytest.raises(MismatchError, match=r"step-00000003: holds what an adapter moved, beside other weights than"):
        model_at(adapted["step 3"], start=adapted["trained"], **ends)


def test_the_command_measures_a_training(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    common = ["evaluate", str(run), "--checkpoints"]
    result = CliRunner().invoke(app, [*common, "--suite", str(questions(tmp_path)), "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert list(found) == ["before", "step 3", "step 6", "step 9", "trained"]
    course = read_course(run)
    assert [one["few"]["acc"] for one in course] == [one["suites"]["few"]["acc"] for one in found.values()]
    assert len(course) >= FEWEST
    for wrong, said in (
        (common, "only where a suite is run"),
        ([*common, str(run), "--suite", "x"], "the folder of one run"),
        (["evaluate", str(tmp_path), "--checkpoints", "--suite", "x"], "the folder of one run"),
    ):
        failed = CliRunner().invoke(app, wrong)
        assert failed.exit_code != 0
        assert isinstance(failed.exception, ConfigError) and said in str(failed.exception)
