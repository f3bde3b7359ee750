"""Which of lm-eval's tasks there are for a language: `auto` and a code or name, such as `auto:swh_Latn`.

A language is a file in ``codes/``, named by its ISO 639-3 code and script, with other codes and names; tasks are
patterns in ``families.yaml``. What the installed lm-eval has of them is known when it is asked.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from langadapt.errors import ConfigError, nearest

HERE = Path(__file__).parent
AUTO = "auto"


@dataclass(frozen=True)
class Language:
    """A language, and how tasks call it."""

    code: str
    """ISO 639-3 and script."""
    names: tuple[str, ...]
    codes: tuple[str, ...]

    def spellings(self) -> Iterator[str]:
        """What users may call it, in lower case."""
        yield from (name.lower() for name in (self.code, *self.codes, *self.names))


@dataclass(frozen=True)
class LanguageTask:
    """A task of lm-eval for a language."""

    name: str
    chance: float
    """What guessing gets."""
    about: str


@cache
def languages() -> tuple[Language, ...]:
    """All that there are files for."""
    found = []
    for file in sorted((HERE / "codes").glob("*.yaml")):
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        found.append(Language(file.stem, tuple(content["names"]), tuple(content["codes"])))
    return tuple(found)


def language_of(wanted: str) -> Language:
    """The language of a code or name.

    Raises:
        ConfigError: nobody knows it; names the nearest.
    """
    name = wanted.strip().lower().replace("-", "_")
    by_name: dict[str, Language] = {}
    for language in languages():
        for spelling in language.spellings():
            by_name.setdefault(spelling, language)
    if name in by_name:
        return by_name[name]
    near = [by_name[spelling] for spelling in nearest(name, by_name, 3, cutoff=0.5)]
    shown = ", ".join(dict.fromkeys(f"{one.code} ({one.names[0]})" for one in near))
    raise ConfigError(
        f"language {wanted!r}: no such code or name; "
        + (f"near ones: {shown}" if shown else "give ISO 639-3 and a script, such as swh_Latn, or an English name")
    )


def is_auto(suite: Any) -> bool:
    """Whether a suite is `auto`, with or without a language."""
    return str(suite) == AUTO or str(suite).startswith(f"{AUTO}:")


def with_language(suites: Collection[str], language: str) -> list[str]:
    """Suites with a recipe's language in a bare `auto`."""
    return [f"{AUTO}:{language}" if suite == AUTO else suite for suite in suites]


def tasks_for(suite: str, known: Collection[str]) -> list[LanguageTask]:
    """The tasks of a language, in the order of ``families.yaml``.

    Args:
        suite: ``auto:LANGUAGE``.
        known: all tasks of the installed lm-eval.

    Raises:
        ConfigError: no language, one that nobody knows, or one without tasks.
    """
    _, _, wanted = suite.partition(":")
    if not wanted:
        raise ConfigError("suite auto: of which language? Give auto:CODE, such as auto:swh_Latn or auto:Swahili")
    language, there = language_of(wanted), set(known)
    found: list[LanguageTask] = []
    for family in families():
        spelt = spellings(family["task"], language)
        if "unless" in family and there & set(spellings(family["unless"], language)):
            continue
        name = next((name for name in spelt if name in there), None)
        if name is not None:
            found.append(LanguageTask(name, float(family["chance"]), family["about"]))
    if not found:
        raise ConfigError(
            f"suite {suite}: lm-eval has no task for {language.names[0]}; make questions of held-out "
            "text: langadapt items"
        )
    return found


@cache
def families() -> list[dict[str, Any]]:
    """The patterns of tasks."""
    content: list[dict[str, Any]] = yaml.safe_load((HERE / "families.yaml").read_text(encoding="utf-8"))
    return content


def spellings(pattern: str, language: Language) -> list[str]:
    """The names that a pattern stands for in one language."""
    whole = {"code": language.code, "lower": language.code.lower()}
    if "{name}" not in pattern:
        return [pattern.format(short=short, **whole) for short in language.codes]
    return [pattern.format(name=name.lower().replace(" ", "_"), **whole) for name in language.names]
