"""How much of a training to keep: bits per byte of both languages along the line from a model to what it became."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from langadapt.artefacts.folders import scratch_folder
from langadapt.evaluation.bits_per_byte import measure_bits_per_byte
from langadapt.models.folder import load_model
from langadapt.models.interpolation import write_between
from langadapt.progress import Progress
from langadapt.tokenizer.encoder import Tokenizer


def dial(
    start: Path,
    end: Path,
    texts: Mapping[str, Sequence[str]],
    *,
    amounts: Sequence[float],
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> list[dict[str, float]]:
    """Measure the models between two.

    Args:
        start: folder of the model before its training, after its swap if there was one.
        end: folder of the same model trained, with the tokenizer of both.
        texts: held-out documents by name, such as ``target`` and ``source``.
        amounts: places on the line, 0 = ``start``, 1 = ``end``.
        device: to measure on.
        progress: called as ``(phase, done, total or None, unit)``.

    Returns:
        A row for each amount, in order: ``amount``, and bits per byte by the texts' names.

    Raises:
        ConfigError, MismatchError, DataError: see :func:`langadapt.models.interpolation.write_between`.
    """
    tokenizer, rows = Tokenizer.from_pretrained(end), []
    with scratch_folder(f"{end.resolve().name}.dial", end.resolve().parent) as folder:
        for amount in sorted(amounts):
            between = folder / f"{amount:g}"
            write_between(start, end, amount, between)
            model = load_model(between, dtype="auto").to(device).eval()
            row = {"amount": amount}
            for name, documents in texts.items():
                measured = measure_bits_per_byte(model, tokenizer, documents, progress=progress)
                row[name] = measured.bits_per_byte
            rows.append(row)
            del model
            shutil.rmtree(between)
    return rows
