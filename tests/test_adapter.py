"""LoRA: what moves, what is merged, what a checkpoint holds, what it costs, what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_budget import saved_bytes
from test_training_resume import same
from training_kit import MISTRAL, Stop, crash_after, journal, losses, scripted, settings, tiny_model, train, weights
from transformers import GPT2Config, GPT2LMHeadModel, LlamaForCausalLM

from langadapt.costs.adapter import FOUR_BITS, Adapter
from langadapt.costs.flops import Shape
from langadapt.costs.memory import Layout, activation_bytes, checkpoint_bytes, estimate
from langadapt.errors import ConfigError, MismatchError
from langadapt.planning.plan import plan
from langadapt.training import TrainSettings, adapter, model, parallel
from langadapt.training import optimizer as optimizers

CPU = torch.device("cpu")
LORA = {"kind": "lora", "rank": 4, "rate": 3.0}
RUN: dict[str, Any] = {"adapter": LORA, "rounding": "stochastic"}


def moved(network: Any, seed: int = 0) -> Any:
    """An adapted model whose second matrices are no zeros any more."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in network.named_parameters():
        if adapter.is_matrix(name):
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return network.eval()


def gpt2() -> GPT2LMHeadModel:
    return GPT2LMHeadModel(GPT2Config(vocab_size=64, n_positions=32, n_embd=32, n_layer=2, n_head=2))


@pytest.mark.parametrize("make", [tiny_model, lambda: tiny_model(tied=True), gpt2], ids=["llama", "tied", "gpt2"])
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 2e-6), ("pure-bf16", 0.02), ("mixed-bf16", 0.02)])
def test_the_merged_model_computes_what_the_adapted_one_does(make: Any, precision: str, tolerance: float) -> None:
    rounding = "stochastic" if precision == "pure-bf16" else "nearest"
    network = make()
    plain_names = [name for name, _ in network.named_parameters()]
    moved(model.load(network, settings(precision=precision, rounding=rounding, adapter=LORA), CPU))
    ids = torch.randint(64, (2, 20))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "mixed-bf16"):
        adapted = network(ids).logits.float()
        folded = dict(adapter.merged(network))
        adapter.fold(network)
        merged = network(ids).logits.float()
    assert [name for name, _ in network.named_parameters()] == plain_names == list(folded)
    assert not hasattr(network, "peft_config")
    assert (adapted - merged).norm() <= tolerance * adapted.norm()
    # What the matrices add is many times that.
    with torch.no_grad():
        assert (make().eval().to(adapted.dtype)(ids).logits - adapted).norm() > 10 * tolerance * adapted.norm()


def test_a_weight_is_merged_in_fp32_and_rounded_once(tmp_path: Path) -> None:
    start = {name: tensor.clone() for name, tensor in tiny_model().state_dict().items()}
    train(tmp_path, checkpoint_every=12, keep="last", **RUN)
    held = load_file(tmp_path / "checkpoints" / "step-00000012" / "shard-00000.safetensors")
    final = weights(tmp_path / "final")
    assert final.keys() == start.keys()
    layer = "model.layers.1.self_attn.k_proj"
    product = (
        held[f"model.{layer}.lora_B.default.weight"].double() @ held[f"model.{layer}.lora_A.default.weight"].double()
    )
    exact = start[f"{layer}.weight"].double() + 2.0 * product
    assert torch.equal(final[f"{layer}.weight"], exact.float().bfloat16())
    assert not torch.equal(final[f"{layer}.weight"], start[f"{layer}.weight"])
    for name in ("model.norm.weight", "model.layers.0.input_layernorm.weight"):
        assert torch.equal(final[name], start[name])
    for name in ("lm_head.weight", "model.embed_tokens.weight"):
        assert torch.equal(final[name], held[f"model.{name}"]) and not torch.equal(final[name], start[name])
    # Nothing of `peft` is needed, and nothing is left over.
    assert LlamaForCausalLM.from_pretrained(tmp_path / "final").num_parameters() == tiny_model().num_parameters()


def test_the_body_stays_bit_by_bit_and_a_checkpoint_holds_what_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = tiny_model()
    start = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with monkeypatch.context() as patch, pytest.raises(Stop):
        crash_after(8, patch)
        train(tmp_path, network, checkpoint_every=4, **RUN)
    state = {name.replace(".base_layer", ""): tensor for name, tensor in network.named_parameters()}
    tables = {"lm_head.weight", "model.embed_tokens.weight"}
    for name, tensor in start.items():
        assert torch.equal(state[name], tensor) == (name not in tables)
        assert (state[name].grad is not None) <= (name in tables)
    matrices = {name for name in state if adapter.is_matrix(name)}
    assert len(matrices) == 2 * 7 * 2 and all(state[name].any() for name in matrices)
    held = load_file(tmp_path / "checkpoints" / "step-00000008" / "shard-00000.safetensors")
    assert {name.removeprefix("model.") for name in held if name.startswith("model.")} == tables | matrices
    owners = {name.removeprefix("optimizer.").rpartition(".")[0] for name in held if name.startswith("optimizer.")}
    assert owners == tables | matrices


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"rounding": "split"},
        {"precision": "mixed-bf16", "rounding": "nearest"},
        {"embeddings_first_steps": 6, "new_rows": [5, 6]},
        {"activation_checkpointing": "full", "adapter": {**LORA, "targets": ["q_proj", "v_proj"]}},
    ],
    ids=["stochastic", "split", "mixed", "embeddings-first", "targets"],
)
def test_resume_is_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]) -> None:
    bits = {step: 2.0 if step == 6 else 3.0 for step in range(0, 30, 3)}
    run = {**RUN, "checkpoint_every": 4, "validate_every": 3, "validate": scripted(bits), **changes}
    train(tmp_path / "whole", **run)
    with monkeypatch.context() as patch, pytest.raises(Stop):
        crash_after(10, patch)
        train(tmp_path / "crashed", **run)
    train(tmp_path / "crashed", **run)
    assert losses(tmp_path / "whole") == losses(tmp_path / "crashed")
    # The best model, of step 6, comes out of the checkpoint of step 8.
    assert same(tmp_path / "whole" / "final", tmp_path / "crashed" / "final")
    train(tmp_path / "last", **{**run, "keep": "last"})
    assert not same(tmp_path / "whole" / "final", tmp_path / "last" / "final")


def test_a_checkpoint_does_not_go_on_beside_other_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(Stop):
        crash_after(8, patch)
        train(tmp_path, checkpoint_every=4, **RUN)
    other = tiny_model()
    other.model.layers[0].mlp.up_proj.weight.data[0, 0] += 1
    with pytest.raises(MismatchError, match="beside other weights than this model's; go on from the model"):
        train(tmp_path, other, checkpoint_every=4, **RUN)


def test_the_matrices_have_a_rate_of_their_own_and_no_decay(tmp_path: Path) -> None:
    train(tmp_path, schedule="constant", warmup=0.0, embedding_learning_rate=2e-3, **RUN)
    rates = journal(tmp_path)[-1]["learning_rate"]
    assert rates == {"embeddings": pytest.approx(2e-3), "adapter": pytest.approx(3e-2)}
    network = model.load(tiny_model(), settings(**RUN), CPU)
    made = optimizers.make(model.groups(network), settings(weight_decay=0.1, **RUN))
    assert {group["name"]: group["weight_decay"] for group in made.param_groups} == {"embeddings": 0, "adapter": 0}


def test_validations_see_the_model_that_is_exported(tmp_path: Path) -> None:
    ids, seen = torch.randint(64, (2, 20)), []

    def validate(network: Any, step: int) -> dict[str, float]:
        seen.append(network(ids).logits.float())
        network.generate(ids, max_new_tokens=2, do_sample=False, pad_token_id=0)
        return {"bits_per_byte_target": 10.0 - step}

    network = tiny_model()
    train(tmp_path, network, validate=validate, validate_every=12, **RUN)
    final = LlamaForCausalLM.from_pretrained(tmp_path / "final").eval()
    with torch.no_grad():
        exported = final(ids).logits.float()
        assert (seen[-1] - exported).norm() < 0.02 * exported.norm() < 0.2 * (seen[0] - exported).norm()
    # A model that was handed over is plain again, with the trained weights.
    assert all(torch.equal(tensor, final.state_dict()[name]) for name, tensor in network.state_dict().items())


PRECISIONS = [("pure-bf16", "stochastic"), ("pure-bf16", "split"), ("mixed-bf16", "nearest")]


@pytest.mark.parametrize(("precision", "rounding"), PRECISIONS)
@pytest.mark.parametrize("targets", [[], ["q_proj", "down_proj"]], ids=["all", "two"])
def test_the_plan_counts_the_bytes_of_the_tensors(precision: Any, rounding: Any, targets: list[str]) -> None:
    asked = settings(precision=precision, rounding=rounding, adapter={"rank": 8, "targets": targets})
    network = model.load(tiny_model(vocab_size=512), asked, CPU)
    optimizer = optimizers.make(model.groups(network), asked)
    ids = torch.randint(64, (2, 16))
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "mixed-bf16"):
        network(ids, labels=ids).loss.backward()
    gradients = sum(one.grad.nbytes for one in network.parameters() if one.grad is not None)
    optimizer.step()
    values = [value for state in optimizer.state.values() for value in state.values()]
    states = sum(value.nbytes for value in values if isinstance(value, torch.Tensor))
    shape = Shape.of(network.config.to_dict())
    predicted = estimate(shape, Layout(precision, rounding, adapter=Adapter.of(asked)), 16)
    assert sum(one.nbytes for one in network.parameters()) == pytest.approx(predicted.parameters, rel=1e-3)
    assert gradients == pytest.approx(predicted.gradients, rel=1e-3)
    assert states == pytest.approx(predicted.states, rel=0.01)


@pytest.mark.parametrize("recompute", ["none", "full"])
@pytest.mark.parametrize("autocast", [False, True], ids=["pure", "mixed"])
def test_activations_are_what_autograd_saves(recompute: str, autocast: bool) -> None:
    precision, rounding = ("mixed-bf16", "nearest") if autocast else ("pure-bf16", "stochastic")
    asked = settings(precision=precision, rounding=rounding, adapter={"rank": 8})

    def adapt(network: Any) -> None:
        adapter.attach(network, asked, CPU)
        model.train_parts(network, "all")

    shape, four = saved_bytes(4, recompute, autocast, adapt)
    _, two = saved_bytes(2, recompute, autocast, adapt)
    predicted = activation_bytes(shape, recompute, autocast=autocast, adapter=Adapter(8))
    assert (four - two) / 2 / 104 == pytest.approx(predicted, rel=0.05)


def test_checkpoints_have_the_predicted_size(tmp_path: Path) -> None:
    network = tiny_model(vocab_size=4096)
    shape = Shape.of(network.config.to_dict())
    train(tmp_path, network, steps=1, **RUN)
    size = sum(file.stat().st_size for file in (tmp_path / "checkpoints" / "step-00000001").iterdir())
    assert size == pytest.approx(checkpoint_bytes(shape, settings(**RUN)), rel=0.06)


def test_what_does_not_fit_in_full_fits_with_an_adapter() -> None:
    asked = settings(steps=100, sequence_length=2048, batch_sequences=32, micro_batch="auto", rounding="stochastic")
    with pytest.raises(ConfigError, match=r"`train\.adapter: \{kind: lora\}` would fit, in \d\d\.\d GiB"):
        plan(MISTRAL, asked, gpus="24gb")
    made = plan(MISTRAL, replace(asked, adapter=LORA), gpus="24gb")
    tables, low = 2 * 32000 * 4096, 4 * 32 * (3 * (4096 + 14336) + 2 * (4096 + 4096) + 2 * (4096 + 1024))
    assert made.trained == tables + low and made.rates["adapter"] == pytest.approx(3e-2)
    best = made.best.memory
    assert (best.states, best.parameters) == (4 * made.trained, 2 * (made.parameters + low))
    assert any("no GPU has timed them" in note for note in made.notes)
    assert made.best.layout.describe().startswith("pure-bf16 stochastic, LoRA rank 4")
    json.dumps(made.to_dict())
    small = plan(MISTRAL, replace(asked, adapter={**LORA, "kind": "qlora"}), gpus="24gb").best.memory
    body = Adapter(4).weights(Shape.of(MISTRAL))
    assert best.parameters - small.parameters == pytest.approx((2 - FOUR_BITS) * body, rel=1e-6)
    # The same arithmetic but for the gradients of frozen weights.
    full = plan(MISTRAL, asked, gpus="h200").best.tokens_per_second
    assert 1.2 < plan(MISTRAL, replace(asked, adapter=LORA), gpus="h200").best.tokens_per_second / full < 1.6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adapter": {"rank": 0}}, "adapter.rank: 0 is no positive whole number"),
        ({"adapter": {"rank": 2.5}}, "adapter.rank: 2.5 is no positive whole number"),
        ({"adapter": {"alpha": 0.0}}, "adapter.alpha: 0.0 is not positive"),
        ({"adapter": {"kind": "dora"}}, "adapter.kind: 'dora' is none of lora and qlora"),
        ({"adapter": {"ranks": 4}}, "adapter: 'ranks' is none of its keys, which are kind, rank"),
        ({"adapter": "lora"}, "adapter: 'lora' is none of its keys"),
        ({"adapter": {}, "parts": "embeddings"}, "`parts: embeddings` leaves the body as it is; keep one of them"),
        ({"adapter": {}, "protect": 0.5}, "the weights whose columns `protect` keeps do not move; keep one"),
        ({"adapter": {}, "norms_in_fp32": True}, "norms are not trained beside it"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainSettings(**changes)


def test_one_process_and_one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = settings(**RUN)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="adapter: lora works on one GPU, but there are 2; take one"):
        parallel.join(asked)
    with pytest.raises(ConfigError, match="works on one GPU, but there are 2"):
        plan(MISTRAL, asked, gpus="2 x h200")


def test_what_a_model_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for asked, message in (
        ({"targets": ["q_prj"]}, r"LlamaForCausalLM has no linear layer 'q_prj'; did you mean `q_proj`\?; there are"),
        ({"targets": ["lm_head"]}, "has no linear layer 'lm_head'; there are down_proj, gate_proj"),
        ({"rank": 17}, r"rank: 17 is above 16, the smaller side of `model\.layers\.0\.self_attn\.k_proj`"),
    ):
        with pytest.raises(ConfigError, match=message):
            model.load(tiny_model(), settings(adapter=asked, rounding="stochastic"), CPU)
    network = model.load(tiny_model(), settings(**RUN), CPU)
    with pytest.raises(ConfigError, match="has low-rank matrices already"):
        model.load(network, settings(**RUN), CPU)
    one = model.load(tiny_model(), settings(adapter={"targets": ["1.mlp.up_proj"]}), CPU)
    assert list(adapter.adapted_layers(one)) == ["model.layers.1.mlp.up_proj"]


def test_four_bits_on_a_cpu_for_want_of_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused, since it is slow there, but of the same functions as on a GPU."""
    pytest.importorskip("bitsandbytes")
    run = {**RUN, "adapter": {**LORA, "kind": "qlora"}}
    with pytest.raises(ConfigError, match="on a GPU"):
        train(tmp_path / "refused", **run)
    monkeypatch.setattr(adapter, "check_packages", lambda *_: None)
    # Some CPUs pack the bits anew for inference, and cannot go back to training.
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: False)
    shape = {"hidden_size": 128, "intermediate_size": 128, "num_attention_heads": 2}
    start = {name: tensor.clone() for name, tensor in tiny_model(**shape).state_dict().items()}
    network = moved(model.load(tiny_model(**shape), settings(**run), CPU))
    held = sum(one.nbytes for name, one in network.named_parameters() if "proj" in name and not adapter.is_matrix(name))
    assert held * 4 == sum(tensor.nbytes for name, tensor in start.items() if "proj" in name)
    ids = torch.randint(64, (2, 20))
    with torch.no_grad():
        adapted = network(ids).logits.float()
        adapter.fold(network)
        assert (network(ids).logits.float() - adapted).norm() < 0.02 * adapted.norm()
    train(tmp_path / "whole", tiny_model(**shape), **run)
    with monkeypatch.context() as patch, pytest.raises(Stop):
        crash_after(10, patch)
        train(tmp_path / "crashed", tiny_model(**shape), checkpoint_every=4, **run)
    train(tmp_path / "crashed", tiny_model(**shape), checkpoint_every=4, **run)
    assert same(tmp_path / "whole" / "final", tmp_path / "crashed" / "final")
    # What is merged is the weight as it was held: of a model that hardly moved, the start in 4 bits.
    train(tmp_path / "still", tiny_model(**shape), **{**run, "steps": 1, "adapter": {**run["adapter"], "rate": 1e-9}})
    final, name = weights(tmp_path / "still" / "final"), "model.layers.0.mlp.up_proj.weight"
    assert final.keys() == start.keys()
    assert 0.05 < (final[name].float() - start[name].float()).norm() / start[name].float().norm() < 0.15
