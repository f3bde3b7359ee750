"""What cannot work is said before hours are spent."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import byte_tokenizer, tiny_llama
from transformers import BertConfig, BertLMHeadModel, MambaConfig, MambaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from langadapt import tokenize_corpus
from langadapt.errors import ConfigError, DataError, LangadaptError
from langadapt.models.folder import context_length
from langadapt.pipeline.precheck import check_run
from langadapt.recipe.plain_values import build
from langadapt.recipe.recipe import Recipe
from langadapt.training import StoreShare, TrainSettings, train_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    tiny_llama().save_pretrained(tmp_path)
    byte_tokenizer(eos_token="<e>").save_pretrained(tmp_path)
    (tmp_path / "text.txt").write_text("Ein Satz.\nNoch einer.\n")
    return tmp_path


def recipe(model: Path, **changes: Any) -> Recipe:
    content: dict[str, Any] = {"name": "x", "model": str(model), "out": "x"}
    content["corpus"] = {"target": [str(model / "text.txt")]}
    content["train"] = {"sequence_length": 16, "batch_sequences": 2, "device": "cpu"}
    for section, values in changes.items():
        content[section] = {**content.get(section, {}), **values} if isinstance(values, dict) else values
    return build(Recipe, content, "")


def test_what_works_passes(model: Path) -> None:
    assert context_length(model) == 32
    check_run(recipe(model), model, ["focus", "keep"])


@pytest.mark.parametrize(
    ("changes", "arms", "message"),
    [
        ({"train": {"sequence_length": 64}}, ["focus"], "64 tokens exceed the model's context of 32"),
        ({"train": {"device": "gpu"}}, ["focus"], "'gpu' is no device"),
        ({}, ["focus", "men"], "unknown method 'men'; there are auto, keep, focus"),
        ({"swap": {"method": "auto", "candidates": ["fokus"]}}, ["auto"], "unknown method 'fokus'"),
        ({}, ["wechsel"], "needs `swap.words`"),
        ({"swap": {"words": ["a", "b"]}}, ["focus"], "2 files, but three are needed"),
        ({"compare": ["auto"]}, ["focus"], "name the methods to compare with"),
        ({"train": {"adapter": {"rank": 0}}}, ["focus"], r"train\.adapter\.rank: 0 is no positive whole number"),
        ({"train": {"adapter": {"kind": "dora"}}}, ["focus"], "'dora' is none of 'lora', 'qlora'"),
        ({"train": {"adapter": {}, "parts": "embeddings"}}, ["focus"], r"train\.adapter: `parts: embeddings` leaves"),
        ({"train": {"adapter": {}, "norms_in_fp32": True}}, ["focus"], r"train\.adapter: norms are not trained"),
    ],
)
def test_what_cannot_work_is_named(model: Path, changes: dict[str, Any], arms: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_run(recipe(model, **changes), model, arms)


MISSING = Path("/no/such/place")
LATE: dict[str, tuple[dict[str, Any], str]] = {
    "target text": ({"corpus": {"target": [str(MISSING)]}}, "No such file"),
    "source text": ({"corpus": {"source": [str(MISSING / "*.txt")]}}, "no file matches this pattern"),
    "stream without its package": ({"corpus": {"target": ["hf:wikipedia"]}}, "needs the package `datasets`"),
    "stream beside a file": ({"corpus": {"target": ["hf:wikipedia", "a.txt"]}}, "cannot be mixed"),
    "tokenizer": ({"tokenizer": {"path": str(MISSING)}}, "No such folder"),
    "tokenizer to copy": ({"tokenizer": {"like": str(MISSING)}}, "No such folder"),
    "words": ({"swap": {"method": "wechsel", "words": [str(MISSING)] * 3}}, "No such file"),
    "words of the output matrix": ({"swap": {"output_method": "wechsel"}}, "needs `swap.words`"),
    "helper": ({"swap": {"method": "clp", "helper": str(MISSING)}}, "no such folder|no model folder"),
    "window": ({"evaluate": {"window": 64}}, "window: 64 tokens is not within 1 and the model's context of 32"),
    "stride": ({"evaluate": {"window": 16, "stride": 20}}, "stride: 20 tokens is not within 1 and the window of 16"),
    "suite": ({"evaluate": {"suites": ["german/arc.jsonl"]}}, "no such file or folder"),
    "suite twice": ({"evaluate": {"suites": ["arc", "arc"]}}, "asked for twice"),
    "lm-eval": ({"evaluate": {"suites": ["german"]}}, "suites need lm-eval"),
    "parallel text": ({"evaluate": {"parallel": str(MISSING)}}, "No such file"),
    "foreign text": ({"corpus": {"foreign": [str(MISSING)]}}, "No such file"),
    "start of documents": ({"train": {"document_start": "bos"}, "compare": ["keep"]}, "tokenizer has no BOS"),
    "store of checkpoints": ({"train": {"checkpoints_url": "hf://me/x"}}, "folders go to s3://, gs:// or az://"),
    "8-bit optimizer": ({"train": {"optimizer": "adamw-8bit"}}, "needs `torchao` or `bitsandbytes`"),
    "TensorBoard": ({"train": {"tensorboard": True}}, "the package `tensorboard` is missing"),
    "W&B": ({"train": {"wandb_project": "x"}}, "`wandb` is missing"),
    "flash attention": ({"train": {"attention": "flash"}}, "attention: flash needs a GPU"),
    "fused loss": ({"train": {"loss_chunk": "fused"}}, "fused needs a GPU"),
    "PEFT": ({"train": {"adapter": {}}}, "adapter: lora needs the package `peft`; pip install peft"),
    "4 bits": ({"train": {"adapter": {"kind": "qlora"}}}, r"qlora .* on a GPU \(CUDA\), but the device is cpu"),
    "layers": ({"train": {"adapter": {"targets": ["q_prj"]}}}, "has no linear layer 'q_prj'; did you mean `q_proj`"),
    "rank": ({"train": {"adapter": {"rank": 33}}}, r"rank: 33 is above \d+, the smaller side of `model\.layers"),
    "Liger": ({"train": {"loss_chunk": "liger"}}, "needs the package `liger-kernel`"),
}
"""What stages, tens of minutes or days later, refuse in the same words."""
PACKAGES = ("datasets", "lm_eval", "torchao", "bitsandbytes", "wandb", "torch.utils.tensorboard")


@pytest.mark.parametrize("case", LATE)
def test_what_later_stages_refuse_is_refused_before_the_first(
    case: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes, message = LATE[case]
    for package in (*PACKAGES, "langadapt.evaluation.harness"):
        monkeypatch.setitem(sys.modules, package, None)
    # Where another test has imported it, the package still holds it.
    monkeypatch.delattr("langadapt.evaluation.harness", raising=False)
    if case == "PEFT":
        monkeypatch.setitem(sys.modules, "peft", None)
    monkeypatch.setattr("importlib.metadata.version", lambda name: _missing(name))
    monkeypatch.setattr("langadapt.pipeline.precheck.find_spec", lambda name: None)
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    job = recipe(model, out=str(tmp_path / "run"), **changes)
    with pytest.raises((LangadaptError, OSError), match=message) as refusal:
        check_run(job, model, [job.swap.method, *job.compare])
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "run").exists()


def _missing(name: str) -> str:
    raise __import__("importlib.metadata").metadata.PackageNotFoundError(name)


def test_an_adapter_is_tried_on_the_model_without_weights(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = recipe(model, train={"adapter": {"rank": 2, "targets": ["q_proj"]}})
    check_run(asked, model, ["focus", "keep"])
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="adapter: lora works on one GPU, but there are 2; take one"):
        check_run(asked, model, ["focus"])


def test_an_architecture_that_mixes_documents_is_no_obstacle(model: Path) -> None:
    shape = {"vocab_size": 260, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}
    MambaForCausalLM(MambaConfig(**shape)).to(torch.bfloat16).save_pretrained(model)
    check_run(recipe(model), model, ["focus"])


@pytest.mark.parametrize("how", ["config", "files"])
def test_quantised_weights_are_refused_with_the_way_out(how: str, model: Path) -> None:
    if how == "config":
        file = model / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"quantization_config": {"quant_method": "mxfp4"}}))
    else:
        weights = load_file(model / "model.safetensors")
        name = "model.layers.0.mlp.up_proj.weight"
        save_file(weights | {name: weights[name].to(torch.float8_e4m3fn)}, model / "model.safetensors")
    told = r"quantised \(mxfp4\).*Mxfp4Config\(dequantize=True" if how == "config" else r"quantised \(F8_E4M3\)"
    with pytest.raises(ConfigError, match=told) as error:
        check_run(recipe(model), model, ["focus"])
    assert "\n" not in str(error.value)


def test_what_becomes_of_half_precision_is_told(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    tiny_llama().half().save_pretrained(model)
    with caplog.at_level(logging.INFO):
        check_run(recipe(model), model, ["focus"])
    assert "its weights are fp16; they are trained and written as bf16" in caplog.text
    settings = TrainSettings(sequence_length=16, batch_sequences=2, steps=1, device="cpu", checkpoint_minutes=None)
    tokenize_corpus(texts=["Ein Satz von zwanzig Zeichen und mehr."] * 4, tokenizer=model, out=model / "store")
    train_model(model, [StoreShare(model / "store", 1)], model / "out", settings, progress=lambda *_: None)
    final = model / "out" / "final"
    assert {tensor.dtype for tensor in load_file(final / "model.safetensors").values()} == {torch.bfloat16}
    assert json.loads((final / "config.json").read_text())["dtype"] == "bfloat16"


def test_a_model_that_sees_what_it_is_to_foretell_is_told(model: Path) -> None:
    shape = {"vocab_size": 260, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    for is_decoder in (False, True):
        BertLMHeadModel(BertConfig(**shape, intermediate_size=48, is_decoder=is_decoder)).save_pretrained(model)
        if is_decoder:
            check_run(recipe(model), model, ["focus"])
            continue
        with pytest.raises(ConfigError, match="BertLMHeadModel sees later tokens"):
            check_run(recipe(model), model, ["focus"])


def test_a_tokenizer_that_transformers_will_read_otherwise_is_told(model: Path) -> None:
    shape = {"vocab_size": 260, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    Qwen2ForCausalLM(Qwen2Config(**shape, intermediate_size=48, num_key_value_heads=1)).save_pretrained(model)
    changes = {"train": {"sequence_length": 16, "batch_sequences": 2, "device": "cpu"}}
    with pytest.raises(ConfigError, match="transformers reads it as a Qwen2Tokenizer, which cuts text in another way"):
        check_run(recipe(model, tokenizer={"style": "sentencepiece"}, **changes), model, ["focus"])
    check_run(recipe(model, tokenizer={"pattern": "qwen2"}, **changes), model, ["focus"])


def test_a_template_that_will_be_lost_is_told(model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (model / "chat_template.jinja").write_text("{{ messages }}<e>")
    byte_tokenizer(eos_token="<other>").save_pretrained(tmp_path / "new")
    with caplog.at_level(logging.INFO):
        check_run(recipe(model, tokenizer={"path": str(tmp_path / "new")}), model, ["focus"])
    assert "the chat template was left out: the new tokenizer lacks <e>" in caplog.text


@pytest.mark.parametrize("method", ["focus", "auto"])
def test_a_deadline_that_is_past_is_told_unless_all_is_done(model: Path, tmp_path: Path, method: str) -> None:
    late = recipe(model, out=str(tmp_path / "run"), train={"deadline": "2020-01-01T00:00"}, swap={"method": method})
    with pytest.raises(ConfigError, match="deadline: 2020-01-01T00:00 is already past"):
        check_run(late, model, [method])
    (tmp_path / "run" / "trained" / "focus" / "final").mkdir(parents=True)
    check_run(late, model, [method])


def test_damaged_weights_are_named(model: Path) -> None:
    weights = model / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    with pytest.raises(DataError, match=r"model\.safetensors: cut short, `.*` ends at byte"):
        check_run(recipe(model), model, ["focus"])
    weights.write_bytes(whole[:100])
    with pytest.raises(DataError, match="the file is cut or no safetensors"):
        check_run(recipe(model), model, ["focus"])
    weights.unlink()
    with pytest.raises(DataError, match="missing; langadapt reads safetensors only"):
        check_run(recipe(model), model, ["focus"])


def test_no_vocabulary_of_nothing(model: Path) -> None:
    with pytest.raises(ConfigError, match=r"tokenizer\.vocab_size: -5"):
        recipe(model, tokenizer={"vocab_size": -5})


@pytest.mark.parametrize("content", ["{", "[]", "5", '{"text_config": 5}'])
def test_a_broken_configuration_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(DataError, match=r"config\.json"):
        context_length(tmp_path)


def test_a_model_that_cannot_be_swapped_is_told_before_the_first_stage(model: Path, monkeypatch) -> None:
    found = {"model.norm.weight": "computed"}, True
    monkeypatch.setattr("langadapt.models.embeddings.tables_by_id", lambda skeleton: found)
    with pytest.raises(ConfigError, match=r"`model.norm.weight` \[32\] is a table by token id"):
        check_run(recipe(model), model, ["keep", "focus"])
    check_run(recipe(model), model, ["keep"])


def test_room_for_all_copies_is_made_sure_of(model: Path, tmp_path: Path, monkeypatch) -> None:
    size = (model / "model.safetensors").stat().st_size
    room = shutil.disk_usage(tmp_path)._replace(free=9 * size - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: room)
    job = recipe(model, out=str(tmp_path / "run"))
    check_run(job, model, ["focus"])
    with pytest.raises(OSError, match="no room"):
        check_run(job, model, ["focus", "keep"])
    (tmp_path / "run" / "swapped" / "focus").mkdir(parents=True)
    check_run(job, model, ["focus", "keep"])
