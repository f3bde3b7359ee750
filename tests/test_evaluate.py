"""Bits per byte against a naive loop over documents and tokens."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from tiny import byte_tokenizer, tiny_llama
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    PreTrainedTokenizerFast,
)

from langadapt.errors import ConfigError, DataError, MismatchError
from langadapt.evaluation.bits_per_byte import bits_per_byte, measure_bits_per_byte


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small only wait for their threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Plain:
    """The part of a langadapt tokenizer that measuring needs."""

    def __init__(self, inner: PreTrainedTokenizerFast) -> None:
        self.inner, self.bos_token_id, self.eos_token_id = inner, inner.bos_token_id, inner.eos_token_id

    def encode_batch(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        ids = [self.inner(text, add_special_tokens=False)["input_ids"] for text in texts]
        offsets = np.cumsum([0, *map(len, ids)]).astype(np.uint64)
        return np.concatenate(ids).astype(np.uint32), offsets


TEXTS = ["Grüße", "a", "", "مرحبا", "The quick brown fox jumps over the lazy dog. " * 2, "b" * 32, "c" * 33]


@torch.no_grad()
def naive_bits(model: torch.nn.Module, tokenizer: object, texts: list[str], window: int, stride: int) -> float:
    """One forward pass for each token."""
    bits = 0.0
    prefix = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        for at, target in enumerate(ids):
            if at < window:
                start = 0
            else:
                end = min(len(ids), window + stride * ((at - window) // stride + 1))
                start = end - window
            logits = model(torch.tensor([[prefix, *ids[start:at]]])).logits[0, -1].double()
            bits -= float(torch.log_softmax(logits, -1)[target]) / math.log(2)
    return bits


@pytest.mark.parametrize(("window", "stride"), [(None, None), (16, 8), (16, 16), (7, 3), (5, 1), (1, 1)])
def test_equals_naive_loop(window: int | None, stride: int | None) -> None:
    model, tokenizer = tiny_llama(), byte_tokenizer(bos_token="<s>")
    found = measure_bits_per_byte(model, tokenizer, TEXTS, window=window, stride=stride)
    expected = naive_bits(model, tokenizer, TEXTS, window or 32, stride or 16)
    assert found.bits == pytest.approx(expected, rel=1e-5)
    assert found.bytes == sum(len(text.encode()) for text in TEXTS)
    assert (found.tokens, found.documents) == (found.bytes, len(TEXTS))
    assert found.bits_per_byte == pytest.approx(expected / found.bytes, rel=1e-5)
    assert found.nats_per_token == pytest.approx(expected * math.log(2) / found.tokens, rel=1e-5)


def test_uniform_model_needs_log2_of_the_vocabulary_per_token() -> None:
    model, tokenizer = tiny_llama(), byte_tokenizer(bos_token="<s>")
    torch.nn.init.zeros_(model.lm_head.weight)
    found = measure_bits_per_byte(model, tokenizer, TEXTS)
    assert found.bits == pytest.approx(math.log2(260) * found.tokens)
    assert found.bits_per_byte == pytest.approx(math.log2(260))


def test_batches_do_not_matter() -> None:
    model, tokenizer = tiny_llama(), byte_tokenizer(bos_token="<s>")
    found = [
        measure_bits_per_byte(model, tokenizer, texts, window=16, batch_tokens=size).bits_per_byte
        for size in (1, 40, 100_000)
        for texts in (TEXTS, TEXTS[::-1], iter(TEXTS))
    ]
    assert found == pytest.approx([found[0]] * len(found), rel=1e-6)
    again = measure_bits_per_byte(model, tokenizer, TEXTS, window=16, batch_tokens=40).bits_per_byte
    assert again == found[3]


def test_chunks_of_logits_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = tiny_llama(), byte_tokenizer(bos_token="<s>")
    whole = bits_per_byte(model, tokenizer, TEXTS)
    monkeypatch.setattr("langadapt.evaluation.scoring.CPU_LOGIT_BYTES", 4 * 260 * 3)
    assert bits_per_byte(model, tokenizer, TEXTS) == pytest.approx(whole, rel=1e-6)


def test_bounded_buffer_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = tiny_llama(), byte_tokenizer(bos_token="<s>")
    whole = bits_per_byte(model, tokenizer, TEXTS)
    monkeypatch.setattr("langadapt.evaluation.bits_per_byte.BUFFERED_BATCHES", 0)
    monkeypatch.setattr("langadapt.evaluation.bits_per_byte.ENCODED_AT_ONCE", 2)
    seen: list[tuple[str, int, int | None, str]] = []
    found = measure_bits_per_byte(model, tokenizer, TEXTS, progress=lambda *event: seen.append(event))
    assert found.bits_per_byte == pytest.approx(whole, rel=1e-6)
    assert [event[1] for event in seen] == sorted(event[1] for event in seen)
    assert seen[-1] == ("bits per byte", found.bytes, found.bytes, "bytes")


def test_langadapt_and_transformers_tokenizers_agree() -> None:
    model, tokenizer = tiny_llama(), byte_tokenizer(bos_token="<s>")
    assert bits_per_byte(model, Plain(tokenizer), TEXTS) == bits_per_byte(model, tokenizer, TEXTS)


def test_first_token_is_conditioned_on_bos_or_its_stand_in() -> None:
    model = tiny_llama()
    both = byte_tokenizer(bos_token="<s>", eos_token="</s>")
    only_eos = byte_tokenizer(eos_token="</s>", pad_token="<pad>")
    assert only_eos.bos_token_id is None
    for tokenizer in (both, only_eos):
        assert bits_per_byte(model, tokenizer, ["x"]) == pytest.approx(naive_bits(model, tokenizer, ["x"], 32, 16))
    with pytest.raises(MismatchError, match="no BOS, EOS or separator"):
        bits_per_byte(model, byte_tokenizer(pad_token="<pad>"), ["x"])


def test_other_families_agree_with_the_naive_loop() -> None:
    tokenizer = byte_tokenizer(bos_token="<s>")
    small = {"vocab_size": 260, "initializer_range": 0.3, "bos_token_id": 0, "eos_token_id": 0}
    gpt2 = GPT2Config(n_positions=32, n_embd=32, n_layer=2, n_head=2, **small)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    granite = GraniteConfig(num_key_value_heads=1, max_position_embeddings=32, logits_scaling=7.0, **shape, **small)
    for family, config in ((GPT2LMHeadModel, gpt2), (GraniteForCausalLM, granite)):
        torch.manual_seed(0)
        model = family(config).eval()
        found = measure_bits_per_byte(model, tokenizer, TEXTS[:4])
        assert found.bits == pytest.approx(naive_bits(model, tokenizer, TEXTS[:4], 32, 16), rel=1e-5)


@pytest.mark.parametrize("limit", [1, 1 << 30])
def test_logits_changed_after_the_head_are_seen(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("langadapt.evaluation.scoring.WHOLE_LOGIT_BYTES", limit)
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=260,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=32,
        final_logit_softcapping=0.5,
        initializer_range=0.3,
        attn_implementation="eager",
    )
    model, tokenizer = Gemma2ForCausalLM(config).eval(), byte_tokenizer(bos_token="<s>")
    found = measure_bits_per_byte(model, tokenizer, TEXTS)
    assert found.bits == pytest.approx(naive_bits(model, tokenizer, TEXTS, 32, 16), rel=1e-5)


def test_low_precision_logits_are_summed_in_float32() -> None:
    model, tokenizer = tiny_llama().to(torch.bfloat16), byte_tokenizer(bos_token="<s>")
    torch.nn.init.zeros_(model.lm_head.weight)
    assert bits_per_byte(model, tokenizer, TEXTS) == pytest.approx(math.log2(260), rel=1e-6)


def test_model_is_left_as_it_was() -> None:
    model, tokenizer = tiny_llama(), byte_tokenizer(bos_token="<s>")
    model.train()
    model.model.layers[0].eval()
    before = [module.training for module in model.modules()]
    bits_per_byte(model, tokenizer, TEXTS)
    assert [module.training for module in model.modules()] == before
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    # What the call left behind can be trained with.
    model(input_ids=torch.tensor([[1, 2, 3]]), labels=torch.tensor([[1, 2, 3]])).loss.backward()


@pytest.mark.parametrize("texts", [[], [""], ["", ""]])
def test_nothing_to_measure(texts: list[str]) -> None:
    with pytest.raises(DataError, match="no byte"):
        bits_per_byte(tiny_llama(), byte_tokenizer(bos_token="<s>"), texts)


def test_bad_arguments_are_named() -> None:
    model, tokenizer = tiny_llama(), byte_tokenizer(bos_token="<s>")
    with pytest.raises(ConfigError, match=r"window: 33 .* context of 32"):
        bits_per_byte(model, tokenizer, TEXTS, window=33)
    with pytest.raises(ConfigError, match="window: 0"):
        bits_per_byte(model, tokenizer, TEXTS, window=0)
    with pytest.raises(ConfigError, match=r"stride: 9 .* window of 8"):
        bits_per_byte(model, tokenizer, TEXTS, window=8, stride=9)
    with pytest.raises(ConfigError, match="one string"):
        bits_per_byte(model, tokenizer, "text")
    with pytest.raises(DataError, match="text 1: a lone surrogate at character 1"):
        bits_per_byte(model, tokenizer, ["fine", "a\ud800"])


def test_tokenizer_of_another_model() -> None:
    with pytest.raises(MismatchError, match=r"id 2\d\d, .* 200 embedding rows"):
        bits_per_byte(tiny_llama(vocab_size=200), byte_tokenizer(bos_token="<s>"), TEXTS)


def test_what_is_no_text_is_named() -> None:
    with pytest.raises(DataError, match="text 1: NoneType"):
        bits_per_byte(tiny_llama(), byte_tokenizer(bos_token="<s>"), ["a", None])  # type: ignore[list-item]
