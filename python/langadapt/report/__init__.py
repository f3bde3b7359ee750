"""What a run gained and what it cost: one self-contained HTML page, a model card, and a table for the terminal.

    run.py      reads results.json, recipe.yaml and the training logs; the only module that opens files of a run
    unfinished.py  the same of a run that has not come to its end, from the stamps of its stages
    summary.py  who is who in the first table;  differences.py  two models compared, with intervals
    verdict.py  the first line of everything: yes, no or undecided
    charts.py   line charts as inline SVG that takes its colours from the page;  curves.py  which ones
    page.py     the page;  sections.py  its parts;  card.py  the model card;  terminal.py  the table
    outcome.py  what ``adapt`` returns

Parts that a run did not leave behind are left out of the page; nothing is made up to fill them.
"""

from __future__ import annotations

from pathlib import Path

from langadapt.artefacts.folders import CARD_NAME, FINISH_REPORT_NAME, write_atomically
from langadapt.artefacts.stages import read_stamp
from langadapt.report.card import model_card
from langadapt.report.page import page
from langadapt.report.run import read_run
from langadapt.report.terminal import results_table

__all__ = ["results_table", "write_report"]


def write_report(run_dir: str | Path) -> Path:
    """Write ``report/index.html`` and ``report/MODEL_CARD.md`` below ``run_dir``, and return the page's path.

    The model card is also put beside the final model, as ``README.md``, where the run has one, and, with a word on its
    chat, beside the one that was finished. Of a run that is not
    finished there is a page that says what is there so far, and no card.

    Raises:
        DataError: this is no run's folder, or ``results.json`` is not what a run writes; the message names the fault.
    """
    run = read_run(Path(run_dir))
    folder = run.folder / "report"
    folder.mkdir(exist_ok=True)
    write_atomically(folder / "index.html", page(run))
    if run.so_far:
        return folder / "index.html"
    card = model_card(run)
    write_atomically(folder / "MODEL_CARD.md", card)
    if run.final is not None:
        write_atomically(run.final / CARD_NAME, card)
    chat = run.folder / "finished"
    made = read_stamp(chat / FINISH_REPORT_NAME)
    if made is not None:
        write_atomically(chat / CARD_NAME, model_card(run, finish=made))
    return folder / "index.html"
