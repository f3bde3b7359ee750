"""Tables of rows as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterable, Sequence
from typing import Any


def markdown(heads: Sequence[str], rows: Iterable[Sequence[Any]], words: Collection[int] = (0,)) -> str:
    """A table with a line break at its end; columns are of figures, which stand to the right, but for ``words``."""
    under = ["---" if column in words else "--:" for column in range(len(heads))]
    lines = [f"| {' | '.join(heads)} |", f"|{'|'.join(under)}|"]
    lines += [f"| {' | '.join(map(str, cells))} |" for cells in rows]
    return "\n".join(lines) + "\n"


def seconds_table(timings: dict[str, list[dict[str, float]]], ours: str) -> tuple[list[dict[str, Any]], str]:
    """Rows and a table of medians and ranges, by contender, of rounds that hold ``wall_s`` and ``cpu_s``.

    What else the rounds hold is kept in the rows, as its largest.
    """
    rows = []
    for name, rounds in timings.items():
        if not rounds:
            continue
        row: dict[str, Any] = {"contender": name, "rounds": len(rounds)}
        for key in (key for key in rounds[0] if key != "round"):
            values = [found[key] for found in rounds]
            row[key] = statistics.median(values) if key in ("wall_s", "cpu_s") else max(values)
            row[f"{key}_range"] = [min(values), max(values)]
        rows.append(row)
    base, cells = next(row for row in rows if row["contender"] == ours), []
    for row in rows:
        cells.append([row["contender"]])
        for key in ("wall_s", "cpu_s"):
            low, high = row[f"{key}_range"]
            cells[-1] += [f"{row[key]:.2f} ({low:.2f} - {high:.2f})", f"{row[key] / base[key]:.2f}"]
    heads = ["contender", "seconds (range)", "times ours", "CPU seconds (range)", "times ours"]
    return rows, markdown(heads, cells)
