"""What langadapt raises. All messages name the place (file, line, value) and the remedy; none needs a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class LangadaptError(Exception):
    """Base of everything that langadapt itself raises; the command line prints it and exits with code 1."""


class DataError(LangadaptError):
    """A file's content is not what its name, format or manifest promises."""


class ConfigError(LangadaptError, ValueError):
    """A recipe or a combination of arguments cannot work. The command line exits with code 2."""


class MismatchError(LangadaptError):
    """Two artefacts do not belong together, such as a token store and another tokenizer."""


class TrainingStopped(LangadaptError):
    """Training was asked to stop (SIGTERM, SIGUSR1) and left a checkpoint; the command line exits with code 0."""


class TrainingDiverged(LangadaptError):
    """Training made the model worse; what was best of it is kept. The command line exits with code 1."""

    def __init__(self, message: str, result: Any) -> None:
        """``result``: of the run, a `langadapt.training.result.TrainResult`."""
        super().__init__(message)
        self.result = result


def is_panic(error: BaseException) -> bool:
    """Whether Rust panicked in a package, whose exception is no ``Exception``."""
    return type(error).__name__ == "PanicException"


def shorten(text: str, limit: int = 200) -> str:
    """``text`` on one line, cut at ``limit`` characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 3] + "..."


LONGEST_NAME = 100
"""Characters of a name that is compared with those that are known: none has more, and time is quadratic in it."""


def nearest(name: str, known: Iterable[str], count: int = 1, cutoff: float = 0.6) -> list[str]:
    """Up to ``count`` of the ``known`` names that may be meant by ``name``, the likeliest first."""
    return difflib.get_close_matches(name[:LONGEST_NAME], list(known), n=count, cutoff=cutoff)
