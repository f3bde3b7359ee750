"""What the models write, for readers: continuations side by side, and rates of many of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from langadapt.report import words
from langadapt.report.results import Results
from langadapt.report.sections import Facts
from langadapt.report.summary import SIDES, Row, Summary, spoken

WAYS = {"greedy": "likeliest", "drawn": "drawn"}
"""How tokens were chosen, for readers."""
RATES = {
    "foreign": "in another language",
    "repeated": "repeats itself",
    "broken": "broken characters",
    "unended": "did not end",
}


@dataclass(frozen=True)
class Sample:
    """One beginning, and what each model made of it."""

    language: str
    prompt: str
    endings: list[tuple[str, str]]
    """Who wrote it, and the text; the document itself first."""


def writers_of(summary: Summary) -> list[Row]:
    """The source model, the run's own before and after training, and the best where that is another."""
    found: list[Row] = []
    for row in (summary.source, summary.swapped, summary.trained, summary.winner()):
        if row is not None and row.samples and row not in found:
            found.append(row)
    return found


def samples(summary: Summary, results: Results) -> list[Sample]:
    """Continuations, the likeliest and a drawn one."""
    # Rows that were only swapped write nothing that is worth a reader's time; their rates stand in the table.
    writers = [row for row in writers_of(summary) if row is not summary.swapped]
    found = []
    for side in SIDES if writers else ():
        facts = results.held_out.get(side)
        for at, prompt in enumerate(facts.prompts if facts else ()):
            endings = [("the document itself", readable(prompt.goes_on))]
            for row in writers:
                written = row.samples.get(side, [])
                drawn = row.drawn.get(side, [])
                if at < len(written):
                    endings.append((spoken(row), readable(written[at]) or words.DASH))
                if at < len(drawn):
                    endings.append((f"{spoken(row)}, {WAYS['drawn']}", readable(drawn[at]) or words.DASH))
            found.append(Sample(summary.languages[side], readable(prompt.text), endings))
    return found


def readable(text: str) -> str:
    """One line without characters that move the cursor, the direction or the text after them."""
    return " ".join(re.sub("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200e\u200f\ufffe\uffff]", " ", text).split())


def writing(summary: Summary) -> list[Facts]:
    """Rates of what models wrote, a table for each language, a row for each model and way."""
    return [table for side in SIDES if (table := writing_in(summary, side)).rows]


def writing_in(summary: Summary, side: str) -> Facts:
    """The table of one language; no rows where nothing was measured."""
    rows = [
        (f"{row.label}, {told}", [share(found[name]) for name in RATES])
        for row in writers_of(summary)
        for way, told in WAYS.items()
        if (found := row.writing.get(side, {}).get(way)) is not None
    ]
    return Facts([*RATES.values()], rows, summary.languages[side])


def share(value: Any) -> str:
    """Of texts, in per cent."""
    return words.DASH if value is None else f"{100 * value:.0f} %"
