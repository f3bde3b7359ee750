"""The page and the cards of a run as files."""

from __future__ import annotations

from pathlib import Path

from langadapt.artefacts.folders import CARD_NAME, FINISH_REPORT_NAME, write_atomically
from langadapt.artefacts.stages import read_stamp
from langadapt.report.card import model_card
from langadapt.report.page import page
from langadapt.report.run import read_run


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
