"""Model folders that transformers cannot load are named in one error."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny import tiny_llama

from langadapt import Tokenizer
from langadapt.errors import DataError
from langadapt.models.folder import load_model, resolve_model
from langadapt.models.weights import read_header


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def pickled_weights(folder: Path) -> None:
    torch.save(tiny_llama().state_dict(), folder / "pytorch_model.bin")
    no_weights(folder)


def half_the_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])


def unknown_architecture(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "nope"}')


def broken_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


@pytest.mark.parametrize("damage", [no_weights, pickled_weights, half_the_weights, unknown_architecture, broken_config])
def test_a_damaged_model_is_named(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    tiny_llama().save_pretrained(tmp_path)
    damage(tmp_path)
    with pytest.raises(DataError, match="cannot load this model") as caught:
        load_model(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("header", [[], {"a": 5}, {"a": {"dtype": "F32"}}, {"__metadata__": []}], ids=str)
def test_a_header_without_tensors_is_named(tmp_path: Path, header: object) -> None:
    content = json.dumps(header).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(content)) + content)
    with pytest.raises(DataError, match=r"a\.safetensors: not a safetensors file"):
        read_header(tmp_path / "a.safetensors")


def test_parameters_are_never_drawn_at_random(tmp_path: Path) -> None:
    model = tiny_llama()
    model.save_pretrained(tmp_path)
    load_model(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["num_hidden_layers"] += 1
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match=r"the weights lack \d+ parameters of LlamaForCausalLM"):
        load_model(tmp_path)


def test_tied_models_lack_nothing(tmp_path: Path) -> None:
    model = tiny_llama()
    model.config.tie_word_embeddings = True
    model.tie_weights()
    model.save_pretrained(tmp_path)
    assert load_model(tmp_path).lm_head.weight.shape == model.lm_head.weight.shape


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "tokenizer.model"])
def test_a_clone_without_git_lfs_is_called_one(tmp_path: Path, name: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert resolve_model(str(tmp_path)) == tmp_path
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 12345\n")
    with pytest.raises(DataError, match=rf"{name}: a pointer of Git LFS .*git lfs pull"):
        resolve_model(str(tmp_path))
    if name.startswith("tokenizer"):
        with pytest.raises(DataError, match=rf"{name}: a pointer of Git LFS"):
            Tokenizer.from_pretrained(tmp_path)
