"""``langadapt fetch-sample``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from langadapt.cli.progress import next_step
from langadapt.demo.sample import write_sample
from langadapt.terminal import echo


def command(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to put a folder of each language into.")] = Path(
        "data"
    ),
) -> None:
    """Write text to try the commands on: 2 MB each of Spanish and English, in the public domain, out of the package."""
    spanish, english = write_sample(out)
    echo(f"{spanish}\n{english}")
    next_step(f"langadapt init --model MODEL --text {spanish} --language es --source-text {english}")
