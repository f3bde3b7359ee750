"""How fast to train: short runs at several rates, first of the body, then of the embeddings beside the best of them.

Each is a whole run in little, with warm-up and decay (a rate held constant to the end would be judged by its noise):
steps as in a pilot, the recipe's batches in the same order. Rates are `STEP` apart; where the best one is the
outermost, up to `FURTHER` more are tried beyond it. The best is run once more with another seed: what the two differ
by is noise, and of all rates within it the lowest is recommended, which forgets least.

What it cannot tell is said with what it recommends: see :data:`LIMITS`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from langadapt.errors import ConfigError, LangadaptError
from langadapt.pipeline import text
from langadapt.pipeline.job import open_job
from langadapt.pipeline.swap import own_arm
from langadapt.planning.pilot import STEPS, pilot_settings, short_run
from langadapt.recipe.recipe import Recipe
from langadapt.swap.rows.names import KEEP
from langadapt.training import parallel
from langadapt.training.settings import TrainSettings

log = logging.getLogger(__name__)

STEP = 3.0
"""Between neighbours."""
FURTHER = 2
LEAST_NOISE = 0.002
"""Share of the bits per byte below which no difference counts, whatever two seeds say by chance."""
LIMITS = (
    "short runs favour high rates: the best of a run ten times as long is often a step lower, never surely",
    "the source language is what a high rate costs; replay changes that, and was as in the recipe",
    "rates were tried at this batch and schedule; another batch has another best rate",
)


@dataclass(frozen=True)
class Tried:
    """One short run."""

    body: float
    embeddings: float
    target: float
    """Bits per byte at its end; infinite where it diverged."""
    source: float | None
    seed: int


@dataclass
class RateAdvice:
    """What the short runs recommend."""

    learning_rate: float
    embedding_learning_rate: float
    noise: float
    """Bits per byte of target text by which two seeds of the best rates differ, at least `LEAST_NOISE` of it."""
    steps: int
    """Of each run."""
    tried: list[Tried] = field(default_factory=list)
    limits: tuple[str, ...] = LIMITS


Try = Callable[[float, float, int], Tried]


def advise(learning_rate: float, ratio: float, seed: int, steps: int, *, attempt: Try) -> RateAdvice:
    """Search from a body's rate and the ratio of the embeddings' to it.

    Args:
        learning_rate: of the body, in the middle of the first three.
        ratio: of the embeddings' rate to it.
        seed: of all runs but one.
        steps: of each.
        attempt: runs (body, embeddings, seed).

    Raises:
        LangadaptError: all runs diverged.
    """
    known: dict[tuple[float, float], Tried] = {}

    def at(body: float, embeddings: float) -> Tried:
        key = (float(f"{body:.3g}"), float(f"{embeddings:.3g}"))
        if key not in known:
            known[key] = attempt(*key, seed)
        return known[key]

    bodies = line(learning_rate, lambda body: at(body, body * ratio))
    best = min(bodies, key=lambda one: one.target)
    ratios = line(best.embeddings, lambda embeddings: at(best.body, embeddings))
    top = min(ratios, key=lambda one: one.target)
    if math.isinf(top.target):
        raise LangadaptError("every rate made the model diverge; lower train.learning_rate and try again")
    again = attempt(top.body, top.embeddings, seed + 1)
    noise = max(abs(again.target - top.target), LEAST_NOISE * top.target)
    body = lowest(bodies, noise, key=lambda one: one.body)
    if body.body != top.body:
        # As good as the best within noise, and beside the ratio that was tried at the best.
        ratios = [at(body.body, body.body * top.embeddings / top.body), body]
    chosen = lowest(ratios, noise, key=lambda one: one.embeddings)
    return RateAdvice(chosen.body, chosen.embeddings, noise, steps, [*known.values(), again])


def line(middle: float, attempt: Callable[[float], Tried]) -> list[Tried]:
    """Runs at rates around ``middle``, and beyond the outermost while that is the best."""
    places = [-1, 0, 1]
    while True:
        tried = [attempt(middle * STEP**place) for place in places]
        best = min(range(len(tried)), key=lambda number: tried[number].target)
        if 0 < best < len(tried) - 1 or len(places) == 3 + FURTHER:
            return tried
        places = [places[0] - 1, *places] if best == 0 else [*places, places[-1] + 1]


def lowest(tried: list[Tried], noise: float, *, key: Callable[[Tried], float]) -> Tried:
    """That of the lowest rate within ``noise`` of the best."""
    best = min(one.target for one in tried)
    return min((one for one in tried if one.target <= best + noise), key=key)


def find_rates(recipe: Recipe, steps: int = STEPS) -> RateAdvice:
    """Prepare a recipe's stages up to the swap, run briefly at several rates, and recommend.

    Runs lie in ``RUN/pilots`` and are kept as those of a pilot.

    Raises:
        ConfigError: under ``torchrun``.
        LangadaptError: all runs diverged.
    """
    if parallel.under_torchrun():
        raise ConfigError("--rates runs in one process; start it without torchrun")
    job = open_job(recipe.of_text("plan --rates"))
    with job.run.locked():
        corpora = text.corpora(job)
        job, arm = own_arm(job, corpora, parallel.ProcessGroup())
        train = job.recipe.train

        def attempt(body: float, embeddings: float, seed: int) -> Tried:
            settings = at_rates(train, steps, body, embeddings, seed=seed)
            name = f"rate-{body:g}-{embeddings:g}-{seed}"
            log.info("%d steps at a rate of %g, embeddings at %g, seed %d", steps, body, embeddings, seed)
            found: dict[str, float] = {}
            try:
                for entry in short_run(job, corpora, arm, name, settings=settings):
                    found = entry.get("validation", found)
            except LangadaptError as error:
                log.warning("%s: %s", name, error)
                return Tried(body, embeddings, math.inf, None, seed)
            target = found.get("bits_per_byte_target", math.inf)
            return Tried(body, embeddings, target, found.get("bits_per_byte_source"), seed)

        ratio = train.embedding_peak(swapped=arm.method != KEEP) / train.learning_rate
        return advise(train.learning_rate, ratio, train.seed, steps, attempt=attempt)


def at_rates(settings: TrainSettings, steps: int, body: float, embeddings: float, *, seed: int) -> TrainSettings:
    """Those of a run, for a short one at other rates, with a decay."""
    return replace(
        pilot_settings(settings, steps),
        schedule="cosine",
        learning_rate=body,
        embedding_learning_rate=embeddings,
        min_learning_rate=body / 10,
        validate_every=steps,
        seed=seed,
    )
