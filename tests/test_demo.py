"""The demo: its text is what its sources say, and its recipe sets enough of it aside to tell models apart."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml

import langadapt.demo
from langadapt import ConfigError, build_corpus, read_documents
from langadapt.demo.sample import write_sample
from langadapt.pipeline.text import read_aligned
from langadapt.recipe.plain_values import build
from langadapt.recipe.recipe import Recipe

FOLDER = Path(str(files(langadapt.demo)))
TEXTS = FOLDER / "texts"
LANGUAGES = ("english", "spanish")


@pytest.fixture(scope="module")
def settings() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((FOLDER / "demo.yaml").read_text(encoding="utf-8"))
    return loaded


def test_the_text_is_had_as_files(tmp_path: Path) -> None:
    spanish, english = write_sample(tmp_path)
    assert (spanish, english) == (tmp_path / "spanish", tmp_path / "english")
    for folder in (spanish, english):
        ours = TEXTS / f"{folder.name}.jsonl.zst"
        assert list(read_documents([str(folder)])) == list(read_documents([str(ours)]))
        assert "public domain" in (folder / "SOURCES.md").read_text(encoding="utf-8")
    (tmp_path / "mine").write_text("stays", encoding="utf-8")
    assert write_sample(tmp_path) == [spanish, english] and (tmp_path / "mine").exists()
    (spanish / "text.jsonl.zst").write_text("of somebody's own", encoding="utf-8")
    with pytest.raises(ConfigError, match="is there already, with other content"):
        write_sample(tmp_path)
    assert (spanish / "text.jsonl.zst").read_text(encoding="utf-8") == "of somebody's own"


def test_text_is_as_much_as_its_sources_say() -> None:
    sources = (TEXTS / "SOURCES.md").read_text(encoding="utf-8")
    for language in LANGUAGES:
        texts = list(read_documents([str(TEXTS / f"{language}.jsonl.zst")]))
        size = sum(len(text.encode()) for text in texts) / 1e6
        assert f"{len(texts):,} of {language.capitalize()} ({size:.2f} MB)" in sources
        assert len({*texts}) == len(texts)
        assert not any(mark in text for text in texts for mark in "<>{}[]")
    assert sources.count("public domain") >= 3
    assert sum(file.stat().st_size for file in TEXTS.iterdir()) < 1.2e6


def test_enough_is_set_aside_and_nobody_trains_on_it(settings: dict[str, Any], tmp_path: Path) -> None:
    options = {name: value for name, value in settings["recipe"]["corpus"].items() if name != "source_share"}
    # The source model leaves out what the recipe measures on.
    assert options == settings["source_model"]["corpus"]
    for language in LANGUAGES:
        report = build_corpus([str(TEXTS / f"{language}.jsonl.zst")], tmp_path / language, **options)
        assert report.validation["documents"] >= 100
        assert report.train["bytes"] > 1.7e6
        kept = {*read_documents([str(tmp_path / language / "train.jsonl.zst")])}
        assert kept.isdisjoint(read_documents([str(tmp_path / language / "validation.jsonl.zst")]))


def test_its_recipe_is_one(settings: dict[str, Any]) -> None:
    recipe = settings["recipe"]
    corpus = {**recipe["corpus"], "target": ["a"], "source": ["b"]}
    built = build(Recipe, {**recipe, "model": "m", "out": "o", "corpus": corpus}, "")
    assert built.corpus.source_share == 0.3
    assert built.compare == ["keep", "random"]
    assert built.train.keep == "best"


def test_aligned_verses_are_pairs_that_nobody_trains_on() -> None:
    sides = read_aligned(TEXTS / "parallel.jsonl")
    assert len(sides["source"]) == len(sides["target"]) == 240
    whole = {
        side: " ".join(read_documents([str(TEXTS / f"{name}.jsonl.zst")]))
        for side, name in zip(sides, LANGUAGES, strict=True)
    }
    long = [pair for pair in zip(*sides.values(), strict=True) if min(map(len, pair)) > 60]
    assert len(long) > 150
    assert not any(english in whole["source"] or spanish in whole["target"] for english, spanish in long)
    assert json.loads((TEXTS / "parallel.jsonl").read_text(encoding="utf-8").splitlines()[0]).keys() == {
        "source",
        "target",
    }
