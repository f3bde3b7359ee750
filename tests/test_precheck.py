"""What cannot work is said before hours are spent."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_llama

from langadapt.errors import ConfigError, DataError
from langadapt.models.folder import context_length
from langadapt.pipeline.precheck import check_run
from langadapt.recipe.plain_values import build
from langadapt.recipe.recipe import Recipe


@pytest.fixture
def model(tmp_path: Path) -> Path:
    tiny_llama().save_pretrained(tmp_path)
    return tmp_path


def recipe(model: Path, **changes: Any) -> Recipe:
    content: dict[str, Any] = {"name": "x", "model": str(model), "out": "x", "corpus": {"target": ["x.txt"]}}
    content["train"] = {"sequence_length": 16, "batch_sequences": 2, "device": "cpu"}
    for section, values in changes.items():
        content[section] = {**content.get(section, {}), **values} if isinstance(values, dict) else values
    return build(Recipe, content, "")


def test_what_works_passes(model: Path) -> None:
    assert context_length(model) == 32
    check_run(recipe(model), model, ["focus", "keep"])


@pytest.mark.parametrize(
    ("changes", "arms", "message"),
    [
        ({"train": {"sequence_length": 64}}, ["focus"], "64 tokens exceed the model's context of 32"),
        ({"train": {"device": "gpu"}}, ["focus"], "'gpu' is no device"),
        ({}, ["focus", "men"], "unknown method 'men'; there are auto, keep, focus"),
        ({"swap": {"method": "auto", "candidates": ["fokus"]}}, ["auto"], "unknown method 'fokus'"),
        ({}, ["wechsel"], "needs `swap.words`"),
        ({"swap": {"words": ["a", "b"]}}, ["focus"], "2 files, but three are needed"),
        ({"compare": ["auto"]}, ["focus"], "name the methods to compare with"),
    ],
)
def test_what_cannot_work_is_named(model: Path, changes: dict[str, Any], arms: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_run(recipe(model, **changes), model, arms)


@pytest.mark.parametrize("method", ["focus", "auto"])
def test_a_deadline_that_is_past_is_told_unless_all_is_done(model: Path, tmp_path: Path, method: str) -> None:
    late = recipe(model, out=str(tmp_path / "run"), train={"deadline": "2020-01-01T00:00"}, swap={"method": method})
    with pytest.raises(ConfigError, match="deadline: 2020-01-01T00:00 is already past"):
        check_run(late, model, [method])
    (tmp_path / "run" / "trained" / "focus" / "final").mkdir(parents=True)
    check_run(late, model, [method])


def test_damaged_weights_are_named(model: Path) -> None:
    weights = model / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    with pytest.raises(DataError, match=r"model\.safetensors: cut short, `.*` ends at byte"):
        check_run(recipe(model), model, ["focus"])
    weights.write_bytes(whole[:100])
    with pytest.raises(DataError, match="the file is cut or no safetensors"):
        check_run(recipe(model), model, ["focus"])
    weights.unlink()
    with pytest.raises(DataError, match="missing; langadapt reads safetensors only"):
        check_run(recipe(model), model, ["focus"])


def test_no_vocabulary_of_nothing(model: Path) -> None:
    with pytest.raises(ConfigError, match=r"tokenizer\.vocab_size: -5"):
        recipe(model, tokenizer={"vocab_size": -5})


@pytest.mark.parametrize("content", ["{", "[]", "5", '{"text_config": 5}'])
def test_a_broken_configuration_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(DataError, match=r"config\.json"):
        context_length(tmp_path)


def test_a_model_that_cannot_be_swapped_is_told_before_the_first_stage(model: Path, monkeypatch) -> None:
    found = {"model.norm.weight": "computed"}, True
    monkeypatch.setattr("langadapt.models.embeddings.tables_by_id", lambda skeleton: found)
    with pytest.raises(ConfigError, match=r"`model.norm.weight` \[32\] is a table by token id"):
        check_run(recipe(model), model, ["keep", "focus"])
    check_run(recipe(model), model, ["keep"])


def test_room_for_all_copies_is_made_sure_of(model: Path, tmp_path: Path, monkeypatch) -> None:
    size = (model / "model.safetensors").stat().st_size
    room = shutil.disk_usage(tmp_path)._replace(free=3 * size - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: room)
    job = recipe(model, out=str(tmp_path / "run"))
    check_run(job, model, ["focus"])
    with pytest.raises(OSError, match="no room"):
        check_run(job, model, ["focus", "keep"])
    (tmp_path / "run" / "swapped" / "focus").mkdir(parents=True)
    check_run(job, model, ["focus", "keep"])
