"""Checks of numbers that callers pass, with errors that name the argument, its value and its range."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

from langadapt.errors import ConfigError


def number(where: str = "", **values: Any) -> None:
    """Raise TypeError for a value that is no number; ``None`` passes. Arguments: :func:`at_least`."""
    for name, value in values.items():
        if value is not None and not isinstance(value, Real):
            raise TypeError(f"{where}{name}: {type(value).__name__}; pass a number")


def at_least(least: float, where: str = "", **values: float | None) -> None:
    """Raise ConfigError for a value below ``least``, NaN or infinite, TypeError for what is no number; ``None`` passes.

    Args:
        least: the smallest value allowed.
        where: put before the names in messages, such as ``"train."``.
        values: by name.
    """
    number(where, **values)
    for name, value in values.items():
        if value is not None and not least <= value < math.inf:
            raise ConfigError(f"{where}{name}: {value}, but at least {least} is needed")


def seed_fits(seed: int) -> None:
    """Raise ConfigError for a seed that a generator of random numbers does not take."""
    if not 0 <= seed < 1 << 63:
        raise ConfigError(f"seed: {seed} is not in [0, 2**63)")


def positive(where: str = "", **values: float | None) -> None:
    """Raise ConfigError for a value that is not above 0 and finite, TypeError for what is no number; ``None`` passes.
    Arguments: :func:`at_least`."""
    number(where, **values)
    for name, value in values.items():
        if value is not None and not 0 < value < math.inf:
            raise ConfigError(f"{where}{name}: {value} is not positive")
