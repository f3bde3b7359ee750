"""The embedded default: a tiny English model, trained here from scratch, adapted to Spanish.

Two megabytes of each language, in the public domain (``texts/SOURCES.md``), and the recipe ship in the package; nothing
is downloaded. The demo first makes its source model with the project's own tokenizer training and ``train_model``, then
runs the recipe like any other. Its numbers are whatever they are: a model of this size and text of one kind show the
shape of the method, not its worth.
"""

from __future__ import annotations

import logging
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import yaml

from langadapt.artefacts.stages import Run
from langadapt.demo.scratch import train_from_scratch
from langadapt.progress import Progress
from langadapt.recipe.plain_values import build
from langadapt.recipe.recipe import Recipe

log = logging.getLogger(__name__)


def run_demo(out: Path, *, progress: Progress | None = None) -> dict[str, Any]:
    """Make the source model and adapt it; returns the results as :func:`langadapt.adapt` does."""
    from langadapt.pipeline.run import adapt

    out = Path(out)
    with as_file(files(__package__)) as bundled:
        settings = yaml.safe_load((bundled / "demo.yaml").read_text(encoding="utf-8"))
        texts = bundled / "texts"
        source = out / "source-model"
        run = Run(source, log.info)
        with run.locked():
            train_from_scratch(run, [str(texts / "english.jsonl.zst")], settings["source_model"], progress=progress)
        recipe = settings["recipe"]
        recipe["model"] = str(source / "trained" / "final")
        recipe["out"] = str(out)
        recipe["corpus"] |= {"target": [str(texts / "spanish.jsonl.zst")], "source": [str(texts / "english.jsonl.zst")]}
        recipe["evaluate"] |= {"parallel": str(texts / "parallel.jsonl")}
        return adapt(build(Recipe, recipe, ""), progress=progress)
