"""What two vocabularies share: by kind of token, by script, by frequency."""

from __future__ import annotations

import unicodedata
from collections import Counter
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langadapt.errors import MismatchError
from langadapt.swap.matching import EXACT, FUZZY, ROLE, VocabularyMatch

RANKS = (100, 1_000, 10_000)
"""Borders of the classes of frequency rank."""


@cache
def script_of(character: str) -> str:
    """Script of a letter by its Unicode name (``LATIN``, ``ARABIC``, ``CJK``, ...); empty for anything else."""
    if not character.isalpha():
        return ""
    return unicodedata.name(character, "").split(" ")[0].split("-")[0]


def script_of_text(text: str) -> str:
    """The commonest script among the letters of a text; ``none`` without letters."""
    scripts = Counter(script for script in map(script_of, text) if script)
    # Ties by name, so that the answer does not depend on the order of letters.
    return min(scripts, key=lambda script: (-scripts[script], script)) if scripts else "none"


def shape_of(text: bytes, kind: str) -> str:
    """Kind of a token for the report: ``special``, ``byte``, ``space``, ``number``, ``symbol``, ``word start`` or
    ``inside word``."""
    if kind in ("special", "byte"):
        return kind
    whole = text.decode("utf-8", "replace")
    inner = whole.strip()
    if not inner:
        return "space"
    if all(character.isnumeric() for character in inner):
        return "number"
    if not any(character.isalpha() for character in inner):
        return "symbol"
    return "word start" if whole.startswith(" ") else "inside word"


def overlap_report(match: VocabularyMatch, counts: NDArray[np.integer] | None = None) -> dict[str, Any]:
    """Target tokens and how many of them have a source partner.

    Args:
        match: of the two vocabularies.
        counts: how often each target token occurs in a corpus; adds the share of the corpus that is matched, and the
            overlap by frequency rank.

    Returns:
        ``tokens``, ``matched``, ``exact``, ``fuzzy``, ``by_role``, and mappings ``kind`` and ``script`` of name to
        ``{"tokens": ..., "matched": ...}``; with counts ``corpus_share`` and ``rank``.
    """
    matched = match.source_ids >= 0
    tokens = np.flatnonzero([bool(kind) for kind in match.target.kinds])
    kinds: dict[str, list[int]] = {}
    scripts: dict[str, list[int]] = {}
    for token in tokens:
        text, kind = match.target.texts[token], match.target.kinds[token]
        shape = shape_of(text, kind)
        script = script_of_text(text.decode("utf-8", "ignore")) if kind not in ("special", "byte") else "none"
        for table, name in ((kinds, shape), (scripts, script)):
            cell = table.setdefault(name, [0, 0])
            cell[0] += 1
            cell[1] += int(matched[token])
    report: dict[str, Any] = {
        "tokens": len(tokens),
        "matched": int(matched[tokens].sum()),
        "exact": int((match.how == EXACT).sum()),
        "fuzzy": int((match.how == FUZZY).sum()),
        "by_role": int((match.how == ROLE).sum()),
        "kind": table_of(kinds),
        "script": table_of(scripts),
    }
    if counts is not None:
        report.update(frequency_report(match, matched, counts))
    return report


def table_of(cells: dict[str, list[int]]) -> dict[str, dict[str, int]]:
    """Largest class first."""
    ordered = sorted(cells.items(), key=lambda item: (-item[1][0], item[0]))
    return {name: {"tokens": total, "matched": hits} for name, (total, hits) in ordered}


def frequency_report(match: VocabularyMatch, matched: NDArray[np.bool_], counts: NDArray[np.integer]) -> dict[str, Any]:
    """Overlap weighted by, and by rank of, frequency."""
    if len(counts) != match.target_size:
        raise MismatchError(f"counts of {len(counts)} tokens for a target vocabulary of {match.target_size}")
    total = int(np.asarray(counts).sum())
    order = np.argsort(-np.asarray(counts, dtype=np.int64), kind="stable")
    ranks: dict[str, dict[str, int]] = {}
    start = 0
    for border in (*RANKS, match.target_size):
        band = order[start : min(border, match.target_size)]
        if len(band):
            ranks[f"{start + 1}-{start + len(band)}"] = {"tokens": len(band), "matched": int(matched[band].sum())}
        start = min(border, match.target_size)
    share = float(np.asarray(counts)[matched].sum() / total) if total else 0.0
    return {"corpus_share": share, "rank": ranks}
