"""``langadapt report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from langadapt.artefacts.names import RESULTS_NAME
from langadapt.cli.progress import next_step
from langadapt.pipeline.job import RECIPE_NAME
from langadapt.report import write_report
from langadapt.terminal import echo


def command(
    run: Annotated[
        Path, typer.Argument(metavar="RUN_DIR", help="Folder that `langadapt adapt` wrote.", show_default=False)
    ],
) -> None:
    """Write RUN_DIR/report: one self-contained HTML page and a model card. Prints the page's path."""
    echo(write_report(run))
    after = f"generate {run} --prompt TEXT" if (run / RESULTS_NAME).is_file() else f"adapt {run / RECIPE_NAME}"
    next_step(f"open that page in a browser; langadapt {after}")
