"""Numbers as people read them."""

from __future__ import annotations

from typing import Any

DASH = "–"
GAP = "\u00a0"
"""Between a number and its unit, so that no line breaks there."""


def count(value: float | None) -> str:
    """A whole number with separators."""
    return DASH if value is None else f"{value:,.0f}"


def short_count(value: float | None) -> str:
    """``1.24 M``."""
    if value is None:
        return DASH
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        # 999,960 is `1.00 M`, not `1000.0 k`.
        if abs(value) >= size * 0.9995:
            return f"{value / size:.3g}{GAP}{letter}"
    return f"{value:.3g}"


def size(value: float | None) -> str:
    """Bytes as ``34.7 MB``, in powers of 1000."""
    if value is None:
        return DASH
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if abs(value) >= unit * 0.9995:
            return f"{value / unit:.3g}{GAP}{name}"
    return f"{value:.0f}{GAP}B"


def duration(seconds: float | None) -> str:
    """``3 h 05 min``, ``2 min 10 s``, ``4.2 s``."""
    if seconds is None:
        return DASH
    if seconds < 9.95:
        return f"{seconds:.1f}{GAP}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}{GAP}s"
    if whole < 3600:
        return f"{whole // 60}{GAP}min {whole % 60:02d}{GAP}s"
    minutes = round(seconds / 60)
    if minutes < 48 * 60:
        return f"{minutes // 60}{GAP}h {minutes % 60:02d}{GAP}min"
    return f"{minutes / 1440:.1f}{GAP}days"


def decimals(value: float | None, places: int = 3) -> str:
    """A fixed number of places, so that a column can be compared at a glance."""
    return DASH if value is None else f"{value:.{places}f}"


def change(new: float | None, old: float | None) -> str:
    """Relative change as ``−26.5 %``; nothing where there is nothing to compare."""
    if new is None or not old:
        return ""
    percent = 100 * (new - old) / old
    if abs(percent) < 0.05:
        return f"±0{GAP}%"
    return f"{'−' if percent < 0 else '+'}{abs(percent):.1f}{GAP}%"


def title(name: str) -> str:
    """``bytes_per_token`` as ``Bytes per token``."""
    words = name.replace("_", " ").strip()
    return words[:1].upper() + words[1:]


def plain(name: str, value: Any) -> str:
    """A value whose meaning is known from its name only."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        if name.endswith("bytes") or (name.startswith("bytes") and "per" not in name):
            return size(value)
        if name.endswith("seconds"):
            return duration(value)
        if name.endswith("share"):
            return f"{100 * value:.1f}{GAP}%"
        return count(value) if float(value).is_integer() or abs(value) >= 1000 else f"{value:.4g}"
    return str(value)
