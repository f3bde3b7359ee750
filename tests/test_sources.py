"""Many sources: shares, limits, pairs, and what is said of each in log, results, report and card."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_pipeline_flow import TEXTS, recipe

from langadapt.corpus.documents import read_documents
from langadapt.errors import ConfigError, LangadaptError
from langadapt.pipeline import adapt
from langadapt.pipeline.aligned import pairs_as_documents
from langadapt.pipeline.dry_run import stages
from langadapt.pipeline.precheck import check_run
from langadapt.recipe.recipe import Recipe

__all__ = ["recipe"]  # the fixture

PAIRS = TEXTS / "parallel.jsonl"
GERMAN, ENGLISH = str(TEXTS / "german.jsonl"), str(TEXTS / "english.jsonl")


def sources(tmp_path: Path) -> dict[str, Any]:
    """Two texts of the target language, one of the source's, pairs."""
    half = tmp_path / "half.jsonl"
    half.write_text("".join(Path(GERMAN).read_text("utf-8").splitlines(keepends=True)[:30]), "utf-8")
    return {
        "validation_bytes": 8000,
        "validation_share": 0.2,
        "sources": [
            {"name": "english", "paths": [ENGLISH], "language": "source", "share": 0.25},
            {"name": "news", "paths": [GERMAN], "share": 0.25},
            {"name": "books", "paths": [str(half)], "share": 0.25, "max_repeats": 0.04},
            {"name": "pairs", "paths": [str(PAIRS)], "kind": "pairs", "share": 0.25},
        ],
    }


def test_a_run_on_four_sources(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    train = {"steps": 20, "sequence_length": 32, "batch_sequences": 4, "threads": 1, "device": "cpu", "log_every": 1}
    weights = {"news": 0.5, "english": 0.3, "pairs": 0.2}
    wanted = recipe(
        corpus=sources(tmp_path),
        train=train | {"checkpoint_every": 5, "validate_every": 10},
        tokenizer={"vocab_size": 350, "weights": weights},
        swap={"method": "focus"},
    )
    results = adapt(wanted)
    run = Path(wanted.out)
    names = {"news", "books", "english", "pairs"}
    assert set(results["corpus"]) == names and {path.name for path in (run / "corpus").iterdir()} == names
    entered = {file.stem for file in (run / "stages").glob("[!.]*.json")}
    assert entered == set(stages(wanted))
    trained = results["rows"][-1]
    assert set(trained["bits_per_byte"]) == names | {"target", "source"}
    sizes = {name: results["held_out"][name]["document_bytes"] for name in ("target", "source", "pairs")}
    bits = trained["document_bits"]["target"]
    assert trained["bits_per_byte"]["target"] == pytest.approx(sum(bits) / sum(sizes["target"]), rel=1e-4)
    assert min(trained["bits_per_byte"][name] for name in ("news", "books")) <= trained["bits_per_byte"]["target"]
    assert trained["bits_per_byte"]["source"] == pytest.approx(trained["bits_per_byte"]["english"])
    lines = [json.loads(line) for line in (run / results["training"]["focus"]["log"]).read_text("utf-8").splitlines()]
    seen = set().union(*(line["loss_by_source"] for line in lines if "loss_by_source" in line))
    assert seen == names and set().union(*(line["bits_per_byte"] for line in lines if "loss" in line)) == names
    validation = next(line["validation"] for line in lines if "validation" in line)
    assert {f"bits_per_byte_{name}" for name in names | {"target", "source"}} == set(validation)
    passes = results["training"]["focus"]["epochs"]
    assert 0 < passes["books"] <= 0.04 and passes["news"] > 0
    page, card = ((run / "report" / name).read_text("utf-8") for name in ("index.html", "MODEL_CARD.md"))
    assert "bits per byte before" in page and all(f">{name}</th>" in page for name in names)
    assert "- books: " in card and "25 % of the training" in card
    again = adapt(wanted)
    assert again["training"] == results["training"] and again["rows"] == results["rows"]


def test_pairs_are_documents_in_alternating_order(tmp_path: Path) -> None:
    lines = [json.loads(line) for line in PAIRS.read_text("utf-8").splitlines()]
    found = list(pairs_as_documents([str(PAIRS)]))
    assert found[:2] == [f"{lines[0]['source']}\n{lines[0]['target']}", f"{lines[1]['target']}\n{lines[1]['source']}"]
    assert len(found) == len(lines)
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"source": "a", "target": "b"}\n{"source": "a"}\n', "utf-8")
    with pytest.raises(LangadaptError, match=r"broken\.jsonl:2"):
        list(pairs_as_documents([str(broken)]))


def test_the_shorthand_is_two_sources(recipe: Callable[..., Recipe]) -> None:
    texts = recipe().corpus.texts
    assert [(one.name, one.language, one.share, one.paths) for one in texts] == [
        ("target", "target", 0.75, [GERMAN]),
        ("source", "source", 0.25, [ENGLISH]),
    ]


def one(name: str, share: float, **changes: Any) -> dict[str, Any]:
    return {"name": name, "paths": [GERMAN], "share": share, **changes}


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "sum": ({"sources": [one("a", 0.5), one("b", 0.4)]}, r"shares sum to 0.9, not 1: 0.5 \(a\) \+ 0.4 \(b\)"),
    "twice": ({"sources": [one("a", 0.5), one("a", 0.5)]}, "two are named 'a'"),
    "both": ({"sources": [one("a", 1.0)], "target": [GERMAN]}, "both set"),
    "side": ({"sources": [one("source", 1.0)]}, "is the name of a language"),
    "side twice": ({"sources": [one("target", 0.5), one("b", 0.5)]}, "stands for all text of that language"),
    "limits": ({"sources": [one("a", 1.0, max_repeats=4)]}, "text may run out"),
    "key": ({"sources": [one("a", 1.0, repeats=4)]}, "unknown key `corpus.sources.repeats`; did you mean"),
    "language": ({"sources": [one("a", 1.0, language="tagret")]}, "'tagret' is none of 'target'"),
    "no target": ({"sources": [one("a", 1.0, language="source")]}, "no text of `language: target` has a share"),
    "empty": ({"sources": [{"name": "a", "paths": [], "share": 1.0}]}, "paths name no text"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_go_together_is_one_line(case: str, recipe: Callable[..., Recipe]) -> None:
    corpus, message = BAD[case]
    with pytest.raises(ConfigError, match=message) as refused:
        recipe(corpus=corpus)
    assert "\n" not in str(refused.value)


def test_weights_name_sources(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    for weights, message in (
        ({"news": 0.5, "boks": 0.5}, "no source is named 'boks'; there are news, books, english, pairs"),
        ({"news": 0.5}, "sum to 0.5, not 1"),
    ):
        with pytest.raises(ConfigError, match=message):
            recipe(corpus=sources(tmp_path), tokenizer={"weights": weights})


def test_a_source_that_filters_leave_empty_is_named(recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    corpus = sources(tmp_path)
    longest = max(len(text) for text in read_documents([GERMAN]))
    with pytest.raises(LangadaptError, match="corpus, pairs: ") as refused:
        adapt(recipe(corpus=corpus | {"min_chars": 300}))
    assert "\n" not in str(refused.value) and longest > 300
    # A file that is not there is found before anything is made.
    corpus["sources"][1]["paths"] = [str(tmp_path / "none.jsonl")]
    wanted = recipe(corpus=corpus)
    with pytest.raises(FileNotFoundError):
        check_run(wanted, Path(wanted.model), ["focus"])
