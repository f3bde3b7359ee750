"""A run's folder, read once: everything that the report is made from."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from langadapt.artefacts.names import RESULTS_NAME
from langadapt.recipe.recipe import Recipe
from langadapt.report.results import Results, read_results
from langadapt.report.unfinished import results_so_far, what_is_done

AXES = {"tokens": "training tokens", "bytes": "bytes of text", "seconds": "seconds of training"}
"""What the horizontal axis of a curve may count."""


@dataclass(frozen=True)
class Log:
    """One training log."""

    steps: list[dict[str, Any]]
    """Lines with a loss."""
    validations: list[tuple[int, dict[str, float]]]
    """(step, bits per byte by ``source`` / ``target``)."""
    tokens_per_step: float
    """1 where nothing was trained: axes then count steps."""
    bytes_per_token: dict[str, float] = field(default_factory=dict)
    """UTF-8 bytes behind a learnt token, by the name of the text; empty where the token stores are gone."""

    def places(self, axis: str, steps: list[int]) -> list[float] | None:
        """``steps`` on one of :data:`AXES`; none where the log does not tell."""
        if axis == "tokens":
            return [step * self.tokens_per_step for step in steps]
        known = self.seconds() if axis == "seconds" else self.bytes_read()
        if known is None:
            return None
        import numpy as np

        at = [0, *(line["step"] for line in self.steps)]
        return [float(place) for place in np.interp(steps, at, [0.0, *known])]

    def seconds(self) -> list[float] | None:
        """Of training, up to each logged step."""
        found = [number(line.get("seconds")) for line in self.steps]
        return None if not found or None in found else [value for value in found if value is not None]

    def bytes_read(self) -> list[float] | None:
        """UTF-8 bytes of text, up to each logged step: bytes per token of each interval times its tokens."""
        total, before, found = 0.0, 0, []
        for line in self.steps:
            read, pace = number(line.get("bytes_per_second")), number(line.get("tokens_per_second"))
            if read is None or not pace:
                return None
            total += (line["tokens"] - before) * read / pace
            before = line["tokens"]
            found.append(total)
        return found or None

    def training_bits(self, side: str) -> list[tuple[int, float]]:
        """(step, bits per byte of one language in the batches since the last logged step)."""
        logged = [
            (line["step"], number(line["bits_per_byte"].get(side))) for line in self.steps if "bits_per_byte" in line
        ]
        found = [(step, bits) for step, bits in logged if bits is not None]
        size = self.bytes_per_token.get(side)
        if found or not size:
            return found
        # Logs of earlier versions: from nats per token, and the store's bytes.
        for line in self.steps:
            losses = line.get("loss_by_source")
            loss = number(losses.get(side) if losses else line.get("loss") if len(self.bytes_per_token) == 1 else None)
            if loss is not None:
                found.append((line["step"], loss / math.log(2) / size))
        return found


@dataclass(frozen=True)
class RunData:
    """What a run left behind."""

    folder: Path
    results: Results
    recipe: Recipe
    logs: dict[str, Log]
    """By method, as far as they are there."""
    so_far: list[str] = field(default_factory=list)
    """What a run that is not finished has done, in sentences; empty for one that is."""

    @property
    def final(self) -> Path | None:
        """Folder of the finished model, where it is."""
        if self.results.main is None:
            return None
        folder = self.folder / Path(self.results.main.log).parent / "final"
        return folder if (folder / "config.json").is_file() else None


def read_run(folder: Path) -> RunData:
    """Read a run, finished or not.

    Raises:
        DataError: no results, or not those of a run.
        ConfigError, FileNotFoundError: its recipe is damaged or missing.
    """
    if (folder / RESULTS_NAME).exists() or not (folder / "stages").is_dir():
        results, so_far = read_results(folder / RESULTS_NAME), []
        recipe = Recipe.from_yaml(folder / "recipe.yaml")
    else:
        recipe = Recipe.from_yaml(folder / "recipe.yaml")
        results, so_far = results_so_far(folder, recipe), what_is_done(folder, recipe)
    files = {method: folder / training.log for method, training in results.training.items()}
    files |= {file.parent.name: file for file in sorted(folder.glob("trained/*/log.jsonl")) if so_far}
    texts = [one.name for one in recipe.corpus.texts]
    logs = {
        method: read_log(file, stores_of(folder, method, texts)) for method, file in files.items() if file.is_file()
    }
    return RunData(folder, results, recipe, logs, so_far)


def stores_of(folder: Path, method: str, texts: Iterable[str]) -> dict[str, float]:
    """Bytes per learnt token of the texts that a method's training reads; those whose store is gone are left out."""
    kind, found = "own" if method == "keep" else "new", {}
    for side in texts:
        try:
            text = (folder / "stores" / f"{side}-{kind}" / "manifest.json").read_text(encoding="utf-8")
            summary = json.loads(text)["summary"]
            # A document of n tokens is learnt in n + 1 steps: its end is learnt, too.
            found[side] = summary["bytes"] / (summary["tokens"] + summary["documents"])
        except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError):
            continue
    return found


def read_log(file: Path, bytes_per_token: Mapping[str, float]) -> Log:
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
    return Log(log.steps, log.validations, last["tokens"] / last["step"], dict(bytes_per_token))


def number(value: Any) -> float | None:
    """A finite number, or none: what could not be measured is null in logs, and a lost run's loss is no number."""
    return value if isinstance(value, (int, float)) and math.isfinite(value) else None
