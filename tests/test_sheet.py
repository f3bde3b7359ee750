"""The blind sheet: sides hidden and balanced, answers read back, edited ones refused, numbers as by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from langadapt.errors import ConfigError, DataError
from langadapt.evaluation.sheet import Pair, agreement_of, judge, preference_of, write_sheet

PAIRS = [Pair(f"Anfang {n}", f" erster Text {n}", f" zweiter </script> Text {n}") for n in range(10)]


def sheet_of(folder: Path, pairs: list[Pair] = PAIRS) -> tuple[dict[str, Any], dict[str, Any], str]:
    key = write_sheet(pairs, ("secret-one", "secret-two"), folder / "sheet.html", title="Welcher Text?")
    page = (folder / "sheet.html").read_text(encoding="utf-8")
    data = re.search(r'id="data">(.*?)</script>', page, re.S)
    assert data is not None
    return json.loads(data.group(1)), json.loads(key.read_text()), page


def answer(folder: Path, name: str, sheet: str, answers: dict[str, str]) -> Path:
    file = folder / name
    file.write_text(json.dumps({"sheet": sheet, "judge": name, "answers": answers}))
    return file


def test_sides_are_hidden_and_balanced(tmp_path: Path) -> None:
    data, key, page = sheet_of(tmp_path)
    assert "secret" not in page and "http" not in page.replace("<!doctype html>", "")
    assert sorted(key["left"]) == ["first"] * 5 + ["second"] * 5
    for item, pair, left in zip(data["items"], PAIRS, key["left"], strict=True):
        assert item["prompt"] == pair.prompt
        sides = [pair.first, pair.second] if left == "first" else [pair.second, pair.first]
        assert [item["left"], item["right"]] == sides
    assert sheet_of(tmp_path)[1] == key
    with pytest.raises(ConfigError, match="wrote the same"):
        write_sheet([Pair("a", "b", " b")], ("x", "y"), tmp_path / "none.html", title="t")


def test_answers_become_a_preference(tmp_path: Path) -> None:
    _, key, _ = sheet_of(tmp_path)
    left = key["left"]
    # Always for the second model, wherever it stands.
    loyal = {str(at): "left" if side == "second" else "right" for at, side in enumerate(left)}
    found = judge([answer(tmp_path, "a.json", key["sheet"], loyal)])
    assert found.preference == 1.0
    assert found.counts == {"first": 0, "second": 10, "alike": 0, "neither": 0}
    assert 0.85 < found.interval[0] < 1 and found.interval[1] == 1.0
    # A judge who always takes the left text prefers nobody.
    lazy = {str(at): "left" for at in range(10)}
    assert judge([answer(tmp_path, "b.json", key["sheet"], lazy)]).preference == 0.5
    both = judge([tmp_path / "a.json", tmp_path / "b.json"])
    assert both.judges == 2 and both.texts == 10
    assert both.agreement == 0.5
    assert found.models == ("secret-one", "secret-two")


def test_several_judges_of_a_text_are_one_text() -> None:
    votes = {0: ["second", "second", "first"], 1: ["first", "alike", "neither"]}
    found = preference_of(votes, ("a", "b"), 3)
    assert found.preference == pytest.approx((2 / 3 + 1 / 3) / 2)
    assert found.texts == 2
    assert found.detectable == pytest.approx(1.96 * 0.5 / 2**0.5)


def test_agreement_as_by_hand() -> None:
    """Krippendorff (2011), nominal data: disagreement observed over disagreement by chance."""
    votes = {0: ["a", "a"], 1: ["b", "b"], 2: ["a", "b"], 3: ["b", "b"]}
    share, alpha = agreement_of(votes)
    assert share == 0.75
    # 8 values, 3 a and 5 b: observed 2/8, expected 2*3*5/(8*7).
    assert alpha == pytest.approx(1 - (2 / 8) / (30 / 56))
    assert agreement_of({0: ["a"], 1: ["b"]}) == (None, None)
    assert agreement_of({0: ["a", "a"], 1: ["a", "a"]}) == (1.0, 1.0)


def test_sheets_edited_by_hand_are_refused(tmp_path: Path) -> None:
    _, key, _ = sheet_of(tmp_path)
    with pytest.raises(DataError, match="text '3' has the answer 'maybe'"):
        judge([answer(tmp_path, "a.json", key["sheet"], {"3": "maybe"})])
    with pytest.raises(DataError, match="text 12, but the sheet has 10"):
        judge([answer(tmp_path, "a.json", key["sheet"], {"12": "left"})])
    with pytest.raises(DataError, match="no key of this sheet"):
        judge([answer(tmp_path, "a.json", "other", {"1": "left"})])
    with pytest.raises(DataError, match="answers of 2 sheets"):
        judge([answer(tmp_path, n, s, {"1": "left"}) for n, s in (("a.json", key["sheet"]), ("b.json", "other"))])
    with pytest.raises(DataError, match="no text was judged"):
        judge([answer(tmp_path, "a.json", key["sheet"], {})])
    for name in ("-1", "01", "²", "1.5"):
        with pytest.raises(DataError, match=f"'{name}' is no text's number"):
            judge([answer(tmp_path, "a.json", key["sheet"], {name: "left"})])
    good = answer(tmp_path, "a.json", key["sheet"], {"1": "left"})
    with pytest.raises(DataError, match=r"the judge 'a\.json' is there twice"):
        judge([good, good])
    for wrong in ({"left": ["left"] * 10}, {"models": ["one"]}, {"left": None}):
        (tmp_path / "sheet.key.json").write_text(json.dumps(key | wrong))
        with pytest.raises(DataError, match=r"sheet\.key\.json: no whole key of the sheet; it was edited"):
            judge([good])
    (tmp_path / "c.json").write_text("[]")
    with pytest.raises(DataError, match=r"c.json: a JSON object is expected"):
        judge([tmp_path / "c.json"])


def test_commands(tmp_path: Path) -> None:
    from finish_kit import fresh_base

    from langadapt.cli.main import app
    from langadapt.tokenizer.training import train_bpe

    texts = Path(__file__).parent / "texts" / "german.jsonl"
    from langadapt import read_documents

    special = {"bos_token": "<|begin|>", "eos_token": "<|end|>"}
    tokenizer = train_bpe(texts=list(read_documents([str(texts)]))[:5], vocab_size=400, special_tokens=special)
    models = [
        str(fresh_base(tmp_path / "a", tokenizer)),
        str(fresh_base(tmp_path / "b", tokenizer, num_hidden_layers=1)),
    ]
    out = tmp_path / "sheet.html"
    arguments = ["sheet", *models, "--text", str(texts), "--out", str(out), "--count", "3", "--tokens", "8"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    key = json.loads((tmp_path / "sheet.key.json").read_text())
    file = answer(tmp_path, "answers.json", key["sheet"], {"0": "left", "1": "alike"})
    result = CliRunner().invoke(app, ["evaluate", "--sheet", str(file), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["texts"] == 2
    shown = CliRunner().invoke(app, ["evaluate", "--sheet", str(file)]).output
    # From 119 % on, by the formula.
    assert "preferred" in shown and "so few texts show no preference" in shown
    assert isinstance(CliRunner().invoke(app, ["evaluate"]).exception, ConfigError)
