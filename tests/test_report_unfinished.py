"""The report of a run that has not come to its end: what is there so far, and never a traceback."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from report_run import RECIPE, held_out, make_run, results
from test_report import page_text, parsed
from typer.testing import CliRunner

from langadapt.cli.main import app
from langadapt.errors import DataError
from langadapt.report import write_report
from langadapt.report.run import read_run

STAGES = [
    *("corpus-target", "corpus-source", "tokenizer", "held-out", "fertility", "evaluate-source", "swap-focus"),
    *("evaluate-focus-swapped", "train-focus", "evaluate-focus-trained"),
]


def summaries() -> dict[str, Any]:
    """What the stages of the made-up run leave in their stamps."""
    found = results()
    rows = {f"evaluate-{row['method']}-{row['phase']}": row for row in found["rows"] if row["method"]}
    return {
        **{f"corpus-{side}": report for side, report in found["corpus"].items()},
        **{f"swap-{name}": report for name, report in found["swap"].items()},
        **{f"train-{name}": one for name, one in found["training"].items()},
        **rows,
        "evaluate-source": found["rows"][0],
        "tokenizer": {"vocab_size": 2048},
        "held-out": held_out(),
        "fertility": found["fertility"],
        "bake-off": {"rows": [{"method": "random", "target": 2.4, "source": 3.0}]},
    }


def unfinished(folder: Path, stages: list[str]) -> Path:
    """The made-up run after some of its stages, in this order."""
    make_run(folder)
    (folder / "results.json").unlink()
    (folder / "recipe.yaml").write_text(RECIPE + "compare: [keep]\n")
    shutil.rmtree(folder / "trained" / "random")
    (folder / "stages").mkdir()
    (folder / "stages" / ".hashes.json").write_text("{}")
    for number, name in enumerate(stages):
        file = folder / "stages" / f"{name}.json"
        file.write_text(json.dumps({"summary": summaries()[name], "seconds": 1.5 + number}))
        os.utime(file, (number, number))
    return folder


@pytest.mark.parametrize("count", range(len(STAGES) + 1))
def test_after_each_stage(tmp_path: Path, count: int) -> None:
    folder = unfinished(tmp_path, STAGES[:count])
    page = write_report(folder)
    parsed(page)
    text = page_text(page)
    assert "This run is not finished; `langadapt adapt` goes on".replace("`", "") in text.replace("`", "")
    assert f"Finished stages: {', '.join(STAGES[:count]) or 'none'}." in text
    assert "Training of keep: step 200, 100% of its budget." in text
    measured = count == len(STAGES)
    so_far = "Undecided: the run is not finished. So far: focus needs 2.318 bits per byte of German, 32.1 % fewer"
    assert (so_far in text) == measured and "was not measured" not in text
    assert ("Undecided: the run's own model has not been trained and measured yet" in text) != measured
    names = "training without a swap" if measured else "focus, training without a swap"
    assert f"Still to be trained and measured: {names}." in text
    assert not (folder / "report" / "MODEL_CARD.md").exists()
    assert not (folder / "trained" / "focus" / "final" / "README.md").exists()


def test_the_next_step_is_one_that_the_run_can_take(tmp_path: Path) -> None:
    def said(folder: Path) -> str:
        result = CliRunner().invoke(app, ["report", str(folder)])
        assert result.exit_code == 0, result.output
        return result.stderr

    folder = unfinished(tmp_path / "half", STAGES[:2])
    assert f"langadapt adapt {folder / 'recipe.yaml'}" in said(folder)
    assert f"langadapt generate {tmp_path / 'whole'} --prompt" in said(make_run(tmp_path / "whole"))


def test_a_prognosis_stands_where_no_outcome_does(tmp_path: Path) -> None:
    text = page_text(write_report(unfinished(tmp_path, STAGES[:8])))
    assert "Prognosis good: 29.9% fewer tokens on the target language" in text
    assert "the best of what was measured is the source model" in text


def test_a_method_that_a_bake_off_chose(tmp_path: Path) -> None:
    folder = unfinished(tmp_path, [])
    recipe = RECIPE + "swap: {method: auto}\n"
    (folder / "recipe.yaml").write_text(recipe)
    assert read_run(folder).results.method == "auto"
    (folder / "stages" / "bake-off.json").write_text(json.dumps({"summary": summaries()["bake-off"], "seconds": 1}))
    assert read_run(folder).results.method == "random"
    write_report(folder)


def test_stamps_of_another_version_and_broken_ones_are_left_out(tmp_path: Path) -> None:
    folder = unfinished(tmp_path, STAGES)
    for name, content in (
        ("evaluate-focus-trained", '{"summary": {"label": "x"}, "seconds": 1}'),
        ("held-out", '{"summary": {"target": {"more": 1}}, "seconds": 1}'),
        ("train-focus", '{"half'),
        ("other", "[]"),
    ):
        (folder / "stages" / f"{name}.json").write_text(content)
    text = page_text(write_report(folder))
    assert "Undecided" in text and "focus, before training" in text


def test_a_folder_without_stages_is_no_run(tmp_path: Path) -> None:
    make_run(tmp_path)
    (tmp_path / "results.json").unlink()
    with pytest.raises(DataError, match=r"results\.json: missing"):
        write_report(tmp_path)
