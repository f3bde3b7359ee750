"""A recipe whose training diverges: measured and reported, but no success; its repair; notes before the first step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from tiny import byte_tokenizer, tiny_llama

from langadapt.cli.main import main
from langadapt.recipe.recipe import Recipe

TEXTS = Path(__file__).parent / "texts"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """Of a tiny model that is trained without a swap, at a rate that no model survives."""
    model = tmp_path / "model"
    tiny_llama(vocab=257).save_pretrained(model)
    byte_tokenizer(eos_token="<e>").save_pretrained(model)
    values = {
        "name": "lost",
        "model": str(model),
        "out": str(tmp_path / "run"),
        "corpus": {"target": [str(TEXTS / "german.jsonl")], "validation_bytes": 8000, "validation_share": 0.2},
        "tokenizer": {"vocab_size": 350},
        "swap": {"method": "keep"},
        "train": {"steps": 120, "learning_rate": 100.0, "validate_every": 4, "threads": 1, "device": "cpu"},
        "evaluate": {"bytes_while_training": 500},
    }
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(values))
    return file


def langadapt_ends(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main([*arguments])
    return int(ended.value.code or 0)


def test_a_recipe_that_diverges_is_reported_and_is_no_success(
    recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert langadapt_ends("adapt", str(recipe)) == 1
    (shown, said), run = capfd.readouterr(), tmp_path / "run"
    assert shown.startswith("No: ") and f"Report: {run}/report/index.html" in shown
    error = next(line for line in said.splitlines() if line.startswith("error: "))
    assert "training diverged" in error and "lower learning_rate first (100 here, try 0.0" in error
    # Before the first step.
    noted = [line for line in said[: said.index("step 0:")].splitlines() if line.startswith("note: ")]
    assert any("120 optimizer steps are few" in line for line in noted)
    assert any("windows have 32 tokens" in line for line in noted)
    assert any("learning_rate: 100 is" in line for line in noted)
    capfd.readouterr()
    assert langadapt_ends("plan", str(recipe)) == 0
    planned = capfd.readouterr().out
    assert all(line in planned for line in noted if "passes" not in line)

    training = json.loads((run / "results.json").read_text())["training"]["keep"]
    assert training["diverged"] in error and training["steps"] < 120 and (run / "report" / "index.html").is_file()
    # The recipe in the run's folder has numbers where the user's has none.
    kept = Recipe.from_yaml(run / "recipe.yaml").train
    assert (kept.window, kept.tokens_per_step % 32) == (32, 0) and training["tokens"] == (
        training["steps"] * kept.tokens_per_step
    )
    # The same again is no success either, and nothing is trained for it.
    log = (run / training["log"]).stat().st_mtime_ns
    assert langadapt_ends("adapt", str(recipe)) == 1 and (run / training["log"]).stat().st_mtime_ns == log
    assert langadapt_ends("train", str(recipe)) == 1
    # The repair that was named, in the same folder.
    assert langadapt_ends("adapt", str(recipe), "--set", "train.learning_rate=0.01") == 0
    repaired = json.loads((run / "results.json").read_text())["training"]["keep"]
    assert not repaired["diverged"] and repaired["steps"] == 120
    before = json.loads((run / repaired["log"]).read_text().splitlines()[0])["validation"]
    assert repaired["validation"]["bits_per_byte_target"] < 0.6 * before["bits_per_byte_target"]
