"""Watch over a run: which of its models is the best, whether it over-fits, whether it diverges.

**Best** is the model of the lowest score at a validation: bits per byte of target text, and of source text by
``source_weight``. **Over-fitting**: validation has been above its lowest twice in a row, for a tenth of the run, while
the training loss went on falling. **Diverged** is a run that will not come back by itself:

- its training loss, smoothed over `SMOOTH` steps, has been far above its lowest for `PERSIST` of the run. A swap starts
  high and falls, so its lowest follows; a spike that a run gets over is shorter (arXiv 2204.02311, section 5.1);
- or two validations in a row are above 8 bits per byte (what it costs to know nothing of a byte), or one and a half
  times what they were before training, the second no lower than the first;
- or no validation of the whole run was better than before it, and the last is worse by more than noise.

Text that is known by heart makes validations rise, too: where the training loss has fallen, that is over-fitting.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from langadapt.training.settings import TrainSettings

TARGET, SOURCE = "bits_per_byte_target", "bits_per_byte_source"
"""Names in a validation by which its models are compared."""
SMOOTH = 20.0
"""Steps over which the training loss is smoothed."""
FAR_ABOVE = (1.0, 0.3)
"""Nats per token, and share of the lowest loss: the larger of both is far above it."""
PERSIST = (30, 0.05)
"""Steps, and share of the run: the longer of both is no spike."""
NOTHING_KNOWN = 8.0
"""Bits per byte of a uniform guess."""
MUCH_WORSE = 1.5
"""Times the bits per byte before training."""
FALLING = 0.95
"""A validation below this share of the one before is on its way back."""
RISEN = 1.005
"""Times the lowest validation above which one has risen, beyond what two neighbours differ by."""
LONG = 0.1
"""Share of a run for which validation has been above its lowest, where that is no noise of a high rate."""
NOISE = 1.02
"""Times the bits per byte before training within which a run has made nothing worse."""
BY_HEART = 0.9
"""Share of its first value below which the training loss has fallen."""


@dataclass
class Watch:
    """What was seen of a run so far; plain values, saved with each checkpoint."""

    before: float | None = None
    """Bits per byte of target text before the first step."""
    score: float | None = None
    """The best so far."""
    best_step: int | None = None
    best: dict[str, float] = field(default_factory=dict)
    """The validation of `best_step`."""
    without_gain: int = 0
    """Validations since then."""
    target: float | None = None
    """The lowest bits per byte of target text."""
    target_step: int = 0
    loss_then: float | None = None
    """Smoothed training loss at that step."""
    risen: int = 0
    """Validations in a row that were above the lowest."""
    long_ago: bool = False
    """Whether the lowest is `LONG` of the run ago."""
    bad: int = 0
    """Validations in a row that look like those of a lost run."""
    last: float | None = None
    """Bits per byte of target text at the last validation."""
    first_loss: float | None = None
    loss: float | None = None
    """Of training, smoothed, nats per token."""
    lowest: float | None = None
    lowest_step: int = 0
    high_since: int | None = None
    """Step from which the loss has been far above its lowest."""
    diverged: str = ""
    """What was seen that tells so; empty for a run that is well."""
    out_of_patience: bool = False

    @property
    def overfit_from(self) -> int | None:
        """Step after which the run has over-fitted, as far as is seen."""
        then = self.first_loss if self.loss_then is None else self.loss_then
        return self.target_step if self.risen >= 2 and self.long_ago and self.by_heart(then) else None

    @property
    def suspicious(self) -> bool:
        """Whether what is seen may be the beginning of a divergence."""
        return self.high_since is not None or self.bad > 0 or bool(self.diverged)

    @property
    def over(self) -> bool:
        """Whether the run should end before its budget."""
        return bool(self.diverged) or self.out_of_patience

    def state(self) -> str:
        """For the line of progress; empty for a run that is well."""
        if self.suspicious:
            return "diverging?"
        return "" if self.overfit_from is None else f"over-fitting since step {self.overfit_from}"

    def by_heart(self, start: float | None) -> bool:
        """Whether the training loss is below ``start``, so that what has got worse is no lost run."""
        return self.loss is not None and start is not None and self.loss < start

    def saw_loss(self, step: int, loss: float, steps: int, total: int) -> str:
        """Take in the mean loss of the last ``steps`` steps of ``total``; returns what a user should be told."""
        if not math.isfinite(loss):
            return ""
        if self.loss is None:
            self.loss = self.first_loss = loss
        else:
            self.loss += (loss - self.loss) * (1 - math.exp(-steps / SMOOTH))
        if self.lowest is None or self.loss < self.lowest:
            self.lowest, self.lowest_step = self.loss, step
        if self.loss <= self.lowest + max(FAR_ABOVE[0], FAR_ABOVE[1] * self.lowest):
            self.high_since = None
            return ""
        seen = f"the training loss is {self.loss:.2f} at step {step}, it was {self.lowest:.2f} at step"
        seen += f" {self.lowest_step}"
        if self.high_since is None:
            self.high_since = step
            return f"{seen}: the run may be diverging"
        if step - self.high_since >= max(PERSIST[0], PERSIST[1] * total):
            self.diverged = seen
        return ""

    def saw_validation(self, step: int, validation: Mapping[str, float], settings: TrainSettings, total: int) -> str:
        """Take in a validation of a run of ``total`` steps; returns what a user should be told."""
        if TARGET not in validation:
            return ""
        # What is no number was lost, and is no best.
        bits = validation[TARGET] if math.isfinite(validation[TARGET]) else math.inf
        if step == 0:
            self.before = bits
        self.keep_score(step, bits, validation, settings)
        told = self.compare_with_before(step, bits)
        if self.target is None or bits < self.target:
            self.target, self.target_step, self.loss_then = bits, step, self.loss
        known, self.risen = self.overfit_from, self.risen + 1 if bits > RISEN * self.target else 0
        self.long_ago = step - self.target_step >= LONG * total
        if known is None and self.overfit_from is not None and not told:
            told = (
                f"over-fitting since step {self.target_step}: {self.target:.4f} bits per byte of target text then, "
                f"{bits:.4f} now, while the training loss falls"
            )
        return told

    def keep_score(self, step: int, bits: float, validation: Mapping[str, float], settings: TrainSettings) -> None:
        """Find out whether this is the best model so far, and whether patience is over."""
        score = bits + settings.source_weight * validation.get(SOURCE, 0.0)
        if self.score is None or score < self.score:
            self.score, self.best_step, self.best, self.without_gain = score, step, dict(validation), 0
        else:
            self.without_gain += 1
        self.out_of_patience = settings.patience is not None and self.without_gain >= settings.patience

    def compare_with_before(self, step: int, bits: float) -> str:
        """Find out whether a validation is that of a lost run."""
        last, self.last = self.last, bits
        if step == 0 or self.before is None or bits <= self.before:
            self.bad = 0
            return ""
        seen = f"{bits:.4f} bits per byte of target text at step {step}, {self.before:.4f} before training"
        lost = bits > min(NOTHING_KNOWN, MUCH_WORSE * self.before)
        if lost and not self.by_heart(BY_HEART * (self.first_loss or 0.0)):
            back = self.bad and last is not None and bits < FALLING * last
            self.bad = 1 if back else self.bad + 1
            if self.bad >= 2:
                self.diverged = seen
        else:
            self.bad = 0
        return f"{seen}: worse than before training"

    def begin_again(self) -> None:
        """Forget what would end a run that is extended: what comes is another one, of the same model."""
        self.diverged, self.out_of_patience, self.without_gain, self.bad, self.high_since = "", False, 0, 0, None

    def at_the_end(self, step: int) -> None:
        """Find out whether the whole run was for nothing."""
        if self.diverged or self.before is None or self.last is None or self.best_step != 0:
            return
        if self.last > NOISE * self.before:
            self.diverged = (
                f"{self.last:.4f} bits per byte of target text at step {step}, {self.before:.4f} before training, and "
                "no validation was better"
            )
