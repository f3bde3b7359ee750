"""What a plan says of each text: how much there is, how often it will be read, and what the last pass is worth."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langadapt.recipe.sources import SourceSettings
from langadapt.swap.rows.names import KEEP
from langadapt.training.repetition import worth_of_pass

BYTES_PER_TOKEN = 4.3
"""Of a tokenizer made for its language, where neither a store nor a sample tells; German and Arabic ones of 32k entries
reach more."""
BYTES_PER_ENTRY = 100
"""Of target text, below which a tokenizer costs 4 to 10 % more tokens than one from plenty of text, in German and in
Arabic (`docs/runs/how_much_text.md`); below half of it the text has too few pairs for the entries."""
PACKED = {".gz", ".zst", ".parquet"}


@dataclass
class Size:
    """How much text there is."""

    tokens: int | None
    bytes_per_token: float = BYTES_PER_TOKEN
    measured: bool = False
    """From a token store, not from file sizes."""
    sampled: bool = False
    """Bytes per token are those of a sample."""


@dataclass
class SourcePlan:
    """One text in a plan."""

    name: str
    language: str
    share: float
    """Of the training tokens, as asked for."""
    tokens: int | None
    """In one pass; none where that is not known."""
    passes: float | None
    worth: float | None
    """Of the last pass, beside new text (arXiv 2305.16264)."""
    used_up: int | None = None
    """Step at which it has been read ``max_repeats`` times; none where the run ends before."""


def size_of(recipe: Any, source: SourceSettings, sampled: Mapping[str, float]) -> Size:
    """Of a source: from the run's token store if it is made, else from the files.

    Args:
        sampled: bytes per token of a sample by language, where that was cut
            (`langadapt.planning.foresight.of_a_sample`).
    """
    which = "own" if recipe.swap.method == KEEP else "new"
    manifest = Path(recipe.out) / "stores" / f"{source.name}-{which}" / "manifest.json"
    if manifest.is_file():
        summary = json.loads(manifest.read_text(encoding="utf-8"))["summary"]
        tokens = int(summary["tokens"])
        return Size(tokens, summary["bytes"] / max(tokens, 1), True)
    size = 0.0
    for pattern in source.paths:
        path = Path(pattern)
        for file in path.rglob("*") if path.is_dir() else [path]:
            if file.is_file():
                # Compressed prose is about a quarter of its text.
                size += file.stat().st_size * (4.0 if file.suffix in PACKED else 1.0)
    per_token = sampled.get(source.language, BYTES_PER_TOKEN)
    return Size(int(size / per_token) or None, per_token, sampled=source.language in sampled)


def sources_of(
    recipe: Any, steps: int, tokens_per_step: int, window: int, *, sampled: Mapping[str, float]
) -> list[SourcePlan]:
    """All texts with a share of the training, over ``steps`` steps; ``sampled``: see :func:`size_of`."""
    from langadapt.training.data.slots import stretches

    texts = [one for one in recipe.corpus.texts if one.share > 0]
    sizes = [size_of(recipe, one, sampled).tokens for one in texts]
    limits = [
        None if one.max_repeats is None or size is None else max(int(one.max_repeats * size / window), 1)
        for one, size in zip(texts, sizes, strict=True)
    ]
    per_step, found = max(tokens_per_step // window, 1), stretches([one.share for one in texts], limits)
    last = [one for one in found if one.first <= steps * per_step][-1]
    counts, plans = last.counts(steps * per_step), []
    for number, (one, size) in enumerate(zip(texts, sizes, strict=True)):
        passes = counts[number] * window / size if size else None
        worth = None if passes is None else worth_of_pass(max(passes, 1.0))
        ends = [stretch.first for stretch in found[1:] if not stretch.parts[number]]
        used_up = ends[0] // per_step if ends and ends[0] <= steps * per_step else None
        plans.append(SourcePlan(one.name, one.language, one.share, size, passes, worth, used_up))
    return plans


def notes_on(recipe: Any, plans: Sequence[SourcePlan], vocabulary: int | None) -> Iterator[str]:
    """Sources that will be used up, and a vocabulary that is too large for the text."""
    for one in plans:
        if one.used_up is not None:
            yield (
                f"{one.name}: read as often as max_repeats allows after step {one.used_up:,}; from there the others "
                f"share its {one.share:.3g} of the training, and the run ends without it: a lower share spreads it out"
            )
    texts = [size_of(recipe, one, {}) for one in recipe.corpus.texts if one.language == "target"]
    size = sum((one.tokens or 0) * one.bytes_per_token for one in texts)
    if vocabulary is None or recipe.tokenizer.path is not None or not size or size >= BYTES_PER_ENTRY * vocabulary:
        return
    fitting = 1 << max(int(size / BYTES_PER_ENTRY).bit_length() - 1, 9)
    yield (
        f"tokenizer.vocab_size: {vocabulary:,} entries of {size / 1e6:.2g} MB of target text, fewer than "
        f"{BYTES_PER_ENTRY} bytes each: such a tokenizer costs 4 to 10 % more tokens than one from plenty of text, and "
        f"most new rows are hardly trained (docs/runs/how_much_text.md); {fitting:,} fit, or keep the model's own "
        "(swap.method=keep)"
    )
