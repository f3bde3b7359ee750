"""The head and its loss beside slow, plain versions of themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy, linear
from training_kit import losses, tiny_model, train

from langadapt.errors import ConfigError
from langadapt.training import loss as loss_module
from langadapt.training.attention import choice as attention
from langadapt.training.data.batches import IGNORE
from langadapt.training.loss import ChunkedCrossEntropy, HeadLoss
from langadapt_kernels.backend import mend_interpreter

CPU = torch.device("cpu")


@pytest.mark.parametrize(("chunk", "kernel"), [(1, False), (7, False), (16, False), (100, False), (7, True)])
@pytest.mark.parametrize("with_bias", [False, True])
def test_chunked_loss_and_gradients_equal_torch_in_fp32(chunk: int, kernel: bool, with_bias: bool) -> None:
    if kernel:
        pytest.importorskip("triton")
    torch.manual_seed(0)
    hidden = torch.randn(16, 8, requires_grad=True)
    weight = torch.randn(20, 8, requires_grad=True)
    bias = torch.randn(20, requires_grad=True) if with_bias else None
    targets = torch.randint(20, (16,))
    targets[3] = targets[9] = -100
    inputs = [tensor for tensor in (hidden, weight, bias) if tensor is not None]
    loss, losses = ChunkedCrossEntropy.apply(hidden, weight, bias, targets, 0.25, chunk, kernel)
    mine = torch.autograd.grad(3 * loss, inputs)
    plain = cross_entropy(linear(hidden, weight, bias), targets, ignore_index=-100, reduction="none")
    want = torch.autograd.grad(3 * 0.25 * plain.sum(), inputs)
    torch.testing.assert_close(losses, plain)
    for one, other in zip(mine, want, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("kernel", [False, True])
def test_chunked_loss_in_bf16_errs_no_more_than_torch(kernel: bool) -> None:
    if kernel:
        pytest.importorskip("triton")
    torch.manual_seed(0)
    hidden, weight = torch.randn(64, 32), torch.randn(100, 32) / 4
    targets = torch.randint(100, (64,))
    truth = torch.autograd.grad(cross_entropy(linear(hidden.requires_grad_(), weight), targets), hidden)[0]
    low = hidden.detach().bfloat16().requires_grad_()
    plain = torch.autograd.grad(cross_entropy(linear(low, weight.bfloat16()).float(), targets), low)[0]
    loss, _ = ChunkedCrossEntropy.apply(low, weight.bfloat16(), None, targets, 1 / 64, 16, kernel)
    mine = torch.autograd.grad(loss, low)[0]
    assert (mine - truth).norm() <= 1.1 * (plain - truth).norm()


def test_the_head_is_handed_back_where_logits_are_capped() -> None:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, final_logit_softcapping=3.0, initializer_range=0.5,
    )  # fmt: skip
    capped = Gemma2ForCausalLM(config)
    ids, positions = attention.example(64, 8, CPU)
    inputs = {"input_ids": ids, "position_ids": positions}
    head = HeadLoss(capped, "auto")
    assert not head.fits(inputs, ids) and head.chunk == 0
    loss, _ = head(inputs, ids, 1.0)
    want = cross_entropy(capped(**inputs, use_cache=False).logits.flatten(0, 1).float(), ids.flatten(), reduction="sum")
    torch.testing.assert_close(loss, want)


@pytest.mark.parametrize("bias", [False, True])
def test_ligers_loss_and_gradients_are_ours(bias: bool) -> None:
    pytest.importorskip("liger_kernel")
    mend_interpreter()
    ids, positions = attention.example(64, 8, CPU)
    labels = ids.roll(-1, 1)
    labels[0, :5] = IGNORE
    inputs = {"input_ids": ids, "position_ids": positions}
    found = {}
    for chunk in ("auto", "liger"):
        network = tiny_model().float()
        if bias:
            network.lm_head.bias = torch.nn.Parameter(torch.linspace(-1, 1, 64))
        loss, losses = HeadLoss(network, chunk)(inputs, labels, 1 / 7)
        loss.backward()
        gradients = [parameter.grad for parameter in network.parameters()]
        assert losses.dtype == torch.float32 and not losses.requires_grad
        found[chunk] = [loss.detach(), losses, *gradients]
    for ours, ligers in zip(found["auto"], found["liger"], strict=True):
        torch.testing.assert_close(ligers, ours, rtol=1e-4, atol=1e-6)


def test_training_with_ligers_loss(tmp_path: Path) -> None:
    pytest.importorskip("liger_kernel")
    mend_interpreter()
    train(tmp_path / "liger", loss_chunk="liger", steps=2, log_every=1)
    train(tmp_path / "ours", steps=2, log_every=1)
    assert losses(tmp_path / "liger") == pytest.approx(losses(tmp_path / "ours"), rel=2e-3)


def test_training_with_the_fused_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    train(tmp_path / "fused", loss_chunk="fused", steps=2, log_every=1)
    train(tmp_path / "plain", steps=2, log_every=1)
    assert losses(tmp_path / "fused") == pytest.approx(losses(tmp_path / "plain"), rel=2e-3)
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(ConfigError, match="loss_chunk: fused needs a GPU"):
        train(tmp_path / "refused", loss_chunk="fused")


def test_ligers_loss_is_refused_where_it_cannot_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    monkeypatch.setattr(loss_module.importlib.metadata, "version", lambda _: "0.8.5")
    with pytest.raises(ConfigError, match="loss_chunk: liger needs a GPU"):
        train(tmp_path, loss_chunk="liger")
    monkeypatch.setattr(loss_module.importlib.metadata, "version", lambda _: "0.7.0")
    with pytest.raises(ConfigError, match=r"needs liger-kernel 0\.8\.5 or later; 0\.7\.0 is installed"):
        train(tmp_path, loss_chunk="liger")

    monkeypatch.setattr(loss_module.importlib.metadata, "version", lambda _: "0.9.0rc1.dev2+local")
    with pytest.raises(ConfigError, match="loss_chunk: liger needs a GPU"):
        train(tmp_path, loss_chunk="liger")

    def absent(name: str) -> str:
        raise loss_module.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(loss_module.importlib.metadata, "version", absent)
    with pytest.raises(ConfigError, match="pip install liger-kernel"):
        train(tmp_path, loss_chunk="liger")


@pytest.mark.parametrize("chunk", ["auto", 0])
def test_the_loss_of_experts_is_the_models_own(chunk: Any, caplog: pytest.LogCaptureFixture) -> None:
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 8}
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "decoder_sparse_step": 1}
    config = Qwen3MoeConfig(
        **sizes,
        **experts,
        num_attention_heads=4,
        num_key_value_heads=2,
        output_router_logits=True,
        router_aux_loss_coef=0.5,
    )
    torch.manual_seed(0)
    ours, theirs = Qwen3MoeForCausalLM(config), Qwen3MoeForCausalLM(config)
    theirs.load_state_dict(ours.state_dict())
    ids = torch.randint(64, (2, 32))
    labels = ids.roll(-1, 1)
    labels[:, -1] = IGNORE
    want = theirs(input_ids=ids, labels=torch.cat([torch.full((2, 1), IGNORE), labels[:, :-1]], 1)).loss
    want.backward()
    head = HeadLoss(ours, chunk)
    got, _ = head({"input_ids": ids}, labels, 1 / int((labels != IGNORE).sum()))
    got.backward()
    torch.testing.assert_close(got, want)
    gates = [network.model.layers[0].mlp.gate.weight.grad for network in (ours, theirs)]
    assert gates[1].abs().max() > 0
    torch.testing.assert_close(*gates, rtol=1e-3, atol=1e-6)
    mine, own = head.own({"input_ids": ids}, labels)
    assert mine == pytest.approx(own, rel=1e-4)


def test_a_model_that_has_another_loss_of_its_own_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    network = tiny_model()
    network.loss_function = lambda logits, labels, *_, **__: logits.float().square().mean() + 7
    with caplog.at_level("WARNING"):
        train(tmp_path, network, steps=1)
    assert "LlamaForCausalLM has a loss of its own (7." in caplog.text
