"""How much source text to replay: a small law fitted to short runs at several shares.

After D-CPT (arXiv 2406.01375) and CMR (arXiv 2407.17467), at one model size: bits per byte of a language after D
training tokens of which a share r is its own,

    L(r, D) = E + B * (r D + T) ** -beta + C * (r + epsilon) ** -gamma * D ** alpha

The second term is what is learnt from tokens of the language itself, the third what training on the other one costs. E,
B and C are found by least squares, not below zero; exponents are searched on a grid. Every validation of every pilot is
a point, so four runs with four validations give sixteen.

Measured on a model of 1.3 million parameters (English to German, pilots of 40 steps): for runs ten times as long, at
shares of 0.05, 0.2 and 0.5, predictions were 1.3 to 2.4 % below the truth on the target, and -2.1, +0.5 and +4.1 % off
on the source. The recommendation was 0.25, other fits gave up to 0.45, and of the three runs that at 0.5 had the best
sum. Points of a known law with noise of 0.005 bits per byte gave its best share within 0.05 mostly at the pilots'
length, within 0.2 at ten times it; at a hundred times they say little. So the range of shares that other fits of about
the same error would recommend is told with each recommendation: it held the best one in at least ten of twelve such
laws.
"""

from __future__ import annotations

import itertools
import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from langadapt.artefacts.stages import read_stamp
from langadapt.errors import ConfigError
from langadapt.machine import choose_device
from langadapt.models.folder import load_model
from langadapt.pipeline import text
from langadapt.pipeline.job import Job, open_job
from langadapt.pipeline.swap import Arm, own_arm
from langadapt.pipeline.training import train_arm, validator
from langadapt.planning.plan import plan_recipe
from langadapt.recipe.recipe import Recipe
from langadapt.training import StoreShare, parallel
from langadapt.training.resume import RUN_NAME, changes, describe_run
from langadapt.training.settings import FREE_TO_CHANGE, TrainSettings
from langadapt.training.signals import PILOTS

log = logging.getLogger(__name__)

SHARES = (0.0, 0.1, 0.25, 0.5)
"""Of source text, in the pilots."""
STEPS = 40
"""Optimizer steps of a pilot, validated every `STEPS` / 4."""
TOLERANCE = 0.02
"""How much worse than the source model's bits per byte the source language may become."""

SIMILAR = 1.3
"""Fits whose error is up to this many times the least explain the points as well."""
WARMUP = 0.1
"""Share of a pilot, at least, over which the rate rises; the recipe's own share may be less than a step of it."""

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
        exponents = (self.beta, self.gamma, self.epsilon, self.alpha)
        columns = basis(np.array([share]), np.array([tokens / self.scale]), exponents)
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
    between: tuple[float, float]
    """Smallest and largest share that other fits of about the same error recommend."""
    extrapolation: float
    """Length of the run in lengths of a pilot."""


def basis(share: Floats, tokens: Floats, exponents: tuple[float, float, float, float]) -> Floats:
    """The three terms of the law, ``[points, 3]``, for its beta, gamma, epsilon and alpha; 0.05 units stand for what
    the model knew before."""
    beta, gamma, epsilon, alpha = exponents
    return np.stack(
        [np.ones_like(share), (share * tokens + 0.05) ** -beta, (share + epsilon) ** -gamma * tokens**alpha], axis=1
    )


def fits(points: Sequence[Point]) -> list[Law]:
    """The laws that fit best and about as well, best first.

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
    laws = []
    grid = itertools.product((0.1, 0.2, 0.35, 0.5, 0.8), (0.25, 0.5, 1.0), (0.02, 0.1, 0.3), (0.0, 0.15, 0.3))
    for exponents in grid:
        columns = basis(shares, tokens, exponents)
        solution = non_negative(columns, bits)
        error = float(np.sqrt(np.mean((columns @ solution - bits) ** 2)))
        floor, learnt, cost = solution.tolist()
        laws.append(Law(floor, learnt, cost, *exponents, scale, error))
    laws.sort(key=lambda law: law.error)
    return [law for law in laws if law.error <= SIMILAR * laws[0].error + 1e-9]


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
    target: Sequence[Point], source: Sequence[Point], base: float, tokens: int, *, tolerance: float = TOLERANCE
) -> Advice:
    """Recommend a share of source text for a run of ``tokens`` tokens.

    The smallest share that keeps the source language within ``tolerance`` of ``base``, the source model's bits per byte
    on it; where none does, the share at which target and source together are best.
    """
    law, others = fits(target)[0], fits(source)
    tables = [table_of(law, one, tokens) for one in others]
    limit = base * (1 + tolerance)
    chosen = [best_row(table, limit) for table in tables]
    if chosen[0]["source"] <= limit:
        reason = f"the smallest that keeps the source language within {100 * tolerance:g} % of {base:.4f} bits per byte"
    else:
        reason = (
            f"none keeps the source language within {100 * tolerance:g} % of {base:.4f}; this is the best sum of both"
        )
    shares = [row["share"] for row in chosen]
    errors = {"target": law.error, "source": others[0].error}
    return Advice(shares[0], reason, tokens, tables[0], errors, (min(shares), max(shares)), tokens / law.scale)


def table_of(target: Law, source: Law, tokens: int) -> list[dict[str, float]]:
    """Predictions of two laws per share of source text."""
    return [
        {"share": share, "target": target(1 - share, tokens), "source": source(share, tokens)}
        for share in np.round(np.arange(0.0, 0.75, 0.05), 2).tolist()
    ]


def best_row(table: Sequence[dict[str, float]], limit: float) -> dict[str, float]:
    """The smallest share whose source bits per byte are within ``limit``; else that of the best sum."""
    kept = [row for row in table if row["source"] <= limit]
    return kept[0] if kept else min(table, key=lambda row: row["target"] + row["source"])


def pilot_recipe(recipe: Recipe, shares: Sequence[float] = SHARES, steps: int = STEPS) -> Advice:
    """Prepare a recipe's stages up to the swap, train briefly at each share, fit, and recommend.

    Pilots lie in ``RUN/pilots``: an interrupted one goes on where it stopped, a finished one is not run again and
    leaves its log alone. With other settings they are made anew.

    Raises:
        ConfigError: the recipe names no source text, or cannot be planned.
    """
    if not recipe.corpus.paths_of("source"):
        raise ConfigError("corpus.source: a pilot needs text in the source language")
    others = [one.name for one in recipe.corpus.texts if one.share > 0 and one.language == "other"]
    if others:
        raise ConfigError(f"--pilot weighs target against source text; leave {', '.join(others)} out for it")
    if parallel.under_torchrun():
        raise ConfigError("--pilot runs in one process; start it without torchrun")
    # What cannot be planned should not cost the pilots' time first.
    plan_recipe(recipe)
    job = open_job(recipe)
    with job.run.locked():
        corpora = text.corpora(job)
        job, arm = own_arm(job, corpora, parallel.ProcessGroup())
        settings = pilot_settings(job.recipe.train, steps)
        log.info(
            "%d pilots of %d steps and %s tokens each, then the whole run is predicted",
            len(shares),
            steps,
            f"{steps * settings.tokens_per_step:,}",
        )
        base = source_bits(job, corpora)
        points: dict[str, list[Point]] = {"target": [], "source": []}
        for number, share in enumerate(shares, 1):
            log.info("pilot %d of %d: %g %% source text", number, len(shares), 100 * share)
            weights = {"target": 1 - share, "source": share}
            parts = list(mixed(job, corpora, arm.tokenizer, weights))
            for line in short_run(job, corpora, replace(arm, stores=parts), f"share-{share:g}", settings=settings):
                for side, own in weights.items():
                    bits = line.get("validation", {}).get(f"bits_per_byte_{side}")
                    # The validation before the first step is no point of the law.
                    if bits is not None and line["step"] > 0:
                        points[side].append(Point(own, line["step"] * settings.tokens_per_step, bits))
    return advise(points["target"], points["source"], base, plan_recipe(recipe).tokens)


def mixed(job: Job, corpora: text.Corpora, under: Path, weights: Mapping[str, float]) -> Iterator[StoreShare]:
    """All sources of both languages under a tokenizer; those of a language share its weight as in the recipe."""
    for side, weight in weights.items():
        parts = corpora[side].parts
        total = sum(part.source.share for part in parts)
        for part in parts if weight > 0 else ():
            own = part.source.share / total if total else 1 / len(parts)
            if own > 0:
                yield StoreShare(text.store(job, part, under), weight * own, part.name)


def pilot_settings(settings: TrainSettings, steps: int) -> TrainSettings:
    """Those of a run, for a pilot: few steps at the peak rate, which no budget, deadline or other log knows of."""
    return replace(
        settings,
        steps=steps,
        tokens=None,
        epochs=None,
        hours=None,
        limit_hours=None,
        deadline=None,
        schedule="constant",
        warmup=max(settings.warmup_share, WARMUP),
        embeddings_first_steps=0,
        validate_every=max(steps // 4, 1),
        keep="last",
        keep_checkpoints=1,
        tensorboard=False,
        wandb_project=None,
    )


def short_run(job: Job, corpora: text.Corpora, arm: Arm, name: str, *, settings: TrainSettings) -> list[dict[str, Any]]:
    """The log of one pilot, ``RUN/pilots/NAME``; of its model and its checkpoint, large as they are, nothing is left.

    An interrupted one goes on where it stopped, a finished one is not run again; with other settings it is made anew.
    """
    out = job.folder / PILOTS / name
    described = describe_run(arm.model, arm.stores, settings)

    def make() -> dict[str, Any]:
        before = read_stamp(out / RUN_NAME) or {"inputs": {}, "settings": {}}
        if out.exists() and (before["inputs"] != described["inputs"] or changes(before, described)):
            log.info("%s: of other settings or texts, made anew", out)
            shutil.rmtree(out)
        return train_arm(job, corpora, arm, settings=settings, out=out)

    deciding = {key: value for key, value in described["settings"].items() if key not in FREE_TO_CHANGE}
    inputs = {"model": arm.model, **{part.name: part.store for part in arm.stores}}
    job.run.stage(f"pilot-{name}", out / "log.jsonl", make, settings=deciding, inputs=inputs)
    # Without its note of a run it is none that could be asked to anneal.
    (out / RUN_NAME).unlink(missing_ok=True)
    for name in ("checkpoints", "final"):
        shutil.rmtree(out / name, ignore_errors=True)
    return [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def source_bits(job: Job, corpora: text.Corpora) -> float:
    """Bits per byte of the source language before anything was done: the swap costs some of it, too."""
    with torch.inference_mode():
        model = load_model(job.model, dtype=torch.bfloat16).eval()
        model.to(choose_device(job.recipe.train.device))
        return validator(job, corpora, job.model)(model, 0)["bits_per_byte_source"]
