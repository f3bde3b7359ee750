"""``langadapt demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from langadapt.cli.progress import next_step, progress
from langadapt.demo import run_demo
from langadapt.pipeline.finished import final_model
from langadapt.report import results_table
from langadapt.terminal import Terminal


def command(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for everything that the demo makes.")] = Path(
        "langadapt-demo"
    ),
) -> None:
    """Adapt a tiny model from English to Spanish: the whole chain on bundled text, offline, on a CPU, in minutes."""
    with progress("demo") as report:
        results = run_demo(out, progress=report)
    console = Terminal()
    console.print(results_table(results))
    console.print(f"Report: {out / 'report' / 'index.html'}")
    console.print(f"Model:  {final_model(out)}")
    next_step(f'langadapt generate {out} --prompt "Y dijo"; then with your own: langadapt init --help')
