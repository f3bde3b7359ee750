"""Attention in blocks, beside SDPA over all pairs of tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import byte_tokenizer, tiny_llama
from transformers import AutoModelForCausalLM, FalconConfig, Gemma3TextConfig, MistralConfig
from transformers.integrations import sdpa_attention
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from langadapt.evaluation.bits_per_byte import measure_bits_per_byte
from langadapt.models import attention

SHAPE: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
}
CONFIGS = {
    "gemma3": Gemma3TextConfig(**SHAPE, sliding_window=40, layer_types=["sliding_attention", "full_attention"]),
    "mistral": MistralConfig(**SHAPE, sliding_window=25),
}


@pytest.fixture(params=CONFIGS)
def model(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A model with short windows, computed in short blocks."""
    monkeypatch.setattr(attention, "BLOCK", 16)
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(CONFIGS[request.param]).eval()


@pytest.fixture
def pairs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Pairs of tokens of each call of the kernel."""
    counted: list[int] = []
    kernel = torch.nn.functional.scaled_dot_product_attention

    def counting(query: torch.Tensor, key: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        counted.append(query.shape[2] * key.shape[2])
        return kernel(query, key, *args, **kwargs)

    monkeypatch.setattr(sdpa_attention.torch.nn.functional, "scaled_dot_product_attention", counting)
    return counted


@pytest.mark.parametrize("length", [1, 16, 40, 41, 150])
@torch.no_grad()
def test_as_the_whole_row(model: Any, length: int) -> None:
    ids = torch.randint(300, (3, length))
    padded = torch.ones_like(ids)
    padded[0, length // 2 + 1 :] = 0
    padded[1, : length // 3] = 0
    for mask in (None, padded):
        expected = model(input_ids=ids, attention_mask=mask).logits
        with attention.in_blocks():
            found = model(input_ids=ids, attention_mask=mask).logits
        seen = padded.bool() if mask is not None else torch.ones_like(ids).bool()
        assert torch.allclose(found[seen], expected[seen], atol=1e-5)


@torch.no_grad()
def test_fewer_pairs(model: Any, pairs: list[int]) -> None:
    window, whole = model.config.sliding_window, 200 * 200
    with attention.in_blocks():
        model(input_ids=torch.randint(300, (1, 200)))
    assert len(pairs) == 2 * 13
    # Of Gemma's two layers one sees all tokens before: half of the pairs, and those of half a block.
    most = 200 * (window + 15) * 2 if model.config.model_type == "mistral" else 200 * (window + 15) + whole * 0.54
    assert sum(pairs) <= most


@torch.no_grad()
def test_long_rows_without_a_mask_are_left_to_the_kernel(pairs: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "LONG", 100)
    monkeypatch.setattr(attention, "BLOCK", 16)
    model, ids = tiny_llama().eval(), torch.randint(200, (1, 100))
    layers = model.config.num_hidden_layers
    with attention.in_blocks():
        model(input_ids=ids[:, :99])
        assert len(pairs) == layers * 7
        model(input_ids=ids)
    assert pairs[layers * 7 :] == [100 * 100] * layers


@torch.no_grad()
def test_attention_is_as_it_was_after_an_error(model: Any) -> None:
    before = ALL_ATTENTION_FUNCTIONS["sdpa"]
    with pytest.raises(IndexError), attention.in_blocks():
        model(input_ids=torch.tensor([[300]]))
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is before


@torch.no_grad()
def test_models_that_ask_for_the_name_of_sdpa(monkeypatch: pytest.MonkeyPatch) -> None:
    """Falcon's layers, which show every token to every other where they find another name."""
    monkeypatch.setattr(attention, "BLOCK", 16)
    torch.manual_seed(0)
    config = FalconConfig(vocab_size=300, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, alibi=False)
    falcon, ids = AutoModelForCausalLM.from_config(config).eval(), torch.randint(300, (2, 90))
    expected = falcon(input_ids=ids).logits
    with attention.in_blocks():
        assert torch.allclose(falcon(input_ids=ids).logits, expected, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
@torch.no_grad()
def test_a_mask_that_shows_more_is_obeyed(dtype: torch.dtype) -> None:
    """Tokens beyond the window, which a mask of the model's own may show, and later ones."""
    query, key, value = (torch.randn(1, 2, 300, 8) for _ in range(3))
    for shown in (torch.ones(300, 300).tril(), torch.ones(300, 300).tril(5).triu(-10)):
        mask = shown.bool()[None, None]
        if dtype != torch.bool:
            mask = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(dtype).min)
        found, _ = attention.attend(torch.nn.Module(), query, key, value, mask, sliding_window=20)
        expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        assert torch.allclose(found.transpose(1, 2), expected, atol=1e-6)
        assert found.is_contiguous()


def test_bits_per_byte_are_computed_so(model: Any, pairs: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["in the beginning was the word " * 12, "and so on"]
    found = measure_bits_per_byte(model, byte_tokenizer(bos_token="<s>"), texts, window=200)
    fewer = sum(pairs)
    pairs.clear()
    monkeypatch.setattr(attention, "BLOCK", 1000)
    expected = measure_bits_per_byte(model, byte_tokenizer(bos_token="<s>"), texts, window=200)
    assert found.bits_per_byte == pytest.approx(expected.bits_per_byte, rel=1e-6)
    assert fewer < sum(pairs)
