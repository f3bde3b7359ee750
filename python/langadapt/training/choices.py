"""What `auto` comes to where budget and text decide it, and what a user should know of a run before its first step.

**Batch.** Of the D tokens that a run trains on, a batch of 0.58 D^0.571 tokens is the best ("Step Law", arXiv
2503.04715, equation 1: 3,700 runs; it hardly depends on the model's size, as arXiv 2410.21676 finds of the largest
batch that pays). Larger ones save no arithmetic and leave fewer updates. Whatever the law says, `STEPS` updates come
before a large batch. Where the *steps* are given, a larger batch is only better for each of them: they share one pass
over the text. Batches are powers of two of windows, so that they divide among GPUs and micro-batches.

**Warm-up.** 2 / (1 - beta2) steps, after which Adam's second moment has seen enough (arXiv 1910.04209, equation 6),
within bounds as shares of the run.

A run that goes on keeps what it was begun with: `langadapt.training.resume.as_before`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from langadapt.training import repetition
from langadapt.training.settings import TrainSettings

WINDOW = 2048
"""Tokens of a window, where the model's context is not shorter."""
LAW = (0.58, 0.571)
STEPS = 500
"""Optimizer steps that a run gets before its batch grows."""
LARGEST = 1 << 19
"""Tokens of a batch under a budget of steps: the batch of Mistral's published adaptations (256 x 2,048)."""
WARMUP = (0.01, 0.1)
"""Least and greatest share of a run."""
FEW = 200
"""Steps below which a run has hardly begun: its warm-up and its decay are most of it."""
PASSES = 4
"""Passes over a text up to which each is worth about as much as new text (arXiv 2305.16264)."""
FAR = 3.0
"""Times a rate from which on it is far above."""


@dataclass(frozen=True)
class Facts:
    """What a run has to do with."""

    text: float | None = None
    """Tokens of one pass over the target text; none = not known yet."""
    share: float = 1.0
    """Of the target text in the training tokens."""
    least: float | None = None
    """Tokens of a batch after which the shortest of the texts is used up; none = the target text's."""
    context: int | None = None
    """Tokens that the model was made for."""
    parameters: int | None = None
    processes: int = 1
    speed: float | None = None
    """Tokens per second of all processes, as predicted; only a budget of hours asks for it."""
    trained_at: float | None = None
    """Peak rate that the model was trained with, where that is known."""

    @property
    def one_pass(self) -> float | None:
        """Training tokens of one pass over the target text, replay included."""
        return None if self.text is None else self.text / self.share


def is_settled(settings: TrainSettings) -> bool:
    """Whether nothing is left for :func:`settle`."""
    return "auto" not in (settings.sequence_length, settings.batch_tokens, settings.warmup)


def settle(settings: TrainSettings, facts: Facts) -> TrainSettings:
    """``settings`` with a window, a batch and a warm-up; what was given stays as it is.

    Raises:
        ConfigError: what was given does not fit into what `auto` comes to.
    """
    settings = with_window(settings, facts)
    if settings.batch_tokens == "auto":
        settings = replace(settings, batch_tokens=windows(settings, facts) * settings.window)
    if settings.warmup == "auto":
        settings = replace(settings, warmup=warmup(settings, steps_of(settings, facts)))
    return settings


def with_window(settings: TrainSettings, facts: Facts) -> TrainSettings:
    """``settings`` with a window, which waits for nothing but the model's context."""
    if settings.sequence_length != "auto":
        return settings
    return replace(settings, sequence_length=min(WINDOW, facts.context or WINDOW))


def windows(settings: TrainSettings, facts: Facts) -> int:
    """Windows of a step over all processes: see the module's docstring."""
    tokens, useful = training_tokens(settings, facts), float(settings.window)
    most = [limit for limit in (facts.one_pass, facts.least) if limit is not None]
    if settings.steps is not None:
        useful = LARGEST if facts.one_pass is None else min(LARGEST, facts.one_pass / settings.steps)
    elif tokens is not None:
        # The optimum is broad: the power of two that is nearest.
        useful = 2 ** round(math.log2(LAW[0] * tokens ** LAW[1] / settings.window)) * settings.window
        most.append(tokens / STEPS)
    count = int(min([useful, *most]) // settings.window)
    rounded = 1 << (max(count, 1).bit_length() - 1)
    least = facts.processes * (1 if settings.micro_batch == "auto" else settings.micro_batch)
    return max(rounded // least, 1) * least


def training_tokens(settings: TrainSettings, facts: Facts) -> float | None:
    """Tokens that a budget of anything but steps comes to; none where that is not known."""
    if settings.steps is not None:
        return None
    if settings.tokens is not None:
        tokens: float | None = settings.tokens
    elif settings.hours is not None:
        tokens = None if facts.speed is None else settings.hours * 3600 * facts.speed
    else:
        tokens = None if facts.one_pass is None else (settings.epochs or 1.0) * facts.one_pass
    if tokens is None or settings.limit_hours is None or facts.speed is None:
        return tokens
    return min(tokens, settings.limit_hours * 3600 * facts.speed)


def steps_of(settings: TrainSettings, facts: Facts) -> int | None:
    """Optimizer steps of a run, as far as they can be foreseen; ``settings`` have a batch."""
    if settings.steps is not None:
        return settings.steps
    tokens = training_tokens(settings, facts)
    return None if tokens is None else max(1, -(-int(tokens) // settings.tokens_per_step))


def warmup(settings: TrainSettings, steps: int | None) -> float:
    """Share of the run over which the rate rises."""
    low, high = WARMUP
    needed = 2 / (1 - settings.betas[1])
    share = low if steps is None else min(max(low, needed / steps), high)
    room = {"infinite": settings.cooldown, "wsd": 1 - settings.anneal}.get(settings.schedule, 1.0)
    # Four digits, for those who read them in a recipe.
    return min(round(share, 4), room)


def log_interval(settings: TrainSettings, steps: int | None) -> int:
    """Steps between lines of the log."""
    if settings.log_every != "auto":
        return settings.log_every
    return 10 if steps is None else min(max(steps // 100, 1), 10)


def validations(settings: TrainSettings, steps: int | None) -> int:
    """Parts of a run after each of which it is validated, where no number of steps is given: a best step can be told
    from its neighbours, and a short run does not spend its time on measuring."""
    return 20 if settings.validate_every == "auto" and (steps is None or steps >= 2 * STEPS) else 10


def usual_rate(parameters: float) -> float:
    """Peak rate of pretraining a model of this size, about: the cube root through GPT-3's (arXiv 2005.14165, table 2.1;
    its eight models are within 45 %)."""
    return 6e-4 * (125e6 / parameters) ** (1 / 3)


def lower_rate(rate: float, parameters: float) -> float:
    """A rate to try where ``rate`` has made a run diverge: a third, or what is usual where that is less."""
    return float(f"{min(rate / 3, usual_rate(parameters)):.1g}")


def notes(settings: TrainSettings, facts: Facts, steps: int | None = None) -> list[str]:
    """What a user should know before a run begins; ``settings`` are settled, ``steps`` as foreseen elsewhere, if so."""
    found = [*of_window(settings, facts), *of_rate(settings, facts)]
    steps = steps_of(settings, facts) if steps is None else steps
    return found if steps is None else [*of_steps(settings, facts, steps), *found]


def of_steps(settings: TrainSettings, facts: Facts, steps: int) -> Iterator[str]:
    """Too few steps, too many passes."""
    batch, passes = settings.tokens_per_step, None
    if facts.one_pass:
        passes = steps * batch / facts.one_pass
    if steps < FEW:
        remedy = "add text"
        if settings.sequences_per_step > facts.processes and not settings.steps:
            remedy += f", or lower train.batch_tokens ({batch:,} here)"
        if passes is not None and passes < PASSES and not settings.hours and facts.one_pass:
            more = math.ceil(PASSES * facts.one_pass / batch)
            how = f"train.epochs={PASSES}" if settings.steps is None else f"train.steps={more}"
            remedy += f", or read it more often: {how} makes {more:,} steps"
        yield f"{steps:,} optimizer steps are few: below about {FEW} the model hardly changes; {remedy}"
    # What begins and ends documents, and padding, make a few more tokens of as many passes.
    if passes is not None and passes > 1.05 * PASSES:
        yield repetition.note(passes, facts.parameters, facts.text or 1.0, facts.share)


def of_window(settings: TrainSettings, facts: Facts) -> Iterator[str]:
    """A context that is shorter than the window, or than the usual one."""
    if facts.context is not None and settings.window > facts.context:
        yield f"train.sequence_length: {settings.window} exceeds the model's context of {facts.context}; lower it"
    elif facts.context is not None and settings.window == facts.context < WINDOW:
        yield f"windows have {settings.window} tokens: the model's context is no longer"


def times(ratio: float) -> str:
    """A ratio with the digits that mean something."""
    return f"{float(f'{ratio:.2g}'):,g}"


def of_rate(settings: TrainSettings, facts: Facts) -> Iterator[str]:
    """A rate far above what the model was trained with, or above the usual one where that is not known."""
    rate, known = settings.learning_rate, facts.trained_at
    if known is not None and rate > FAR * known:
        yield (
            f"learning_rate: {rate:g} is {times(rate / known)} times the {known:g} that the model was trained with; "
            "it may diverge or forget: lower it"
        )
    elif known is None and facts.parameters and rate > FAR * (usual := usual_rate(facts.parameters)):
        yield (
            f"learning_rate: {rate:g} is {times(rate / usual)} times the {usual:.1g} at which models of this size are "
            "usually pretrained (arXiv 2005.14165); it may diverge: lower it"
        )
