"""The text of a first recipe: YAML in which each setting stands below its reason."""

from __future__ import annotations

import errno
import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from langadapt.artefacts.folders import sync_file, sync_folder, temporary_beside
from langadapt.planning.first_recipe.decisions import Decision, Decisions
from langadapt.planning.first_recipe.wish import Findings

WIDTH = 110
"""Columns of a line."""

HEAD = """\
# Adapts {model} to {language}; made by `langadapt init` for {machine} and {hours:g} hours.
# Every number stands below its reason: change what you know better, docs/recipe.md has all settings.
#
#   langadapt plan {file}     does it fit, when does it end
#   langadapt adapt {file}    runs it; run it again after any interruption and it goes on
"""
NO_SOURCE = """\
  # source: [...] and source_share: 0.25
  # No text of the language that the model speaks was given (--source-text). Without it nothing is measured of what
  # the model forgets, and nothing is replayed against that: with some, it forgets far less.
"""
COMPARE = """
# compare: [keep]
# Trains the model without a swap, too, so that the report can say what the swap gained; it doubles the training.
"""


def recipe_text(found: Findings, made: Decisions, file: str) -> str:
    """The whole recipe."""
    names = {"model": found.wish.model, "language": found.language, "machine": found.machine, "file": file}
    head = HEAD.format(**{name: in_comment(text) for name, text in names.items()}, hours=found.wish.hours)
    parts = [head, "".join(f"# note: {line}\n" for note in found.notes for line in wrapped(note, 2))]
    top = {"name": found.name, "model": found.model, "out": f"runs/{found.name}", "target_language": found.language}
    parts.append("\n" + "".join(f"{key}: {plain(value)}\n" for key, value in top.items()))
    sections: dict[str, list[Decision]] = {}
    for decision in made.settings:
        sections.setdefault(decision.key.split(".")[0], []).append(decision)
    for section, decisions in sections.items():
        parts.append(f"\n{section}:\n" + "".join(lines_of(decision) for decision in decisions))
        if section == "corpus" and found.source is None:
            parts.append(NO_SOURCE)
    parts.append(COMPARE)
    return "".join(parts).rstrip() + "\n"


def lines_of(decision: Decision) -> str:
    """A setting below its reason, inside of a section."""
    comment = "".join(f"  # {line}\n" for line in wrapped(decision.reason, 4))
    return f"{comment}  {decision.key.split('.')[1]}: {plain(decision.value)}\n"


def wrapped(text: str, indent: int) -> Sequence[str]:
    """``text`` in lines; file names and the like stay whole."""
    lines = textwrap.wrap(text, WIDTH - indent, break_long_words=False, break_on_hyphens=False)
    return [in_comment(line) for line in lines]


def in_comment(text: str) -> str:
    """``text`` without what ends a line or what no YAML may hold; names of files have it."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def plain(value: Any) -> str:
    """A value as YAML in one line; rates as people write them."""
    if isinstance(value, float) and 0 < value < 1e-2:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True)
    return text.removesuffix("...\n").strip()


def write_new(file: Path, text: str) -> None:
    """Write a file that is not there yet, whole or not at all.

    Raises:
        FileExistsError: it is.
    """
    with temporary_beside(file) as folder:
        new = folder / file.name
        new.write_text(text, encoding="utf-8")
        sync_file(new)
        try:
            # Unlike a rename, this replaces nothing.
            os.link(new, file)
        except FileExistsError:
            problem = "is there already, and init replaces nothing; give another --out"
            raise FileExistsError(errno.EEXIST, problem, str(file)) from None
    sync_folder(file.parent)
