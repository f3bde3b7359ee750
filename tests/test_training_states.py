"""Moments of a byte each (`states: int8`): resumed exactly, counted by the plan, and never taken for others."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from training_kit import MISTRAL, Stop, crash_after, losses, settings, tiny_model, torchrun, train, weights

from langadapt.costs import flops
from langadapt.costs.devices import GIB
from langadapt.costs.flops import Shape
from langadapt.costs.memory import Layout, checkpoint_bytes, estimate
from langadapt.costs.speed import predict
from langadapt.errors import ConfigError, MismatchError
from langadapt.planning.plan import plan
from langadapt.training import checkpoint
from langadapt.training import model as models
from langadapt.training import optimizer as optimizers
from langadapt_kernels.codes import GROUP

WIDE = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2}


def wide_model(**changes: Any) -> Any:
    """Two layers, 64 wide: whole groups in every matrix."""
    return tiny_model(**{**WIDE, **changes})


@pytest.mark.parametrize("rounding", ["stochastic", "split8", "kahan"])
def test_resume_is_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rounding: str) -> None:
    run = {"states": "int8", "rounding": rounding}
    train(tmp_path / "whole", wide_model(), **run)
    with monkeypatch.context() as patch, pytest.raises(Stop):
        crash_after(6, patch)
        train(tmp_path / "crashed", wide_model(), checkpoint_every=4, **run)
    found = checkpoint.newest(tmp_path / "crashed" / "checkpoints")
    assert found is not None
    with safe_open(found[0] / "shard-00000.safetensors", framework="pt") as shard:
        codes = shard.get_tensor("optimizer.model.layers.0.mlp.up_proj.weight.exp_avg_sq")
        scales = shard.get_tensor("optimizer.model.layers.0.mlp.up_proj.weight.exp_avg_sq_scale")
        norm = shard.get_tensor("optimizer.model.norm.weight.exp_avg_sq")
    assert (codes.dtype, tuple(codes.shape)) == (torch.uint8, (128, 64))
    assert (scales.dtype, tuple(scales.shape), norm.dtype) == (torch.float32, (128, 1), torch.bfloat16)
    train(tmp_path / "crashed", wide_model(), checkpoint_every=4, **run)
    one, other = weights(tmp_path / "whole" / "final"), weights(tmp_path / "crashed" / "final")
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert losses(tmp_path / "whole") == losses(tmp_path / "crashed")


def test_it_learns_as_with_full_states(tmp_path: Path) -> None:
    """Beside fp32 moments (of mixed precision) bf16 and int8 ones end alike, well below where they began."""
    run: dict[str, Any] = {"steps": 40, "log_every": 1, "rounding": "stochastic"}
    ways: dict[str, dict[str, Any]] = {
        "fp32": {"precision": "mixed-bf16", "rounding": "nearest"},
        "bf16": {},
        "int8": {"states": "int8"},
    }
    ends = {}
    for name, changes in ways.items():
        train(tmp_path / name, wide_model(), **{**run, **changes})
        found = losses(tmp_path / name)
        ends[name] = sum(found[-8:]) / 8
        assert ends[name] < 0.8 * found[0]
    assert ends["int8"] == pytest.approx(ends["fp32"], rel=0.02)
    assert ends["bf16"] == pytest.approx(ends["fp32"], rel=0.02)


def test_other_states_in_the_folder_are_refused_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(Stop):
        crash_after(6, patch)
        train(tmp_path, wide_model(), checkpoint_every=4, states="int8")
    with pytest.raises(MismatchError, match=r"other settings \(states: int8 there, full here\)") as refusal:
        train(tmp_path, wide_model())
    assert "\n" not in str(refusal.value)
    # As of a version that did not know of states, whose checkpoints hold numbers.
    for path in (tmp_path / "run.json", checkpoint.found(tmp_path / "checkpoints")[-1] / checkpoint.STATE):
        content = json.loads(path.read_text())
        del content.get("run", content)["settings"]["states"]
        path.write_text(json.dumps(content))
    with pytest.raises(MismatchError, match=r"loaded `exp_avg` is torch.int8, but .*; set `states` as") as refusal:
        train(tmp_path, wide_model())
    assert "\n" not in str(refusal.value)


@pytest.mark.slow
def test_two_processes_write_codes_that_one_goes_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards are whole rows, whose groups no number of processes cuts."""
    wide_model().save_pretrained(tmp_path / "model")
    run = {"states": "int8", "rounding": "split", "log_every": 1, "checkpoint_every": 4, "keep_checkpoints": 9}
    train(tmp_path / "one", str(tmp_path / "model"), **run)
    torchrun(2, out=str(tmp_path / "two"), model=str(tmp_path / "model"), **run)
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-3)
    for leftover in ("checkpoints/step-00000012", "final"):
        shutil.rmtree(tmp_path / "two" / leftover)
    with monkeypatch.context() as patch, pytest.raises(Stop):
        crash_after(10, patch)
        train(tmp_path / "two", str(tmp_path / "model"), **{**run, "checkpoint_every": 1})
    torchrun(2, out=str(tmp_path / "two"), model=str(tmp_path / "model"), **run)
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-3)


def test_what_they_do_not_go_with_is_said_in_a_line() -> None:
    for changes, message in (
        ({"precision": "mixed-bf16", "rounding": "nearest"}, "states: int8 is for `precision: pure-bf16`"),
        ({"precision": "fp32", "rounding": "nearest"}, "states: int8 is for `precision: pure-bf16`"),
        ({"optimizer": "adamw-8bit", "rounding": "nearest"}, "states: int8 needs `optimizer: adamw`"),
    ):
        with pytest.raises(ConfigError, match=message) as refusal:
            settings(states="int8", **changes)
        assert "\n" not in str(refusal.value)


NARROW: list[dict[str, Any]] = [{}, {"intermediate_size": 100}, {"hidden_size": 48}, {"tie_word_embeddings": True}]


@pytest.mark.parametrize("changes", NARROW)
def test_the_plan_counts_the_bytes_of_the_tensors(changes: dict[str, Any]) -> None:
    """Matrices without whole groups keep their moments, and are counted so."""
    how = settings(states="int8", rounding="stochastic")
    network = models.load(wide_model(vocab_size=2048, **changes), how, torch.device("cpu"))
    optimizer = optimizers.make(models.groups(network), how)
    network(torch.randint(64, (2, 16)), labels=torch.randint(64, (2, 16))).loss.backward()
    optimizer.step()
    states = sum(value.nbytes for state in optimizer.state.values() for name, value in state.items() if name != "step")
    shape = Shape.of(network.config.to_dict())
    found = estimate(shape, Layout(rounding="stochastic", states="int8"), 16)
    assert found.states == pytest.approx(states, rel=0.001)
    parameters = 2 * sum(parameter.numel() for parameter in network.parameters())
    assert checkpoint_bytes(shape, how) == pytest.approx(parameters + states, rel=0.001)
    assert flops.GROUP == GROUP


def test_less_memory_and_a_faster_update() -> None:
    shape = Shape.of(MISTRAL)
    full, coded = (Layout(rounding="split8", states=states) for states in ("full", "int8"))
    spared = estimate(shape, full, 2048).states - estimate(shape, coded, 2048).states
    assert spared / shape.parameters == pytest.approx(1.875, rel=1e-3)
    device = plan(MISTRAL, settings(), gpus="1 x h200").device
    from langadapt.costs.devices import DEVICES

    times = [predict(shape, one, DEVICES[device], 2048, compiled=False).step_seconds for one in (full, coded)]
    assert times[0] > times[1]
    assert coded.describe().startswith("pure-bf16 split8 int8 states, ")


def test_a_plan_finds_what_fits_thanks_to_them() -> None:
    """7.2 B parameters take 54 GiB in full, and 41 with codes: on 48 GB these alone fit."""
    how = settings(
        sequence_length=2048, batch_sequences=64, micro_batch="auto", rounding="stochastic", accumulate="bf16"
    )
    with pytest.raises(ConfigError, match=r"`pure-bf16 stochastic int8 states, full recompute.*` would fit"):
        plan(MISTRAL, how, gpus="1 x a6000")
    made = plan(MISTRAL, replace(how, states="int8"), gpus="1 x a6000")
    assert made.best.layout.states == "int8" and made.best.memory.peak < 47.4 * GIB
    assert "under pure-bf16 stochastic int8 states" in made.reason
    plain = plan(MISTRAL, how, gpus="1 x h200")
    assert plain.best.layout.states == "full"
    assert {option.layout.states for option in plain.options} == {"full", "int8"}
