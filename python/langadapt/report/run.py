"""A run's folder, read once: everything that the report is made from."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langadapt.recipe.recipe import Recipe
from langadapt.report.results import RESULTS_NAME, Results, read_results


@dataclass(frozen=True)
class Log:
    """One training log."""

    steps: list[dict[str, Any]]
    """Lines with a loss."""
    validations: list[tuple[int, dict[str, float]]]
    """(step, bits per byte by ``source`` / ``target``)."""
    tokens_per_step: float
    """1 where nothing was trained: axes then count steps."""


@dataclass(frozen=True)
class RunData:
    """What a run left behind."""

    folder: Path
    results: Results
    recipe: Recipe
    logs: dict[str, Log]
    """By method, as far as they are there."""

    @property
    def final(self) -> Path | None:
        """Folder of the finished model, where it is."""
        folder = self.folder / Path(self.results.main.log).parent / "final"
        return folder if (folder / "config.json").is_file() else None


def read_run(folder: Path) -> RunData:
    """Read a run.

    Raises:
        DataError: no results, or not those of a run.
        ConfigError, FileNotFoundError: its recipe is damaged or missing.
    """
    results = read_results(folder / RESULTS_NAME)
    logs = {
        method: read_log(folder / training.log)
        for method, training in results.training.items()
        if (folder / training.log).is_file()
    }
    return RunData(folder, results, Recipe.from_yaml(folder / "recipe.yaml"), logs)


def read_log(file: Path) -> Log:
    """A JSON-lines log; a half-written last line, as a killed run leaves it, is passed over."""
    log = Log([], [], 1.0)
    for text in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if "validation" in line:
            sides = ("source", "target")
            found = {side: number(line["validation"].get(f"bits_per_byte_{side}")) for side in sides}
            log.validations.append((line["step"], {side: bits for side, bits in found.items() if bits is not None}))
        if "loss" in line:
            log.steps.append(line)
    last = log.steps[-1] if log.steps else {"tokens": 1, "step": 1}
    return Log(log.steps, log.validations, last["tokens"] / last["step"])


def number(value: Any) -> float | None:
    """A finite number, or none: what could not be measured is null in logs, and a lost run's loss is no number."""
    return value if isinstance(value, (int, float)) and math.isfinite(value) else None
