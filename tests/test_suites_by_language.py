"""`suites: auto`: which tasks there are for a language, by code or name; nearest ones for a wrong name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from langadapt.errors import ConfigError
from langadapt.evaluation import by_language, suites
from langadapt.evaluation.by_language import families, language_of, languages, tasks_for
from langadapt.recipe.recipe import Recipe

KNOWN = [
    "belebele_deu_Latn",
    "belebele_swh_Latn",
    "global_piqa_nonparallel_cloze_swh_latn",
    "sib_swa_prompt_1",
    "afrixnli_swa_prompt_1",
    "afrixnli_yor_prompt_1",
    "include_base_44_german",
    "global_mmlu_de",
    "global_mmlu_full_de",
    "global_mmlu_full_sw",
    "m_mmlu_de",
    "xnli_de",
    "xnli_sw",
    "multiblimp_deu",
]

SWAHILI = [
    "global_piqa_nonparallel_cloze_swh_latn",
    "belebele_swh_Latn",
    "xnli_sw",
    "sib_swa_prompt_1",
    "global_mmlu_full_sw",
]


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        ("deu_Latn", "deu_Latn"),
        ("German", "deu_Latn"),
        ("deutsch", "deu_Latn"),
        ("de", "deu_Latn"),
        ("swa", "swh_Latn"),
        ("Kiswahili", "swh_Latn"),
        ("العربية", "arb_Arab"),
        ("zho-Hant", "zho_Hant"),
        ("no", "nob_Latn"),
    ],
)
def test_codes_and_names(wanted: str, code: str) -> None:
    assert language_of(wanted).code == code


@pytest.mark.parametrize(("wrong", "near"), [("Suahili", "swh_Latn (Swahili)"), ("deu_Lat", "deu_Latn (German)")])
def test_a_wrong_one_names_the_nearest(wrong: str, near: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(near)):
        language_of(wrong)


def test_every_language_is_told_by_its_file() -> None:
    assert len(languages()) > 130
    for language in languages():
        assert re.fullmatch("[a-z]{3}_[A-Z][a-z]{3}", language.code)
        assert language_of(language.code) == language
        assert all(isinstance(name, str) and name for name in (*language.names, *language.codes)), language
    names = [name.lower() for language in languages() for name in language.names]
    assert len(names) == len(set(names))


def test_tasks_in_the_order_of_their_worth() -> None:
    found = tasks_for("auto:German", KNOWN)
    names = [task.name for task in found]
    # Of translated school knowledge the better one alone.
    assert names == ["include_base_44_german", "belebele_deu_Latn", "multiblimp_deu", "xnli_de", "global_mmlu_de"]
    assert {task.name: task.chance for task in found}["xnli_de"] == pytest.approx(1 / 3, abs=1e-3)
    assert [task.name for task in tasks_for("auto:sw", KNOWN)] == SWAHILI
    # Where there is no XNLI, what others translated of it.
    assert [task.name for task in tasks_for("auto:Yoruba", KNOWN)] == ["afrixnli_yor_prompt_1"]
    with pytest.raises(ConfigError, match="no task for Waray"):
        tasks_for("auto:war_Latn", KNOWN)
    with pytest.raises(ConfigError, match="of which language"):
        tasks_for("auto", KNOWN)


def test_patterns_say_what_they_need() -> None:
    for family in families():
        assert set(re.findall(r"{(\w+)}", family["task"])) <= {"code", "lower", "short", "name"}
        assert 0 <= family["chance"] < 1
        assert family["about"]


def test_chance_stands_beside_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    class Harness:
        @staticmethod
        def known_tasks() -> list[str]:
            return KNOWN

        @staticmethod
        def run(
            model: Any, tokenizer: Any, wanted: Any, **_: Any
        ) -> tuple[dict[str, dict[str, float]], dict[str, Any]]:
            return {name: {"acc,none": 0.4} for _, name, _ in wanted}, {}

    monkeypatch.setattr(suites, "need_harness", lambda: Harness)
    monkeypatch.setattr(suites, "loaded_model", lambda _: type("Model", (), {"modules": lambda self: ()})())
    monkeypatch.setattr(suites, "loaded_tokenizer", lambda _: None)
    found = suites.evaluate_suites("m", "t", ["auto:swh_Latn"])
    assert found["belebele_swh_Latn"] == {"acc": 0.4, "chance": 0.25}
    assert list(found) == SWAHILI


def test_a_recipe_takes_its_own_language(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    text = "name: a\nmodel: m\nout: o\ncorpus: {target: [x]}\ntarget_language: Swahili\nevaluate: {suites: [auto]}\n"
    recipe.write_text(text)
    assert Recipe.from_yaml(recipe).evaluate.suites == ["auto:Swahili"]
    recipe.write_text(text.replace("Swahili", "Suahili"))
    with pytest.raises(ConfigError, match="Swahili"):
        Recipe.from_yaml(recipe)


@pytest.mark.slow
def test_the_installed_lm_eval_has_them() -> None:
    harness = pytest.importorskip("langadapt.evaluation.harness")
    known = harness.known_tasks()
    for code, at_least in (("deu_Latn", 10), ("arb_Arab", 9), ("swh_Latn", 7), ("yor_Latn", 4)):
        assert len(tasks_for(f"auto:{code}", known)) >= at_least
    # No pattern is left without any language.
    spelt = {
        name for one in languages() for family in families() for name in by_language.spellings(family["task"], one)
    }
    for family in families():
        start = family["task"].partition("{")[0]
        assert any(name.startswith(start) for name in spelt & set(known)), family
