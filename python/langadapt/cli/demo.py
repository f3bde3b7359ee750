"""``langadapt demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from langadapt.cli.progress import progress
from langadapt.demo import run_demo
from langadapt.report import results_table


def command(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for everything that the demo makes.")] = Path(
        "langadapt-demo"
    ),
) -> None:
    """Adapt a tiny model from English to German: the whole chain on bundled text, offline, on a CPU, in minutes."""
    with progress("demo") as report:
        results = run_demo(out, progress=report)
    console = Console()
    console.print(results_table(results))
    console.print(f"Report: {out / 'report' / 'index.html'}")
