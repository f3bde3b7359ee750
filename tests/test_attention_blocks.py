"""Attention in blocks, beside SDPA over all pairs of tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import byte_tokenizer
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
    """Pairs of tokens of each block, and of each call of torch's kernel."""
    counted: list[int] = []
    kernel, by_blocks = torch.nn.functional.scaled_dot_product_attention, attention.by_blocks

    def counting(query: torch.Tensor, key: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        counted.append(query.shape[2] * key.shape[2])
        return kernel(query, key, *args, **kwargs)

    def counting_blocks(*args: Any, **kwargs: Any) -> torch.Tensor:
        counted.extend((own.stop - own.start) * (seen.stop - seen.start) for own, seen in args[3])
        return by_blocks(*args, **kwargs)

    monkeypatch.setattr(attention, "by_blocks", counting_blocks)
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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("masked", [None, "bool", "float", "bias"])
@torch.no_grad()
def test_off_by_little_more_than_a_rounding(dtype: torch.dtype, masked: str | None) -> None:
    """Heads that share keys, values of another width, a row that sees nothing, a bias for each head."""
    torch.manual_seed(0)
    rows, heads, length = 2, 6, 150
    query, key, value = (torch.randn(rows, n, length, d).to(dtype) for n, d in ((heads, 16), (2, 16), (2, 24)))
    mask = torch.ones(rows, 1, length, length, dtype=torch.bool).tril()
    mask[1, :, :, 100:] = False
    mask[1, :, 120:] = False
    if masked in ("float", "bias"):
        added = torch.randn(1, heads, 1, length) if masked == "bias" else torch.zeros(rows, 1, 1, length)
        mask = (torch.zeros(mask.shape) + added).masked_fill_(~mask, torch.finfo(dtype).min).to(dtype)
    module = torch.nn.Module()
    module.num_key_value_groups = 3  # type: ignore[assignment]
    given = None if masked is None else mask
    found, _ = attention.attend(module, query, key, value, given)
    exact = torch.nn.functional.scaled_dot_product_attention(
        query.double(),
        *(one.double().repeat_interleave(3, dim=1) for one in (key, value)),
        attn_mask=given.double() if masked in ("float", "bias") and given is not None else given,
        is_causal=given is None,
    )
    seen = torch.ones(rows, 1, length, 1, dtype=torch.bool)
    seen[1, :, 120:] = masked is None
    off, rounded = (
        (one.double() - exact).masked_fill(~seen, 0).abs().mean() for one in (found.transpose(1, 2), exact.to(dtype))
    )
    # torch's kernel is off by 1.4 of these roundings in bf16.
    assert off <= 2 * rounded + 1e-7
    assert found.isfinite().all()


def test_gradients_are_left_to_the_kernel(pairs: list[int]) -> None:
    query, key, value = (torch.randn(1, 2, 100, 8, requires_grad=True) for _ in range(3))
    found, _ = attention.attend(torch.nn.Module(), query, key, value, None)
    assert pairs == [100 * 100]
    found.sum().backward()
    assert query.grad is not None


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
