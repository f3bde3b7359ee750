"""`langadapt plan`: what a budget buys, in which layout, and when each phase ends."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from langadapt.costs import devices, memory
from langadapt.costs.flops import Shape
from langadapt.errors import ConfigError
from langadapt.models.folder import read_config, resolve_model
from langadapt.training.options import Option, Pricing
from langadapt.training.schedule import phases
from langadapt.training.settings import TrainSettings

BYTES_PER_TOKEN = 4.3
"""Of a tokenizer made for its language, where no store tells; German and Arabic ones of 32k entries reach more."""


@dataclass
class Corpus:
    """How much text there is to train on."""

    tokens: int | None = None
    bytes_per_token: float = BYTES_PER_TOKEN
    measured: bool = False
    """From a token store, not from file sizes."""


@dataclass
class Plan:
    """The answer."""

    device: str
    device_memory: int
    """Bytes of one GPU."""
    gpus: int
    parameters: int
    vocabulary: int
    options: list[Option]
    """The fastest micro-batch of every combination of precision, sharding and checkpointing."""
    best: Option
    reason: str
    steps: int
    tokens: int
    text_bytes: int
    epochs: float | None
    hours: float
    schedule: list[dict[str, Any]]
    """Phases with their steps and dates."""
    rates: dict[str, float]
    """Peak rates: ``embeddings first``, where there is such a phase, ``embeddings``, ``all else``."""
    checkpoint_bytes: int
    cost: float | None
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "options": [option.to_dict() for option in self.options], "best": self.best.to_dict()}


def plan(
    config: dict[str, Any],
    settings: TrainSettings,
    *,
    vocabulary: int | None = None,
    gpus: str | None = None,
    hours: float | None = None,
    price: float | None = None,
    corpus: Corpus | None = None,
    measured: Mapping[str, Any] | None = None,
    now: datetime | None = None,
) -> Plan:
    """Plan a training.

    Args:
        config: the model's `config.json`.
        vocabulary: rows of the embedding matrices after the swap; none = the config's, and no swap.
        gpus: such as ``2 x h100-80gb``; none = what this machine has.
        hours: wall-clock limit beside the settings' own budget.
        price: per GPU and hour.
        measured: ``tokens_per_second`` of one GPU and the ``micro_batch`` and ``activation_checkpointing`` that it was
            measured with, from `langadapt.planning.calibration.calibrate`.

    Raises:
        ConfigError: nothing fits; the message says what would.
    """
    # Long: a line for each argument and for each field of the plan.
    count, device = machine(gpus, settings)
    shape, corpus = Shape.of(config, vocabulary), corpus or Corpus()
    pricing = Pricing(shape, settings, count, device, measured)
    options = list(pricing.options())
    best, reason = pricing.choose(options)
    notes = approximations(settings, count)
    limit = hours if settings.hours is None else settings.hours
    steps = budget_steps(settings, best, corpus, limit, notes=notes)
    start, seconds = now or datetime.now(), steps * best.step_seconds
    notes += shortfalls(settings, corpus, steps, best, limit=limit, start=start)
    tokens = steps * settings.tokens_per_step
    return Plan(
        device=device.name,
        device_memory=device.memory,
        gpus=count,
        parameters=shape.parameters,
        vocabulary=shape.vocabulary,
        options=options,
        best=best,
        reason=reason,
        steps=steps,
        tokens=tokens,
        text_bytes=int(tokens * corpus.bytes_per_token),
        epochs=tokens / corpus.tokens if corpus.tokens else None,
        hours=seconds / 3600,
        schedule=dates(settings, steps, best.step_seconds, start),
        rates=peaks(settings, vocabulary is not None),
        checkpoint_bytes=memory.checkpoint_bytes(shape, settings),
        cost=None if price is None else price * count * seconds / 3600,
        notes=notes,
    )


def machine(gpus: str | None, settings: TrainSettings) -> tuple[int, devices.Device]:
    """How many GPUs a plan is for, and of which kind.

    Raises:
        ConfigError: the windows of a step do not divide among them.
    """
    count, device = devices.parse(gpus) if gpus else devices.here()
    if settings.sequences_per_step % count:
        raise ConfigError(
            f"{settings.sequences_per_step} windows per step (batch_tokens / sequence_length) do not divide among "
            f"{count} GPUs"
        )
    return count, device


def approximations(settings: TrainSettings, gpus: int) -> list[str]:
    """What of the settings is planned as something near to it."""
    notes = []
    if settings.precision == "fp32":
        notes.append("precision: fp32 is planned as mixed-bf16: it is slower, and activations take twice as much")
    if settings.sharding == "hybrid" and gpus > 1:
        notes.append(
            "sharding: hybrid is planned as if all GPUs were in one node; where they are not, each holds more of the "
            "model"
        )
    return notes


def shortfalls(
    settings: TrainSettings, corpus: Corpus, steps: int, best: Option, *, limit: float | None, start: datetime
) -> list[str]:
    """What a user should know of a plan that fits into memory: too little time, too little text, an assumption."""
    notes, seconds, tokens = [], steps * best.step_seconds, steps * settings.tokens_per_step
    if limit is not None and seconds > limit * 3600:
        possible = max(int(limit * 3600 / best.step_seconds), 0)
        notes.append(
            f"{steps} steps take {seconds / 3600:.1f} hours, more than the {limit:g} allowed: {possible} steps "
            f"({possible * settings.tokens_per_step:,} tokens) fit; set hours instead, and the schedule ends in time"
        )
    deadline = settings.deadline_timestamp()
    if deadline is not None and (late := start.timestamp() + seconds - deadline) > 0:
        notes.append(f"the run would end {timedelta(seconds=round(late))} after its deadline")
    if corpus.tokens and (epochs := tokens / corpus.tokens) > 4:
        notes.append(
            f"{epochs:.1f} passes over the text: beyond about 4 they teach little (arXiv 2305.16264); add text"
        )
    if not corpus.measured:
        notes.append(f"bytes per token are assumed ({corpus.bytes_per_token:g}) until the text is tokenized")
    return notes


def budget_steps(
    settings: TrainSettings, best: Option, corpus: Corpus, hours: float | None, *, notes: list[str]
) -> int:
    """Steps that the settings' budget comes to; ``hours`` where they name none."""
    if settings.steps is None and settings.tokens is None:
        if hours is not None and settings.epochs is None:
            steps = int(hours * 3600 / best.step_seconds)
            if steps < 1:
                raise ConfigError(
                    f"hours: {hours:g} is less than one step of {best.step_seconds:.0f} s takes; lower batch_tokens"
                )
            return steps
        if corpus.tokens is None:
            notes.append("the text's size is not known yet; one step is planned")
            return 1
    return settings.budget_steps(corpus.tokens or 0, settings.tokens_per_step) or 1


def dates(settings: TrainSettings, steps: int, step_seconds: float, start: datetime) -> list[dict[str, Any]]:
    """Phases with first and last step and the moments at which they begin and end."""
    bounds = [("embeddings first", 0, settings.embeddings_first_steps)] if settings.embeddings_first_steps else []
    offset = settings.embeddings_first_steps
    bounds += [
        (name, offset + round(low * steps), offset + round(high * steps)) for name, low, high in phases(settings)
    ]
    return [
        {
            "phase": name,
            "steps": [first, last],
            "begins": (start + timedelta(seconds=first * step_seconds)).isoformat(timespec="minutes"),
            "ends": (start + timedelta(seconds=last * step_seconds)).isoformat(timespec="minutes"),
        }
        for name, first, last in bounds
        if last > first
    ]


def peaks(settings: TrainSettings, swapped: bool) -> dict[str, float]:
    """Peak learning rates by what they are of."""
    first = {"embeddings first": settings.embeddings_first_peak} if settings.embeddings_first_steps else {}
    return {**first, "embeddings": settings.embedding_peak(swapped), "all else": settings.learning_rate}


def plan_recipe(recipe: Any, measured: Mapping[str, Any] | None = None) -> Plan:
    """Plan the training of a recipe: its model's config, its tokenizer's size, its text."""
    config = read_config(resolve_model(recipe.model))
    budget = recipe.budget
    return plan(
        config,
        recipe.train,
        vocabulary=new_vocabulary(recipe),
        gpus=budget.gpus,
        hours=budget.hours,
        price=budget.price_per_gpu_hour,
        corpus=corpus_of(recipe),
        measured=measured,
    )


def new_vocabulary(recipe: Any) -> int | None:
    """Rows of the embedding matrices after the swap; none = the model keeps its own."""
    if recipe.swap.method == "keep":
        return None
    size = recipe.tokenizer.vocab_size
    if recipe.tokenizer.path:
        file = Path(recipe.tokenizer.path) / "tokenizer.json"
        if file.is_file():
            content = json.loads(file.read_text(encoding="utf-8"))
            added = [token["id"] for token in content.get("added_tokens", [])]
            size = max(len(content["model"]["vocab"]), max(added, default=-1) + 1)
    multiple = recipe.swap.pad_to_multiple_of or 1
    return int(-(-size // multiple) * multiple)


def corpus_of(recipe: Any) -> Corpus:
    """Size of the target text: from the run's token store if it is made, else from the files."""
    which = "own" if recipe.swap.method == "keep" else "new"
    manifest = Path(recipe.out) / "stores" / f"target-{which}" / "manifest.json"
    if manifest.is_file():
        summary = json.loads(manifest.read_text(encoding="utf-8"))["summary"]
        tokens = int(summary["tokens"])
        return Corpus(tokens, summary["bytes"] / max(tokens, 1), True)
    size = 0.0
    for pattern in recipe.corpus.target:
        path = Path(pattern)
        for file in path.rglob("*") if path.is_dir() else [path]:
            if file.is_file():
                # Compressed prose is about a quarter of its text.
                size += file.stat().st_size * (4.0 if file.suffix in {".gz", ".zst", ".parquet"} else 1.0)
    return Corpus(int(size / BYTES_PER_TOKEN) or None)
