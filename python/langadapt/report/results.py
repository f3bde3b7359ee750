"""What a run found: the pipeline fills these dataclasses, ``results.json`` holds them, the report reads them back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from langadapt.artefacts.names import RESULTS_NAME
from langadapt.artefacts.plain_json import read_object
from langadapt.errors import ConfigError, DataError
from langadapt.recipe.plain_values import build
from langadapt.training.result import TrainResult


@dataclass(frozen=True)
class TokenizerFacts:
    """A tokenizer for readers."""

    name: str
    vocab_size: int
    backend: str


@dataclass(frozen=True)
class Measurement:
    """One model, measured."""

    label: str
    """Its name for readers."""
    method: str | None
    """What became of the source model; none = nothing."""
    phase: str
    """``source``, ``swapped``, ``trained`` or ``finished``."""
    tokenizer: str
    """``source`` or ``target``."""
    parameters: int
    bits_per_byte: dict[str, float]
    """By ``target`` and, where there is text of it, ``source``; and by the names of a recipe's ``corpus.sources``."""
    suites: dict[str, dict[str, float | None]]
    """Task, metric, value; standard errors are metrics that end in ``_stderr``."""
    suite_items: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    """Task, metric, what each item got."""
    document_bits: dict[str, list[float]] = field(default_factory=dict)
    """Bits of each tested document, by language, in the order of :attr:`HeldOutFacts.document_bytes`."""
    samples: dict[str, list[str]] = field(default_factory=dict)
    """What the model writes after each of :attr:`HeldOutFacts.prompts`, by language, the likeliest token each time."""
    drawn: dict[str, list[str]] = field(default_factory=dict)
    """The same with tokens drawn by their probabilities."""
    writing: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    """See :class:`langadapt.evaluation.writing.Writing`, by language and ``greedy`` or ``drawn``."""


@dataclass(frozen=True)
class Prompt:
    """The beginning of a tested document."""

    text: str
    goes_on: str
    """How the document does."""


@dataclass(frozen=True)
class HeldOutFacts:
    """Text of one language that nothing was trained on."""

    document_bytes: list[int]
    """UTF-8 bytes of each tested document."""
    watched_documents: int
    """Measured while training, for choices."""
    watched_bytes: int
    apart: bool
    """Whether no document is tested that training was watched with."""
    xz_bits_per_byte: float | None
    """Of the tested text, compressed by xz."""
    watched_xz_bits_per_byte: float | None
    """Of the text that training was watched with."""
    prompts: list[Prompt]
    """What samples of the models' writing begin with."""


@dataclass
class Training(TrainResult):
    """One training."""

    log: str = ""
    """Its log, relative to the run's folder."""


@dataclass(frozen=True)
class Cost:
    """What the run took."""

    seconds: dict[str, float]
    """By stage."""
    gpu_hours: float | None
    """Of the main training; none without a GPU."""
    price: float | None
    """Of those hours; none where the recipe names no price."""


@dataclass(frozen=True)
class Results:
    """Everything that a run found, in the order of ``results.json``."""

    name: str
    languages: dict[str, str]
    """Names of ``source`` and ``target``."""
    versions: dict[str, str]
    """Of the packages that decide the numbers."""
    device: str
    method: str
    """Of the run itself; the others are comparisons."""
    tokenizers: dict[str, TokenizerFacts]
    """By ``source`` and ``target``."""
    fertility: dict[str, dict[str, Any]]
    """``text`` and, where there are some, ``aligned`` sentences: see ``FertilityReport.to_dict``."""
    corpus: dict[str, dict[str, Any]]
    """See ``CorpusReport``, by ``target`` and ``source``, or by the names of ``corpus.sources``."""
    swap: dict[str, dict[str, Any]]
    """See ``SwapReport.to_dict``, by method."""
    bake_off: list[dict[str, Any]]
    """See ``Ranking``; empty where the method was given."""
    rows: list[Measurement]
    training: dict[str, Training]
    """By method."""
    cost: Cost
    held_out: dict[str, HeldOutFacts] = field(default_factory=dict)
    """By ``target``, ``source`` and sources of neither language; empty in results of earlier versions."""
    verdict: dict[str, Any] = field(default_factory=dict)
    """See :class:`langadapt.report.verdict.Verdict`; for programs: reports judge anew."""

    def spoken(self, text: str) -> str:
        """A source's name for readers: that of its language where it stands for it."""
        return self.languages.get(text, text)

    @property
    def main(self) -> Training | None:
        """The training of the run itself; none in a run that has not come to its end."""
        return self.training.get(self.method)


def results_of(content: Mapping[str, Any], origin: str = RESULTS_NAME) -> Results:
    """``content``, as JSON holds it, checked.

    Raises:
        DataError: it is of another version of langadapt, or damaged; names ``origin``.
    """
    try:
        found = build(Results, content, "")
        if {found.method} <= found.training.keys() and "text" in found.fertility:
            return found
        raise ConfigError("the run's own training, or fertility, is missing")
    except ConfigError as error:
        raise DataError(f"{origin}: {error}; run `langadapt adapt` again to write it anew") from None


def read_results(file: Path) -> Results:
    """What the run found whose ``results.json`` this is.

    Raises:
        DataError: it is missing, or not what a run writes; names the file.
    """
    try:
        content = read_object(file, "run `langadapt adapt` again to write it anew")
    except FileNotFoundError:
        raise DataError(
            f"{file}: missing; this is no folder of a finished run: run `langadapt adapt` to its end"
        ) from None
    except NotADirectoryError:
        raise DataError(f"{file.parent}: a run's folder is expected, this is a file") from None
    return results_of(content, str(file))
