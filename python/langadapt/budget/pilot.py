"""How much source text to replay: a small law fitted to short runs at several shares.

After D-CPT (arXiv 2406.01375) and CMR (arXiv 2407.17467), at one model size: bits per byte of a language after D
training tokens of which a share r is its own,

    L(r, D) = E + B * (r D + T) ** -beta + C * (r + epsilon) ** -gamma * D ** alpha

The second term is what is learnt from tokens of the language itself, the third what training on the other one costs. E,
B and C are found by least squares, not below zero; exponents are searched on a grid. Every validation of every pilot is
a point, so four runs with four validations give sixteen.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langadapt.errors import ConfigError

SHARES = (0.0, 0.1, 0.25, 0.5)
"""Of source text, in the pilots."""
STEPS = 40
"""Optimizer steps of a pilot, validated every `STEPS` / 4."""
TOLERANCE = 0.02
"""How much worse than the source model's bits per byte the source language may become."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Point:
    """One validation of one pilot."""

    share: float
    """Of the language in question, in the training tokens."""
    tokens: float
    """Trained on so far."""
    bits: float
    """Per byte, on validation text."""


@dataclass(frozen=True)
class Law:
    """A fitted L(r, D)."""

    floor: float
    learnt: float
    cost: float
    beta: float
    gamma: float
    epsilon: float
    alpha: float
    scale: float
    """Tokens that count as one unit of D and r D (the longest pilot)."""
    error: float
    """Root mean square of the residuals, bits per byte."""

    def __call__(self, share: float, tokens: float) -> float:
        """Bits per byte after ``tokens`` tokens at ``share``."""
        columns = basis(
            np.array([share]), np.array([tokens / self.scale]), self.beta, self.gamma, self.epsilon, self.alpha
        )
        return float(columns[0] @ np.array([self.floor, self.learnt, self.cost]))


@dataclass
class Advice:
    """What the pilots recommend."""

    share: float
    """Of source text in the training tokens."""
    reason: str
    tokens: int
    """Of the whole run that is predicted for."""
    table: list[dict[str, float]]
    """Predictions per share: `share`, `target` and `source` bits per byte."""
    errors: dict[str, float]
    """Root mean square of the fits."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def basis(share: Floats, tokens: Floats, beta: float, gamma: float, epsilon: float, alpha: float) -> Floats:
    """The three terms of the law, ``[points, 3]``; 0.05 units stand for what the model knew before."""
    return np.stack(
        [np.ones_like(share), (share * tokens + 0.05) ** -beta, (share + epsilon) ** -gamma * tokens**alpha], axis=1
    )


def fit(points: Sequence[Point]) -> Law:
    """Fit the law.

    Raises:
        ConfigError: too few points to tell its terms apart.
    """
    shares = np.array([point.share for point in points])
    if len(points) < 6 or len(set(shares.tolist())) < 3:
        raise ConfigError(
            f"{len(points)} validations at {len(set(shares.tolist()))} shares; at least 6 at 3 shares are needed"
        )
    scale = max(point.tokens for point in points)
    tokens = np.array([point.tokens for point in points]) / scale
    bits = np.array([point.bits for point in points])
    best: tuple[float, Floats, tuple[float, ...]] | None = None
    grid = itertools.product((0.1, 0.2, 0.35, 0.5, 0.8), (0.25, 0.5, 1.0), (0.02, 0.1, 0.3), (0.0, 0.15, 0.3))
    for exponents in grid:
        columns = basis(shares, tokens, *exponents)
        solution = non_negative(columns, bits)
        error = float(np.sqrt(np.mean((columns @ solution - bits) ** 2)))
        if best is None or error < best[0]:
            best = (error, solution, exponents)
    assert best is not None
    error, (floor, learnt, cost), (beta, gamma, epsilon, alpha) = best
    return Law(float(floor), float(learnt), float(cost), beta, gamma, epsilon, alpha, scale, error)


def non_negative(columns: Floats, values: Floats) -> Floats:
    """Least squares with no coefficient below zero: the best of all subsets of columns (there are seven)."""
    best, least = np.zeros(columns.shape[1]), float("inf")
    for size in range(1, columns.shape[1] + 1):
        for chosen in itertools.combinations(range(columns.shape[1]), size):
            part, *_ = np.linalg.lstsq(columns[:, chosen], values, rcond=None)
            error = float(np.sum((columns[:, chosen] @ part - values) ** 2))
            if (part >= 0).all() and error < least:
                best, least = np.zeros(columns.shape[1]), error
                best[list(chosen)] = part
    return best


def advise(
    target: Sequence[Point], source: Sequence[Point], base: float, tokens: int, tolerance: float = TOLERANCE
) -> Advice:
    """Recommend a share of source text for a run of ``tokens`` tokens.

    The smallest share that keeps the source language within ``tolerance`` of ``base``, the source model's bits per byte
    on it; where none does, the share at which target and source together are best.
    """
    laws = {"target": fit(target), "source": fit(source)}
    table = [
        {"share": share, "target": laws["target"](1 - share, tokens), "source": laws["source"](share, tokens)}
        for share in np.round(np.arange(0.0, 0.75, 0.05), 2).tolist()
    ]
    kept = [row for row in table if row["source"] <= base * (1 + tolerance)]
    if kept:
        chosen = kept[0]
        reason = f"the smallest that keeps the source language within {100 * tolerance:g} % of {base:.4f} bits per byte"
    else:
        chosen = min(table, key=lambda row: row["target"] + row["source"])
        reason = (
            f"none keeps the source language within {100 * tolerance:g} % of {base:.4f}; this is the best sum of both"
        )
    return Advice(chosen["share"], reason, tokens, table, {name: law.error for name, law in laws.items()})


def pilot_recipe(recipe: Any, shares: Sequence[float] = SHARES, steps: int = STEPS) -> Advice:
    """Prepare a recipe's stages up to the swap, train briefly at each share, fit, and recommend.

    Pilots lie in ``RUN/pilots`` and are not run again.

    Raises:
        ConfigError: the recipe names no source text.
    """
    import logging
    from dataclasses import replace

    from langadapt.budget.plan import plan_recipe
    from langadapt.model_folder import read_new_rows
    from langadapt.pipeline import Adaptation
    from langadapt.stages import Run
    from langadapt.tokenizer import Tokenizer
    from langadapt.training import StoreShare, train_model

    if not recipe.corpus.source:
        raise ConfigError("corpus.source: a pilot needs text in the source language")
    run = Run(Path(recipe.out), logging.getLogger(__name__).info)
    adaptation = Adaptation(recipe, run, None)
    with run.locked():
        for language in adaptation.languages:
            adaptation.build_corpus(language)
        start, tokenizer = adaptation.prepare(recipe.swap.method)
        stores = {language: adaptation.store(language, tokenizer) for language in ("target", "source")}
        settings = replace(
            recipe.train,
            steps=steps,
            tokens=None,
            epochs=None,
            hours=None,
            limit_hours=None,
            deadline=None,
            schedule="constant",
            embeddings_first_steps=0,
            validate_every=max(steps // 4, 1),
        )
        points: dict[str, list[Point]] = {"target": [], "source": []}
        validate = adaptation.validator(tokenizer)
        base = source_bits(adaptation)
        for share in shares:
            parts = [StoreShare(stores["target"], 1 - share, "target"), StoreShare(stores["source"], share, "source")]
            out = Path(recipe.out) / "pilots" / f"share-{share:g}"
            used = [part for part in parts if part.weight > 0]
            its_tokenizer = Tokenizer.from_pretrained(tokenizer)
            train_model(
                start, used, out, settings, tokenizer=its_tokenizer, validate=validate, new_rows=read_new_rows(start)
            )
            read_points(out, share, settings.tokens_per_step, points)
    return advise(points["target"], points["source"], base, plan_recipe(recipe).tokens)


def source_bits(adaptation: Any) -> float:
    """Bits per byte of the source language before anything was done: the swap costs some of it, too."""
    import torch

    from langadapt.machine import choose_device
    from langadapt.model_folder import load_model

    with torch.inference_mode():
        model = load_model(adaptation.model, dtype=torch.bfloat16).eval()
        model.to(choose_device(adaptation.recipe.train.device))
        measured: dict[str, float] = adaptation.validator(adaptation.model)(model, 0)
    return measured["bits_per_byte_source"]


def read_points(out: Path, share: float, tokens_per_step: int, points: dict[str, list[Point]]) -> None:
    """Add a pilot's validations to ``points``; the one before its first step is no point of the law."""
    import json

    for text in (out / "log.jsonl").read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        for language, shared in (("target", 1 - share), ("source", share)):
            bits = line.get("validation", {}).get(f"bits_per_byte_{language}")
            if bits is not None and line["step"] > 0:
                points[language].append(Point(shared, line["step"] * tokens_per_step, bits))
