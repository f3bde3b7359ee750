"""GGUF files say the same as the models that they were made from: by their contents, and by llama.cpp itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sample_tokenizers import ENGLISH, GERMAN
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

from langadapt.errors import ConfigError, MismatchError
from langadapt.export import export_gguf
from langadapt.export.shapes import interleaved
from langadapt.tokenizer.encoder import Tokenizer
from langadapt.tokenizer.llamacpp import KNOWN, LLAMA3, QWEN2, llamacpp_form
from langadapt.tokenizer.training import train_bpe

gguf = pytest.importorskip("gguf", reason="the extra `gguf` is not installed")

SMALL = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 256,
    "initializer_range": 0.1,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
CONFIGS: dict[str, Callable[..., Any]] = {
    "llama": lambda **shape: LlamaConfig(**shape, rope_parameters=LLAMA3_ROPE),
    "llama-tied": lambda **shape: LlamaConfig(**shape, tie_word_embeddings=True),
    "mistral": lambda **shape: MistralConfig(**shape, sliding_window=None),
    "qwen2": lambda **shape: Qwen2Config(**{**shape, "head_dim": 16}, use_sliding_window=False),
    # As the small ones of the family are.
    "qwen2-tied": lambda **shape: Qwen2Config(
        **{**shape, "head_dim": 16}, use_sliding_window=False, tie_word_embeddings=True
    ),
    "qwen3": lambda **shape: Qwen3Config(**shape, use_sliding_window=False),
    "gemma2": lambda **shape: Gemma2Config(**shape, query_pre_attn_scalar=32, sliding_window=32),
    "gemma3": lambda **shape: Gemma3TextConfig(**shape, query_pre_attn_scalar=32, sliding_window=32),
}


def trained(style: str, **options: Any) -> Tokenizer:
    return train_bpe(texts=ENGLISH + GERMAN, vocab_size=420, style=style, accept_fewer=True, **options)


def model_folder(kind: str, tokenizer: Tokenizer, folder: Path, *, rows: int = 448, **changes: Any) -> Path:
    """Random weights that are large enough to tell a wrong product from a right one; norms that are not ones."""
    torch.manual_seed(0)
    ids = {f"{role}_token_id": getattr(tokenizer, f"{role}_token_id") for role in ("bos", "eos", "pad")}
    config = CONFIGS[kind](**{**SMALL, **changes}, vocab_size=rows, **ids)
    model: Any = AutoModelForCausalLM.from_config(config, attn_implementation="eager").to(torch.bfloat16)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter += 0.2 * torch.randn(parameter.shape)
            elif "embed" in name:
                parameter *= 4
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def fields_of(file: Path) -> dict[str, Any]:
    return {name: field.contents() for name, field in gguf.GGUFReader(file).fields.items()}


@pytest.mark.parametrize("style", ["byte_level", "sentencepiece"])
def test_what_the_file_says_of_the_tokenizer(tmp_path: Path, style: str) -> None:
    tokenizer = trained(style)
    template = "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}"
    model_folder("llama", tokenizer, tmp_path / "m")
    (tmp_path / "m" / "chat_template.jinja").write_text(template)
    report = export_gguf(tmp_path / "m", tmp_path / "m.gguf", proof=False)
    said = fields_of(tmp_path / "m.gguf")
    tokens, types = said["tokenizer.ggml.tokens"], said["tokenizer.ggml.token_type"]
    assert len(tokens) == len(types) == said["llama.vocab_size"] == 448
    assert tokens[: tokenizer.vocab_size] == [tokenizer.id_to_token(id) for id in range(tokenizer.vocab_size)]
    assert tokens[-1] == "[PAD447]"
    assert types[tokenizer.vocab_size :] == [5] * (448 - tokenizer.vocab_size)
    assert types[tokenizer.bos_token_id or 0] == 3
    assert said["tokenizer.ggml.bos_token_id"] == tokenizer.bos_token_id
    assert said["tokenizer.ggml.eos_token_id"] == tokenizer.eos_token_id
    assert said["tokenizer.ggml.add_bos_token"] is True
    assert said["tokenizer.chat_template"] == template
    merges = json.loads(tokenizer.definition)["model"]["merges"]
    if style == "byte_level":
        assert (said["tokenizer.ggml.model"], said["tokenizer.ggml.pre"]) == ("gpt2", "dbrx")
        assert said["tokenizer.ggml.merges"] == [" ".join(pair) for pair in merges]
    else:
        assert said["tokenizer.ggml.model"] == "llama"
        assert said["tokenizer.ggml.add_space_prefix"] is True
        assert types[tokenizer.unk_token_id or 0] == 2
        assert types[tokenizer.token_to_id("<0x41>") or 0] == 6
        scores = said["tokenizer.ggml.scores"]
        first, last = ("".join(merges[at]) for at in (0, -1))
        assert scores[tokens.index(first)] > scores[tokens.index(last)]
    assert report.tensors == 6 * 9 + 3
    stop = (tmp_path / "m.gguf.Modelfile").read_text()
    assert "FROM ./m.gguf\n" in stop
    assert f'PARAMETER stop "{tokenizer.special_token("eos_token")}"' in stop


def test_queries_and_keys_are_turned_in_pairs() -> None:
    rows = torch.arange(16)[:, None].float()
    assert interleaved(rows, 2)[:, 0].tolist() == [0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15]


def test_types_that_a_model_cannot_have(tmp_path: Path) -> None:
    tokenizer = trained("byte_level")
    model_folder("llama", tokenizer, tmp_path / "m", intermediate_size=100)
    with pytest.raises(ConfigError, match=r"q8_0 needs rows of a multiple of 32, but there is \[64, 100\]"):
        export_gguf(tmp_path / "m", tmp_path / "m.gguf", type="q8_0", proof=False)
    with pytest.raises(ConfigError, match="there are f16, bf16, q8_0"):
        export_gguf(tmp_path / "m", tmp_path / "m.gguf", type="q4_k", proof=False)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    with torch.no_grad():
        model.lm_head.weight[3, 3] = 1e6
    model.save_pretrained(tmp_path / "m")
    with pytest.raises(ConfigError, match="which f16 cannot; write bf16"):
        export_gguf(tmp_path / "m", tmp_path / "m.gguf", type="f16", proof=False)
    assert not (tmp_path / "m.gguf").exists()


def test_what_llama_cpp_computes_otherwise_is_refused(tmp_path: Path) -> None:
    tokenizer = trained("byte_level")
    yarn = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 64}
    torch.manual_seed(0)
    config = LlamaConfig(**SMALL, vocab_size=448, rope_parameters=yarn)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "yarn")
    tokenizer.save_pretrained(tmp_path / "yarn")
    with pytest.raises(ConfigError, match="rope_type: 'yarn'"):
        export_gguf(tmp_path / "yarn", tmp_path / "m.gguf", proof=False)
    AutoModelForCausalLM.from_config(Qwen2Config(**SMALL, vocab_size=448)).save_pretrained(tmp_path / "yarn")
    with pytest.raises(ConfigError, match="head_dim: 32"):
        export_gguf(tmp_path / "yarn", tmp_path / "m.gguf", proof=False)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"style": "byte_level"}, "llama.cpp: yes (`gpt2`, cutting `dbrx`)"),
        ({"style": "byte_level", "pattern": "qwen2"}, "llama.cpp: yes (`gpt2`, cutting `qwen2`)"),
        ({"style": "byte_level", "pattern": "gpt2"}, "llama.cpp: yes (`gpt2`, cutting `gpt-2`)"),
        ({"style": "byte_level", "pattern": "llama3-marks"}, "the nearest that it knows is qwen35"),
        ({"style": "byte_level", "pattern": "qwen35"}, "llama.cpp: yes (`gpt2`, cutting `qwen35`)"),
        ({"style": "byte_level", "pattern": "gpt4"}, "the nearest that it knows is llama3"),
        ({"style": "byte_level", "pattern": r"\w+|\W+"}, "llama.cpp: no, it does not know this pattern"),
        ({"style": "byte_level", "pattern": "o200k"}, "takes letters outside ASCII for both cases"),
        ({"style": "byte_level", "normalization": "NFKC"}, "does not normalize to NFKC"),
        ({"style": "sentencepiece"}, "llama.cpp: yes (`llama`)"),
    ],
)
def test_what_is_said_before_anything_is_trained(options: dict[str, Any], said: str) -> None:
    assert said in str(llamacpp_form(trained(**options)))


def test_digits_apart_and_then_gpt_2(llama_cpp: Any, tmp_path: Path) -> None:
    assert llama_cpp
    definition = json.loads(trained("byte_level", pattern="gpt2").definition)
    spaces = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    parts = [{"type": "Digits", "individual_digits": True}, spaces]
    definition["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": parts}
    config = trained("byte_level").companions
    tokenizer = Tokenizer(json.dumps(definition).encode(), config)
    assert llamacpp_form(tokenizer).pre == "starcoder"
    model_folder("llama-tied", tokenizer, tmp_path / "m", num_hidden_layers=1)
    lines = [*GERMAN, "Es sind 1234 und 5,678.90 und ½ und ٣٤."]
    assert export_gguf(tmp_path / "m", tmp_path / "m.gguf", lines=lines, type="f16").proof is not None


def test_bytes_that_lack_are_a_difference() -> None:
    definition = json.loads(trained("sentencepiece").definition)
    assert not llamacpp_form(Tokenizer(json.dumps(definition).encode())).differences
    vocabulary = definition["model"]["vocab"]
    vocabulary["other"] = vocabulary.pop("<0xC3>")
    (said,) = llamacpp_form(Tokenizer(json.dumps(definition).encode())).differences
    assert said == "it fails on text that needs one of 1 byte tokens that lack, such as <0xC3>"


def test_names_go_with_whole_words_first() -> None:
    assert KNOWN[LLAMA3].whole == "llama-bpe"
    tokenizer = trained("byte_level")
    definition = json.loads(tokenizer.definition)
    definition["model"]["ignore_merges"] = True
    assert llamacpp_form(Tokenizer(json.dumps(definition).encode())).pre == "llama-bpe"
    assert KNOWN[QWEN2].whole is None


@pytest.fixture(scope="module")
def llama_cpp() -> Any:
    """The package; tests that need it are skipped where it is not installed."""
    return pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed (extra `gguf`)")


@pytest.mark.parametrize("style", ["byte_level", "sentencepiece"])
@pytest.mark.parametrize("kind", CONFIGS)
def test_llama_cpp_says_the_same(llama_cpp: Any, tmp_path: Path, kind: str, style: str) -> None:
    assert llama_cpp
    model_folder(kind, trained(style), tmp_path / "m")
    report = export_gguf(tmp_path / "m", tmp_path / "m.gguf", lines=GERMAN + ENGLISH, type="f16")
    assert report.proof is not None
    assert report.proof["lines"] >= 44
    assert report.proof["windows"] >= 10
    assert report.proof["same_choice"] > 0.9


@pytest.mark.parametrize("type", ["bf16", "q8_0"])
def test_other_types_say_nearly_the_same(llama_cpp: Any, tmp_path: Path, type: str) -> None:
    assert llama_cpp
    model_folder("llama", trained("byte_level"), tmp_path / "m")
    report = export_gguf(tmp_path / "m", tmp_path / "m.gguf", lines=GERMAN, type=type)
    assert report.proof is not None
    assert 0 < report.proof["logit_error"] < {"bf16": 0.05, "q8_0": 0.15}[type]


def test_a_wrong_rotation_is_found(llama_cpp: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert llama_cpp
    model_folder("llama", trained("byte_level"), tmp_path / "m")
    monkeypatch.setattr("langadapt.export.shapes.interleaved", lambda weights, _: weights)
    with pytest.raises(MismatchError, match="other logits in window 1 of"):
        export_gguf(tmp_path / "m", tmp_path / "m.gguf", lines=GERMAN, type="f16")


def test_a_wrong_cutting_is_found_and_named(llama_cpp: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert llama_cpp
    model_folder("llama", trained("byte_level"), tmp_path / "m")
    monkeypatch.setitem(KNOWN, LLAMA3, KNOWN[QWEN2])
    with pytest.raises(MismatchError, match=r"reads line \d+ otherwise, .* at token \d+ it has .* cutting"):
        export_gguf(tmp_path / "m", tmp_path / "m.gguf", lines=["Im Jahr 2024 fährt der Zug.", *GERMAN])


@pytest.mark.parametrize("style", ["byte_level", "sentencepiece"])
@pytest.mark.parametrize("language", ["de", "ar", "sw", "zh"])
def test_ids_of_real_text(llama_cpp: Any, shared: Path, tmp_path: Path, style: str, language: str) -> None:
    from langadapt import read_documents

    assert llama_cpp
    text = []
    for document in read_documents([str(shared / "corpus" / f"{language}.jsonl.zst")]):
        text += document.split("\n")
        if len(text) > 6000:
            break
    # The default for text with combining marks is one that llama.cpp does not know; this is the nearest that it does.
    pattern = "qwen35" if style == "byte_level" and language in ("ar", "zh") else None
    tokenizer = train_bpe(texts=text[:3000], vocab_size=2000, style=style, pattern=pattern, accept_fewer=True)
    model_folder("llama-tied", tokenizer, tmp_path / "m", rows=2048, num_hidden_layers=1)
    report = export_gguf(tmp_path / "m", tmp_path / "m.gguf", lines=text[3000:5000], type="f16")
    assert report.proof is not None
    assert report.proof["lines"] > 1000
    assert np.isfinite(report.proof["logit_error"])
