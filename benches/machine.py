"""What a report says of the machine and the packages behind its figures."""

from __future__ import annotations

import os
import platform
import statistics
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from row_files import write_rows

BY_HAND = "<!-- written by hand from here on; the figures in it are of the run that it was written for -->\n"


def describe(*packages: str) -> dict[str, Any]:
    """Processor, cores, load and date of now, and the versions of those packages that are installed."""
    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 2),
        "date": time.strftime("%Y-%m-%d"),
        "versions": {"python": platform.python_version(), **versions(packages)},
    }


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def write_report(out: Path, machine: dict[str, Any], rows: list[dict[str, Any]], table: str) -> None:
    """``out.jsonl`` with everything and ``out.md`` with the table; what is said of it by hand stays."""
    write_rows(out.with_suffix(".jsonl"), machine, rows)
    facts = ", ".join(f"{key} {value}" for key, value in machine.items() if key != "versions")
    used = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    page = out.with_suffix(".md")
    _, _, notes = page.read_text().partition(BY_HAND) if page.exists() else ("", "", "")
    page.write_text(f"# {out.name}\n\n{facts}\n\n{used}\n\n{table}\n{BY_HAND}{notes}")


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
    lines = ["| contender | seconds (range) | times ours | CPU seconds (range) | times ours |", "|---|--:|--:|--:|--:|"]
    base = next(row for row in rows if row["contender"] == ours)
    for row in rows:
        cells = [row["contender"]]
        for key in ("wall_s", "cpu_s"):
            low, high = row[f"{key}_range"]
            cells += [f"{row[key]:.2f} ({low:.2f} - {high:.2f})", f"{row[key] / base[key]:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return rows, "\n".join(lines) + "\n"
