"""Parts of the loop beside slow, plain versions of themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from training_kit import losses, settings, tiny_model, train, weights

from langadapt.training import model, optimizer
from langadapt.training.attention import choice as attention

CPU = torch.device("cpu")


def test_selective_recomputation_keeps_the_attention_of_every_kernel() -> None:
    import torch.nn.attention.varlen  # noqa: F401  (registers its operator)

    names = {str(operation) for operation in model.expensive()}
    assert {"aten.mm.default", "aten._scaled_dot_product_flash_attention.default"} <= names
    assert "torch_attn._varlen_attn.default" in names


@pytest.mark.filterwarnings("ignore")  # torch reads .grad of activations while it traces
@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
def test_blocks_are_compiled_once_whatever_is_recomputed_and_validated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recompute: str
) -> None:
    """Windows of a validation have many shapes; none of them is compiled."""
    from torch._dynamo.utils import counters

    plain = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: plain(module, backend="aot_eager"))

    def validate(network: Any, step: int) -> dict[str, float]:
        return {f"loss{n}": network(torch.ones(2, n, dtype=torch.int64)).logits.float().std() for n in (10, 20, 33)}

    run = {"steps": 4, "log_every": 1, "validate": validate, "validate_every": 2, "precision": "fp32"}
    run |= {"activation_checkpointing": recompute, "rounding": "nearest"}
    train(tmp_path / "eager", **run)
    torch.compiler.reset()
    counters.clear()
    train(tmp_path / "compiled", **run, compile=True)
    # transformers gives no mask where all windows of a micro-batch hold one document.
    assert 1 <= counters["stats"]["unique_graphs"] <= 2
    assert losses(tmp_path / "compiled") == pytest.approx(losses(tmp_path / "eager"), rel=1e-4)


@pytest.mark.parametrize(("beta2", "stochastic"), [(0.95, False), (0.99, False), (0.999, True)])
def test_second_moments_that_could_not_shrink_are_rounded_stochastically(beta2: float, stochastic: bool) -> None:
    made = optimizer.make(model.groups(tiny_model()), settings(betas=(0.9, beta2), rounding="split"))
    assert {bool(group["stochastic_variance"]) for group in made.param_groups} == {stochastic}


def test_groups_are_complete_and_disjoint() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    for network in (
        tiny_model(),
        tiny_model(tied=True),
        GPT2LMHeadModel(GPT2Config(vocab_size=64, n_positions=32, n_embd=32, n_layer=2, n_head=2)),
    ):
        groups = model.groups(network)
        names = [name for named in groups.values() for name, _ in named]
        assert sorted(names) == sorted(name for name, _ in network.named_parameters())
        assert all(parameter.ndim >= 2 for _, parameter in groups["matrices"])
        assert not any("wpe" in name or "embed" in name or "wte" in name for name, _ in groups["matrices"])


def test_gradient_sums_in_fp32_lose_nothing_where_bf16_sums_do() -> None:
    torch.manual_seed(0)
    parts = [torch.randn(50, dtype=torch.bfloat16) * 0.01 + 1 for _ in range(512)]
    truth = torch.stack([part.double() for part in parts]).sum(0)
    plain = torch.nn.Parameter(torch.zeros(50, dtype=torch.bfloat16))
    summed = torch.nn.Parameter(torch.zeros(50, dtype=torch.bfloat16))
    sums = optimizer.GradientSums([summed])
    for part in parts:
        (plain * part).sum().backward()
        (summed * part).sum().backward()
        assert summed.grad is None
    sums.hand_over()
    assert plain.grad is not None and summed.grad is not None
    assert ((summed.grad.double() - truth) / truth).abs().max() < 1e-5
    assert ((plain.grad.double() - truth) / truth).abs().max() > 1e-2


@pytest.mark.parametrize(
    "changes", [{"accumulate": "bf16"}, {"micro_batch": 4}, {"precision": "mixed-bf16", "rounding": "nearest"}]
)
def test_norms_taken_in_the_backward_pass_train_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    """As on a single GPU; with several micro-batches, with the embeddings first."""
    run = {"steps": 6, "embeddings_first_steps": 2, "new_rows": [5, 6], **changes}
    train(tmp_path / "pass", **run)
    plain, known = optimizer.make, []

    def make(groups: Any, settings: Any, clip_apart: bool, whole: bool) -> Any:
        made = plain(groups, settings, clip_apart, whole_gradients=True)
        made.register_step_pre_hook(lambda *_: known.append(sum(map(made.gradient_squares.known, made.state))))
        return made

    monkeypatch.setattr(optimizer, "make", make)
    train(tmp_path / "hooks", **run)
    # The first phase trains copies of rows; states are made by the first step.
    assert known[:3] == [0, 0, 0] and min(known[3:]) == max(known[3:]) > 10
    before, after = weights(tmp_path / "pass" / "final"), weights(tmp_path / "hooks" / "final")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_norms_in_fp32_keep_small_updates_and_bf16_activations() -> None:
    network = model.load(tiny_model().float(), settings(norms_in_fp32=True), CPU)
    dtypes = {name: parameter.dtype for name, parameter in network.named_parameters()}
    assert {dtype for name, dtype in dtypes.items() if "norm" in name} == {torch.float32}
    assert {dtype for name, dtype in dtypes.items() if "norm" not in name} == {torch.bfloat16}
    ids, positions = attention.example(64, 8, CPU)
    assert network(input_ids=ids, position_ids=positions).logits.dtype == torch.bfloat16
    # Rotary frequencies stay as exact as they came.
    assert network.model.rotary_emb.inv_freq.dtype == torch.float32
