"""A blind sheet for native speakers: what two models write to the same beginnings, on sides drawn by lot.

One HTML file that needs no server and no network; a judge's answers are saved as a file. Which side is whose stands in
a key beside the sheet, which judges are not given. A preference is the mean over beginnings of what judges chose, so
that several judges of one text do not count as several texts.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from langadapt import _core
from langadapt.artefacts.folders import write_atomically
from langadapt.artefacts.places import check_file
from langadapt.artefacts.plain_json import read_object
from langadapt.errors import ConfigError, DataError

ANSWERS = ("left", "right", "alike", "neither")
"""What a judge may choose; the last two say nothing about which one is better."""
AGAIN = "save the answers from the sheet again"
"""What to do about a damaged file of answers."""
KEY_ENDING = ".key.json"
NORMAL_95 = 1.96


@dataclass(frozen=True)
class Pair:
    """One beginning and how two models go on."""

    prompt: str
    first: str
    second: str


@dataclass(frozen=True)
class Preference:
    """What judges found of the second model against the first."""

    models: tuple[str, str]
    preference: float
    """Of the second one: 1 = always better, 0.5 = none is."""
    interval: tuple[float, float]
    """At 95 %, over texts."""
    detectable: float
    """How far from 0.5 a preference must be for so many texts to show it."""
    texts: int
    judges: int
    counts: dict[str, int]
    """Answers: ``first``, ``second``, ``alike``, ``neither``."""
    agreement: float | None
    """Share of equal answers of two judges to one text; none for one judge."""
    alpha: float | None
    """Krippendorff's, nominal: 1 = all agree, 0 = as by chance."""


def write_sheet(pairs: Sequence[Pair], models: tuple[str, str], out: Path, *, title: str, seed: int = 0) -> Path:
    """Write the sheet and its key; returns the key's file.

    Args:
        pairs: in the order in which judges see them.
        models: names of the first and the second model, for the key alone.
        out: the HTML file.
        title: above the sheet; it must not say which models are compared.
        seed: of the lots.

    Raises:
        ConfigError: nothing to compare.
    """
    pairs = [pair for pair in pairs if pair.first.strip() != pair.second.strip()]
    if not pairs:
        raise ConfigError("the two models wrote the same to every beginning; there is nothing to compare")
    chance = random.Random(seed)
    # As many on each side, so that a judge who prefers a side prefers no model.
    swapped = [at % 2 == 1 for at in range(len(pairs))]
    chance.shuffle(swapped)
    items = [
        {"prompt": pair.prompt, "left": sides[0], "right": sides[1]}
        for pair, swap in zip(pairs, swapped, strict=True)
        for sides in [(pair.second, pair.first) if swap else (pair.first, pair.second)]
    ]
    identity = _core.hash_bytes(json.dumps(items, ensure_ascii=False).encode())[:16]
    # What ends a script would end it here, too.
    data = json.dumps({"sheet": identity, "items": items}, ensure_ascii=False).replace("<", "\\u003c")
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("langadapt.evaluation", "."), autoescape=True, undefined=StrictUndefined
    )
    check_sheet(out)
    write_atomically(out, environment.get_template("sheet.html").render(title=title, data=data, count=len(items)))
    key = key_of(out)
    content = {"sheet": identity, "models": list(models), "left": ["second" if swap else "first" for swap in swapped]}
    write_atomically(key, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return key


def check_sheet(out: Path) -> None:
    """Try the places of a sheet and of its key.

    Raises:
        OSError: somebody's work lies there.
    """
    check_file(out, lambda there: is_sheet(there.read_bytes()))
    check_file(key_of(out), lambda there: b'"sheet": "' in there.read_bytes()[:100])


def is_sheet(page: bytes) -> bool:
    """Whether a page is one of :func:`write_sheet`."""
    return page.startswith(b"<!doctype html>") and b'{"sheet": "' in page


def key_of(out: Path) -> Path:
    """Where the key of the sheet at ``out`` lies."""
    return out.with_name(f"{out.stem}{KEY_ENDING}")


def read_answers(file: Path) -> tuple[str, str, dict[int, str]]:
    """The sheet's id, who judged, and a judge's answers by text; a judge without a name is known by the file.

    Raises:
        DataError: no answers of a sheet, or edited into something that is none; names the text.
    """
    content = read_object(file, AGAIN)
    answers = content.get("answers")
    if not isinstance(content.get("sheet"), str) or not isinstance(answers, dict):
        raise DataError(f"{file}: no answers of a sheet (`sheet` and `answers` are expected)")
    found = {}
    for name, answer in answers.items():
        # As the page numbers them: `01` would be text 1 once more.
        if not (name.isascii() and name.isdecimal() and name == str(int(name))):
            raise DataError(f"{file}: {name!r} is no text's number; it was edited")
        if answer not in ANSWERS:
            raise DataError(f"{file}: text {name!r} has the answer {answer!r}; there are {', '.join(ANSWERS)}")
        found[int(name)] = str(answer)
    return content["sheet"], str(content.get("judge") or file.resolve()), found


def find_key(answers: Sequence[Path], sheet: str, key: Path | None) -> dict[str, Any]:
    """The key of a sheet: the file that is given, or the one beside the answers.

    Raises:
        DataError: there is none, or it is of another sheet, or edited by hand.
    """
    places = (
        [key] if key is not None else sorted({one for file in answers for one in file.parent.glob(f"*{KEY_ENDING}")})
    )
    for place in places:
        content = read_object(place, AGAIN)
        if content.get("sheet") == sheet:
            left, models = content.get("left"), content.get("models")
            whole = isinstance(left, list) and all(side in ("first", "second") for side in left)
            if not whole or not isinstance(models, list) or len(models) != 2:
                raise DataError(
                    f"{place}: no whole key of the sheet; it was edited, take the one that was written with it"
                )
            return content
    where = f"{key}" if key is not None else f"a file *{KEY_ENDING} beside {answers[0]}"
    raise DataError(f"{answers[0]}: no key of this sheet; looked for {where}")


def judge(files: Sequence[Path], key: Path | None = None) -> Preference:
    """What judges found, from the files that they saved, one a judge.

    Args:
        files: of one sheet.
        key: of that sheet; none = the one that lies beside the answers.

    Raises:
        DataError: answers of several sheets, of none, of one judge twice, or edited by hand into something else.
    """
    read = [read_answers(file) for file in files]
    sheets = {sheet for sheet, _, _ in read}
    if len(sheets) != 1:
        raise DataError(f"{', '.join(map(str, files))}: answers of {len(sheets)} sheets; give those of one")
    judges = [name for _, name, _ in read]
    twice = next((name for name in judges if judges.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{', '.join(map(str, files))}: the judge {twice!r} is there twice; give one file a judge")
    content = find_key(files, sheets.pop(), key)
    left, models = content["left"], content["models"]
    votes: dict[int, list[str]] = {}
    for file, (_, _, answers) in zip(files, read, strict=True):
        for text, answer in answers.items():
            if text >= len(left):
                raise DataError(f"{file}: text {text}, but the sheet has {len(left)}; it was edited")
            votes.setdefault(text, []).append(chosen(answer, left[text]))
    if not votes:
        raise DataError(f"{files[0]}: no text was judged")
    return preference_of(votes, (str(models[0]), str(models[1])), len(files))


def chosen(answer: str, left: str) -> str:
    """``first``, ``second``, ``alike`` or ``neither``."""
    if answer not in ("left", "right"):
        return answer
    return left if answer == "left" else {"first": "second", "second": "first"}[left]


def preference_of(votes: Mapping[int, Sequence[str]], models: tuple[str, str], judges: int) -> Preference:
    """The numbers behind votes by text."""
    worth = {"first": 0.0, "second": 1.0, "alike": 0.5, "neither": 0.5}
    means = [sum(worth[vote] for vote in given) / len(given) for given in votes.values()]
    count = len(means)
    mean = sum(means) / count
    variance = sum((value - mean) ** 2 for value in means) / max(1, count - 1)
    # Never narrower than one text that nobody could decide: all for one model is no certainty.
    error = math.sqrt(max(variance, 0.25 / count) / count)
    counts = {name: sum(list(given).count(name) for given in votes.values()) for name in worth}
    agreement, alpha = agreement_of(votes)
    return Preference(
        models,
        mean,
        (max(0.0, mean - NORMAL_95 * error), min(1.0, mean + NORMAL_95 * error)),
        NORMAL_95 * 0.5 / math.sqrt(count),
        count,
        judges,
        counts,
        agreement,
        alpha,
    )


def agreement_of(votes: Mapping[int, Sequence[str]]) -> tuple[float | None, float | None]:
    """Share of pairs of judges who agree, and Krippendorff's alpha for nominal data."""
    several = [list(given) for given in votes.values() if len(given) > 1]
    if not several:
        return None, None
    pairs = [one == other for given in several for one, other in combinations(given, 2)]
    total = sum(map(len, several))
    observed = (
        sum(sum(one != other for one in given for other in given) / (len(given) - 1) for given in several) / total
    )
    names = [vote for given in several for vote in given]
    shares = [names.count(name) for name in set(names)]
    expected = (total**2 - sum(share**2 for share in shares)) / (total * (total - 1))
    return sum(pairs) / len(pairs), 1.0 if expected == 0 else 1 - observed / expected
