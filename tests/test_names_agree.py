"""Recipe, command line and Python call one thing by one name and give it one default."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import pytest
import typer

from langadapt import evaluate_suites, measure_bits_per_byte, train_bpe, train_vectors
from langadapt.corpus.build import BuildOptions
from langadapt.recipe.recipe import CorpusSettings, EvaluateSettings, Recipe, TokenizerSettings, VectorSettings
from langadapt.tokenizer.options import BpeOptions

NONE = (None, (), [], "")


def plain(default: Any) -> Any:
    """One value for all ways to say "none"."""
    return None if any(default is none or default == none for none in NONE) else default


def of_fields(section: Any) -> dict[str, Any]:
    values = section()
    return {field.name: plain(getattr(values, field.name)) for field in dataclasses.fields(section)}


def of_python(function: Any) -> dict[str, Any]:
    if dataclasses.is_dataclass(function):
        return of_fields(function)
    parameters = inspect.signature(function).parameters.values()
    return {one.name: plain(one.default) for one in parameters if one.default is not one.empty}


def of_command(*names: str) -> dict[str, Any]:
    from langadapt.cli.main import app

    command: Any = typer.main.get_command(app)
    for name in names:
        command = command.commands[name]
    shown = [one for one in command.params if one.param_type_name == "option" and not one.hidden and not one.required]
    return {one.opts[0].lstrip("-").replace("-", "_"): plain(one.default) for one in shown}


HOW = {"inputs", "texts", "out", "progress", "threads", "json", "shard", "counts", "source_counts"}
HOW |= {"engine", "address", "shards"}
"""Where text and results lie and how much of which machine works; a recipe says that elsewhere."""

CASES = [
    # Reading belongs to the corpus; a recipe's `path` is in place of a training.
    (CorpusSettings, ("corpus", "build"), BuildOptions, HOW, {"target", "source", "source_share", "sources"}),
    # A plain call from Python learns what the reference trainers do, without given tokens; `source` is the corpus's.
    (
        TokenizerSettings,
        ("tokenizer", "train"),
        BpeOptions,
        HOW | {"text_field", "text_unit", "strict", "code_tokens", "source", "also"},
        {"path", "code_tokens", "weights"},
    ),
    # fastText's own settings are for experiments from Python.
    (
        VectorSettings,
        ("vectors", "train"),
        train_vectors,
        HOW | {"seed", "tokenizer", "learning_rate", "subsample", "ngrams"},
        set(),
    ),
]


@pytest.mark.parametrize(("section", "command", "function", "elsewhere", "of_the_run"), CASES)
def test_a_stage_is_said_alike(section: Any, command: Any, function: Any, elsewhere: set, of_the_run: set) -> None:
    recipe, line, python = of_fields(section), of_command(*command), of_python(function)
    assert recipe.keys() - of_the_run == python.keys() - elsewhere | (recipe.keys() & {"threads"})
    assert line.keys() - elsewhere == recipe.keys() - of_the_run - elsewhere
    for name in recipe.keys() - of_the_run:
        assert recipe[name] == python[name] == line[name], name


def test_measuring_is_said_alike() -> None:
    recipe, line = of_fields(EvaluateSettings), of_command("evaluate")
    python = of_python(measure_bits_per_byte) | of_python(evaluate_suites)
    for name in ("window", "stride", "limit"):
        assert recipe[name] == python[name] == line[name], name
    assert recipe["suites"] == line["suites"]
    assert line["batch_size"] == python["batch_size"]


def test_the_size_by_position_is_the_size_by_name() -> None:
    assert of_python(train_bpe)["vocab_size"] == BpeOptions.vocab_size
    with pytest.raises(TypeError, match="unknown"):
        train_bpe(iter(["a"]), unknown=1)


def test_every_seed_is_the_same() -> None:
    seeds = [of_command("swap")["seed"], of_command("vectors", "train")["seed"], of_python(train_vectors)["seed"]]
    assert {*seeds, inspect.signature(Recipe).parameters["seed"].default} == {0}


def test_recipes_and_commands_give_code_its_tokens() -> None:
    command = of_command("tokenizer", "train")
    assert of_fields(TokenizerSettings)["code_tokens"] is True and command["code_tokens"] is True
    assert BpeOptions().code_tokens is False
