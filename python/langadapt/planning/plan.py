"""`langadapt plan`: what a budget buys, in which layout, and when each phase ends."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from langadapt.costs import devices, memory
from langadapt.costs.adapter import Adapter, moving_parameters
from langadapt.costs.flops import Shape
from langadapt.errors import ConfigError
from langadapt.models.folder import config_to_plan, stated_context, text_config, trained_at
from langadapt.planning.fits import choose
from langadapt.planning.sources import BYTES_PER_TOKEN, SourcePlan, notes_on, size_of, sources_of
from langadapt.training import choices
from langadapt.training.adapter_settings import check_alone
from langadapt.training.choices import Facts
from langadapt.training.options import Option, Pricing, predicted_speed
from langadapt.training.schedule import phases
from langadapt.training.settings import BUDGET, TrainSettings

LARGEST_LAYER = 250_000_000
"""Parameters: wider models are not tried on a CPU, where nobody trains them."""


@dataclass
class Corpus:
    """How much text there is to train on."""

    tokens: int | None = None
    bytes_per_token: float = BYTES_PER_TOKEN
    measured: bool = False
    """From a token store, not from file sizes."""
    share: float = 1.0
    """Of this text in the training tokens; the rest is replay."""
    sampled: bool = False
    """Bytes per token are those of a sample, not an assumption."""


@dataclass(repr=False)
class Plan:
    """The answer."""

    device: str
    device_memory: int
    """Bytes of one GPU."""
    gpus: int
    parameters: int
    trained: int
    """Parameters that have gradients and states; of an adapter, its matrices and the rows of tokens."""
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
    settings: TrainSettings
    """With what `auto` comes to."""
    schedule: list[dict[str, Any]]
    """Phases with their steps and dates."""
    rates: dict[str, float]
    """Peak rates: ``embeddings first``, where there is such a phase, ``embeddings``, ``all else`` or ``adapter``."""
    checkpoint_bytes: int
    cost: float | None
    notes: list[str] = field(default_factory=list)
    sources: list[SourcePlan] = field(default_factory=list)
    """Texts of a recipe, the target language's first."""

    def __repr__(self) -> str:
        best, notes = self.best, "".join(f"\nnote: {note}" for note in self.notes)
        size, place = f"{self.text_bytes / 1e6:,.3g} MB of text", f"{self.gpus} x {self.device}"
        return (
            f"{self.steps:,} steps, {self.tokens:,} tokens, {size} in {self.hours:.3g} hours on {place}\n"
            f"{best.layout.describe()}: {best.memory.peak / 2**30:.1f} of {self.device_memory / 2**30:.1f} GiB, "
            f"{best.tokens_per_second:,.0f} tokens/s{notes}"
        )

    def _repr_html_(self) -> str:
        """For notebooks."""
        return f"<pre>{html.escape(repr(self))}</pre>"

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
    trained_at: float | None = None,
    now: datetime | None = None,
) -> Plan:
    """Plan a training.

    Args:
        config: the model's `config.json`.
        vocabulary: rows of the embedding matrices after the swap; none = the config's, and no swap.
        gpus: such as ``2 x h100-80gb``; none = what this machine has.
        hours: wall-clock limit beside the settings' own budget.
        price: per GPU and hour.
        measured: what `langadapt.planning.calibration.calibrate` gave for one GPU.
        trained_at: peak rate that the model was trained with, where that is known.

    Raises:
        ConfigError: nothing fits; the message says what would. An adapter on several GPUs.
    """
    # Long: a line for each argument and for each field of the plan.
    shape, corpus = Shape.of(config, vocabulary), corpus or Corpus()
    count, device = devices.parse(gpus) if gpus else here(shape, settings, measured)
    facts = replace(facts_of(corpus, config, shape, count), trained_at=trained_at)
    settings = settled(settings, facts, shape, hours=hours, device=device)
    pricing = Pricing(shape, settings, count, device, measured)
    best, reason = choose(pricing, options := list(pricing.options()))
    limit = hours if settings.hours is None else settings.hours
    steps = budget_steps(settings, best, corpus, limit)
    start, seconds, tokens = now or datetime.now(), steps * best.step_seconds, steps * settings.tokens_per_step
    notes = shortfalls(settings, corpus, steps, best, limit=limit, start=start) + choices.notes(settings, facts, steps)
    return Plan(
        device=device.name,
        device_memory=device.memory,
        gpus=count,
        parameters=shape.parameters,
        trained=moving_parameters(shape, Adapter.of(settings), settings.parts),
        vocabulary=shape.vocabulary,
        options=options,
        best=best,
        reason=reason,
        steps=steps,
        tokens=tokens,
        text_bytes=int(tokens * corpus.bytes_per_token),
        epochs=tokens * corpus.share / corpus.tokens if corpus.tokens else None,
        hours=seconds / 3600,
        settings=settings,
        schedule=dates(settings, steps, best.step_seconds, start),
        rates=peaks(settings, vocabulary is not None),
        checkpoint_bytes=memory.checkpoint_bytes(shape, settings),
        cost=None if price is None else price * count * seconds / 3600,
        notes=approximations(settings, count) + notes,
    )


def here(shape: Shape, settings: TrainSettings, measured: Mapping[str, Any] | None) -> tuple[int, devices.Device]:
    """This machine's GPUs, or its CPU with what training a model of this shape reaches on it."""
    count, device = devices.here()
    if device.name != "cpu" or measured is not None or shape.layer_parameters > LARGEST_LAYER:
        return count, device
    # Lazy: torch.
    import torch

    from langadapt.costs.cpu import trained_flops
    from langadapt.models.products import widening

    length = 2048 if settings.sequence_length == "auto" else settings.sequence_length
    with widening(torch.device("cpu")):
        reached = trained_flops(shape, length, pure_bf16=settings.precision == "pure-bf16")
    return count, replace(device, reached=reached, flops=max(device.flops, reached))


def facts_of(corpus: Corpus, config: Mapping[str, Any], shape: Shape, count: int) -> Facts:
    """What the training has to do with, as far as a plan knows."""
    context = stated_context(text_config(config))
    return Facts(corpus.tokens, corpus.share, context=context, parameters=shape.parameters, processes=count)


def settled(
    settings: TrainSettings, facts: Facts, shape: Shape, *, hours: float | None, device: devices.Device
) -> TrainSettings:
    """``settings`` with numbers in place of `auto`; ``hours``: their budget where they name none, else a limit.

    Raises:
        ConfigError: the windows of a step do not divide among the GPUs, or an adapter on several.
    """
    check_alone(settings.adapter, facts.processes)
    timed = settings
    if hours is not None and any(getattr(settings, name) is not None for name in BUDGET):
        timed = replace(settings, limit_hours=hours)
    elif hours is not None:
        timed = replace(settings, hours=hours)
    if timed.hours is not None or timed.limit_hours is not None:
        windowed = choices.with_window(settings, facts)
        facts = replace(facts, speed=predicted_speed(shape, windowed, facts.processes, device))
    found = choices.settle(timed, facts)
    if found.sequences_per_step % facts.processes:
        raise ConfigError(
            f"{found.sequences_per_step} windows per step (batch_tokens / sequence_length) do not divide among "
            f"{facts.processes} GPUs"
        )
    return replace(found, hours=settings.hours, limit_hours=settings.limit_hours)


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
    if settings.adapter is not None:
        notes.append(
            "adapter: speed is that of the arithmetic left, 4 per frozen weight and token instead of 6; low-rank "
            "products are slower than their share of it, and no GPU has timed them here: see --calibrate"
        )
    return notes


def shortfalls(
    settings: TrainSettings, corpus: Corpus, steps: int, best: Option, *, limit: float | None, start: datetime
) -> list[str]:
    """What a user should know of a plan that fits into memory: too little time, too little text, an assumption."""
    notes, seconds = [], steps * best.step_seconds
    if limit is not None and seconds > limit * 3600:
        possible = max(int(limit * 3600 / best.step_seconds), 0)
        notes.append(
            f"{steps} steps take {seconds / 3600:.1f} hours, more than the {limit:g} allowed: {possible} steps "
            f"({possible * settings.tokens_per_step:,} tokens) fit; set hours instead, and the schedule ends in time"
        )
    deadline = settings.deadline_timestamp()
    if deadline is not None and (late := start.timestamp() + seconds - deadline) > 0:
        notes.append(f"the run would end {timedelta(seconds=round(late))} after its deadline")
    if corpus.tokens is None and limit is None and settings.steps is None and settings.tokens is None:
        notes.append("the text's size is not known yet; one step is planned")
    if not corpus.measured:
        how = "are those of a sample" if corpus.sampled else "are assumed"
        notes.append(f"bytes per token {how} ({corpus.bytes_per_token:.3g}) until the text is tokenized")
    return notes


def budget_steps(settings: TrainSettings, best: Option, corpus: Corpus, hours: float | None) -> int:
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
            return 1
    return settings.budget_steps(corpus.tokens or 0, corpus.share * settings.tokens_per_step) or 1


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
    rates = {**first, "embeddings": settings.embedding_peak(swapped)}
    if settings.adapter is not None:
        return {**rates, "adapter": settings.learning_rate * settings.adapter.rate}
    return {**rates, "all else": settings.learning_rate}


def plan_recipe(
    recipe: Any, measured: Mapping[str, Any] | None = None, sampled: Mapping[str, float] | None = None
) -> Plan:
    """Plan the training of a recipe: its model's config, its tokenizer's size, its text; ``sampled``: see `size_of`."""
    config = config_to_plan(recipe.model)
    budget, vocabulary, sampled = recipe.budget, new_vocabulary(recipe), sampled or {}
    made = plan(
        config,
        recipe.train,
        vocabulary=vocabulary,
        gpus=budget.gpus,
        hours=budget.hours,
        price=budget.price_per_gpu_hour,
        corpus=corpus_of(recipe, sampled),
        measured=measured,
        trained_at=trained_at(Path(recipe.model)),
    )
    made.sources = sources_of(recipe, made.steps, made.settings.tokens_per_step, made.settings.window, sampled=sampled)
    made.notes += notes_on(recipe, made.sources, vocabulary)
    return made


def new_vocabulary(recipe: Any) -> int | None:
    """Rows of the embedding matrices after the swap; none = the model keeps its own."""
    if recipe.swap.method == "keep":
        return None
    size = recipe.tokenizer.vocab_size
    if recipe.tokenizer.path and Path(recipe.tokenizer.path).exists():
        from langadapt.tokenizer.encoder import Tokenizer

        size = Tokenizer.from_pretrained(recipe.tokenizer.path).vocab_size
    multiple = recipe.swap.pad_to_multiple_of or 1
    return int(-(-size // multiple) * multiple)


def corpus_of(recipe: Any, sampled: Mapping[str, float]) -> Corpus:
    """The first of the target texts, whose passes are `epochs`."""
    first = next(one for one in recipe.corpus.texts if one.share > 0)
    size = size_of(recipe, first, sampled)
    return Corpus(size.tokens, size.bytes_per_token, size.measured, first.share, size.sampled)
