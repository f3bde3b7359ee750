"""What a notebook's user calls: recipes in any form, results that print, peers' habits, errors of their kind."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import byte_tokenizer, tiny_llama
from transformers import AutoTokenizer

import langadapt
from langadapt.corpus.build import build_corpus
from langadapt.recipe.recipe import Recipe

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "hf_trainer.py"
CONTENT: dict[str, Any] = {"name": "tiny", "model": "llama3.2:1b", "out": "o", "corpus": {"target": ["absent.txt"]}}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny_llama(max_position_embeddings=128).save_pretrained(folder)
    byte_tokenizer(bos_token="<s>", eos_token="</s>").save_pretrained(folder)
    return folder


def test_a_recipe_is_taken_in_any_form(tmp_path: Path) -> None:
    recipe = Recipe.from_dict(CONTENT)
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    (tmp_path / "r.yaml").write_text(recipe.to_yaml())
    assert (
        Recipe.given(tmp_path / "r.yaml") == Recipe.given(str(tmp_path / "r.yaml")) == Recipe.given(CONTENT) == recipe
    )
    assert Recipe.given(recipe) is recipe
    with pytest.raises(langadapt.ConfigError, match="did you mean `model`"):
        Recipe.from_dict({**CONTENT, "modell": "x"})
    with pytest.raises(TypeError, match="recipe: str; pass a mapping"):
        Recipe.from_dict("r.yaml")  # type: ignore[arg-type]


@pytest.mark.parametrize("call", [langadapt.adapt, langadapt.train, langadapt.plan])
def test_what_is_no_recipe_is_a_type_error(call: Any) -> None:
    with pytest.raises(TypeError, match="recipe: int; pass a Recipe, the path of a YAML file, or a mapping"):
        call(42)
    with pytest.raises(FileNotFoundError):
        call("absent.yaml")


def test_a_plan_prints_what_it_comes_to() -> None:
    made = langadapt.plan({**CONTENT, "budget": {"gpus": "h100", "hours": 1}, "train": {"sequence_length": 1024}})
    assert isinstance(made, langadapt.Plan)
    assert f"{made.steps:,} steps, {made.tokens:,} tokens" in repr(made)
    assert "on 1 x h100-80gb" in repr(made)
    assert made._repr_html_().startswith("<pre>")


def test_a_plan_counts_tokens_as_its_tokenizer_cuts_a_sample(model: Path) -> None:
    text = Path(__file__).parent / "texts" / "german.jsonl"
    recipe = {**CONTENT, "model": str(model), "corpus": {"target": [str(text)]}, "budget": {"gpus": "h100"}}

    def per_token(**sections: Any) -> tuple[float, str]:
        made = langadapt.plan({**recipe, **sections})
        return made.text_bytes / made.tokens, repr(made)

    own, said = per_token(swap={"method": "keep"})
    assert own == pytest.approx(1.0, abs=0.01) and "bytes per token are those of a sample (1)" in said
    small, large = (per_token(tokenizer={"vocab_size": size})[0] for size in (600, 1200))
    assert 1.5 < small < large < 4.3
    # A sample bears too few entries to tell; the plan does not fall below what is usual.
    assert per_token(tokenizer={"vocab_size": 32_768})[0] >= 4.29
    assert "are assumed (4.3)" in repr(langadapt.plan({**CONTENT, "budget": {"gpus": "h100", "hours": 1}}))


def test_a_model_is_evaluated_and_the_result_prints(model: Path, tmp_path: Path) -> None:
    texts = [f"Satz Nummer {number}, nicht lang." for number in range(40)]
    found = langadapt.evaluate(model, {"de": iter(texts), "short": iter(texts[:1])})
    expected = langadapt.bits_per_byte(
        tiny_llama(max_position_embeddings=128), byte_tokenizer(bos_token="<s>", eos_token="</s>"), texts
    )
    assert found.texts["de"].bits_per_byte == pytest.approx(expected)
    assert found.model_path == model
    assert f"de: {expected:.4f} bits per byte of 40 documents" in repr(found)
    capped = langadapt.evaluate(model, iter(texts), max_bytes=100).texts["text"]
    assert 0 < capped.bytes <= 100
    with pytest.raises(langadapt.ConfigError, match="name some, or give the folder of a run"):
        langadapt.evaluate(model)
    with pytest.raises(TypeError, match="text: int; pass paths"):
        langadapt.evaluate(model, 3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="prompt: int; pass a text"):
        langadapt.generate(model, 3)  # type: ignore[arg-type]


def test_a_number_is_a_number() -> None:
    with pytest.raises(TypeError, match="vocab_size: str; pass a number"):
        langadapt.train_bpe(iter(["a b"]), "300")  # type: ignore[arg-type]
    with pytest.raises(langadapt.ConfigError, match=r"vocab_size: 300\.5 is not a number of entries"):
        langadapt.train_bpe(iter(["a b"]), 300.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="min_frequency: str; pass a number"):
        langadapt.train_bpe(iter(["a b"]), 300, min_frequency="2")


def test_a_run_is_evaluated_on_what_it_set_aside(model: Path, tmp_path: Path) -> None:
    final = tmp_path / "trained" / "focus" / "final"
    final.parent.mkdir(parents=True)
    final.symlink_to(model)
    (tmp_path / "recipe.yaml").write_text(Recipe.from_dict({**CONTENT, "target_language": "German"}).to_yaml())
    texts = [f"Satz Nummer {number}, nicht lang." for number in range(60)]
    build_corpus(texts=texts, out=tmp_path / "corpus" / "target", validation_share=0.5)
    assert {*langadapt.evaluate(tmp_path).texts} == {"German"}


def test_a_tokenizer_is_called_like_its_peers(model: Path) -> None:
    ours, theirs = langadapt.Tokenizer.from_pretrained(model), AutoTokenizer.from_pretrained(model)
    assert ours("Größe 7").input_ids == theirs("Größe 7").input_ids
    assert ours(["a", "bc"])["attention_mask"] == theirs(["a", "bc"])["attention_mask"]
    tensors = ours(["ab", "cd"], return_tensors="pt")
    assert torch.equal(tensors["input_ids"], theirs(["ab", "cd"], return_tensors="pt")["input_ids"])


@pytest.mark.filterwarnings("ignore")
def test_the_optimizer_trains_in_the_trainer_of_transformers(model: Path, tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("hf_trainer", EXAMPLE)
    assert spec is not None and spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    text = tmp_path / "text.jsonl"
    text.write_text("".join(json.dumps({"text": "to be or not to be, that is the question"}) + "\n" for _ in range(60)))
    trainer = example.main(str(model), str(text), str(tmp_path / "out"), steps=20, length=32)
    assert type(
        trainer.optimizer.optimizer if hasattr(trainer.optimizer, "optimizer") else trainer.optimizer
    ).__name__ == ("FusedAdamW")
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert losses[-1] < losses[0]
    before = langadapt.evaluate(model, str(text)).texts[str(text)].bits_per_byte
    after = langadapt.evaluate(tmp_path / "out", str(text)).texts[str(text)].bits_per_byte
    assert after < before
