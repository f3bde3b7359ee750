"""Questions of held-out text: right answers are the text's own, wrong ones fair, and a bad model ranks last."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from finish_kit import fresh_base, plain, train
from typer.testing import CliRunner

from langadapt import read_documents
from langadapt.errors import DataError
from langadapt.evaluation.items import WORD, make_items
from langadapt.evaluation.suites import evaluate_suites, read_questions
from langadapt.tokenizer.training import train_bpe

TEXTS = Path(__file__).parent / "texts"


@pytest.fixture(scope="module")
def german() -> list[str]:
    return list(read_documents([str(TEXTS / "german.jsonl")]))


def items_of(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{kind}.jsonl").read_text(encoding="utf-8").splitlines()]


def test_right_answers_stand_in_the_text(german: list[str], tmp_path: Path) -> None:
    report = make_items(german, tmp_path / "items", count=80)
    whole = [" ".join(text.split()) for text in german]
    assert report.items["next_paragraph"] > 20
    assert report.items["word_order"] > 60
    for kind in report.items:
        for one in items_of(tmp_path / "items", kind):
            right = one["choices"][one["answer"]]
            assert len(one["choices"]) == len(set(one["choices"])) == 4
            assert any(" ".join(right.split()) in text for text in whole), right
            # As the files of questions that `evaluate --suite` reads.
        assert len(read_questions(tmp_path / "items" / f"{kind}.jsonl")) == report.items[kind]
    answers = Counter(one["answer"] for one in items_of(tmp_path / "items", "word_order"))
    assert min(answers.values()) > 5 and len(answers) == 4


def test_wrong_answers_are_fair(german: list[str], tmp_path: Path) -> None:
    make_items(german, tmp_path / "items", count=60)
    counts = Counter(word for text in german for word in WORD.findall(text))
    for one in items_of(tmp_path / "items", "cloze"):
        words = [WORD.match(choice).group() for choice in one["choices"]]
        rest = {choice[len(word) :] for choice, word in zip(one["choices"], words, strict=True)}
        assert len(rest) == 1
        assert len({counts[word].bit_length() for word in words}) == 1
        assert len({word[0].isupper() for word in words}) == 1
        # Neither the wrong ones nor, to be copied, the right one.
        assert not set(words) & set(WORD.findall(" ".join([one["context"], one["question"], *rest])))
    for one in items_of(tmp_path / "items", "word_order"):
        assert len({tuple(sorted(choice.split())) for choice in one["choices"]}) == 1
        assert len({(choice.split()[0], choice.split()[-1]) for choice in one["choices"]}) == 1


def test_no_choice_is_right_for_being_frequent(german: list[str], tmp_path: Path) -> None:
    make_items(german, tmp_path / "items", count=1000)
    counts = Counter(word for text in german for word in WORD.findall(text))
    right, items = 0.0, items_of(tmp_path / "items", "cloze")
    for one in items:
        often = [counts[WORD.match(choice).group()] for choice in one["choices"]]
        right += (often[one["answer"]] == max(often)) / often.count(max(often))
    assert len(items) > 100
    assert right / len(items) == pytest.approx(0.25, abs=3 * (0.25 * 0.75 / len(items)) ** 0.5)


def test_the_same_text_gives_the_same_items(german: list[str], tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        make_items(german, tmp_path / name, count=20, seed=seed)
    first, again, other = ((tmp_path / name / "cloze.jsonl").read_bytes() for name in "abc")
    assert first == again != other


def test_scripts_without_spaces_and_too_little_text(tmp_path: Path) -> None:
    verse, other = "春眠不觉晓，处处闻啼鸟。夜来风雨声，花落知多少。", "白日依山尽，黄河入海流。"
    chinese = [f"{verse * 3}\n{number}{other * 8}" for number in range(9)]
    report = make_items(chinese, tmp_path / "zh", count=5)
    assert list(report.items) == ["next_paragraph"]
    assert "no spaces between words" in report.notes[0]
    with pytest.raises(DataError, match="give no item"):
        make_items(["Kurz."], tmp_path / "none")


@pytest.mark.slow
def test_random_rows_rank_last(german: list[str], tmp_path: Path) -> None:
    """A model of 0.2 M parameters that has read other German documents for a minute, against one that has not."""
    pytest.importorskip("lm_eval")
    chance = random.Random(0)
    documents = chance.sample(german, len(german))
    held_out, read = documents[:20], documents[20:]
    make_items(held_out, tmp_path / "items", count=60)
    tokenizer = train_bpe(
        texts=read, vocab_size=1000, special_tokens={"bos_token": "<|begin|>", "eos_token": "<|end|>"}
    )
    untrained = fresh_base(tmp_path / "untrained", tokenizer)
    lines = [line for text in read for line in text.split("\n") if line]
    trained = train(untrained, tmp_path / "trained", plain(lines), steps=250, rate=3e-3)
    means = {}
    for name, folder in (("untrained", untrained), ("trained", trained)):
        found = evaluate_suites(folder, folder, [tmp_path / "items"])
        means[name] = sum(metrics["acc"] for metrics in found.values()) / len(found)
        assert all(0 < metrics["acc_stderr"] < 0.2 for metrics in found.values())
    assert means["trained"] > means["untrained"] + 0.08
    assert means["untrained"] < 0.4


def test_command(tmp_path: Path) -> None:
    from langadapt.cli.main import app

    arguments = ["items", str(TEXTS / "german.jsonl"), "--out", str(tmp_path / "items"), "--count", "10"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "10 cloze" in result.output
    # Made once: another model is measured on the same ones.
    before = (tmp_path / "items" / "cloze.jsonl").stat().st_mtime_ns
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert (tmp_path / "items" / "cloze.jsonl").stat().st_mtime_ns == before
