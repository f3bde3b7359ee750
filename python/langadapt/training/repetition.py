"""What reading a text again is worth, from which pass on it harms, and when other text pays more.

**Worth.** Muennighoff et al. 2023 (arXiv 2305.16264, equation 5; models of 10 M to 9 B parameters from nothing, up to
1,500 epochs): U tokens that are read r times do what

    D' = U * (1 + R* * (1 - exp(-(r - 1) / R*))),   R* = 15.39

new tokens would. Hence a token of pass r is worth exp(-(r - 1) / R*) of a new one: 0.82 at the fourth pass, 0.38 at the
sixteenth. Their loss A / N^alpha + B / D'^beta + E never rises with r.

**Harm.** Lovelace et al. 2026 (arXiv 2605.01640; 15 M to 1 B parameters N) add what over-fitting costs,

    L = E + A / N^alpha + B / (U r)^beta + P * (r - 1)^delta * (N / U)^kappa,

so that there is a best r, which falls with parameters per token of text. Beside generic text it is higher: Sedova et
al. 2026 (arXiv 2605.12715; 2,000 runs, share h of scarce text) fit

    L = E + C / N^beta + B N^delta / D_eff^alpha + gamma h

with D_eff by such an exponential discount, and find 15 to 20 passes best, as with 143 M parameters and 50 M tokens of
German. (The last two are stated as others quote them: the papers' tables were out of reach.)

None of their constants are of models that go on training after a swap. Measured here (`docs/runs/repeats.md`, 0.73 M
parameters on 8,192 tokens of German): 4 passes were best of 1, 2, 4, 8 and 16, with English or without, and at equal
tokens 8 passes beside English were far better than 16 alone, while 4 alone were a little better than 2 beside it. So
:func:`best_passes` is between these two points, on a logarithmic scale, and never beyond them; what a run has past them
is better spent on other text.
"""

from __future__ import annotations

import math

DISCOUNT = 15.39
"""R* of Muennighoff et al."""
ANCHORS = ((143e6 / 50e6, 17.5), (0.73e6 / 8192, 4.0))
"""Parameters per token of text, and the passes that were best there."""


def worth_of_pass(number: float) -> float:
    """What a token of pass ``number``, from 1, is worth beside a new one."""
    return math.exp(-max(number - 1, 0.0) / DISCOUNT)


def worth_of_passes(passes: float) -> float:
    """Passes over as much new text that ``passes`` over the same text are worth."""
    return min(passes, 1.0) + DISCOUNT * (1 - worth_of_pass(passes))


def best_passes(parameters: float, tokens: float) -> float:
    """Passes over a text of ``tokens`` tokens from which on more of them harm a model of ``parameters``, about."""
    (low, most), (high, least) = ANCHORS
    place = math.log(parameters / tokens / low) / math.log(high / low)
    return most * (least / most) ** min(max(place, 0.0), 1.0)


def note(passes: float, parameters: float | None, tokens: float, share: float) -> str:
    """What a user should know of so many ``passes`` over target text that is ``share`` of the training."""
    told = (
        f"{passes:.1f} passes over the target text are worth {worth_of_passes(passes):.1f} over new text, the last one "
        f"{worth_of_pass(passes):.0%} of it (arXiv 2305.16264), before over-fitting"
    )
    watch = "validation decides what is kept (train.keep)"
    if parameters is None:
        return f"{told}; {watch}; add text, or mix in source text (corpus.source_share)"
    best, ratio = best_passes(parameters, tokens), parameters / tokens
    where = f"at {ratio:.2g} parameters per token that begins after about {best:.0f} passes (docs/runs/repeats.md)"
    if passes <= best:
        return f"{told}; {where}; {watch}"
    mixed = f"corpus.source_share={1 - share * best / passes:.2g}, or max_repeats: {best:.0f} among corpus.sources"
    return f"{told}; {where}: {mixed}, spends the rest on source text, which pays more; {watch}"
