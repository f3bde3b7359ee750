"""Names that a plan understands: GPUs as people spell them, models of which no weight is here."""

from __future__ import annotations

import json
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError

from langadapt.costs import devices
from langadapt.costs.flops import Shape
from langadapt.errors import ConfigError
from langadapt.models.folder import config_to_plan, resolve_model
from langadapt.models.hub import reason_of
from langadapt.models.known import KNOWN
from langadapt.planning.plan import plan_recipe
from langadapt.recipe.recipe import Recipe

PUBLISHED = {
    "smollm2:135m": 134.5e6,
    "smollm2:360m": 361.8e6,
    "gemma3:270m": 268.1e6,
    "qwen2.5:0.5b": 494e6,
    "qwen3:0.6b": 596e6,
    "gemma3:1b": 999.9e6,
    "tinyllama:1.1b": 1.1e9,
    "llama3.2:1b": 1.236e9,
    "olmo2:1b": 1.485e9,
    "qwen2.5:1.5b": 1.544e9,
    "smollm2:1.7b": 1.711e9,
    "qwen3:1.7b": 1.721e9,
    "gemma2:2b": 2.614e9,
    "qwen2.5:3b": 3.086e9,
    "llama3.2:3b": 3.213e9,
    "qwen3:4b": 4.022e9,
    "llama:7b": 6.738e9,
    "llama2:7b": 6.738e9,
    "mistral:7b": 7.242e9,
    "olmo2:7b": 7.299e9,
    "qwen2.5:7b": 7.616e9,
    "llama3:8b": 8.03e9,
    "llama3.1:8b": 8.03e9,
    "qwen3:8b": 8.191e9,
    "gemma2:9b": 9.242e9,
    "llama:13b": 13.016e9,
    "llama2:13b": 13.016e9,
    "llama2:70b": 68.977e9,
    "llama3:70b": 70.554e9,
}
"""Parameters by the models' cards and files."""


def test_known_models_have_their_published_sizes() -> None:
    assert KNOWN.keys() == PUBLISHED.keys()
    for name, model in KNOWN.items():
        assert Shape.of(model.config()).parameters == pytest.approx(PUBLISHED[name], rel=2e-3), name


@pytest.mark.parametrize(
    ("text", "count", "name"),
    [
        ("rtx4090", 1, "rtx-4090"),
        ("4090", 1, "rtx-4090"),
        ("2x4090", 2, "rtx-4090"),
        ("NVIDIA GeForce RTX 4090", 1, "rtx-4090"),
        ("a100", 1, "a100-40gb"),
        ("A100 80GB", 1, "a100-80gb"),
        ("nvidia a100-sxm4-80gb", 1, "a100-80gb"),
        ("4 x H100", 4, "h100-80gb"),
        ("24gb", 1, "24gb"),
        ("2 x 24 GB", 2, "24gb"),
    ],
)
def test_gpus_are_understood_as_people_spell_them(text: str, count: int, name: str) -> None:
    found = devices.parse(text)
    assert (found[0], found[1].name) == (count, name)


def test_a_memory_alone_is_the_least_of_the_gpus_that_have_it() -> None:
    found = devices.parse("24gb")[1]
    alike = [devices.DEVICES[name] for name in ("l4", "a10g", "rtx-3090", "rtx-4090")]
    assert found.memory == min(one.memory for one in alike)
    assert found.flops == min(one.flops for one in alike)
    assert found.bandwidth == min(one.bandwidth for one in alike)


@pytest.mark.parametrize("text", ["l40", "rtx-4091", "0 x h100", "5 gb", "", "x"])
def test_what_is_no_known_gpu_is_refused_with_near_names_and_no_long_list(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^gpus: ") as refused:
        devices.parse(text)
    assert len(str(refused.value)) < 200


def recipe_for(model: str, folder: Path, gpus: str = "h100") -> Recipe:
    text = folder / "a.txt"
    text.write_text("some words to read\n" * 1000)
    file = folder / "r.yaml"
    file.write_text(
        f"name: a\nmodel: '{model}'\nout: {folder}/o\ncorpus: {{target: [{text}]}}\nbudget: {{gpus: {gpus}}}\n"
    )
    return Recipe.from_yaml(file)


def no_network(*_: object, **__: object) -> None:
    raise LocalEntryNotFoundError("An error happened while trying to locate the files on the Hub")


def test_a_name_and_a_lone_config_plan_without_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", no_network)
    by_name = plan_recipe(recipe_for("llama3.2:1b", tmp_path))
    by_hub = plan_recipe(recipe_for("meta-llama/Llama-3.2-1B", tmp_path))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(KNOWN["llama3.2:1b"].config()))
    by_config = plan_recipe(recipe_for(str(folder), tmp_path))
    assert by_name.parameters == by_hub.parameters == by_config.parameters > 1e9
    assert by_name.best == by_hub.best == by_config.best


def test_the_hub_is_named_in_a_users_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", no_network)
    with pytest.raises(ConfigError, match=r"nobody/model is no folder here, .* cannot be reached from here, and its"):
        resolve_model("nobody/model")
    with pytest.raises(ConfigError, match=r"cannot be reached .*; to plan without it .* known shape such as `llama"):
        config_to_plan("llama-4")
    with pytest.raises(ConfigError, match=r"llama:7b is a shape to plan with; .* `model: huggyllama/llama-7b`"):
        resolve_model("llama:7b")
    with pytest.raises(ConfigError, match=r"models/absent/here: no such folder"):
        resolve_model("models/absent/here")
    assert "accept a licence" in reason_of(GatedRepoError.__new__(GatedRepoError))
    assert reason_of(RuntimeError("something else")) == "something else"


def test_those_with_24_gb_learn_what_does_fit(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"nothing fits: .* On 1 x rtx-4090 the largest known model that does is `"
    ) as no:
        plan_recipe(recipe_for("mistral:7b", tmp_path, "rtx4090"))
    named = str(no.value).split("that does is `")[1].split("`")[0]
    assert plan_recipe(recipe_for(named, tmp_path, "rtx4090")).best.fits
