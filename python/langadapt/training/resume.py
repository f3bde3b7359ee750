"""What a run leaves behind so that the same command goes on: what it is made of, where it stands, what came out."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from langadapt import __version__
from langadapt.artefacts.folders import MANIFEST_NAME, fingerprint, read_manifest, write_atomically
from langadapt.artefacts.stages import read_stamp
from langadapt.costs.flops import Shape
from langadapt.costs.memory import best_bytes, checkpoint_bytes, kept_parameters
from langadapt.errors import ConfigError, MismatchError, TrainingDiverged
from langadapt.training import adapter
from langadapt.training.checkpoint import STATE, Reader, folder_of, found, newest, read_state
from langadapt.training.course import Course
from langadapt.training.data.batches import StoreShare
from langadapt.training.optimizer import Named
from langadapt.training.result import TrainResult
from langadapt.training.settings import BUDGET, FREE_TO_CHANGE, KEPT, RATES, TrainSettings
from langadapt_kernels import FusedAdamW
from langadapt_kernels.adamw.states import zero_scales

log = logging.getLogger(__name__)

Extend = bool | int | str
"""Whether a run may be extended: no, from where it is best done, from the checkpoint of a step, or from ``newest``."""

RUN_NAME = "run.json"


def describe_run(model: Any, shares: Sequence[StoreShare], settings: TrainSettings) -> dict[str, Any]:
    """What this run is made of: settings, and fingerprints of model and stores where they are folders."""

    def known(thing: Any) -> str:
        path = thing if isinstance(thing, (str, Path)) else getattr(thing, "path", None)
        return fingerprint(Path(path)) if path is not None and Path(path).exists() else type(thing).__name__

    inputs = {"model": known(model)}
    for number, share in enumerate(shares):
        described = share.described if share.name else replace(share, name=str(number)).described
        inputs[f"store {described}"] = known(share.store)
    return {"langadapt": __version__, "settings": settings.to_dict(), "inputs": inputs}


def as_before(settings: TrainSettings, out: Path) -> TrainSettings:
    """``settings`` with a window, a batch and a warm-up as the run in ``out`` has them, wherever they are `auto`: it
    was begun with other facts perhaps, or by an earlier version with other rules."""
    if not found(out / "checkpoints") and not (out / "final").is_dir():
        return settings
    stamp = read_stamp(out / RUN_NAME) or read_stamp(out / "final" / MANIFEST_NAME) or {}
    return with_autos(settings, stamp.get("settings") or {})


def with_autos(settings: TrainSettings, before: Mapping[str, Any]) -> TrainSettings:
    """``settings`` with what those of ``before`` were settled to, wherever they are `auto`."""
    names = [name for name in ("sequence_length", "batch_tokens", "warmup") if getattr(settings, name) == "auto"]
    kept = {name: before[name] for name in names if before.get(name, "auto") != "auto"}
    if "batch_tokens" in kept:
        kept["batch_sequences"] = before.get("batch_sequences")
    return replace(settings, **kept)


def check_same(before: Mapping[str, Any], now: Mapping[str, Any], out: Path | str, extend: Extend) -> bool:
    """Compare a run with what ``out`` was begun with; whether its budget or its rates have changed.

    Raises:
        MismatchError: names what differs and what to do.
    """
    if before["inputs"] != now["inputs"]:
        differing = sorted(
            key for key in {*before["inputs"], *now["inputs"]} if before["inputs"].get(key) != now["inputs"].get(key)
        )
        raise MismatchError(
            f"{out}: holds a run on another {' and '.join(differing)}; give another "
            "folder, or delete this one to start anew"
        )
    old, new, changed = before["settings"], now["settings"], changes(before, now)
    other = [key for key in changed if key not in RATES.union(BUDGET, KEPT)]
    if other or (changed and extend is False):
        listed = ", ".join(f"{key}: {old.get(key)} there, {new[key]} here" for key in other or changed)
        remedy = "" if other else "go on by `extend` (`langadapt train --extend`), "
        raise MismatchError(
            f"{out}: holds a run with other settings ({listed}); {remedy}give "
            "another folder, or delete this one to start anew"
        )
    return bool(changed)


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Settings that make another run of it."""
    old, new = before["settings"], now["settings"]
    # What an earlier version did not know of cannot have been another.
    return [key for key in new if key not in FREE_TO_CHANGE and key in old and old[key] != new[key]]


def finished(out: Path, run: Mapping[str, Any], extend: Extend) -> dict[str, Any] | None:
    """The result of a run that is complete, if ``out`` holds this very run."""
    if not (out / "final" / "manifest.json").is_file():
        return None
    manifest = read_manifest(out / "final")
    before = {"inputs": manifest["inputs"], "settings": manifest["settings"]}
    if is_given_up(manifest, run, extend) or check_same(before, run, out, extend):
        return None
    result: dict[str, Any] = manifest["summary"]
    return result


def result_of(done: Mapping[str, Any], out: Path) -> TrainResult:
    """The result of a run that is complete.

    Raises:
        TrainingDiverged: it had diverged.
    """
    result = TrainResult(**{**done, "out": str(out)})
    if result.diverged:
        raise TrainingDiverged(result.diverged, result)
    return result


def is_given_up(manifest: Mapping[str, Any], run: Mapping[str, Any], extend: Extend) -> bool:
    """Whether a complete run had diverged and another one is wanted in its place: nobody misses it."""
    other = manifest["inputs"] != run["inputs"] or bool(changes(manifest, run))
    return bool(manifest["summary"].get("diverged")) and extend is False and other


def make_room(out: Path, run: Mapping[str, Any], extend: Extend) -> None:
    """Delete a complete run that :func:`is_given_up`."""
    final = out / "final"
    if (final / MANIFEST_NAME).is_file() and is_given_up(read_manifest(final), run, extend):
        # Its model last: until then it is known for what it is.
        for folder in (out / "checkpoints", final):
            shutil.rmtree(folder, ignore_errors=True)


def check_folder(out: Path, run: Mapping[str, Any], extend: Extend) -> None:
    """Raise MismatchError if ``out`` holds checkpoints of another run."""
    path = out / RUN_NAME
    if path.is_file() and found(out / "checkpoints"):
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
            before["settings"], before["inputs"]
        except (ValueError, KeyError, TypeError):
            raise MismatchError(f"{path}: cannot be read; delete {out} to start anew") from None
        check_same(before, run, out, extend)


def write_run_file(out: Path, run: Mapping[str, Any], shape: Shape, settings: TrainSettings) -> None:
    """Write down in ``out`` what the run is made of, once it is sure to begin or go on, and warn of a disk that it will
    fill. Rehearsals are made of nothing and leave nothing."""
    if not run:
        return
    each = checkpoint_bytes(shape, settings) + best_bytes(kept_parameters(shape, settings), settings)
    warn_of_full_disk(out / "checkpoints", each, settings.checkpoints_at_most)
    write_atomically(out / RUN_NAME, json.dumps(run, indent=2, ensure_ascii=False) + "\n")


def warn_of_full_disk(root: Path, checkpoint: int, most: int) -> None:
    """Say at the start of a run that its disk will be full before its end: ``most`` checkpoints of so many bytes,
    those that are there included, and one more for the trained model, which is no larger."""
    usage = os.statvfs(root)
    free, there = usage.f_bavail * usage.f_frsize, len(found(root))
    needed = (most - min(there, most) + 1) * checkpoint
    if free < needed:
        log.warning(
            "%s: %.1f GB are free, but checkpoints of %.1f GB and the trained model may take %.1f GB more; "
            "free some space, or lower keep_checkpoints",
            *(root, free / 1e9, checkpoint / 1e9, needed / 1e9),
        )


def starting_point(root: Path, run: Mapping[str, Any], extend: Extend) -> tuple[Path, dict[str, Any]] | None:
    """The checkpoint to go on from, and its state: the newest of this very run; else, to be extended, the one that
    ``extend`` names.

    A run that has come to the end of its decay, or is in it and gets a larger budget, is extended from the checkpoint
    before the decay, if there is one: the decay is left behind.

    Raises:
        ConfigError: there is no such checkpoint, or this run has begun elsewhere.
    """
    latest = newest(root, run)
    asked = extend if isinstance(extend, int) and not isinstance(extend, bool) else None
    if latest is None:
        if asked is not None:
            raise ConfigError(f"{root}: no checkpoint to extend from")
        return None
    state = latest[1]
    if not changes(state["run"], run):
        if asked not in {None, state["course"].get("origin", 0), int(state["step"])}:
            raise ConfigError(
                f"cannot extend from step {asked}: a run of these very settings stands at step {state['step']}; set "
                "another budget or other rates to extend it"
            )
        return latest
    if asked is None and extend is True:
        asked = before_decay(root, state, run)
    if asked is None or asked == int(state["step"]):
        return latest
    folder = folder_of(root, asked)
    if not (folder / STATE).is_file():
        kept = ", ".join(str(int(path.name.removeprefix("step-"))) for path in found(root))
        raise ConfigError(f"{root}: no checkpoint of step {asked}; there are those of steps {kept}")
    return folder, read_state(folder)


def before_decay(root: Path, state: Mapping[str, Any], run: Mapping[str, Any]) -> int | None:
    """Step of the checkpoint before the decay that the run of ``state`` has ended or is to leave; none if there is no
    such decay or checkpoint."""
    course, old = Course(**state["course"]), earlier_settings(state)
    kept = [step for step in state["protected"] if step < state["step"] and (folder_of(root, step) / STATE).is_file()]
    grown = any(key in BUDGET for key in changes(state["run"], run))
    return max(kept) if kept and course.falling(old) and (course.finished or grown) else None


def earlier_settings(state: Mapping[str, Any]) -> TrainSettings:
    """The settings that a checkpoint was made with, as far as this version knows them."""
    known = {field.name for field in fields(TrainSettings)}
    return TrainSettings(**{key: value for key, value in state["run"]["settings"].items() if key in known})


def tensors_of(model: nn.Module, named: Named, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Everything that a checkpoint must hold: parameters that can move, the optimizer's tensors under their names."""
    tensors = {f"model.{name}": parameter.data for name, parameter in adapter.moving(model)}
    for name, parameter in named:
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors |= {f"optimizer.{name}.{part}": tensor for part, tensor in plain_parts(key, value)}
    return tensors


def plain_parts(key: str, value: Tensor) -> list[tuple[str, Tensor]]:
    """A state as tensors with memory of their own: torchao's 8-bit states are codes and scales under one wrapper."""
    if not hasattr(value, "__tensor_flatten__") or hasattr(value, "device_mesh"):
        return [(key, value)]
    return [(f"{key}/{part}", getattr(value, part)) for part in value.__tensor_flatten__()[0]]


def plain_states(named: Named, optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Any]]:
    """Optimizer states that are no tensors (other libraries' step counters)."""
    found_states = {}
    for name, parameter in named:
        state = optimizer.state.get(parameter, {})
        plain = {key: value for key, value in state.items() if isinstance(value, (int, float, str, bool))}
        if plain:
            found_states[name] = plain
    return found_states


def restore_model(reader: Reader, model: nn.Module) -> None:
    """Fill all parameters that can move."""
    for name, parameter in adapter.moving(model):
        reader.fill(f"model.{name}", parameter.data)


def restore_optimizer(
    reader: Reader, named: Named, optimizer: torch.optim.Optimizer, plain: Mapping[str, Mapping[str, Any]]
) -> None:
    """Fill the optimizer's states, sharded like their parameters."""
    names = {parameter: name for name, parameter in named}
    content = optimizer.state_dict()
    order = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    keys: dict[str, list[str]] = {}
    for key in reader.places:
        if key.startswith("optimizer."):
            name, _, state_key = key[len("optimizer.") :].rpartition(".")
            keys.setdefault(name, []).append(state_key)
    for number, parameter in enumerate(order):
        name = names[parameter]
        state: dict[str, Any] = dict(plain.get(name, {}))
        for state_key in keys.get(name, []):
            whole, _, part = state_key.partition("/")
            if not part:
                state[state_key] = read_like(reader, f"optimizer.{name}.{state_key}", parameter)
                continue
            key = f"optimizer.{name}.{state_key}"
            if whole not in state:
                # Of torchao's optimizers; only the first moment has a sign.
                state[whole] = optimizer._new_buffer(parameter, whole == "exp_avg")  # type: ignore[attr-defined]
            reader.fill(key, getattr(state[whole], part))
        if state:
            content["state"][number] = state
        if state and not isinstance(optimizer, FusedAdamW):
            # torch would cast the states of other libraries to the parameter's dtype.
            optimizer.state[parameter] = state
    if isinstance(optimizer, FusedAdamW):
        try:
            optimizer.load_state_dict(content)
        except ValueError as error:
            raise MismatchError(
                f"checkpoint: {error}; set `states` as it was, or start anew in another folder"
            ) from None


def read_like(reader: Reader, key: str, parameter: nn.Parameter) -> Tensor:
    """A state tensor: sharded as its parameter if it has its shape or is the scales of its codes, whole otherwise."""
    shape = reader.shapes[key]
    scales = key.endswith("_scale")
    if not hasattr(parameter, "device_mesh") or (shape != list(parameter.shape) and not scales):
        return reader.whole(key).to(parameter.device if shape else "cpu")
    if scales:
        state = zero_scales(parameter)
    else:
        state = torch.zeros_like(parameter, dtype=reader.rows(key, 0, 0).dtype, requires_grad=False)
    reader.fill(key, state)
    return state
