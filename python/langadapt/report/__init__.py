"""What a run gained and what it cost: one self-contained HTML page, a model card, and a table for the terminal.

    run.py      reads results.json, recipe.yaml and the training logs; the only module that opens files of a run
    unfinished.py  the same of a run that has not come to its end, from the stamps of its stages
    summary.py  who is who in the first table;  differences.py  two models compared, with intervals
    verdict.py  the first line of everything: yes, no or undecided
    charts.py   line charts as inline SVG that takes its colours from the page;  curves.py  which ones
    page.py     the page;  sections.py  its parts;  card.py  the model card;  terminal.py  the table
    writing.py  page and cards as files;  outcome.py  what ``adapt`` returns

Parts that a run did not leave behind are left out of the page; nothing is made up to fill them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from langadapt.exports import on_first_use

if TYPE_CHECKING:
    from langadapt.report.terminal import results_table
    from langadapt.report.writing import write_report

__all__ = ["results_table", "write_report"]

_HOMES = {"langadapt.report.terminal": ("results_table",), "langadapt.report.writing": ("write_report",)}
__getattr__, __dir__ = on_first_use(__name__, _HOMES)
