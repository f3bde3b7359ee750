"""What long calls report to."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

Progress: TypeAlias = "Callable[[str, int, int | None, str], object]"
"""Called as ``(phase, done, total or None, unit)``; an exception that it raises ends the work."""
