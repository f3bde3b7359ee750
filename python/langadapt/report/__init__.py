"""What a run gained and what it cost: one self-contained HTML page, a model card, and a table for the terminal.

    run.py      reads results.json, recipe.yaml and the training logs; the only module that opens files of a run
    summary.py  plain values for readers: the first table, verdict, fertility, swap, corpus, cost
    charts.py   line charts as inline SVG that takes its colours from the page
    page.py     the page;  card.py  the model card;  terminal.py  the table

Parts that a run did not leave behind are left out of the page; nothing is made up to fill them.
"""

from __future__ import annotations

from pathlib import Path

from langadapt.artefacts.folders import write_atomically
from langadapt.report.card import model_card
from langadapt.report.page import page
from langadapt.report.run import read_run
from langadapt.report.terminal import results_table

__all__ = ["results_table", "write_report"]


def write_report(run_dir: str | Path) -> Path:
    """Write ``report/index.html`` and ``report/MODEL_CARD.md`` below ``run_dir``, and return the page's path.

    The model card is also put beside the final model, as ``README.md``, where the run has one.

    Raises:
        DataError: ``results.json`` is missing, or is not what a run writes; the message names what is wrong.
    """
    run = read_run(Path(run_dir))
    folder = run.folder / "report"
    folder.mkdir(exist_ok=True)
    card = model_card(run)
    write_atomically(folder / "index.html", page(run))
    write_atomically(folder / "MODEL_CARD.md", card)
    if run.final is not None:
        write_atomically(run.final / "README.md", card)
    return folder / "index.html"
