"""Predictions against counted bytes, and plans that say what fits, what it buys and when it ends."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_kit import MISTRAL, settings, tiny_model, train
from transformers import AutoConfig, AutoModelForCausalLM

from langadapt.costs import devices, speed
from langadapt.costs.cpu import trained_flops
from langadapt.costs.devices import Device
from langadapt.costs.flops import Shape
from langadapt.costs.memory import Layout, activation_bytes, checkpoint_bytes, estimate
from langadapt.costs.speed import communication_seconds
from langadapt.errors import ConfigError, DataError
from langadapt.planning import pilot
from langadapt.planning.plan import Corpus, Plan, plan
from langadapt.training import layout
from langadapt.training import model as models
from langadapt.training import optimizer as optimizers
from langadapt.training.loss import HeadLoss
from langadapt.training.parallel import ProcessGroup


def architectures() -> list[Any]:
    from transformers import (
        GPT2Config,
        GPT2LMHeadModel,
        LlamaConfig,
        LlamaForCausalLM,
        MixtralConfig,
        MixtralForCausalLM,
        Qwen3Config,
        Qwen3ForCausalLM,
    )

    common = {"vocab_size": 512, "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    return [
        LlamaForCausalLM(LlamaConfig(**common, **heads)),
        LlamaForCausalLM(LlamaConfig(**common, **heads, tie_word_embeddings=True)),
        Qwen3ForCausalLM(Qwen3Config(**common, **heads, head_dim=32)),
        MixtralForCausalLM(MixtralConfig(**common, **heads, num_local_experts=4)),
        GPT2LMHeadModel(GPT2Config(vocab_size=512, n_embd=64, n_layer=3, n_head=4, n_positions=64)),
    ]


@pytest.mark.parametrize("which", range(5))
def test_parameters_are_counted_from_the_config(which: int) -> None:
    network = architectures()[which]
    counted = sum(parameter.numel() for parameter in network.parameters())
    # Biases and learned positions are left out: a few per cent of a model this small, nothing of a large one.
    assert Shape.of(network.config.to_dict()).parameters == pytest.approx(counted, rel=0.035 if which == 4 else 0.005)


def test_mistral_has_its_published_size_and_flops() -> None:
    shape = Shape.of(MISTRAL)
    assert shape.parameters == 7_241_732_096
    # 6 N without the input embedding, plus attention: 6 x 7.11 B + 12 x 32 x 4096 x 2048.
    assert shape.flops_per_token(2048) == pytest.approx(6 * 7.1107e9 + 12 * 32 * 4096 * 2048, rel=1e-4)
    assert Shape.of(MISTRAL, 65536).flops_per_token(0) - shape.flops_per_token(0) == 6 * 4096 * (65536 - 32000)
    # Half of a window of 4,096: 45.9 GFLOP per token, at 10,000 tokens/s on a GPU of 989 TFLOP/s.
    assert shape.mfu(10_000, 4096, 989e12) == pytest.approx(1e4 * shape.flops_per_token(2048) / 989e12)


def test_sizes_of_each_layer_are_counted_by_their_mean() -> None:
    each = {**MISTRAL, "num_hidden_layers": 2, "intermediate_size": [100, 300], "num_key_value_heads": [4, 8]}
    mean = {**each, "intermediate_size": 200, "num_key_value_heads": 6}
    assert Shape.of(each) == Shape.of(mean)
    apart = mean | {"per_layer_config": {"1": {"intermediate_size": 3 * mean["intermediate_size"]}}}
    layers = mean["num_hidden_layers"]
    assert Shape.of(apart).inner == round(mean["intermediate_size"] * (layers + 2) / layers)


@pytest.mark.parametrize("kind", ["ernie4_5_moe", "gemma3n_text", "gemma4_text"])
def test_all_experts_and_further_tables_are_counted(kind: str) -> None:
    config = AutoConfig.for_model(kind)
    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    counted = sum(parameter.numel() for parameter in network.parameters())
    shape = Shape.of(config.to_dict())
    assert shape.parameters == pytest.approx(counted, rel=0.02)
    assert shape.multiplied_parameters < 0.7 * counted


def saved_bytes(layers: int, recompute: str, autocast: bool, adapt: Any = lambda network: None) -> tuple[Shape, int]:
    """Bytes that autograd keeps of a forward pass over 2 x 52 tokens, each storage once, parameters left out.

    ``adapt``: changes the model before that.
    """
    shape = {"hidden_size": 128, "intermediate_size": 384, "num_attention_heads": 4, "num_key_value_heads": 2}
    network = tiny_model(num_hidden_layers=layers, **shape).to(torch.float32 if autocast else torch.bfloat16).train()
    adapt(network)
    models.checkpoint_activations(network, recompute)
    own = {tensor.untyped_storage().data_ptr() for tensor in [*network.parameters(), *network.buffers()]}
    shapes = {parameter.shape for parameter in network.parameters()}
    seen: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        # Autocast's copies of weights, kept once per step, have their shapes.
        if tensor.untyped_storage().data_ptr() not in own and {
            tensor.shape,
            tensor.mT.shape if tensor.ndim == 2 else (),
        }.isdisjoint(shapes):
            seen[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    ids = torch.randint(64, (2, 52))
    inputs = {"input_ids": ids, "position_ids": torch.arange(52).expand(2, -1)}
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=autocast),
    ):
        HeadLoss(network, "auto")(inputs, ids, 1.0)
    return Shape.of(network.config.to_dict()), sum(tensor.untyped_storage().nbytes() for tensor in seen.values())


@pytest.mark.parametrize("recompute", ["none", "full"])
@pytest.mark.parametrize("autocast", [False, True], ids=["pure", "mixed"])
def test_activations_are_what_autograd_saves(recompute: str, autocast: bool) -> None:
    shape, four = saved_bytes(4, recompute, autocast)
    _, two = saved_bytes(2, recompute, autocast)
    assert (four - two) / 2 / 104 == pytest.approx(activation_bytes(shape, recompute, autocast=autocast), rel=0.05)


@pytest.mark.parametrize(
    ("changes", "layout"),
    [
        ({"rounding": "nearest"}, Layout()),
        ({"rounding": "split8"}, Layout(rounding="split8")),
        ({"rounding": "kahan"}, Layout(rounding="kahan")),
        ({"rounding": "split"}, Layout(rounding="split", micro_batches=2)),
        ({"precision": "mixed-bf16", "rounding": "nearest"}, Layout("mixed-bf16")),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_parameters_gradients_and_states_are_the_bytes_of_the_tensors(changes: dict[str, Any], layout: Layout) -> None:
    plan_settings = settings(**changes)
    network = models.load(tiny_model(vocab_size=2048), plan_settings, torch.device("cpu"))
    groups = models.groups(network)
    optimizer = optimizers.make(groups, plan_settings)
    sums = optimizers.GradientSums(list(network.parameters())) if layout.exact_sums else None
    ids = torch.randint(64, (2, 16))
    with torch.autocast("cpu", torch.bfloat16, enabled=layout.precision == "mixed-bf16"):
        network(ids, labels=ids).loss.backward()
    if sums is not None:
        gradients = sum(tensor.nbytes for tensor in sums.sums.values())
        sums.hand_over()
    else:
        gradients = sum(parameter.grad.nbytes for parameter in network.parameters() if parameter.grad is not None)
    optimizer.step()
    states = sum(
        value.nbytes
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    )
    predicted = estimate(Shape.of(network.config.to_dict()), layout, 16)
    assert sum(parameter.nbytes for parameter in network.parameters()) == pytest.approx(predicted.parameters, rel=0.01)
    assert gradients == pytest.approx(predicted.gradients, rel=0.01)
    assert states == pytest.approx(predicted.states, rel=0.01)


def test_checkpoints_have_the_predicted_size(tmp_path: Path) -> None:
    network = tiny_model(vocab_size=4096)
    shape = Shape.of(network.config.to_dict())
    train(tmp_path, network, steps=1, rounding="kahan")
    size = sum(file.stat().st_size for file in (tmp_path / "checkpoints" / "step-00000001").iterdir())
    assert size == pytest.approx(checkpoint_bytes(shape, settings(rounding="kahan")), rel=0.03)


def mistral_plan(**changes: Any) -> Plan:
    values: dict[str, Any] = {"steps": 7680, "sequence_length": 4096, "batch_sequences": 256, "micro_batch": "auto"}
    values |= {"rounding": "nearest", "schedule": "infinite", "learning_rate": 3e-5, "min_learning_rate": 2e-6}
    outer = {key: changes.pop(key) for key in ("gpus", "hours", "vocabulary", "corpus", "price") if key in changes}
    now = datetime(2026, 1, 1)
    return plan(MISTRAL, settings(**{**values, **changes}), now=now, **{"gpus": "4 x h100-80gb", **outer})


def test_pure_bf16_fits_one_gpu_where_mixed_does_not() -> None:
    """The paper's observation: 8 bytes per parameter fit into 80 GB, 16 do not."""
    made = mistral_plan(gpus="h100-80gb", compile=True, accumulate="bf16")
    assert made.best.layout.activation_checkpointing == "none" and made.best.layout.micro_batch == 1
    assert not any(option.fits for option in made.options if option.layout.precision == "mixed-bf16")
    assert any(option.fits for option in mistral_plan().options if option.layout.precision == "mixed-bf16")


def test_the_table_of_layouts_fits_a_terminal() -> None:
    from rich.console import Console

    from langadapt.cli.plan import layouts

    for gpus in ("4 x h100-80gb", "h100-80gb"):
        console = Console(width=80)
        with console.capture() as captured:
            console.print(layouts(mistral_plan(gpus=gpus)))
        shown = captured.get()
        assert "…" not in shown and "no room" in shown and "selective" in shown
        assert ("FSDP grad-op" in shown) == (gpus != "h100-80gb")


def test_a_plan_counts_tokens_text_epochs_dates_and_cost() -> None:
    made = mistral_plan(vocabulary=32768, corpus=Corpus(2_000_000_000, 4.7, True), price=2.0, hours=10)
    assert made.tokens == 7680 * 2**20 and made.text_bytes == int(made.tokens * 4.7)
    assert made.epochs == pytest.approx(made.tokens / 2e9) and made.cost == pytest.approx(8 * made.hours)
    assert made.hours == pytest.approx(7680 * made.best.step_seconds / 3600)
    assert [phase["phase"] for phase in made.schedule] == ["warm-up", "cool-down", "constant", "anneal"]
    assert made.schedule[0]["begins"] == "2026-01-01T00:00" and made.schedule[1]["steps"] == [77, 4608]
    assert any("more than the 10 allowed" in note and "steps" in note for note in made.notes)
    json.dumps(made.to_dict())
    assert 0.2 < made.best.mfu < 0.6


def test_hours_buy_steps_and_the_largest_vocabulary_costs_speed() -> None:
    made = mistral_plan(steps=None, hours=48)
    assert made.hours <= 48 and made.steps == int(48 * 3600 / made.best.step_seconds)
    assert mistral_plan(vocabulary=262144).best.tokens_per_second < made.best.tokens_per_second


@pytest.mark.parametrize(
    "wrong", [{"hidden_size": "x"}, {"hidden_size": 0}, {"num_hidden_layers": -2}, {"vocab_size": []}]
)
def test_sizes_that_are_no_numbers_are_named(wrong: dict[str, object]) -> None:
    config = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 100, "head_dim": 16}
    assert Shape.of(config).width == 32
    with pytest.raises(DataError, match="are not all numbers above 0"):
        Shape.of({**config, **wrong})


def test_a_recipe_is_planned_with_its_new_vocabulary_and_its_text(tmp_path: Path) -> None:
    from langadapt.planning.plan import plan_recipe
    from langadapt.recipe.recipe import Recipe

    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(MISTRAL))
    (tmp_path / "text.jsonl").write_text("x" * 43_000)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"name: r\nmodel: {tmp_path}/model\nout: {tmp_path}/run\ncorpus: {{target: [{tmp_path}/text.jsonl]}}\n"
        "tokenizer: {vocab_size: 1000}\nbudget: {gpus: h200}\ntrain: {sequence_length: 128, batch_sequences: 8}\n"
    )
    made = plan_recipe(Recipe.from_yaml(recipe))
    assert made.vocabulary == 1024 and made.steps == 10 and "assumed" in made.notes[0]
    store = tmp_path / "run" / "stores" / "target-new"
    store.mkdir(parents=True)
    (store / "manifest.json").write_text(json.dumps({"summary": {"tokens": 20_480, "bytes": 102_400}}))
    made = plan_recipe(Recipe.from_yaml(recipe, ["train.epochs=2", "swap.method=mean"]))
    assert made.text_bytes == 5 * made.tokens and made.epochs == pytest.approx(2.0) and made.steps == 40
    assert made.rates == {"embeddings": pytest.approx(1.2e-4), "all else": 4e-5}
    kept = plan_recipe(Recipe.from_yaml(recipe, ["swap.method=keep", "train.embeddings_first_steps=2"]))
    assert kept.vocabulary == 32000
    assert kept.rates == {"embeddings first": pytest.approx(4e-4), "embeddings": 4e-5, "all else": 4e-5}
    assert kept.schedule[0] == {**kept.schedule[0], "phase": "embeddings first", "steps": [0, 2]}


def test_a_cpu_is_planned_with_what_training_reaches_on_it() -> None:
    shape = Shape.of({"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "vocab_size": 500})
    reached = trained_flops(shape, 64, pure_bf16=True)
    assert 0 < reached < 1e14
    device = Device("cpu", 8 << 30, 1e12, 20e9, 10e9, r"^$", reached=1e9)
    layout = Layout("pure-bf16", "nearest", 1, "none", "none", micro_batch=1)
    found = speed.predict(shape, layout, device, 64, compiled=False)
    passes = 64 * shape.flops_per_token(32) / 1e9
    assert found.step_seconds == pytest.approx(passes * speed.BETWEEN, rel=0.01)


def test_one_machine_is_not_timed_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    from langadapt.cli.plan import check_calibration

    check_calibration(None, "cpu")
    with pytest.raises(ConfigError, match=r"would time this machine \(cpu\), but budget.gpus is 2 x h100-80gb; run it"):
        check_calibration("2 x h100-80gb", "cpu")
    monkeypatch.setattr("langadapt.cli.plan.choose_device", lambda _: "cuda")
    monkeypatch.setattr(devices, "gpu_names", lambda: ["NVIDIA A100-SXM4-80GB"])
    check_calibration("2 x a100-80gb", "auto")
    with pytest.raises(ConfigError, match=r"this machine \(a100-80gb\)"):
        check_calibration("2 x h100-80gb", "auto")
    monkeypatch.setattr(devices, "gpu_names", lambda: ["NVIDIA Something New"])
    check_calibration("2 x h100-80gb", "auto")


def test_a_plan_says_what_it_does_not_count() -> None:
    from langadapt.cli.plan import disk_bytes, optimizer_notes

    assert optimizer_notes("adamw") == [] and "2 bytes per parameter" in optimizer_notes("adamw-8bit")[0]
    plain = settings(schedule="wsd", keep_checkpoints=3, rounding="nearest")
    made = plan(MISTRAL, plain, gpus="1 x h100-80gb")
    # Three that are kept, the one before the decay, one being written, and the model.
    assert disk_bytes(made, replace(plain, keep="last")) == (5 * made.checkpoint_bytes + 2 * made.parameters)
    # Each may hold the best model's weights beside its own.
    assert disk_bytes(made, plain) == (5 * made.checkpoint_bytes + 12 * made.parameters)


def test_what_cannot_fit_says_what_would() -> None:
    with pytest.raises(ConfigError, match=r"nothing fits: .* rtx-4090 has 23.* x .* would do"):
        mistral_plan(gpus="rtx-4090")
    with pytest.raises(ConfigError, match=r"'h99' is none of the \d+ GPUs that are known; did you mean `h100"):
        mistral_plan(gpus="2 x h99")
    with pytest.raises(ConfigError, match="do not divide among 3 GPUs"):
        mistral_plan(gpus="3 x h200")
    with pytest.raises(ConfigError, match=r"hours: 0.001 is less than one step of 28 s takes"):
        mistral_plan(steps=None, hours=0.001)


def test_sharding_and_rounding_move_memory_the_right_way() -> None:
    shape = Shape.of(MISTRAL)

    def peak(**changes: Any) -> int:
        return estimate(shape, Layout(**changes), 4096).peak

    assert peak(rounding="kahan") > peak(rounding="split8") > peak()
    assert peak(activation_checkpointing="full") < peak(activation_checkpointing="selective") < peak()
    assert peak(gpus=4, sharding="full") < peak(gpus=4, sharding="grad-op") < peak(gpus=4)
    assert peak(gpus=8, sharding="full") < peak(gpus=4, sharding="full")
    assert peak(micro_batches=2, accumulate="bf16") < peak(micro_batches=2)
    # Whole sums are on every GPU, and are sent once.
    sharded = Layout(gpus=2, sharding="full", micro_batches=8)
    whole = replace(sharded, whole_sums=True)
    assert (
        estimate(shape, whole, 4096).gradients == 4 * shape.parameters == 2 * estimate(shape, sharded, 4096).gradients
    )
    gpu = devices.DEVICES["h100-80gb"]
    assert communication_seconds(shape, whole, gpu) < 0.6 * communication_seconds(shape, sharded, gpu)


def test_drivers_names_find_devices() -> None:
    for text, name in (
        ("NVIDIA H100 80GB HBM3", "h100-80gb"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA H100 NVL", "h100-nvl"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA A100-SXM4-80GB", "a100-80gb"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("NVIDIA H200 NVL", "h200-nvl"),
        ("NVIDIA B200", "b200"),
        ("NVIDIA GB200", "gb200"),
        ("NVIDIA GH200 480GB", None),
        ("Quadro K2000", None),
    ):
        found = devices.named(text)
        assert (found.name if found else None) == name
    assert devices.parse("2 x h100-80gb") == (2, devices.DEVICES["h100-80gb"])
    cpu = devices.cpu()
    assert cpu.flops > 1e8 and cpu.memory > 1 << 30


def test_calibration_times_real_steps() -> None:
    from langadapt.planning.calibration import calibrate

    found = calibrate(tiny_model().config, settings(batch_sequences=4, micro_batch=2), steps=3)
    assert found["tokens_per_second"] > 0 and found["step_seconds"] >= found["optimizer_seconds"] > 0
    assert (found["micro_batch"], found["activation_checkpointing"]) == (2, "none")


def test_a_calibrated_plan_knows_one_micro_batch_and_predicts_recomputation_alone() -> None:
    config = tiny_model().config.to_dict()
    wanted = settings(batch_sequences=8, micro_batch="auto")
    measured = {"tokens_per_second": 1e5, "micro_batch": 4, "activation_checkpointing": "none"}
    made = plan(config, wanted, gpus="1 x h100-80gb", measured=measured)
    assert {option.layout.micro_batch for option in made.options} == {4}
    speeds = {option.layout.activation_checkpointing: option.tokens_per_second for option in made.options}
    assert speeds["none"] == pytest.approx(1e5, rel=0.05) and speeds["full"] < 0.8 * speeds["none"]
    assert made.best.layout.activation_checkpointing == "none"
    measured["activation_checkpointing"] = "full"
    assert plan(config, wanted, gpus="1 x h100-80gb", measured=measured).best.tokens_per_second > 1.2e5


def test_a_plan_keeps_to_the_recomputation_that_is_asked_for() -> None:
    assert mistral_plan(activation_checkpointing="full").best.layout.activation_checkpointing == "full"
    with pytest.raises(ConfigError, match=r"nothing fits: .*selective recompute.* would fit"):
        mistral_plan(gpus="h100-80gb", activation_checkpointing="selective", precision="mixed-bf16")


def law_points(error: float = 0.0) -> tuple[list[pilot.Point], list[pilot.Point]]:
    """Made by a law of the family, with noise."""
    random = np.random.default_rng(0)
    target, source = [], []
    for share in (0.0, 0.1, 0.25, 0.5):
        for tokens in (1e6, 2e6, 3e6, 4e6):
            unit = tokens / 4e6
            noise = random.normal(0, error, 2)
            target.append(pilot.Point(1 - share, tokens, 1.0 + 0.3 * ((1 - share) * unit + 0.05) ** -0.35 + noise[0]))
            source.append(pilot.Point(share, tokens, 1.0 + 0.02 * (share + 0.1) ** -0.5 * unit**0.15 + noise[1]))
    return target, source


def test_a_law_is_found_again_and_extrapolates() -> None:
    target, source = law_points()
    law = pilot.fits(target)[0]
    assert law.error < 1e-3
    assert law(0.9, 4e7) == pytest.approx(1.0 + 0.3 * (0.9 * 10 + 0.05) ** -0.35, abs=0.02)
    assert pilot.fits(source)[0].error < 1e-3
    with pytest.raises(ConfigError, match="at least 6 at 3 shares"):
        pilot.fits(target[:4])[0]


def test_advice_takes_the_smallest_share_that_keeps_the_source() -> None:
    target, source = law_points(error=0.0005)
    advice = pilot.advise(target, source, base=1.04, tokens=8_000_000, tolerance=0.01)
    rows = {row["share"]: row for row in advice.table}
    assert 0 < advice.share < 0.5 and rows[advice.share]["source"] <= 1.04 * 1.01 < rows[0.0]["source"]
    assert rows[0.0]["target"] < rows[0.5]["target"]
    nothing = pilot.advise(target, source, base=0.5, tokens=8_000_000)
    assert "best sum" in nothing.reason and json.dumps(asdict(nothing))


def test_one_gpu_is_planned_under_its_precision_whatever_sharding_is_asked_for() -> None:
    wanted = settings(batch_sequences=8, micro_batch="auto", rounding="stochastic", sharding="full")
    made = plan(tiny_model().config.to_dict(), wanted, gpus="1 x h100-80gb")
    assert (made.best.layout.precision, made.best.layout.rounding) == ("pure-bf16", "stochastic")
    assert made.best.layout.sharding == "none" and "under pure-bf16 stochastic" in made.reason


def test_what_is_planned_as_something_near_to_it_is_noted() -> None:
    made = mistral_plan(gpus="4 x h200", sharding="hybrid")
    assert made.best.layout.sharding == "full"
    assert any("hybrid is planned as if all GPUs were in one node" in note for note in made.notes)
    made = mistral_plan(gpus="4 x h200", precision="fp32", rounding="auto")
    assert "under mixed-bf16" in made.reason and any("fp32 is planned as mixed-bf16" in note for note in made.notes)


@pytest.mark.parametrize("micro_batch", [1, 3, 5, 64, 200])
def test_a_step_takes_as_long_as_its_windows(micro_batch: int) -> None:
    made = mistral_plan(gpus="4 x b200", micro_batch=micro_batch, activation_checkpointing="full")
    assert made.best.layout.micro_batch == min(micro_batch, 64)
    assert made.best.tokens_per_second * made.best.step_seconds == pytest.approx(256 * 4096)
    wanted = settings(batch_sequences=15, micro_batch=4, device="cuda")
    assert layout.layout_of(wanted, ProcessGroup(), "none", "none", micro_batch=4).windows == 15


def test_sizes_given_per_layer_count_as_their_mean() -> None:
    config = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 100, "head_dim": 16}
    alike = Shape.of(config | {"intermediate_size": 96, "num_key_value_heads": 2})
    assert Shape.of(config | {"intermediate_size": [64, 128], "num_key_value_heads": [1, 3]}) == alike
