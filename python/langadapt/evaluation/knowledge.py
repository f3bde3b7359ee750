"""What a model can do in a language before it is adapted: its bits per byte by those of xz, which knows no language."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from langadapt.corpus.samples import first_bytes
from langadapt.costs import devices
from langadapt.errors import DataError
from langadapt.evaluation.bits_per_byte import bits_per_byte
from langadapt.evaluation.compression import xz_bits_per_byte
from langadapt.machine import choose_device, quiet_transformers
from langadapt.models.folder import load_model, resolve_model
from langadapt.models.weights import read_entries
from langadapt.progress import Progress
from langadapt.tokenizer.encoder import open_tokenizer

MEASURED_BYTES = 200_000
"""UTF-8 bytes of each language that a model is run on, at most."""
LEAST_BYTES = 10_000
"""Below which a text says little of a model."""
SECONDS = 30.0
"""For which a model is run unasked, at most: about so long, two languages together."""
SHARE_OF_PEAK = 0.3
"""Of a matrix product's speed that a forward pass reaches on a CPU."""
BYTES_PER_TOKEN = 3.0


def measure_knowledge(
    model: str | Path,
    tokenizer: Any,
    texts: Mapping[str, Iterable[str]],
    *,
    most_bytes: int = MEASURED_BYTES,
    trust_remote_code: bool = False,
    progress: Progress | None = None,
) -> dict[str, float]:
    """Bits per byte of ``model`` over those of xz on the same text, by the name of the text; lower is better.

    Bytes say different things in different scripts, and so do bits per byte; both numbers of a text share its bytes, so
    that languages can be compared. A model that has never seen a language needs about as much as xz, or more.

    Args:
        model: a folder or hub id.
        tokenizer: its own: a folder, or a tokenizer object.
        texts: documents by name.
        most_bytes: which are read of each.
        trust_remote_code: run model code that comes with the folder.
        progress: called as ``(phase, done, total or None, unit)``.
    """
    quiet_transformers()
    folder = resolve_model(str(model))
    loaded = load_model(folder, dtype="auto", trust_remote_code=trust_remote_code)
    loaded.to(choose_device("auto")).eval()
    encoder, found = open_tokenizer(tokenizer), {}
    for name, documents in texts.items():
        sample = first_bytes(documents, most_bytes)
        compressed = xz_bits_per_byte(sample)
        if compressed:
            found[name] = bits_per_byte(loaded, encoder, sample) / compressed
        if progress:
            progress("measure", len(found), len(texts), "texts")
    return found


def affordable_bytes(folder: Path) -> int:
    """Bytes of each of two languages that a model can be run on within :data:`SECONDS`; 0 where that is too little to
    tell anything, or its weights are not here."""
    try:
        parameters = sum(entry.size for entry in read_entries(folder).values())
    except (DataError, OSError):
        return 0
    if choose_device("auto") != "cpu":
        return MEASURED_BYTES
    tokens = SHARE_OF_PEAK * devices.cpu().flops * SECONDS / 2 / (2 * max(parameters, 1))
    found = min(int(BYTES_PER_TOKEN * tokens), MEASURED_BYTES)
    return found if found >= LEAST_BYTES else 0
