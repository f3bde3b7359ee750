"""The swap of models that are more than one matrix: further tables by token id, other names in files, other towers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from sample_tokenizers import ENGLISH, GERMAN, byte_level, metaspace, save
from transformers import AutoModelForCausalLM, AutoTokenizer

from langadapt.errors import ConfigError, DataError
from langadapt.models.embeddings import find_token_tables
from langadapt.models.skeleton import skeleton_of
from langadapt.models.weights import weight_files
from langadapt.swap.files import swap_folder
from langadapt.swap.loaded import swap_tokenizer
from langadapt.swap.matching import match_vocabularies

SIZE = 420
TEXT = {
    "vocab_size": SIZE,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
WINDOWS = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 16}


def gemma3n() -> object:
    """Per-layer inputs of fewer rows than the vocabulary, as published."""
    return transformers.Gemma3nForCausalLM(
        transformers.Gemma3nTextConfig(
            **TEXT,
            **WINDOWS,
            vocab_size_per_layer_input=SIZE - 80,
            hidden_size_per_layer_input=8,
            laurel_rank=4,
            num_kv_shared_layers=0,
            altup_num_inputs=2,
            activation_sparsity_pattern=None,
        )
    )


def gemma4() -> object:
    config = transformers.Gemma4TextConfig(
        **TEXT, **WINDOWS, vocab_size_per_layer_input=SIZE, hidden_size_per_layer_input=8, num_kv_shared_layers=0
    )
    return transformers.Gemma4ForCausalLM(config)


def gemma3() -> object:
    """A text tower under a prefix of its own, and a vision tower."""
    vision = transformers.SiglipVisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
    )
    text = transformers.Gemma3TextConfig(**TEXT, **WINDOWS)
    config = transformers.Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    return transformers.Gemma3ForConditionalGeneration(config)


def gpt_neox() -> object:
    """Its files call the head ``embed_out``."""
    sizes = {name: TEXT[name] for name in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")}
    config = transformers.GPTNeoXConfig(**sizes, num_attention_heads=2, bos_token_id=0, eos_token_id=0)
    return transformers.GPTNeoXForCausalLM(config)


def bert() -> object:
    """An output bias that is stored under two names, and tables of positions and segments."""
    return transformers.BertLMHeadModel(transformers.BertConfig(**TEXT, is_decoder=True))


def qwen2_moe() -> object:
    """Experts that loading fuses."""
    config = transformers.Qwen2MoeConfig(
        **TEXT, num_experts=4, moe_intermediate_size=16, shared_expert_intermediate_size=16, decoder_sparse_step=1
    )
    return transformers.Qwen2MoeForCausalLM(config)


MODELS = {"gemma3n": 2, "gemma4": 2, "gemma3": 1, "gpt_neox": 2, "bert": 2, "qwen2_moe": 2}
"""Tensors with a row per token."""


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("architectures")
    save(byte_level(ENGLISH, SIZE), folder / "source", eos_token="<|endoftext|>", bos_token="<|endoftext|>")
    save(metaspace(GERMAN, 440), folder / "target", bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    return folder


def build(name: str, folder: Path, tokenizer: Path) -> Path:
    torch.manual_seed(5)
    model = globals()[name]()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.1)
    model.to(torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", MODELS)
def test_every_table_by_token_id_is_swapped_in_the_files_own_names(name: str, work: Path, tmp_path: Path) -> None:
    source = build(name, tmp_path / "model", work / "source")
    swap_folder(source, work / "target", tmp_path / "out", method="subword_mean")
    before, after = (load_file(folder / "model.safetensors") for folder in (source, tmp_path / "out"))
    assert before.keys() == after.keys()
    changed = {key for key in before if before[key].shape != after[key].shape}
    assert all(len(after[key]) == 512 for key in changed)
    assert all(torch.equal(before[key], after[key]) for key in before.keys() - changed)
    match = match_vocabularies(work / "source", work / "target")
    for key in changed:
        known = [token for token in match.overlap_ids if match.source_ids[token] < len(before[key])]
        assert torch.equal(after[key][known], before[key][match.source_ids[known]])
    model, info = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    loaded = AutoModelForCausalLM.from_pretrained(source)
    swap_tokenizer(loaded, work / "source", work / "target", method="subword_mean")
    got = dict(model.named_parameters())
    for key, value in loaded.named_parameters():
        assert torch.equal(value, got[key]), key
    assert len(find_token_tables(skeleton_of(loaded)).names) == MODELS[name]
    ids = torch.tensor([[5, match.target_size - 1, 300]])
    assert torch.equal(model.eval()(ids).logits, loaded.eval()(ids).logits)


def test_ids_behind_the_end_of_a_short_table_count_as_its_mean(work: Path, tmp_path: Path) -> None:
    source = build("gemma3n", tmp_path / "model", work / "source")
    swap_folder(source, work / "source", tmp_path / "out", method="mean", pad_to_multiple_of=1)
    key = "model.embed_tokens_per_layer.weight"
    before, after = (load_file(folder / "model.safetensors")[key] for folder in (source, tmp_path / "out"))
    used = match_vocabularies(work / "source", work / "source").target_size
    assert len(before) == SIZE - 80 < used == len(after)
    assert torch.equal(before, after[: len(before)])
    assert torch.equal(after[len(before) :], before.float().mean(dim=0).bfloat16().expand(used - len(before), -1))
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["vocab_size"] == config["vocab_size_per_layer_input"] == used


@pytest.mark.parametrize("kind", ["integers", "hashes"])
def test_a_table_for_which_no_rows_can_be_made_is_refused(kind: str, work: Path, tmp_path: Path, monkeypatch) -> None:
    source = build("qwen2_moe", tmp_path / "model", work / "source")
    original = transformers.models.qwen2_moe.modeling_qwen2_moe.Qwen2MoeModel.forward

    def forward(self, input_ids=None, **rest):  # type: ignore[no-untyped-def]
        if not hasattr(self, "extra"):
            table = torch.nn.Embedding(7, 4) if kind == "hashes" else torch.zeros(SIZE, 2, dtype=torch.int64)
            self.extra = table.to(input_ids.device) if kind == "hashes" else torch.nn.Buffer(table.to(input_ids.device))
        self.extra((input_ids * 31) % 7) if kind == "hashes" else self.extra[input_ids]
        return original(self, input_ids, **rest)

    monkeypatch.setattr(transformers.models.qwen2_moe.modeling_qwen2_moe.Qwen2MoeModel, "forward", forward)
    with pytest.raises(ConfigError, match=r"extra.* is a table by token id .* cannot be swapped"):
        swap_folder(source, work / "target", tmp_path / "out", method="mean")
    with pytest.raises(ConfigError, match="cannot be swapped"):
        swap_tokenizer(AutoModelForCausalLM.from_pretrained(source), work / "source", work / "target", method="mean")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def in_subfolders(source: Path, folder: Path) -> Path:
    """The same model in two shards of one name, in folders of their own."""
    shutil.copytree(source, folder)
    tensors = load_file(source / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    places = {name: ("a" if i % 2 else "b") + "/w.safetensors" for i, name in enumerate(names)}
    for place in set(places.values()):
        (folder / place).parent.mkdir()
        save_file({name: tensors[name] for name in names if places[name] == place}, folder / place, {"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return folder


def test_shards_of_one_name_in_subfolders_stay_apart(work: Path, tmp_path: Path) -> None:
    source = build("gpt_neox", tmp_path / "model", work / "source")
    shards = in_subfolders(source, tmp_path / "shards")
    for folder, out in ((source, "whole"), (shards, "parts")):
        swap_folder(folder, work / "target", tmp_path / out, method="mean")
    whole = load_file(tmp_path / "whole" / "model.safetensors")
    files = weight_files(tmp_path / "parts")
    assert [str(file.relative_to(tmp_path / "parts")) for file in files] == ["a/w.safetensors", "b/w.safetensors"]
    parts = {name: tensor for file in files for name, tensor in load_file(file).items()}
    assert parts.keys() == whole.keys()
    assert all(torch.equal(parts[name], whole[name]) for name in whole)
    AutoModelForCausalLM.from_pretrained(tmp_path / "parts")


@pytest.mark.parametrize("place", ["../model.safetensors", "/model.safetensors", "a/../../model.safetensors", "w.bin"])
def test_an_index_stays_in_its_folder(place: str, work: Path, tmp_path: Path) -> None:
    source = build("gpt_neox", tmp_path / "model", work / "source")
    weights = dict.fromkeys(load_file(source / "model.safetensors"), place)
    (source / "model.safetensors").unlink()
    (source / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))
    with pytest.raises(DataError, match="no safetensors file in this folder"):
        swap_folder(source, work / "target", tmp_path / "out", method="mean")
    for broken in ("{", "[]", '{"weight_map": 5}', "{}"):
        (source / "model.safetensors.index.json").write_text(broken)
        with pytest.raises(DataError, match=r"index\.json: not an index of weights"):
            swap_folder(source, work / "target", tmp_path / "out", method="mean")


def test_weights_in_one_file_go_before_an_index_as_in_transformers(work: Path, tmp_path: Path) -> None:
    source = build("gpt_neox", tmp_path / "model", work / "source")
    swap_folder(source, work / "target", tmp_path / "plain", method="mean")
    tensors = {name: tensor + 1 for name, tensor in load_file(source / "model.safetensors").items()}
    save_file(tensors, source / "part.safetensors", {"format": "pt"})
    index = {"metadata": "none", "weight_map": dict.fromkeys(tensors, "part.safetensors")}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    swap_folder(source, work / "target", tmp_path / "out", method="mean")
    assert weight_files(tmp_path / "out") == [tmp_path / "out" / "model.safetensors"]
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("plain", "out"))
    assert all(torch.equal(before[name], after[name]) for name in before)
    # Alone it counts, whatever its metadata are.
    (source / "model.safetensors").unlink()
    swap_folder(source, work / "target", tmp_path / "out", method="mean")
    model, info = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"] and torch.equal(
        model.gpt_neox.final_layer_norm.weight, tensors["gpt_neox.final_layer_norm.weight"]
    )


def test_files_of_the_old_vocabulary_stay_behind(work: Path, tmp_path: Path) -> None:
    source = build("gpt_neox", tmp_path / "model", work / "source")
    old = (
        "tekken.json",
        "params.json",
        "x.tiktoken",
        "sentencepiece.bpe.model",
        "vocab.bpe",
        "pytorch_model.bin.index.json",
    )
    for name in (*old, "preprocessor_config.json", "code.py"):
        (source / name).write_text("{}")
    swap_folder(source, work / "target", tmp_path / "out", method="mean")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert not names & set(old) and {"preprocessor_config.json", "code.py"} <= names


def test_a_tied_matrix_that_is_stored_twice_must_be_one(work: Path, tmp_path: Path) -> None:
    """transformers takes both, and unties them; llama.cpp and vLLM take one."""
    source = build("gemma3", tmp_path / "model", work / "source")
    tensors = load_file(source / "model.safetensors")
    table = next(tensor for name, tensor in tensors.items() if name.endswith("embed_tokens.weight"))
    for head, fine in ((table.clone(), True), (-table, False), (table[:-1].clone(), False)):
        save_file({**tensors, "lm_head.weight": head}, source / "model.safetensors", {"format": "pt"})
        if fine:
            swap_folder(source, work / "target", None, method="mean", dry_run=True)
            continue
        with pytest.raises(DataError, match=r"`lm_head.weight` are one matrix by config.json, but not"):
            swap_folder(source, work / "target", tmp_path / "out", method="mean")
    assert not (tmp_path / "out").exists()


def test_ids_of_other_kinds_of_input_leave_the_words_alone(work: Path, tmp_path: Path) -> None:
    """A class's default, which a file may leave out, too."""
    source = build("gemma3", tmp_path / "model", work / "source")
    config = json.loads((source / "config.json").read_text())
    del config["eoi_token_index"]
    (source / "config.json").write_text(json.dumps({**config, "boi_token_index": 70}))
    swap_folder(source, work / "target", tmp_path / "out", method="mean")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    match = match_vocabularies(work / "source", work / "target")
    ids = (match.target_of(70), -1, -1)
    assert (config["boi_token_index"], config["eoi_token_index"], config["image_token_index"]) == ids
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    model(input_ids=torch.arange(match.target_size)[None, :60])
    loaded = AutoModelForCausalLM.from_pretrained(source)
    swap_tokenizer(loaded, work / "source", work / "target", method="mean")
    assert loaded.config.image_token_index == -1


def test_tables_that_transformers_does_not_load_are_a_note(work: Path, tmp_path: Path) -> None:
    source = build("qwen2_moe", tmp_path / "model", work / "source")
    tensors = load_file(source / "model.safetensors")
    tensors["mtp.embed_tokens.weight"] = tensors["model.embed_tokens.weight"].clone()
    tensors |= {"lm_head.bias": torch.zeros(SIZE), "draft.table": torch.zeros(SIZE, 3), "draft.other": torch.zeros(3)}
    save_file(tensors, source / "model.safetensors", {"format": "pt"})
    report = swap_folder(source, work / "target", None, method="mean", dry_run=True)
    (note,) = (note for note in report.notes if "as long as the input matrix" in note)
    named = {name for name in tensors if f"{name}," in note or f"{name}:" in note}
    assert named == {"mtp.embed_tokens.weight", "lm_head.bias", "draft.table"}


def test_a_configuration_that_would_make_another_model_is_refused(work: Path, tmp_path: Path, monkeypatch) -> None:
    """A size that follows the vocabulary but is no table by token id."""
    source = build("qwen2_moe", tmp_path / "model", work / "source")
    original = transformers.Qwen2MoeForCausalLM.__init__

    def init(self, config):  # type: ignore[no-untyped-def]
        original(self, config)
        self.frequencies = torch.nn.Parameter(torch.zeros(config.vocab_size))

    monkeypatch.setattr(transformers.Qwen2MoeForCausalLM, "__init__", init)
    with pytest.raises(ConfigError, match=r"`frequencies` would be \[512\] instead of \[420\]"):
        swap_folder(source, work / "target", tmp_path / "out", method="mean")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]
