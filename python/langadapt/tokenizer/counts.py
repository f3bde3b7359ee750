"""Counted words as an artefact: counted in shards, added up, and learnt from as often as one likes.

``words.bin`` holds each word and its count, in order, so that equal counts are equal files; the manifest says how text
was cut into words. What is learnt from counts is what :func:`langadapt.train_bpe` learns from their text.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from langadapt import _core
from langadapt.artefacts.folders import new_folder, verify, write_manifest
from langadapt.artefacts.shards import inputs_of, settings_of
from langadapt.errors import DataError, MismatchError, shorten
from langadapt.tokenizer.blueprint import Blueprint
from langadapt.tokenizer.options import BpeOptions

STAGE = "word counts"
"""Of the manifest."""
WORDS = "words.bin"


def cutting_of(blueprint: Blueprint, chosen: BpeOptions) -> dict[str, Any]:
    """How text is cut into words, as a manifest keeps it."""
    cut: dict[str, Any] = {"style": blueprint.style, "normalizer": blueprint.normalizer}
    if blueprint.style == "byte_level":
        cut["pre_tokenizer"] = blueprint.pre_tokenizer
    else:
        cut |= {name: value for name, value in asdict(blueprint.cutting).items() if name != "foreign"}
        cut |= {"special_tokens": list(blueprint.special), "max_sentence_length": chosen.max_sentence_length}
    plain: dict[str, Any] = json.loads(json.dumps(cut))
    return plain


def load_counts(counter: _core.WordCounter, folder: Path, cutting: Mapping[str, Any]) -> None:
    """Add the words counted in ``folder`` to ``counter``.

    Raises:
        DataError: it is not whole, or holds something else.
        MismatchError: its text was cut in another way.
    """
    manifest = verify(folder)
    if manifest["stage"] != STAGE or "shard" in manifest["settings"]:
        raise DataError(f"{folder}: no word counts of a whole corpus; `langadapt merge` adds up those of its parts")
    known = manifest["settings"]["cutting"]
    for name in sorted(known.keys() | cutting.keys()):
        if known.get(name) != cutting.get(name):
            had, want = (shorten(json.dumps(one.get(name), ensure_ascii=False), 60) for one in (known, cutting))
            raise MismatchError(
                f"{folder}: its words were cut with {name} {had}, the tokenizer cuts with {want}; give both commands "
                "the same options"
            )
    summary = manifest["summary"]
    counter.load(folder / WORDS, summary["documents"], summary["bytes"], summary["lines_too_long"])


def merge_counts(parts: Sequence[Path], out: Path) -> dict[str, Any]:
    """Add up the counts of all parts, in order, into ``out``: what :func:`count_words` writes for all text."""
    found = [verify(part)["summary"] for part in parts]
    summary = {name: sum(one[name] for one in found) for name in found[0]}
    if not summary["documents"]:
        raise DataError(f"{parts[0].parent}: no document in any part")
    with new_folder(out, parts) as folder:
        if len(parts) == 1:
            shutil.copyfile(parts[0] / WORDS, folder / WORDS)
        else:
            summary["words"] = _core.merge_counts([part / WORDS for part in parts], folder / WORDS)
        write_manifest(folder, STAGE, settings_of(parts[0]), inputs_of(parts), summary=summary)
    return summary
