"""Raw rows as JSON Lines: a row per line; before them, as `{"about": ...}`, what is true of them all."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def read_rows(path: Path) -> tuple[Row, list[Row]]:
    """What is said of all rows (nothing, where the file says nothing), and the rows."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    about = lines.pop(0)["about"] if lines and list(lines[0]) == ["about"] else {}
    return about, lines


def write_rows(path: Path, about: Row, rows: list[Row]) -> None:
    """The whole file or, where writing fails, the old one; makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [{"about": about}, *rows] if about else rows
    whole = path.with_name(f".{path.name}.tmp")
    whole.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    whole.replace(path)


class RowFile:
    """The rows of an experiment that goes on from those it has: a finished row is kept whatever comes after."""

    def __init__(self, path: Path, about: Row) -> None:
        """``about``: what this run says of all rows; what the file says besides is kept."""
        before, self.rows = read_rows(path) if path.exists() else ({}, [])
        self.path, self.about = path, before | about

    def add(self, row: Row) -> None:
        """One more row, written and told of at once."""
        self.rows.append(row)
        logging.info("%s", json.dumps(row, ensure_ascii=False))
        write_rows(self.path, self.about, self.rows)
