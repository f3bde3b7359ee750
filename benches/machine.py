"""What a report says of the machine and the packages behind its figures."""

from __future__ import annotations

import os
import platform
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
