"""The swap on loaded models and on folders: what changes, what must not, and that both ways agree."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import torch
from sample_tokenizers import ENGLISH, GERMAN, byte_level, metaspace, save
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    LlamaConfig,
    OPTConfig,
    PhiConfig,
)

from langadapt.errors import ConfigError, DataError, MismatchError
from langadapt.models.weights import read_header, weight_files
from langadapt.swap.files import swap_folder
from langadapt.swap.loaded import swap_tokenizer
from langadapt.swap.matching import match_vocabularies
from langadapt.swap.special_ids import translated_ids
from langadapt.tokenizer.encoder import Tokenizer

SOURCE_SIZE = 420


def config_of(kind: str):
    """Tiny models: tied, untied, with an output bias, with a projection around the embeddings."""
    if kind in ("llama-tied", "llama-untied"):
        return LlamaConfig(
            vocab_size=SOURCE_SIZE,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            tie_word_embeddings=kind == "llama-tied",
            bos_token_id=0,
            eos_token_id=0,
        )
    if kind == "gpt2":
        return GPT2Config(
            vocab_size=SOURCE_SIZE, n_embd=32, n_layer=1, n_head=2, n_positions=64, bos_token_id=0, eos_token_id=0
        )
    if kind == "phi":
        return PhiConfig(
            vocab_size=SOURCE_SIZE,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=1,
            num_attention_heads=4,
            bos_token_id=0,
            eos_token_id=0,
        )
    return OPTConfig(
        vocab_size=SOURCE_SIZE,
        hidden_size=32,
        word_embed_proj_dim=16,
        ffn_dim=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        max_position_embeddings=64,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=0,
    )


KINDS = ("llama-tied", "llama-untied", "gpt2", "phi", "opt")


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizers")
    save(byte_level(ENGLISH, SOURCE_SIZE), folder / "source", eos_token="<|endoftext|>", bos_token="<|endoftext|>")
    save(
        metaspace(GERMAN, 440),
        folder / "target",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
    )
    return folder / "source", folder / "target"


@pytest.fixture(scope="module")
def match(tokenizers):
    return match_vocabularies(*tokenizers)


@pytest.fixture(scope="module")
def vectors(match):
    return np.random.default_rng(0).normal(size=(match.target_size, 12)).astype(np.float32)


def build(kind: str, dtype: torch.dtype = torch.float32):
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(config_of(kind)).to(dtype)
    for module in model.modules():
        if isinstance(module, torch.nn.Embedding) and module.padding_idx is not None:
            torch.nn.init.normal_(module.weight)
    head = model.get_output_embeddings()
    if getattr(head, "bias", None) is not None:
        torch.nn.init.normal_(head.bias)
    return model


def tensors_of(model) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in [*model.named_parameters(), *model.named_buffers()]}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_only_the_embeddings_change(kind, dtype, tokenizers, match, vectors) -> None:
    model = build(kind, dtype)
    before = tensors_of(model)
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    report = swap_tokenizer(model, *tokenizers, vectors=vectors)
    after = tensors_of(model)
    assert before.keys() == after.keys()
    changed = {name for name in before if before[name].shape != after[name].shape}
    assert len(changed) == (1 if tied else 2) + (kind == "phi")
    for name in before.keys() - changed:
        assert torch.equal(before[name], after[name]), name
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) == tied == report.tied
    table = model.get_input_embeddings()
    assert table.weight.shape[0] == 512 == table.num_embeddings == model.config.vocab_size == report.rows_after
    assert table.weight.dtype == dtype
    assert (table.weight.float().norm(dim=1) > 0).all()
    old = before[next(name for name, value in model.named_parameters() if value is table.weight)]
    overlap = match.overlap_ids
    assert torch.equal(table.weight[overlap], old[match.source_ids[overlap]])
    roles = match.target.roles
    assert (model.config.bos_token_id, model.config.eos_token_id) == (roles["bos"], roles["eos"])
    assert model.generation_config.eos_token_id == roles["eos"]
    ids = torch.tensor([[5, match.target_size - 1, 300]])
    assert model(ids, labels=ids).logits.shape == (1, 3, 512)
    assert report.copied + report.combined + report.drawn == match.target_size
    assert report.parameters_after == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_is_swapped_to_the_same_bits(kind, tokenizers, vectors, tmp_path) -> None:
    model = build(kind, torch.bfloat16)
    model.save_pretrained(tmp_path / "model", max_shard_size="30KB")
    AutoTokenizer.from_pretrained(tokenizers[0]).save_pretrained(tmp_path / "model")
    written = swap_folder(tmp_path / "model", tokenizers[1], tmp_path / "out", vectors=vectors)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded, info = AutoModelForCausalLM.from_pretrained(
            tmp_path / "out", dtype=torch.bfloat16, output_loading_info=True
        )
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    direct = swap_tokenizer(model, *tokenizers, vectors=vectors)
    expected, got = dict(model.named_parameters()), dict(loaded.named_parameters())
    assert expected.keys() == got.keys()
    for name in expected:
        assert torch.equal(expected[name], got[name]), name
    assert {**written.to_dict(), "notes": []} == {**direct.to_dict(), "notes": []}
    assert loaded.config.eos_token_id == model.config.eos_token_id
    assert loaded.generation_config.to_dict() == model.generation_config.to_dict()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.get_vocab() == AutoTokenizer.from_pretrained(tokenizers[1]).get_vocab()
    assert tokenizer.eos_token_id == loaded.config.eos_token_id
    index = tmp_path / "out" / "model.safetensors.index.json"
    sizes = [
        entry.end - entry.start for file in weight_files(tmp_path / "out") for entry in read_header(file)[0].values()
    ]
    if index.is_file():
        assert json.loads(index.read_text())["metadata"]["total_size"] == sum(sizes)


@pytest.mark.parametrize("kind", ["llama-tied", "llama-untied"])
def test_a_swapped_model_survives_saving(kind, tokenizers, tmp_path) -> None:
    model = build(kind)
    swap_tokenizer(model, *tokenizers, method="subword_mean")
    model.save_pretrained(tmp_path / "out")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    for (name, expected), got in zip(model.named_parameters(), loaded.parameters(), strict=True):
        assert torch.equal(expected, got), name


def test_the_report_says_which_rows_are_new(tokenizers, match, vectors, tmp_path) -> None:
    build("llama-tied").save_pretrained(tmp_path / "model")
    AutoTokenizer.from_pretrained(tokenizers[0]).save_pretrained(tmp_path / "model")
    swap_folder(tmp_path / "model", tokenizers[1], tmp_path / "out", vectors=vectors)
    spans = json.loads((tmp_path / "out" / "swap.json").read_text())["new_rows"]
    rows = np.concatenate([np.arange(first, last + 1) for first, last in spans])
    assert np.array_equal(rows, np.setdiff1d(np.arange(512), match.overlap_ids))


def test_input_and_output_methods_may_differ(tokenizers, vectors, tmp_path) -> None:
    model = build("llama-untied")
    model.save_pretrained(tmp_path / "model")
    AutoTokenizer.from_pretrained(tokenizers[0]).save_pretrained(tmp_path / "model")
    head = model.lm_head.weight.detach().clone()
    report = swap_tokenizer(
        model, *tokenizers, method="focus", output_method="mean", vectors=vectors, pad_to_multiple_of=1
    )
    assert report.output_method == "mean"
    new = match_vocabularies(*tokenizers).new_ids
    assert torch.allclose(model.lm_head.weight[new[0]], head.mean(dim=0), atol=1e-6)
    assert len(model.lm_head.weight) == match_vocabularies(*tokenizers).target_size
    swap_folder(
        tmp_path / "model", tokenizers[1], tmp_path / "o", output_method="mean", vectors=vectors, pad_to_multiple_of=1
    )
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "o")
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight)
    assert torch.equal(loaded.model.embed_tokens.weight, model.model.embed_tokens.weight)


def test_an_extended_tokenizer_keeps_the_old_rows(tokenizers) -> None:
    extended = AutoTokenizer.from_pretrained(tokenizers[0])
    extended.add_tokens(["Fluss", " Wasser"])
    model = build("llama-tied")
    before = model.get_input_embeddings().weight.detach().clone()
    for method in ("subword_mean", "random"):
        other = build("llama-tied")
        report = swap_tokenizer(other, tokenizers[0], extended, method=method)
        kept = len(extended) - 2
        assert torch.equal(other.get_input_embeddings().weight[:kept], before[:kept])
        assert report.copied == kept


def test_chat_template_and_special_ids(tokenizers, tmp_path) -> None:
    template = "{{ messages[0].content }}{{ '<|endoftext|>' }}"
    model = build("llama-tied")
    model.generation_config.eos_token_id = [0, 7]
    model.generation_config.suppress_tokens = [SOURCE_SIZE - 1]
    model.save_pretrained(tmp_path / "model")
    source = AutoTokenizer.from_pretrained(tokenizers[0])
    source.chat_template = template
    source.save_pretrained(tmp_path / "model")
    report = swap_folder(tmp_path / "model", tokenizers[1], tmp_path / "out", method="mean")
    assert any("chat template was left out" in note and "<|endoftext|>" in note for note in report.notes)
    source.chat_template = "{{ messages[0].content }}"
    source.save_pretrained(tmp_path / "model")
    swap_folder(tmp_path / "model", tokenizers[1], tmp_path / "out", method="mean")
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template == source.chat_template
    generation = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    match = match_vocabularies(*tokenizers)
    ends = [match.target.roles["eos"], match.target_of(7)]
    assert generation["eos_token_id"] == [end for end in ends if end is not None]


def test_roles_that_only_names_tell_are_the_same_everywhere(tokenizers, tmp_path) -> None:
    build("llama-tied").save_pretrained(tmp_path / "model")
    AutoTokenizer.from_pretrained(tokenizers[0]).save_pretrained(tmp_path / "model")
    Tokenizer.from_pretrained(tokenizers[1]).save_pretrained(tmp_path / "target")
    (tmp_path / "target" / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    swap_folder(tmp_path / "model", tmp_path / "target", tmp_path / "out", method="mean")
    config, own = (
        json.loads((tmp_path / "out" / "config.json").read_text()),
        AutoTokenizer.from_pretrained(tmp_path / "out"),
    )
    for role in ("bos", "eos", "pad"):
        assert config[f"{role}_token_id"] == getattr(own, f"{role}_token_id")
    assert own.eos_token_id is not None


def test_ids_of_a_generation_configuration(tokenizers) -> None:
    match = match_vocabularies(*tokenizers)
    known = [int(match.source_ids[token]) for token in match.overlap_ids if match.how[token] == 1][:3]
    new = [match.target_of(token) for token in known]
    lost = next(token for token in range(match.source_size) if match.target_of(token) is None)
    given = {
        "pad_token_id": -1,
        "suppress_tokens": [known[0], -1, lost],
        "bad_words_ids": [known, [known[0], lost]],
        "sequence_bias": [[known, -2.0], [[lost], 1.0]],
        "forced_decoder_ids": [[1, known[2]]],
        "forced_eos_token_id": lost,
        "no_speech_token_id": lost,
    }
    expected = {
        "pad_token_id": match.target.roles.get("pad"),
        "suppress_tokens": new[:1],
        "bad_words_ids": [new],
        "sequence_bias": [[new, -2.0]],
        "forced_decoder_ids": [[1, new[2]]],
        "forced_eos_token_id": None,
        "no_speech_token_id": -1,
    }
    assert {key: translated_ids(given, match)[key] for key in given} == expected
    # None, or -1: an id that no token has is not the partner of those that have none.
    assert match.target_of(-1) is None
    forced = {"forced_decoder_ids": [[1, lost], [2, known[0]]]}
    assert translated_ids(forced, match)["forced_decoder_ids"] is None
    for wrong in ({"suppress_tokens": 5}, {"suppress_tokens": [None]}, {"bad_words_ids": "x"}, {"sequence_bias": [1]}):
        with pytest.raises(DataError, match=r"generation\.json: \w+ is .*, which are no token ids"):
            translated_ids(wrong, match, "generation.json")


def test_a_dry_run_reports_and_writes_nothing(tokenizers, vectors, tmp_path) -> None:
    build("llama-untied").save_pretrained(tmp_path / "model")
    AutoTokenizer.from_pretrained(tokenizers[0]).save_pretrained(tmp_path / "model")
    report = swap_folder(
        tmp_path / "model", tokenizers[1], None, vectors=vectors, dry_run=True, target_text=GERMAN, source_text=ENGLISH
    )
    assert report.prognosis.startswith("Prognosis good: ")
    assert report.target_text.saved > 0.1 > report.source_text.saved
    assert report.parameters_after - report.parameters_before == 2 * 32 * (512 - SOURCE_SIZE)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]
    useless = swap_folder(tmp_path / "model", tokenizers[1], None, method="mean", dry_run=True, target_text=ENGLISH)
    assert useless.prognosis.startswith("Prognosis poor: ")


def test_bad_input_is_refused_with_numbers(tokenizers, vectors, tmp_path) -> None:
    model = build("llama-tied")
    small = build("llama-tied")
    small.resize_token_embeddings(300, mean_resizing=False)
    with pytest.raises(MismatchError, match=r"\d+ ids but the model only 300"):
        swap_tokenizer(small, *tokenizers, method="mean")
    folder = tmp_path / "model"
    model.save_pretrained(folder)
    with pytest.raises(DataError, match=r"no tokenizer\.json"):
        swap_folder(folder, tokenizers[1], tmp_path / "out", method="mean")
    AutoTokenizer.from_pretrained(tokenizers[0]).save_pretrained(folder)
    with pytest.raises(ConfigError, match="choose another folder"):
        swap_folder(folder, tokenizers[1], folder, method="mean")
    with pytest.raises(ConfigError, match="multiple of 0"):
        swap_folder(folder, tokenizers[1], tmp_path / "out", method="mean", pad_to_multiple_of=0)
    with pytest.raises(MismatchError, match="another tokenizer"):
        swap_folder(folder, tokenizers[1], tmp_path / "out", vectors=vectors[:7])
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-50])
    with pytest.raises(DataError, match="cut short"):
        swap_folder(folder, tokenizers[1], tmp_path / "out", method="mean")
    broken = build("llama-tied")
    broken.model.embed_tokens.weight.data[9, 0] = float("nan")
    broken.save_pretrained(folder)
    with pytest.raises(DataError, match="row 9"):
        swap_folder(folder, tokenizers[1], tmp_path / "out", method="mean")
    weights.unlink()
    with pytest.raises(DataError, match="safetensors only"):
        swap_folder(folder, tokenizers[1], tmp_path / "out", method="mean")
    assert not (tmp_path / "out").exists()
