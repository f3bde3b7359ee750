"""Checks of numbers that callers pass, with errors that name the argument, its value and its range."""

from __future__ import annotations

import math

from langadapt.errors import ConfigError


def at_least(least: float, where: str = "", **values: float | None) -> None:
    """Raise ConfigError for a value below ``least``, NaN or infinite; ``None`` passes.

    Args:
        least: the smallest value allowed.
        where: put before the names in messages, such as ``"train."``.
        values: by name.
    """
    for name, value in values.items():
        if value is not None and not least <= value < math.inf:
            raise ConfigError(f"{where}{name}: {value}, but at least {least} is needed")


def positive(where: str = "", **values: float | None) -> None:
    """Raise ConfigError for a value that is not above 0 and finite; ``None`` passes. Arguments: :func:`at_least`."""
    for name, value in values.items():
        if value is not None and not 0 < value < math.inf:
            raise ConfigError(f"{where}{name}: {value} is not positive")
