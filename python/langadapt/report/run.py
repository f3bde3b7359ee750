"""A run's folder, read once: everything that the report is made from, and complaints that name the file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from langadapt.errors import DataError

RESULTS = "results.json"
BITS = "bits_per_byte"


@dataclass(frozen=True)
class Log:
    """One training log."""

    steps: list[dict[str, Any]] = field(default_factory=list)
    """Lines with a loss."""
    validations: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    """(step, bits per byte by ``source`` / ``target``)."""
    tokens_per_step: float | None = None
    """Of the last line that tells."""


@dataclass(frozen=True)
class RunData:
    """What a run left behind."""

    folder: Path
    results: dict[str, Any]
    recipe_text: str | None = None
    recipe: dict[str, Any] = field(default_factory=dict)
    logs: dict[str, Log] = field(default_factory=dict)
    """By method."""

    @property
    def method(self) -> str | None:
        """The method of the run itself, the others are comparisons."""
        name = self.results.get("method")
        return name if isinstance(name, str) else None

    @property
    def final(self) -> Path | None:
        """Folder of the finished model, where it is."""
        entry = section(self.results, "training").get(self.method or "", {})
        log = entry.get("log") if isinstance(entry, Mapping) else None
        if not isinstance(log, str):
            return None
        folder = self.folder / Path(log).parent / "final"
        return folder if (folder / "config.json").is_file() else None


def read_run(folder: Path) -> RunData:
    """Read a run.

    Raises:
        DataError: no results, or not those of a run.
    """
    results = read_results(folder / RESULTS)
    recipe_text, recipe = read_recipe(folder / "recipe.yaml")
    logs = {}
    for method, entry in section(results, "training").items():
        name = entry.get("log") if isinstance(entry, Mapping) else None
        if isinstance(name, str) and (folder / name).is_file():
            logs[method] = read_log(folder / name)
    return RunData(folder, results, recipe_text, recipe, logs)


def read_results(file: Path) -> dict[str, Any]:
    """``results.json``, of the right shape as far as this report reads it."""
    try:
        results = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(
            f"{file}: missing; this is no folder of a finished run: run `langadapt adapt` to its end"
        ) from None
    except NotADirectoryError:
        raise DataError(f"{file.parent}: a run's folder is expected, this is a file") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: not valid JSON ({error}); run `langadapt adapt` again to write it anew") from None
    if not isinstance(results, dict):
        raise DataError(f"{file}: a JSON object is expected; run `langadapt adapt` again to write it anew")
    rows = results.get("rows", [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{file}: `rows` is not a list of objects; run `langadapt adapt` again to write it anew")
    for name in ("languages", "versions", "tokenizers", "fertility", "corpus", "swap", "training", "cost"):
        if not isinstance(results.get(name, {}), dict):
            raise DataError(f"{file}: `{name}` is not an object; run `langadapt adapt` again to write it anew")
    return results


def read_recipe(file: Path) -> tuple[str | None, dict[str, Any]]:
    """Text and plain values of the recipe; nothing where it is missing or no longer YAML."""
    try:
        text = file.read_text(encoding="utf-8")
        values = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError):
        return None, {}
    except yaml.YAMLError:
        return text, {}
    return text, values if isinstance(values, dict) else {}


def read_log(file: Path) -> Log:
    """A JSON-lines log; a half-written last line, as a killed run leaves it, is passed over."""
    steps, validations = [], []
    tokens_per_step = None
    for text in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        step = line.get("step") if isinstance(line, dict) else None
        if not isinstance(step, int):
            continue
        found = validation_of(line)
        if found:
            validations.append((step, found))
        if number(line.get("loss")) is not None:
            steps.append(line)
            tokens = number(line.get("tokens"))
            tokens_per_step = tokens / step if tokens and step else tokens_per_step
    return Log(steps, validations, tokens_per_step)


def validation_of(line: Mapping[str, Any]) -> dict[str, float]:
    """Bits per byte by side, from ``{"validation": {"bits_per_byte_target": x}}`` or ``{"bits_per_byte": {...}}``."""
    held = line.get("validation")
    held = held if isinstance(held, Mapping) else line
    nested = held.get(BITS)
    found = {}
    for side in ("source", "target"):
        value = number(held.get(f"{BITS}_{side}"))
        if value is None and isinstance(nested, Mapping):
            value = number(nested.get(side))
        if value is not None:
            found[side] = value
    return found


def section(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A mapping inside ``values``, empty where there is none."""
    found = values.get(name)
    return found if isinstance(found, dict) else {}


def number(value: Any) -> float | None:
    """A finite number, or none: logs and results of broken runs hold nulls and NaN."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return value
