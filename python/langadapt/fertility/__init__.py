"""How tokenizers cut text, side by side: N tokenizers on M corpora, one pass over each corpus.

All figures are ratios of totals over a whole corpus, without special tokens; a document is encoded as a whole. White
space is that of Unicode (Python's ``str.split`` also splits at U+001C to U+001F).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from langadapt.checks import at_least
from langadapt.corpus.documents import Documents, Inputs, Reading
from langadapt.errors import ConfigError, MismatchError
from langadapt.fertility.counting import Reader
from langadapt.fertility.metrics import CorpusCounts, Fertility, Surface, describe, gini_over
from langadapt.fertility.report import FertilityReport, TokenizerSummary
from langadapt.machine import thread_count
from langadapt.progress import Progress
from langadapt.tokenizer.encoder import open_tokenizer

__all__ = ["CorpusCounts", "Fertility", "FertilityReport", "TokenizerSummary", "measure_fertility"]


def measure_fertility(
    tokenizers: Mapping[str, Any],
    corpora: Mapping[str, Inputs] | None = None,
    *,
    texts: Mapping[str, Documents] | None = None,
    reference: str | None = None,
    text_field: str = "text",
    rare_below: int = 10,
    threads: int | None = None,
    progress: Progress | None = None,
) -> FertilityReport:
    """Measure all ``tokenizers`` on all ``corpora``, reading each corpus once. The metrics: :class:`Fertility`.

    Args:
        tokenizers: by name: a :class:`langadapt.Tokenizer`, the folder, file or hub id of one, or an object of
            transformers or ``tokenizers``. The two BPE families run natively, others through the latter.
        corpora: by name, each a path or a list of paths as for :func:`langadapt.read_documents`.
        texts: more corpora by name, each an iterable of documents, strings or mappings that hold one.
        reference: name of the corpus that parity is measured against. All corpora must then be line-aligned: the n-th
            document of each says the same; blank lines count, and a line without a document is an error.
        text_field: JSON key, Parquet column or mapping key that holds the text.
        rare_below: see :attr:`Fertility.rare_tokens`.
        threads: as many as the machine has cores by default; the result does not depend on it.
        progress: called as ``progress(phase, done, total_or_None, unit)``.

    Raises:
        MismatchError: with a ``reference``, the corpora have different numbers of documents.
        ConfigError: no tokenizer, no corpus, an unknown reference.
        FileNotFoundError, DataError: as :func:`langadapt.read_documents`.
    """
    # Long: each argument and each way to fail has its line.
    how = partial(Reading, text_field=text_field, strict=reference is not None)
    readings = {name: how(inputs) for name, inputs in (corpora or {}).items()}
    readings |= {name: how(texts=documents) for name, documents in (texts or {}).items()}
    if not tokenizers or not readings:
        raise ConfigError("nothing to measure: give at least one tokenizer and one corpus")
    if reference is not None and reference not in readings:
        raise ConfigError(f"reference: {reference!r} is no corpus; there are {', '.join(readings)}")
    at_least(0, rare_below=rare_below)
    opened = {name: open_tokenizer(tokenizer) for name, tokenizer in tokenizers.items()}
    reader = Reader(list(opened.values()), thread_count(threads), progress)
    counted = {name: reader.count(reading) for name, reading in readings.items()}
    sizes = {corpus: counts for corpus, (counts, _) in counted.items()}
    if reference is not None:
        check_aligned({name: counts.documents for name, counts in sizes.items()}, reference)
    cells: dict[str, dict[str, Fertility]] = {}
    for n, (name, one) in enumerate(opened.items()):
        base = int(counted[reference][1][n].counts.sum()) if reference is not None else None
        figures = partial(describe, surface=Surface.of(one), reference_tokens=base, rare_below=rare_below)
        cells[name] = {corpus: figures(counts, tallies[n]) for corpus, (counts, tallies) in counted.items()}
    summaries = {
        name: TokenizerSummary(one.vocab_size, one.backend, gini_over(cells[name], sizes, reference is not None))
        for name, one in opened.items()
    }
    return FertilityReport(sizes, summaries, cells, reference, rare_below)


def check_aligned(documents: Mapping[str, int], reference: str) -> None:
    """Raise unless all corpora have as many documents as the reference."""
    wanted = documents[reference]
    for name, count in documents.items():
        if count != wanted:
            raise MismatchError(
                f"parity needs line-aligned text: {name!r} has {count:,} documents, the reference {reference!r} has "
                f"{wanted:,}; give the same lines in all languages, or no reference"
            )
