"""Products of bf16 through float32, on whatever CPU: beside exact ones, and beside torch's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import byte_tokenizer, tiny_llama
from torch import Tensor, nn
from training_kit import losses, tiny_model, train

from langadapt.evaluation.bits_per_byte import bits_per_byte
from langadapt.models import products

ROUNDING = 2.0**-8
"""Of bf16, half a unit in the last place of what is just above a power of two."""


@pytest.fixture(params=[True, False], ids=["slow", "native"])
def slow(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Both kinds of CPU."""
    monkeypatch.setattr(products, "is_slow", lambda: request.param)
    return bool(request.param)


def drawn(*shape: int) -> Tensor:
    """Of bf16."""
    return torch.randn(*shape).bfloat16()


def near(found: Tensor, exact: Tensor) -> bool:
    """Whether ``found`` is ``exact`` rounded to bf16, or its neighbour where a float32 sum was off."""
    return found.dtype == torch.bfloat16 and torch.allclose(found.double(), exact, rtol=1.01 * ROUNDING, atol=1e-4)


@pytest.mark.parametrize("span", [1, 3, 1 << 20], ids=lambda rows: f"{rows} rows at a time")
@pytest.mark.parametrize("into", [False, True], ids=["new", "given"])
def test_products_are_rounded_once(slow: bool, monkeypatch: pytest.MonkeyPatch, span: int, into: bool) -> None:
    monkeypatch.setattr(products, "WEIGHT_BYTES", 4 * 24 * span)
    torch.manual_seed(0)
    states, weight, bias, gradient = drawn(17, 24), drawn(10, 24), drawn(10), drawn(17, 10)
    exact = [one.double() for one in (states, weight, bias, gradient)]
    out = [torch.empty(17, width).bfloat16() if into else None for width in (10, 24)]
    assert near(products.outputs(states, weight, out=out[0]), exact[0] @ exact[1].t())
    assert near(products.outputs(states, weight, bias, out=out[0]), exact[0] @ exact[1].t() + exact[2])
    assert near(products.of_states(gradient, weight, out=out[1]), exact[3] @ exact[1])
    assert near(products.of_weight(gradient, states), exact[3].t() @ exact[0])
    if into:
        assert out[0] is not None and near(out[0], exact[0] @ exact[1].t() + exact[2])


def gradients(layer: nn.Linear, states: Tensor, gradient: Tensor) -> list[Tensor]:
    """Output, and gradients of states and parameters."""
    leaf = states.clone().requires_grad_()
    output = layer(leaf)
    return [output.detach(), *torch.autograd.grad(output, [leaf, *layer.parameters()], gradient.to(output))]


@pytest.mark.parametrize("autocast", [False, True], ids=["bf16", "autocast"])
@pytest.mark.parametrize("bias", [False, True])
def test_a_layer_has_the_gradients_of_torch(monkeypatch: pytest.MonkeyPatch, autocast: bool, bias: bool) -> None:
    monkeypatch.setattr(products, "is_slow", lambda: True)
    torch.manual_seed(1)
    dtype = torch.float32 if autocast else torch.bfloat16
    layer = nn.Linear(24, 10, bias=bias).to(dtype)
    states, gradient = torch.randn(3, 40, 24).to(dtype), torch.randn(3, 40, 10)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        with products.widening(torch.device("cpu")):
            found = gradients(layer, states, gradient)
        wanted = gradients(layer, states, gradient)
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == other.dtype
        assert torch.allclose(one.float(), other.float(), rtol=2 * ROUNDING, atol=2e-3)


@pytest.mark.parametrize("change", ["float32", "few rows", "another device", "a fast CPU"])
def test_what_is_left_to_torch(monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    def never(*_: Any) -> Tensor:
        raise AssertionError("this is not to be widened")

    monkeypatch.setattr(products, "is_slow", lambda: change != "a fast CPU")
    monkeypatch.setattr(products, "linear", never)
    dtype = torch.float32 if change == "float32" else torch.bfloat16
    layer = nn.Linear(24, 10).to(dtype)
    device = torch.device("meta" if change == "another device" else "cpu")
    states = torch.randn(3 if change == "few rows" else 64, 24, dtype=dtype)
    with products.widening(device):
        assert torch.equal(layer(states), nn.functional.linear(states, layer.weight, layer.bias))
    if change != "another device":
        return
    with products.widening(torch.device("cpu")):
        assert layer.to(device)(states.to(device)).device.type == "meta"


@pytest.mark.parametrize("precision", ["pure-bf16", "mixed-bf16"])
def test_training_learns_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    found = {}
    for slow in (True, False):
        monkeypatch.setattr(products, "is_slow", lambda slow=slow: slow)
        train(tmp_path / str(slow), tiny_model(), precision=precision, rounding="nearest", log_every=1)
        found[slow] = losses(tmp_path / str(slow))
    assert found[True] == pytest.approx(found[False], rel=2e-3)


@pytest.mark.parametrize("how", ["selective", "full"])
def test_what_is_made_again_is_made_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setattr(products, "is_slow", lambda: True)
    for name, checkpointing in (("kept", "none"), ("again", how)):
        train(tmp_path / name, tiny_model(), activation_checkpointing=checkpointing, log_every=1)
    assert losses(tmp_path / "kept") == losses(tmp_path / "again")


def test_evaluation_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = tiny_llama(max_position_embeddings=128).to(torch.bfloat16), byte_tokenizer(bos_token="<s>")
    found = {}
    for slow in (True, False):
        monkeypatch.setattr(products, "is_slow", lambda slow=slow: slow)
        found[slow] = bits_per_byte(model, tokenizer, ["a sentence that is long enough to be widened, " * 3], window=64)
    assert found[True] == pytest.approx(found[False], rel=5e-3)
