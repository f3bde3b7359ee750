"""Model folders that transformers cannot load are named in one error."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import byte_tokenizer, tiny_llama

from langadapt import Tokenizer
from langadapt.errors import ConfigError, DataError
from langadapt.models.folder import context_length, load_model, read_generation, read_new_rows, resolve_model
from langadapt.models.skeleton import build_skeleton
from langadapt.models.weights import check_precision, read_header
from langadapt.swap.files import read_model
from langadapt.tokenizer.files import load_auto


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
    with pytest.raises(DataError, match=r"cannot load this model|not valid JSON") as caught:
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


def test_code_of_a_folder_is_neither_run_nor_asked_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(*_: object) -> str:
        raise AssertionError("the terminal was asked")

    monkeypatch.setattr("builtins.input", ask)
    tiny_llama().save_pretrained(tmp_path)
    byte_tokenizer(eos_token="<e>").save_pretrained(tmp_path)
    (tmp_path / "code.py").write_text("raise SystemExit('run')")
    config = json.loads((tmp_path / "config.json").read_text())
    code = {"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"}
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "of_mine", "auto_map": code}))
    with pytest.raises(DataError, match="code of its own, which is not run"):
        load_model(tmp_path)
    # A class that transformers has itself is taken.
    (tmp_path / "config.json").write_text(json.dumps({**config, "auto_map": code}))
    assert type(load_model(tmp_path)).__name__ == "LlamaForCausalLM"
    tokenizer = {"tokenizer_class": "MyTokenizer", "auto_map": {"AutoTokenizer": ["code.T", None]}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    with pytest.raises(DataError, match="code of its own; save it as"):
        load_auto(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", '"a"', '{"new_rows": 5}', '{"new_rows": [[1, "a"]]}', "{}"])
def test_other_files_of_a_model_are_named_when_they_are_damaged(tmp_path: Path, content: str) -> None:
    tiny_llama().save_pretrained(tmp_path)
    for name, read in (("swap.json", read_new_rows), ("generation_config.json", read_generation)):
        if content.startswith("{") and content != "{" and read is read_generation:
            continue
        (tmp_path / name).write_text(content)
        with pytest.raises(DataError, match=f"{name}: ") as caught:
            read(tmp_path)
        assert "\n" not in str(caught.value)
    (tmp_path / "config.json").write_text('{"text_config": []}')
    with pytest.raises(DataError, match="not a model's configuration"):
        context_length(tmp_path)


def test_an_adapter_beside_a_model_is_not_loaded_in_its_place(tmp_path: Path) -> None:
    tiny_llama().save_pretrained(tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "else/where", "peft_type": "LORA"}')
    for load in (load_model, build_skeleton):
        with pytest.raises(DataError, match=r"adapter_config\.json: .* merge it"):
            load(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"no model folder .* merge it into its model first"):
        resolve_model(str(tmp_path))


def test_weights_under_a_name_of_their_own_are_not_left_for_others(tmp_path: Path) -> None:
    tiny_llama().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "transformers_weights": "other.safetensors"}))
    for load in (load_model, build_skeleton):
        with pytest.raises(DataError, match=r"config\.json: names a file of weights"):
            load(tmp_path)


def change_weights(folder: Path, change: Callable[[str, torch.Tensor], torch.Tensor | None]) -> None:
    tensors = {name: change(name, tensor) for name, tensor in load_file(folder / "model.safetensors").items()}
    kept = {name: tensor.contiguous() for name, tensor in tensors.items() if tensor is not None}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})


def test_what_is_no_whole_model_is_refused_by_its_files(tmp_path: Path) -> None:
    tiny_llama().save_pretrained(tmp_path)
    read_model(tmp_path)
    change_weights(tmp_path, lambda name, tensor: None if "layers.1" in name else tensor)
    with pytest.raises(DataError, match=r"the weights lack 9 parameters of LlamaForCausalLM, .*`model\.layers\.1\."):
        read_model(tmp_path)
    tiny_llama().save_pretrained(tmp_path)
    change_weights(tmp_path, lambda name, tensor: tensor[:10] if "q_proj" in name else tensor)
    with pytest.raises(DataError, match=r"q_proj.weight` is \[10, 32\], by config.json \[32, 32\]; they"):
        read_model(tmp_path)
    with pytest.raises(DataError, match="other shapes than its config"):
        load_model(tmp_path)


def test_double_precision_is_not_quantised(tmp_path: Path) -> None:
    tiny_llama().double().save_pretrained(tmp_path)
    check_precision(tmp_path)


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
