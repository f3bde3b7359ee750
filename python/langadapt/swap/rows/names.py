"""The names of the ways to make rows for new tokens: plain strings, readable without torch."""

from __future__ import annotations

from collections.abc import Iterable

from langadapt.errors import ConfigError, nearest, shorten

METHODS = ("focus", "subword_mean", "mean", "normal", "random", "zipf", "wechsel", "clp", "omp", "distill")
"""What :mod:`langadapt.swap.rows.initialize` knows."""
VECTOR_METHODS = ("focus", "omp")
"""Methods that need auxiliary vectors of the target tokens, as ``train_vectors`` makes them."""
DISTILL = "distill"
"""The method that needs the model itself, to learn rows from; it starts from FOCUS where there are vectors."""
KEEP = "keep"
"""The method that does not swap."""
AUTO = "auto"
"""The method that a bake-off finds."""


def check_methods(names: Iterable[str | None], where: str = "") -> None:
    """Raise ConfigError for a method that nobody knows; ``keep`` is one, ``where`` the setting that names them."""
    for name in names:
        if name not in (*METHODS, KEEP):
            near = nearest(str(name), (*METHODS, KEEP, AUTO))
            hint = f"; did you mean {near[0]!r}?" if near else ""
            place = f"{where}: " if where else ""
            known = f"there are {AUTO}, {KEEP}, {', '.join(METHODS)}{hint}"
            raise ConfigError(f"{place}unknown method {shorten(repr(name))}; {known}")
