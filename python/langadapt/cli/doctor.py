"""``langadapt doctor``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

import typer
from rich.table import Table
from rich.text import Text

from langadapt.cli.options import AsJson
from langadapt.cli.progress import next_step
from langadapt.planning.doctor import Finding, examine, usable
from langadapt.terminal import Terminal, echo, literal

STYLES = {"ok": "green", "note": "yellow", "problem": "bold red"}


def command(as_json: AsJson = False) -> None:
    """Look at this machine: what is here, what will be used and why not more. Exit code 0 where langadapt works."""
    findings = examine()
    works = usable(findings)
    if as_json:
        echo(json.dumps({"usable": works, "findings": [asdict(one) for one in findings]}, indent=2))
    else:
        Terminal(highlight=False).print(findings_table(findings))
    if not works:
        raise typer.Exit(1)
    next_step("langadapt init --model MODEL --text FILES --language LANGUAGE, or langadapt demo")


def findings_table(findings: Sequence[Finding]) -> Table:
    """A line for each thing that was looked at, longer texts below themselves."""
    table = Table.grid(padding=(0, 2, 0, 0))
    for _ in range(2):
        table.add_column(no_wrap=True)
    for one in findings:
        table.add_row(Text(one.state, style=STYLES[one.state]), one.name, literal(one.text, overflow="fold"))
    return table
