"""What `auto` comes to: the search for the fastest layout, layouts of teams, what is remembered and survived."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from training_kit import MISTRAL, losses, settings, shares, tiny_model, train

from langadapt.costs import devices
from langadapt.costs.flops import Shape
from langadapt.costs.memory import Layout
from langadapt.errors import LangadaptError
from langadapt.planning.plan import plan
from langadapt.training import TrainSettings, layout, layout_trials, step
from langadapt.training import model as models
from langadapt.training.data import mixture as data
from langadapt.training.options import Option, sizes
from langadapt.training.parallel import ProcessGroup

SHAPES = {
    "7b": Shape(32, 4096, 32, 8, 128, 14336, True, 32000, False),
    "1b": Shape(22, 2048, 32, 4, 64, 5632, True, 32000, False),
    "small": Shape(12, 768, 12, 12, 64, 2048, True, 32000, True),
}
H100 = devices.DEVICES["h100-80gb"]


def wishes(**changes: Any) -> TrainSettings:
    values: dict[str, Any] = {"steps": 10, "sequence_length": 2048, "batch_sequences": 64, "accumulate": "bf16"}
    return TrainSettings(**{**values, **changes})


def test_sizes_divide_the_windows_and_at_least_double() -> None:
    assert sizes(12) == [1, 2, 4, 12] and sizes(7) == [1, 7] and sizes(1) == [1]


class Machine:
    """A GPU that is not what the plan takes it for: speeds and memory are off by factors of their own."""

    def __init__(self, seed: int, memory: float) -> None:
        random = np.random.default_rng(seed)
        self.memory, self.heaviness = memory, random.uniform(0.8, 1.3)
        self.speed = random.uniform(0.3, 1.4)
        self.recompute = {"none": 1.0, "selective": random.uniform(0.85, 1.0), "full": random.uniform(0.8, 1.05)}
        self.saturation = random.uniform(50, 800)
        self.tried: list[Layout] = []

    def true_speed(self, option: Option) -> float:
        tokens = option.layout.micro_batch * 2048
        factor = self.recompute[option.layout.activation_checkpointing] * tokens / (tokens + self.saturation)
        return option.tokens_per_second * (tokens + 384) / tokens * self.speed * factor

    def fits(self, option: Option) -> bool:
        return option.memory.peak * self.heaviness <= self.memory

    def attempt(self, options: list[Option]) -> Callable[[Any, Layout], float | None]:
        known = {option.layout: option for option in options}

        def attempt(_: Any, wanted: Layout) -> float | None:
            self.tried.append(wanted)
            return self.true_speed(known[wanted]) if self.fits(known[wanted]) else None

        return attempt


@pytest.mark.parametrize("shape", SHAPES)
def test_the_search_finds_the_fastest_layout_of_machines_that_are_not_as_predicted(
    shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = layout.options(wishes(sharding="none"), SHAPES[shape], ProcessGroup(), H100)
    assert len(options) == 3 * 7
    attempts = []
    for seed in range(60):
        machine = Machine(seed, H100.memory)
        monkeypatch.setattr(layout_trials, "attempt", machine.attempt(options))
        stepper: Any = SimpleNamespace(settings=wishes())
        if not any(machine.fits(option) for option in options):
            with pytest.raises(LangadaptError, match="1 x 2048 tokens per forward pass do not fit"):
                layout_trials.fastest_layout(stepper, options, H100.memory)
            continue
        found = layout_trials.fastest_layout(stepper, options, H100.memory)
        speeds = {option.layout: machine.true_speed(option) for option in options if machine.fits(option)}
        assert speeds[found] > 0.93 * max(speeds.values()), (seed, found.describe())
        attempts.append(len(machine.tried))
    assert np.mean(attempts) < 8 and max(attempts) <= 14


def test_a_search_ends_in_time_with_the_best_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    options = layout.options(wishes(sharding="none"), SHAPES["1b"], ProcessGroup(), H100)
    machine = Machine(0, H100.memory)
    monkeypatch.setattr(layout_trials, "attempt", machine.attempt(options))
    monkeypatch.setattr(layout_trials, "LIMIT", -1.0)
    found = layout_trials.fastest_layout(SimpleNamespace(settings=wishes()), options, H100.memory)  # type: ignore[arg-type]
    assert machine.fits(next(option for option in options if option.layout == found))
    assert found == machine.tried[-1]


def test_a_search_without_room_says_what_to_lower(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = wishes(sharding="none", micro_batch=16, activation_checkpointing="selective")
    options = layout.options(wanted, SHAPES["1b"], ProcessGroup(), H100)
    monkeypatch.setattr(layout_trials, "attempt", lambda *_: None)
    message = r"16 x 2048 tokens .*selective recompute.* lower micro_batch or sequence_length, or set activation_checkp"
    with pytest.raises(LangadaptError, match=message):
        layout_trials.fastest_layout(SimpleNamespace(settings=wanted), options, H100.memory)  # type: ignore[arg-type]


def prepared(wanted: TrainSettings) -> step.Stepper:
    processes = ProcessGroup()
    model = models.load(tiny_model(), wanted, processes.device)
    mixture = data.open_mixture(shares(), None, None, model, settings=wanted)
    return step.Stepper(model, mixture, wanted, processes)


def test_trials_leave_the_model_as_it_was() -> None:
    stepper = prepared(settings(batch_sequences=8, micro_batch="auto", accumulate="auto"))
    before = {name: parameter.detach().clone() for name, parameter in stepper.model.named_parameters()}
    wanted = replace(stepper.settings, micro_batch="auto", activation_checkpointing="auto")
    options = layout.options(wanted, stepper.shape, stepper.processes, devices.cpu())
    assert {option.layout.micro_batch for option in options} == {1, 2, 4, 8}
    some = [option for option in options if option.layout.micro_batch in {4, 8}]
    found = layout_trials.fastest_layout(stepper, some, devices.cpu().memory)
    assert found in [option.layout for option in some]
    for name, parameter in stepper.model.named_parameters():
        assert torch.equal(parameter, before[name]) and parameter.grad is None
        assert parameter.grad_dtype == torch.bfloat16 and not parameter._post_accumulate_grad_hooks
    stepper.apply_layout(1, "none")
    assert not any(hasattr(block.forward, "plain") for block in models.blocks(stepper.model))


def test_recomputation_can_be_set_again() -> None:
    network = tiny_model().train()
    network.config.use_cache = False
    ids = torch.arange(32)[None]
    found = {}
    for how in ("full", "selective", "none", "full"):
        models.checkpoint_activations(network, how)
        network(input_ids=ids, labels=ids).loss.backward()
        gradient = network.model.layers[0].mlp.up_proj.weight.grad
        found.setdefault(how, gradient.clone())
        network.zero_grad()
        depth, forward = 0, network.model.layers[0].forward
        while hasattr(forward, "plain"):
            depth, forward = depth + 1, forward.plain
        assert depth == (how != "none")
    assert torch.equal(found["full"], found["none"]) and torch.equal(found["selective"], found["none"])


def team_settings(monkeypatch: pytest.MonkeyPatch, shape: str, size: int, device: str, **changes: Any) -> TrainSettings:
    monkeypatch.setattr(layout, "this_gpu", lambda _: devices.DEVICES[device])
    processes = ProcessGroup(size=size, device=torch.device("cuda"))
    return layout.resolve(wishes(**changes), SHAPES[shape], processes, None)


def test_a_team_takes_the_layout_that_is_predicted_to_be_fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    small = team_settings(monkeypatch, "small", 2, "h100-80gb")
    assert small.activation_checkpointing == "none" and int(small.micro_batch) >= 8
    large = team_settings(monkeypatch, "7b", 4, "a100-40gb")
    assert large.sharding in {"full", "grad-op"}
    asked = team_settings(monkeypatch, "7b", 4, "a100-40gb", sharding="full", activation_checkpointing="full")
    assert (asked.sharding, asked.activation_checkpointing) == ("full", "full") and asked.micro_batch != "auto"
    # Nothing fits: the smallest is tried, and the error that comes is torch's own of this machine.
    hopeless = team_settings(monkeypatch, "7b", 2, "l4", precision="mixed-bf16")
    assert (hopeless.sharding, hopeless.activation_checkpointing, hopeless.micro_batch) == ("full", "full", 1)


@pytest.mark.parametrize("gpus", ["2 x h200", "4 x h100-80gb", "8 x a100-40gb", "4 x a6000"])
def test_a_team_takes_what_the_plan_recommends(monkeypatch: pytest.MonkeyPatch, gpus: str) -> None:
    count, device = devices.parse(gpus)
    for changes in ({"accumulate": "auto"}, {"sharding": "full", "rounding": "kahan", "micro_batch": 2}):
        wanted = wishes(steps=10, batch_sequences=256, **changes)
        best = plan(MISTRAL, wanted, gpus=gpus).best.layout
        monkeypatch.setattr(layout, "this_gpu", lambda _: device)
        found = layout.resolve(wanted, Shape.of(MISTRAL), ProcessGroup(size=count, device=torch.device("cuda")), None)
        assert (found.micro_batch, found.activation_checkpointing, found.sharding) == (
            best.micro_batch,
            best.activation_checkpointing,
            best.sharding,
        )


def test_one_gpu_leaves_open_what_trials_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    found = team_settings(monkeypatch, "7b", 1, "h100-80gb")
    assert (found.micro_batch, found.activation_checkpointing, found.sharding) == ("auto", "auto", "none")
    assert layout.resolve(wishes(), SHAPES["7b"], ProcessGroup(), None).activation_checkpointing == "none"


def test_a_run_that_goes_on_keeps_its_layout_unless_asked_for_another() -> None:
    before = {"micro_batch": 4, "activation_checkpointing": "selective", "sharding": "none", "processes": 1}
    processes = ProcessGroup(device=torch.device("cuda"))

    def after(before: dict[str, Any], **changes: Any) -> tuple[Any, ...]:
        found = layout.reuse(wishes(**changes), processes, before)
        return found.micro_batch, found.activation_checkpointing, found.sharding

    assert after(before) == (4, "selective", "none")
    assert after(before, micro_batch=8) == (8, "selective", "none")
    assert after(before, activation_checkpointing="none") == ("auto", "none", "auto")
    assert after({**before, "processes": 2}) == ("auto", "auto", "auto")


def test_a_micro_batch_of_one_that_runs_out_of_memory_is_recomputed(tmp_path: Path) -> None:
    plain = step.Stepper.forward_backward

    def tight(self: step.Stepper, *args: Any, **named: Any) -> Any:
        if self.settings.activation_checkpointing != "full":
            raise torch.OutOfMemoryError("pretended")
        return plain(self, *args, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step.Stepper, "forward_backward", tight)
        train(tmp_path / "tight", micro_batch=4)
        with pytest.raises(LangadaptError, match="out of memory with 1 windows"):
            train(tmp_path / "none", micro_batch=4, activation_checkpointing="none")
    train(tmp_path / "one", micro_batch=1)
    assert losses(tmp_path / "tight") == losses(tmp_path / "one")


def test_the_layout_is_told_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from langadapt.training import train_model

    result = train_model(tiny_model(), shares(), tmp_path, settings(steps=2, micro_batch="auto"))
    assert result.layout == {
        "micro_batch": 4,
        "activation_checkpointing": "none",
        "sharding": "none",
        "processes": 1,
    }
    assert "layout: micro-batch 4, activation checkpointing none\n" in capsys.readouterr().err
    assert "sharding grad-op over 2 processes" in layout.describe(
        {**result.layout, "sharding": "grad-op", "processes": 2}
    )
