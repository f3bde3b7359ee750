"""Recipes: defaults, overrides, and errors that name the key and the remedy."""

import dataclasses
import importlib
import time
from pathlib import Path

import pytest

from langadapt.errors import ConfigError
from langadapt.recipe.plain_values import ELSEWHERE, build
from langadapt.recipe.recipe import CorpusSettings, Recipe
from langadapt.training.settings import TrainSettings

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.yaml"))
MINIMAL = "name: tiny\nmodel: m\nout: o\ncorpus: {target: [a.jsonl]}\n"


def write(folder: Path, text: str) -> Path:
    file = folder / "recipe.yaml"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_examples_are_valid(file: Path) -> None:
    assert Recipe.from_yaml(file).name == file.stem


def test_reference_page_is_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    root = EXAMPLES[0].parent.parent
    monkeypatch.syspath_prepend(str(root / ".ci"))
    page = importlib.import_module("recipe_reference").page()
    assert (root / "docs" / "recipe.md").read_text(encoding="utf-8") == page, "run `make docs`"


def test_round_trip(tmp_path: Path) -> None:
    recipe = Recipe.from_yaml(write(tmp_path, MINIMAL), ["train.steps=7", "compare=[keep]"])
    again = Recipe.from_yaml(write(tmp_path, recipe.to_yaml()))
    assert again == recipe
    assert again.train.steps == 7


def test_hours_of_the_budget_reach_the_training(tmp_path: Path) -> None:
    """As its budget where it has none, else as a limit."""

    def train(*overrides: str) -> tuple[float | None, float | None]:
        settings = Recipe.from_yaml(write(tmp_path, MINIMAL), overrides).train
        return settings.hours, settings.limit_hours

    assert train() == (None, None)
    assert train("budget.hours=48") == (48, None)
    assert train("budget.hours=48", "train.hours=48") == (48, None)
    assert train("budget.hours=48", "train.steps=100") == (None, 48)
    again = Recipe.from_yaml(write(tmp_path, MINIMAL), ["budget.hours=2"]).to_yaml()
    assert Recipe.from_yaml(write(tmp_path, again)).train.hours == 2
    with pytest.raises(ConfigError, match=r"budget.hours: 2 and train.hours: 3 differ"):
        train("budget.hours=2", "train.hours=3")
    with pytest.raises(ConfigError, match=r"budget.hours: -1.0 is not positive"):
        train("budget.hours=-1")


@pytest.mark.parametrize(
    ("overrides", "rate"),
    [
        ((), 1.2e-4),
        (("train.learning_rate=1e-3",), 3e-3),
        (("swap.method=keep",), 4e-5),
        (("train.embedding_learning_rate=null",), None),
        (("train.embedding_learning_rate=5e-5",), 5e-5),
        (("train.embedding_learning_rate=auto", "swap.method=auto"), 1.2e-4),
        (("compare=[keep]",), 1.2e-4),
    ],
)
def test_a_swap_raises_the_rate_of_embeddings_in_all_arms(
    tmp_path: Path, overrides: tuple[str, ...], rate: float | None
) -> None:
    recipe = Recipe.from_yaml(write(tmp_path, MINIMAL), overrides)
    assert recipe.train.embedding_learning_rate == rate
    assert Recipe.from_yaml(write(tmp_path, recipe.to_yaml())) == recipe


def test_rates_may_be_written_without_a_point(tmp_path: Path) -> None:
    recipe = Recipe.from_yaml(write(tmp_path, MINIMAL + "train: {learning_rate: 4e-5, steps: 1e3}\n"))
    assert recipe.train.learning_rate == 4e-5
    # YAML reads an unquoted time as one.
    timed = Recipe.from_yaml(write(tmp_path, MINIMAL + "train: {deadline: 2036-01-31T18:00:00+02:00}\n"))
    assert timed.train.deadline == "2036-01-31T18:00:00+02:00"
    assert recipe.train.steps == 1000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MINIMAL + "train: {stepz: 3}\n", "unknown key `train.stepz`; did you mean `train.steps`?"),
        (MINIMAL + "train: {steps: many}\n", "`train.steps`: expected a whole number, got a text 'many'"),
        (MINIMAL + "tokenizer: {style: wordpiece}\n", "'wordpiece' is none of 'byte_level', 'sentencepiece'"),
        (MINIMAL + "train: {optimizer: galore-adamw}\n", "`train.optimizer`: galore-adamw is gone; take `adamw`, with"),
        (
            MINIMAL + "train: {rounding: up}\n",
            "'up' is none of 'nearest', 'stochastic', 'kahan', 'split', 'split8', 'auto'",
        ),
        (
            MINIMAL + "train: {micro_batch: some}\n",
            "`train.micro_batch`: 'some' is none of 'auto' and not a whole number",
        ),
        (MINIMAL + "swap: focus\n", "`swap` is a section, but got a text"),
        ("name: tiny\nmodel: m\nout: o\n", "`corpus` is missing"),
        ("- a\n- b\n", "a recipe is a mapping"),
        ("a: [\n", "not valid YAML"),
        (MINIMAL.replace("{target: [a.jsonl]}", "{target: []}"), "corpus.target: names no text"),
        (MINIMAL.replace("]}", "], source_share: 0.5}"), "corpus.source names no text"),
    ],
)
def test_errors_name_the_place(tmp_path: Path, text: str, message: str) -> None:
    file = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        Recipe.from_yaml(file)
    assert message in str(caught.value)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("override", ["train.steps", "=3", "name.first=x"])
def test_bad_overrides(tmp_path: Path, override: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        Recipe.from_yaml(write(tmp_path, MINIMAL), [override])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: {weight_decay: -1}", "train.weight_decay: -1"),
        ("train: {max_grad_norm: 0}", "train.max_grad_norm: 0"),
        ("train: {learning_rate: .inf}", "train.learning_rate: inf"),
        ("train: {embeddings_first_steps: -1}", "train.embeddings_first_steps: -1"),
        ("tokenizer: {min_frequency: -1}", "tokenizer.min_frequency: -1"),
        ("swap: {method: focsu}", "did you mean 'focus'?"),
        ("swap: {output_method: men}", "did you mean 'mean'?"),
        ("swap: {pad_to_multiple_of: 0}", "swap.pad_to_multiple_of: 0"),
        ("vectors: {dim: 0}", "vectors.dim: 0"),
        ("vectors: {threads: 0}", "vectors.threads: 0"),
        ("compare: [kepe]", "did you mean 'keep'?"),
        ("compare: [keep, keep]", "names a method twice"),
        ("compare: [auto]", "name the methods to compare with"),
        ("seed: -1", "seed: -1"),
        ("evaluate: {bytes_while_training: 0}", "evaluate.bytes_while_training: 0"),
        ("evaluate: {stride: 0}", "evaluate.stride: 0"),
        ("budget: {gpus: many}", "many"),
        ("budget: {hours: -1}", "budget.hours: -1"),
        ("budget: {price_per_gpu_hour: -1}", "budget.price_per_gpu_hour: -1"),
        ("out: p", "line 5: `out` is there twice"),
        ("train:\n  steps: 1\n  steps: 2", "line 7: `steps` is there twice"),
    ],
)
def test_values_out_of_range_are_named_when_the_recipe_is_read(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Recipe.from_yaml(write(tmp_path, f"{MINIMAL}{text}\n"))
    assert message in str(caught.value)
    assert "recipe.yaml" in str(caught.value)


def test_empty_names(tmp_path: Path) -> None:
    for override in ("name=''", "model=''", "out=''", "corpus.target=['']"):
        with pytest.raises(ConfigError, match=override.partition("=")[0]):
            Recipe.from_yaml(write(tmp_path, MINIMAL), [override])
    with pytest.raises(ConfigError, match=r"corpus\.max_chars: 5, but at least 10"):
        Recipe.from_yaml(write(tmp_path, MINIMAL), ["corpus.min_chars=10", "corpus.max_chars=5"])


def test_keys_of_earlier_releases_are_taken_with_a_note(tmp_path, caplog) -> None:
    content = {"name": "n", "model": "m", "out": "o", "corpus": {"target": "t"}, "swap": {"calibrate": True}}
    assert build(Recipe, content, "").swap.scale_rows
    assert "`swap.calibrate` is called `swap.scale_rows` now" in caplog.text
    with pytest.raises(ConfigError, match="give one of them"):
        build(Recipe, content | {"swap": {"calibrate": True, "scale_rows": True}}, "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("compare: " + 5000 * "[" + 5000 * "]", "nested too deeply"),
        (
            "x0: &b0 {a: 1}\n"
            + "".join(f"x{n}: &b{n} {{<<: [{', '.join(10 * [f'*b{n - 1}'])}]}}\n" for n in range(1, 9)),
            "aliases",
        ),
        (
            "x0: &b0 [a]\n" + "".join(f"x{n}: &b{n} [{', '.join(10 * [f'*b{n - 1}'])}]\n" for n in range(1, 9)),
            "aliases",
        ),
        ("x: &x [*x]\n", "aliases"),
    ],
)
def test_yaml_that_stands_for_too_much_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    started = time.monotonic()
    with pytest.raises(ConfigError, match=message) as error:
        Recipe.from_yaml(file)
    assert str(file) in str(error.value) and "\n" not in str(error.value)
    assert time.monotonic() - started < 5


def test_merge_keys_and_aliases_within_reason_are_read(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(
        "name: x\nmodel: m\nout: o\ncorpus: {target: &files [a.txt], source: *files}\ntrain: &train {steps: 3}\n"
    )
    recipe = Recipe.from_yaml(file)
    assert recipe.corpus.source == ["a.txt"] and recipe.train.steps == 3


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.lr=1e-4", "unknown key `train.lr`; did you mean `train.learning_rate`?"),
        ("train.max_steps=3", "did you mean `train.steps`?"),
        ("train.warmup_ratio=3", "did you mean `train.warmup`?"),
        ("output_dir=x", "did you mean `out`?"),
        ("train.zzz=3", "valid keys: "),
    ],
)
def test_names_of_other_trainers_are_translated_and_lists_are_short(
    tmp_path: Path, override: str, message: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        Recipe.from_yaml(write(tmp_path, MINIMAL), [override])
    assert message in str(refused.value)
    assert len(str(refused.value)) < 350


def test_all_translations_lead_to_a_key() -> None:
    keys = {field.name for kind in (Recipe, TrainSettings, CorpusSettings) for field in dataclasses.fields(kind)}
    assert set(ELSEWHERE.values()) <= keys
    assert not set(ELSEWHERE) & keys


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        ("compare", ["nonsense"], "compare: unknown method"),
        ("swap.candidates", ["nonsense"], "swap.candidates: unknown method"),
        ("swap.output_method", "nonsense", "swap.output_method: unknown method"),
        ("swap.method", "x" * 10**6, "swap.method: unknown method"),
        ("model", "a\0b", "`model`: 'a\\x00b' holds a zero byte"),
        ("corpus.text_field", "a\udcff", "`corpus.text_field`: 'a\\udcff' holds a zero byte or half a character"),
        ("vectors.dim", 1 << 63, "`vectors.dim`: 9223372036854775808 is beyond"),
        ("train.threads", 10**500, "`train.threads`: "),
        ("train.compile", "x" * 10**6, "`train.compile`: expected true or false"),
        ("budget.gpus", "x" * 10**6, "budget.gpus: "),
        ("budget.gpus", "9" * 5000 + " x h100-80gb", "budget.gpus: "),
        ("budget.gpus", "0gb", "budget.gpus: "),
    ],
)
def test_values_that_nothing_has_are_named_with_their_setting(where: str, value: object, message: str) -> None:
    content = {"name": "a", "model": "b", "out": "c", "corpus": {"target": ["d"]}}
    place: dict = content
    *parents, last = where.split(".")
    for parent in parents:
        place = place.setdefault(parent, {})
    place[last] = value
    with pytest.raises(ConfigError) as caught:
        Recipe.from_dict(content)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", ["9" * 5000, "2026-13-45", "2026-01-31 25:61:00"])
def test_what_looks_like_a_number_or_a_date_and_is_none_is_one_line(tmp_path: Path, value: str) -> None:
    (tmp_path / "r.yaml").write_text(f"name: {value}\n")
    with pytest.raises(ConfigError, match=r"r\.yaml: "):
        Recipe.from_yaml(tmp_path / "r.yaml")
    (tmp_path / "r.yaml").write_text("name: a\n")
    with pytest.raises(ConfigError, match="--set seed="):
        Recipe.from_yaml(tmp_path / "r.yaml", [f"seed={value}"])
