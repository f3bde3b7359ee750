"""Choose an initialisation by trying: a short probe of each method, ranked by what it reached.

Initial loss misleads (arXiv 2608.03494); a few dozen steps of continued pretraining on the user's data do not. What a
probe is, the caller says: this module only runs them in a fixed order and ranks the outcomes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from langadapt.errors import ConfigError, LangadaptError, TrainingStopped

MARGIN = 0.002
"""Methods within this share of the best target result count as equal there and are ordered by the source result."""


@dataclass(frozen=True)
class Probe:
    """What a method reached. Bits per byte, so lower is better."""

    target: float
    """On the target language, after the probe."""
    source: float | None = None
    """On the source language, after the probe."""
    target_before: float | None = None
    """On the target language, right after the swap."""
    source_before: float | None = None
    """On the source language, right after the swap."""


@dataclass(frozen=True)
class Ranking:
    """All probes, best first."""

    rows: list[dict[str, Any]]
    """``method``, the fields of :class:`Probe`, or ``failed`` with the reason."""

    @property
    def best(self) -> str:
        """The method to take."""
        return str(self.rows[0]["method"])


def bake_off(methods: Sequence[str], probe: Callable[[str], Probe]) -> Ranking:
    """Probe each method and rank them.

    A method that cannot run here (no overlap, no vectors) is kept in the table with its reason, behind all others. Any
    other error is the caller's and ends the bake-off.

    Args:
        methods: to try, each once, in this order.
        probe: swaps by a method, trains for some steps and measures; must use the same data order and seed each time.

    Raises:
        ConfigError: no method, or one twice.
        LangadaptError: none could run.
    """
    if not methods or len(set(methods)) != len(methods):
        raise ConfigError(f"a bake-off needs different methods: {', '.join(methods) or 'none given'}")
    done: dict[str, Probe] = {}
    failed: dict[str, str] = {}
    for method in methods:
        try:
            done[method] = probe(method)
        except TrainingStopped:
            raise
        except LangadaptError as error:
            failed[method] = str(error)
    if not done:
        raise LangadaptError("no method could run: " + "; ".join(f"{name}: {why}" for name, why in failed.items()))
    best = min(result.target for result in done.values())

    def key(method: str) -> tuple[bool, float, float, str]:
        result = done[method]
        beaten = not result.target <= best * (1 + MARGIN)
        second = result.source if result.source is not None else float("inf")
        return (True, result.target, second, method) if beaten else (False, second, result.target, method)

    rows: list[dict[str, Any]] = [{"method": method, **asdict(done[method])} for method in sorted(done, key=key)]
    rows += [{"method": method, "failed": reason} for method, reason in failed.items()]
    return Ranking(rows)
