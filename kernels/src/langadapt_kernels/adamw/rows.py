"""The rows of all parameters in the tables of a step: their step counters, their settings, the scalars made of both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .groups import SettingsTable
from .modes import scalar_table
from .run import StepCache
from .sharding import local


class Rows:
    """Where an optimizer's parameters stand: in the tables of their device, and in the whole model.

    The counters of a device are one tensor, to be counted in together; those in the states are views of it.
    """

    def __init__(self, groups: Sequence[dict[str, Any]], state: dict[Tensor, dict[str, Any]]) -> None:
        """Takes the counters of those parameters that have a state.

        Raises:
            ValueError: two parameters share memory.
        """
        self.group: dict[Tensor, dict[str, Any]] = {}
        self.row: dict[Tensor, int] = {}
        self.base: dict[Tensor, int] = {}
        self._steps: dict[torch.device, Tensor] = {}
        self._settings = SettingsTable()
        self._rounds: dict[torch.device, _Round] = {}
        base = 0
        places: dict[int, Tensor] = {}
        counters: dict[torch.device, list[Tensor]] = {}
        for group in groups:
            for param in group["params"]:
                _check_memory(param, places)
                self.group[param] = group
                # Groups of eight elements share a call of the random generator, so no two tensors share a group.
                self.base[param] = base
                base += -(-param.numel() // 8) * 8
                steps = counters.setdefault(param.device, [])
                self.row[param] = len(steps)
                zero = torch.zeros((), device=param.device)
                steps.append(state[param]["step"].to(zero) if state.get(param) else zero)
        for device, steps in counters.items():
            self._steps[device] = torch.stack(steps)
        for param, row in self.row.items():
            if state.get(param):
                state[param]["step"] = self._steps[param.device][row]

    def count(
        self, groups: Sequence[dict[str, Any]], device: torch.device, rows: Sequence[int], cache: StepCache
    ) -> Tensor:
        """Count a step of `rows`; the scalars of all parameters on `device`, float32 `[n, 9]`."""
        steps = self._steps[device]
        steps += 1 if len(rows) == len(steps) else cache.mask(device, len(steps), rows)
        return scalar_table(self._settings.on(device, groups, cache.upload), steps)

    def count_one(self, groups: Sequence[dict[str, Any]], param: Tensor, cache: StepCache) -> Tensor:
        """As `count` for one parameter of many that come one by one, each at the cost of one counter.

        The scalars of all are computed when the first comes, and again when one comes for the second time or settings
        have changed.
        """
        device, row = param.device, self.row[param]
        steps, known, now = self._steps[device], self._rounds.get(device), _settings(self.group[param])
        if known is None or row in known.done or known.settings[id(self.group[param])] != now:
            # Steps as they will be: of those to come, none has been counted in this round.
            scalars = scalar_table(self._settings.on(device, groups, cache.upload), steps + 1)
            known = self._rounds[device] = _Round(scalars, {id(group): _settings(group) for group in groups})
        known.done.add(row)
        steps[row].add_(1)
        return known.scalars


class _Round:
    """Scalars of parameters that come one by one: true for each that is not `done`."""

    def __init__(self, scalars: Tensor, settings: dict[int, tuple[Any, ...]]) -> None:
        self.scalars, self.settings, self.done = scalars, settings, set[int]()


def _settings(group: dict[str, Any]) -> tuple[Any, ...]:
    """What the scalars are computed of, comparable without a look at the device."""
    lr = group["lr"]
    rate = (id(lr), lr._version) if isinstance(lr, Tensor) else lr
    return rate, *group["betas"], group["eps"], group["weight_decay"]


def _check_memory(param: Tensor, places: dict[int, Tensor]) -> None:
    shard = local(param)
    if shard.numel() and places.setdefault(shard.data_ptr(), param) is not param:
        shapes = tuple(places[shard.data_ptr()].shape), tuple(param.shape)
        raise ValueError(
            f"two parameters share memory, their shapes: {shapes[0]} and {shapes[1]}\n\n"
            "hint: tie weights by using one Parameter object in both places"
        )
