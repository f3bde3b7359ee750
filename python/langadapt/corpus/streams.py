"""Documents from Python: strings, or mappings such as a stream of ``datasets`` gives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from langadapt.errors import ConfigError, DataError

Documents: TypeAlias = "Iterable[str] | Iterable[Mapping[str, Any]]"


class TextStream:
    """Iterator over the texts of strings or mappings that counts what held no text."""

    def __init__(self, documents: Documents, text_field: str, *, strict: bool) -> None:
        self.documents = enumerate(documents, 1)
        self.text_field = text_field
        self.strict = strict
        self.skipped = 0
        self.first_problems: list[dict[str, Any]] = []

    def __iter__(self) -> TextStream:
        return self

    def __next__(self) -> str:
        for number, document in self.documents:
            text = document if isinstance(document, str) else field_of(document, self.text_field, number)
            if isinstance(text, str):
                return text
            self.note(number, f"field `{self.text_field}` is {type(text).__name__}, not a string")
        raise StopIteration

    def note(self, number: int, reason: str) -> None:
        """Count a document without a text, or raise if the reading is strict."""
        if self.strict:
            raise DataError(f"document {number}: {reason}")
        self.skipped += 1
        if len(self.first_problems) < 10:
            self.first_problems.append({"path": "documents", "line": number, "reason": reason})

    def add_to(self, report: dict[str, Any]) -> None:
        """Add what was skipped here to the report of what was read behind."""
        report["skipped"]["missing_text"] += self.skipped
        report["first_problems"] = (self.first_problems + report["first_problems"])[:10]


def field_of(document: object, text_field: str, number: int) -> Any:
    """The text field of a mapping.

    Raises:
        TypeError: ``document`` is no mapping.
        DataError: it has no such field; every document of a stream has the same fields, so none has.
    """
    if not isinstance(document, Mapping):
        raise TypeError(f"document {number}: {type(document).__name__}; pass strings or mappings with a text field")
    if text_field not in document:
        fields = ", ".join(f"`{name}`" for name in list(document)[:5])
        raise DataError(f"document {number}: no field `{text_field}` (fields: {fields}); pass `text_field`")
    return document[text_field]


def is_stream(name: str) -> bool:
    """Whether an input is the name of a ``datasets`` stream, not of files."""
    return name.startswith("hf:") and not name.startswith("hf://")


def open_dataset(name: str) -> Iterable[Mapping[str, Any]]:
    """A ``datasets`` stream for ``hf:NAME[:CONFIG[:SPLIT]]``; the split is ``train`` by default.

    Raises:
        ConfigError: ``datasets`` is not installed, or the name has too many parts.
    """
    parts = name.removeprefix("hf:").split(":")
    if not parts[0] or len(parts) > 3:
        raise ConfigError(f"{name}: expected `hf:NAME[:CONFIG[:SPLIT]]`")
    try:
        from datasets import load_dataset
    except ImportError:
        raise ConfigError(f"{name}: needs the package `datasets`; install `langadapt[datasets]`") from None
    config = parts[1] if len(parts) > 1 and parts[1] else None
    split = parts[2] if len(parts) > 2 else "train"
    stream: Iterable[Mapping[str, Any]] = load_dataset(parts[0], config, split=split, streaming=True)
    return stream
