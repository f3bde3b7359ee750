"""``evaluate``: bits per byte of a model, or of what a run has trained."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langadapt.checks import at_least
from langadapt.corpus.documents import Inputs, read_documents
from langadapt.corpus.samples import Beginning
from langadapt.errors import ConfigError
from langadapt.evaluation.bits_per_byte import BitsPerByte, measure_bits_per_byte
from langadapt.machine import choose_device, quiet_transformers
from langadapt.models.folder import load_model
from langadapt.pipeline.finished import held_out, is_run, model_of
from langadapt.progress import Progress
from langadapt.tokenizer.encoder import Tokenizer


@dataclass(frozen=True)
class Evaluation:
    """What :func:`evaluate` measured."""

    model_path: Path
    """Folder of the model."""
    texts: Mapping[str, BitsPerByte]
    """By name."""

    def __repr__(self) -> str:
        found = "".join(
            f"\n{name}: {one.bits_per_byte:.4f} bits per byte of {one.documents:,} documents, {one.bytes / 1e6:.2f} MB"
            for name, one in self.texts.items()
        )
        return f"{self.model_path}{found}"

    def _repr_html_(self) -> str:
        """For notebooks."""
        return f"<pre>{html.escape(repr(self))}</pre>"


def evaluate(
    model: str | Path,
    text: Inputs | Mapping[str, Inputs] | None = None,
    *,
    max_bytes: int = 1_000_000,
    window: int | None = None,
    stride: int | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Evaluation:
    """Bits per byte of a model on some text; lower is better.

    Args:
        model: folder or hub id of a causal model, or the folder of a run, whose trained model is taken.
        text: as for ``read_documents``, or several by name; none = what the run set aside.
        max_bytes: read so much of each text, whole documents, at most; 0 = all of it.
        window, stride: as for ``measure_bits_per_byte``.
        device: ``auto``, ``cpu``, ``cuda``, ...
        progress: called as ``(phase, done, total or None, unit)``.

    Raises:
        ConfigError: no such model, or no text.
        DataError, FileNotFoundError: see ``read_documents``.
    """
    at_least(0, max_bytes=max_bytes)
    named = by_name(model, text)
    quiet_transformers()
    folder = model_of(model)
    loaded: Any = load_model(folder, dtype="auto")
    loaded.to(choose_device(device)).eval()
    tokenizer = Tokenizer.from_pretrained(folder)
    how: dict[str, Any] = {"window": window, "stride": stride, "progress": progress}
    found = {
        name: measure_bits_per_byte(loaded, tokenizer, Beginning(read_documents(given), max_bytes), **how)
        for name, given in named.items()
    }
    return Evaluation(folder, found)


def by_name(model: str | Path, text: Any) -> Mapping[str, Any]:
    """Texts by name: those given, or what a run set aside.

    Raises:
        ConfigError: neither.
        TypeError: a text that is none.
    """
    if text is None and is_run(model):
        return {name: str(file) for name, file in held_out(Path(model)).items()}
    if text is None:
        raise ConfigError("text: name some, or give the folder of a run, which has set some aside")
    if isinstance(text, Mapping):
        return text
    if not isinstance(text, Iterable | Path):
        raise TypeError(f"text: {type(text).__name__}; pass paths, an iterable of texts, or several by name")
    return {str(text) if isinstance(text, str | Path) else "text": text}
