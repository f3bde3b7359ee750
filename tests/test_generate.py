"""`langadapt generate`, and commands that take a run's folder for its trained model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from tiny import byte_tokenizer, tiny_llama
from typer.testing import CliRunner

from langadapt.cli.main import app
from langadapt.corpus.build import build_corpus
from langadapt.errors import ConfigError, MismatchError
from langadapt.machine import choose_device
from langadapt.pipeline.finished import held_out, model_of, start_of
from langadapt.pipeline.generation import generate
from langadapt.swap.rows.options import SwapOptions
from langadapt.vectors import train_vectors

RECIPE = "name: a\nmodel: m\nout: o\ntarget_language: German\ncorpus: {{target: [x]}}\nswap: {{method: {method}}}\n"


def make_model(folder: Path) -> Path:
    tiny_llama(max_position_embeddings=128).save_pretrained(folder)
    byte_tokenizer(bos_token="<s>", eos_token="</s>").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder, as far as these commands look."""
    folder = tmp_path_factory.mktemp("run")
    make_model(folder / "trained" / "focus" / "final")
    (folder / "recipe.yaml").write_text(RECIPE.format(method="auto"))
    (folder / "results.json").write_text(json.dumps({"method": "focus"}))
    texts = [f"Satz Nummer {number}, nicht lang." for number in range(100)]
    build_corpus(texts=texts, out=folder / "corpus" / "target", validation_share=0.5, validation_documents=50)
    return folder


def test_the_same_seed_writes_the_same_and_greedy_is_transformers_own(run: Path) -> None:
    model = run / "trained" / "focus" / "final"
    state = torch.random.get_rng_state()
    first = generate(model, "Es war", max_tokens=12, seed=3)
    assert first == generate(run, "Es war", max_tokens=12, seed=3)
    assert first != generate(model, "Es war", max_tokens=12, seed=4)
    assert torch.equal(state, torch.random.get_rng_state())
    tokenizer = byte_tokenizer(bos_token="<s>", eos_token="</s>")
    ids = [0, *tokenizer("Es war", add_special_tokens=False)["input_ids"]]
    loaded, given = tiny_llama(max_position_embeddings=128), torch.tensor([ids])
    for _ in range(5):
        given = torch.cat([given, loaded(given).logits[:, -1:].argmax(-1)], 1)
    expected = tokenizer.decode(given[0, len(ids) :], skip_special_tokens=True)
    assert generate(model, "Es war", max_tokens=5, temperature=0) == expected


def test_nothing_of_the_models_own_generation_config_goes_on(run: Path, tmp_path: Path) -> None:
    model, copy = run / "trained" / "focus" / "final", tmp_path / "copy"
    plain = generate(model, "Es war", max_tokens=12, temperature=0)
    own = {
        "num_beams": 3,
        "repetition_penalty": 50.0,
        "no_repeat_ngram_size": 1,
        "stop_strings": ["a"],
        "max_length": 2,
    }
    for content in (own, {"num_beams": 0}, {"return_dict_in_generate": True}):
        shutil.copytree(model, copy, dirs_exist_ok=True)
        (copy / "generation_config.json").write_text(json.dumps(content))
        assert generate(copy, "Es war", max_tokens=12, temperature=0) == plain


def test_what_is_streamed_is_what_is_returned(run: Path) -> None:
    pieces: list[str] = []
    text = generate(run, "Es war", max_tokens=20, seed=1, stream=pieces.append)
    assert "".join(pieces) == text
    assert isinstance(generate(run, max_tokens=3), str)
    result = CliRunner().invoke(app, ["generate", str(run), "--prompt", "Es war", "--max-tokens", "20", "--seed", "1"])
    assert result.exit_code == 0, result.output
    assert result.stdout == f"Es war{text}\n"


def test_numbers_out_of_range_and_runs_that_are_not_over(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="max_tokens: 0"):
        generate(run, "a", max_tokens=0)
    with pytest.raises(ConfigError, match="temperature: -1"):
        generate(run, "a", temperature=-1)
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(method="focus"))
    with pytest.raises(ConfigError, match=r"its training is not over; go on with `langadapt adapt .*recipe.yaml`"):
        model_of(tmp_path)
    result = CliRunner().invoke(app, ["generate", str(tmp_path), "--prompt", "Es war"])
    assert isinstance(result.exception, ConfigError) and result.stdout == ""


@pytest.mark.parametrize("seed", [-1, 2**63, 2**64])
def test_seeds_that_no_generator_takes(run: Path, tmp_path: Path, seed: int) -> None:
    for use in (
        lambda: generate(run, "x", seed=seed),
        lambda: SwapOptions(seed=seed),
        lambda: train_vectors(tmp_path, seed=seed),
    ):
        with pytest.raises(ConfigError, match=rf"seed: {seed} is not in \[0, 2\*\*63\)"):
            use()


def test_a_prompt_of_another_models_tokenizer(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "trained" / "focus" / "final", tmp_path / "copy")
    more = {f"{role}_token": f"<{role}>" for role in ("bos", "eos", "unk", "pad", "cls", "sep", "mask")}
    byte_tokenizer(**more).save_pretrained(tmp_path / "copy")
    with pytest.raises(MismatchError, match="gives id 262, but the model has 260 embedding rows"):
        generate(tmp_path / "copy", "a\N{SOFT HYPHEN}")


@pytest.mark.parametrize("name", ["meta", "hpu", "vulkan", "privateuseone", "xla"])
def test_devices_that_are_not_there(name: str) -> None:
    with pytest.raises(ConfigError, match=f"device: {name} cannot be used here"):
        choose_device(name)


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda:1") == "cuda:1"
    with pytest.raises(ConfigError, match="cuda:2, but torch sees 2 GPUs"):
        choose_device("cuda:2")


def test_a_training_on_conversations_is_a_run(tmp_path: Path) -> None:
    start, run = make_model(tmp_path / "start"), tmp_path / "run"
    run.mkdir()
    recipe = {"name": "c", "model": str(start), "out": "o", "corpus": {"target": ["x"]}, "train": {"data": "chat"}}
    (run / "recipe.yaml").write_text(json.dumps(recipe))
    with pytest.raises(ConfigError, match=r"its training is not over; go on with `langadapt train .*recipe.yaml`"):
        model_of(run)
    final = make_model(run / "trained" / "chat" / "final")
    assert model_of(run) == final
    assert start_of(run, final) == start


def test_a_run_is_evaluated_on_what_it_set_aside(run: Path) -> None:
    assert {*held_out(run)} == {"German"}
    result = CliRunner().invoke(app, ["evaluate", str(run), "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)[str(run)]["bits_per_byte"]["German"]
    assert found["documents"] == 50


def test_text_is_capped_and_that_is_said(run: Path) -> None:
    result = CliRunner().invoke(app, ["evaluate", str(run), "--max-bytes", "200", "--json"])
    found = json.loads(result.stdout)[str(run)]["bits_per_byte"]["German"]
    assert 100 < found["bytes"] <= 200
    assert f"German: measured on its first {found['bytes']} B; --max-bytes 0" in " ".join(result.stderr.split())
    whole = CliRunner().invoke(app, ["evaluate", str(run), "--max-bytes", "0", "--json"])
    assert "measured on its first" not in whole.stderr
    assert json.loads(whole.stdout)[str(run)]["bits_per_byte"]["German"]["documents"] == 50


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--text", "x.txt", "--limit", "3"], "--limit: does something only where a suite is run"),
        (["--suite", "x.jsonl", "--max-bytes", "3"], "--max-bytes: does something only where text is measured"),
        (["--suite", "x.jsonl", "--window", "3"], "--window: does something only where text is measured"),
    ],
)
def test_options_that_would_do_nothing_are_refused(run: Path, arguments: list[str], message: str) -> None:
    model = run / "trained" / "focus" / "final"
    result = CliRunner().invoke(app, ["evaluate", str(model), *arguments])
    assert isinstance(result.exception, ConfigError)
    assert message in str(result.exception)
