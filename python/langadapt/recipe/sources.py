"""Where a run's text comes from: sources with shares of the training tokens, or the two of the shorthand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from langadapt.artefacts.remote import shown
from langadapt.checks import at_least, positive
from langadapt.corpus.build import BuildOptions
from langadapt.errors import ConfigError

SIDES = ("target", "source")
"""Languages that a run compares; sources of another are measured one by one."""
ROUNDING = 1e-6
"""By how much shares may miss a sum of 1."""


def check_names(where: str, names: Sequence[str]) -> None:
    """Raise ConfigError for a name of no text, and for one that holds what nobody may see: recipes are kept."""
    if not all(names):
        raise ConfigError(f"{where}: an empty name stands for no text")
    for name in names:
        if shown(name) != name:
            raise ConfigError(
                f"{where}: {shown(name)}: has a signature or password, and recipes are kept for all to read; name it "
                "without, and let credentials come from this machine"
            )


@dataclass(kw_only=True)
class SourceSettings:
    """One text of ``corpus.sources``."""

    name: str
    """In logs, reports and folders."""
    paths: list[str]
    """Files, folders or globs, also as URLs (``s3://``, ``https://``), or one ``hf:NAME[:CONFIG[:SPLIT]]``."""
    language: Literal["target", "source", "other"] = "target"
    """``target`` and ``source`` are measured as wholes, too; ``other``, such as code, only by itself."""
    kind: Literal["text", "pairs"] = "text"
    """``pairs``: JSON lines ``{"source": ..., "target": ...}``; both sides make one document, in alternating order,
    of the language ``other``."""
    share: float = 0.0
    """Of the training tokens; all shares sum to 1. 0 = only measured, and learnt from by the tokenizer."""
    max_repeats: float | None = None
    """Passes over it, at most; from then on its share goes to the others in proportion. none = as many as its share
    of the budget comes to."""

    def __post_init__(self) -> None:
        where = f"corpus.sources.{self.name}: "
        if not self.name or "/" in self.name or self.name.startswith("."):
            raise ConfigError(f"{where}the name must do as a folder's")
        if not self.paths or not all(self.paths):
            raise ConfigError(f"{where}paths name no text")
        check_names(f"{where}paths", self.paths)
        if not 0 <= self.share <= 1:
            raise ConfigError(f"{where}share: {self.share} is not in [0, 1]")
        positive(where, max_repeats=self.max_repeats)
        if self.kind == "pairs":
            self.language = "other"
        if self.name in SIDES and self.name != self.language:
            raise ConfigError(f"{where}is the name of a language; take another for text of {self.language!r}")

    @property
    def group(self) -> str:
        """What it is measured with: its language, or itself."""
        return self.language if self.language in SIDES else self.name


@dataclass(kw_only=True)
class CorpusSettings(BuildOptions):
    """What is read, what is left out, what is set aside. ``target``, ``source`` and ``source_share`` are short for two
    ``sources`` of these names."""

    target: list[str] = field(default_factory=list)
    """Files, folders or globs with text in the new language, also as URLs (``s3://``, ``https://``), or one
    ``hf:NAME[:CONFIG[:SPLIT]]``."""
    source: list[str] = field(default_factory=list)
    """Text in the language that the model already speaks: for measuring what it forgets, and for replay."""
    source_share: float = 0.0
    """Share of training tokens taken from ``source`` (replay), in [0, 1)."""
    sources: list[SourceSettings] = field(default_factory=list)
    """In place of the three above, any number of texts: ``name``, ``paths``, ``language`` (`target`, `source` or
    `other`), ``kind`` (`text` or `pairs`), ``share`` of the training tokens, ``max_repeats``; see
    [training.md](training.md)."""

    def __post_init__(self) -> None:
        if not 0 <= self.source_share < 1:
            raise ConfigError(f"corpus.source_share: {self.source_share} is not in [0, 1)")
        if self.source_share > 0 and not self.source:
            raise ConfigError("corpus.source_share is above 0, but corpus.source names no text")
        if not 0 < self.validation_share < 1:
            raise ConfigError(f"corpus.validation_share: {self.validation_share} is not in (0, 1)")
        check_names("corpus.target", self.target)
        check_names("corpus.source", self.source)
        at_least(1, "corpus.", validation_bytes=self.validation_bytes, validation_documents=self.validation_documents)
        self.check("corpus.")
        if self.sources:
            self.check_sources()

    def check_sources(self) -> None:
        """Names, shares and limits that go together.

        Raises:
            ConfigError: they do not.
        """
        if self.target or self.source or self.source_share:
            raise ConfigError("corpus.sources and corpus.target, source or source_share are both set; keep one of them")
        names = [one.name for one in self.sources]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ConfigError(f"corpus.sources: two are named {twice!r}; logs could not tell them apart")
        for one in self.sources:
            if one.name in SIDES and [other.group for other in self.sources].count(one.name) > 1:
                raise ConfigError(f"corpus.sources: {one.name!r} stands for all text of that language; rename the one")
        total = sum(one.share for one in self.sources)
        if abs(total - 1) > ROUNDING:
            told = " + ".join(f"{one.share:g} ({one.name})" for one in self.sources)
            raise ConfigError(f"corpus.sources: shares sum to {total:g}, not 1: {told}")
        trained = [one for one in self.sources if one.share > 0]
        if all(one.max_repeats is not None for one in trained):
            raise ConfigError(
                "corpus.sources: each has max_repeats, so that text may run out before the budget does; leave it out "
                "of one"
            )

    @property
    def texts(self) -> list[SourceSettings]:
        """The sources, those of the target language first; the shorthand's by the names of their languages."""
        if self.sources:
            return sorted(self.sources, key=lambda one: (one.language != "target", one.language != "source"))
        target = SourceSettings(name="target", paths=self.target, share=1.0 - self.source_share)
        if not self.source:
            return [target]
        return [target, SourceSettings(name="source", paths=self.source, language="source", share=self.source_share)]

    @property
    def replay(self) -> float:
        """Share of the training tokens in the source language."""
        return sum(one.share for one in self.texts if one.language == "source")

    def paths_of(self, language: str) -> list[str]:
        """All inputs of a language."""
        return [path for one in self.texts if one.language == language for path in one.paths]

    def building(self, source: SourceSettings) -> dict[str, Any]:
        """The options of :func:`langadapt.build_corpus` for a source, by name; another language is foreign to the
        target's text alone."""
        options = {one.name: getattr(self, one.name) for one in fields(BuildOptions)}
        return options if source.language == "target" else options | {"foreign": []}
