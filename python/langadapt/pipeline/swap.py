"""The stages of a recipe that have to do with the swap: which method, from which files, into which folder."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langadapt.artefacts.folders import write_atomically
from langadapt.swap.files import swap_folder
from langadapt.swap.rows.names import AUTO, VECTOR_METHODS
from langadapt.swap.rows.options import SwapOptions
from langadapt.tokenizer.encoder import Tokenizer
from langadapt.trials.inputs import MethodInputs
from langadapt.trials.probe import ProbeText, probe_methods, probe_settings

if TYPE_CHECKING:
    from langadapt.pipeline.adapt import Adaptation
    from langadapt.recipe.recipe import Recipe

BAKE_OFF = "bake-off.json"
"""The outcome of the bake-off, in the run's folder."""


def method_inputs(adaptation: Adaptation, tokenizer: Path, method: str = AUTO) -> MethodInputs:
    """Files that ``method`` needs; vectors are only trained where they are."""
    settings = adaptation.recipe.swap
    needed = {method, settings.output_method} & {AUTO, *VECTOR_METHODS}
    source = (
        [str(adaptation.folder / "corpus" / "source" / "train.jsonl.zst")] if "source" in adaptation.languages else []
    )
    return MethodInputs(
        model=adaptation.model,
        tokenizer=str(tokenizer),
        vectors=adaptation.vectors(tokenizer) if needed else None,
        store=adaptation.store("target", tokenizer),
        words=(Path(settings.words[0]), Path(settings.words[1]), Path(settings.words[2])) if settings.words else None,
        helper=settings.helper,
        source_text=source,
        seed=adaptation.recipe.seed,
        progress=adaptation.progress,
    )


def swap_options(recipe: Recipe, method: str) -> SwapOptions:
    """What the recipe says of a swap."""
    settings = recipe.swap
    return SwapOptions(
        method=method,
        output_method=settings.output_method,
        seed=recipe.seed,
        pad_to_multiple_of=settings.pad_to_multiple_of,
        scale_rows=settings.scale_rows,
        fuzzy=settings.fuzzy,
        weighting=settings.weighting,
    )


def bake_off(adaptation: Adaptation) -> list[dict[str, Any]]:
    """Rows of the bake-off, best first."""
    recipe, settings = adaptation.recipe, adaptation.recipe.swap
    tokenizer, out = adaptation.make_tokenizer(), adaptation.folder / BAKE_OFF
    limit = recipe.evaluate.bytes_while_training

    def make() -> dict[str, Any]:
        files = method_inputs(adaptation, tokenizer)
        texts = {language: adaptation.validation_texts(language, limit) for language in adaptation.languages}
        ranking = probe_methods(
            adaptation.model,
            Tokenizer.from_pretrained(tokenizer),
            settings.candidates or files.candidates(),
            ProbeText(adaptation.stores(tokenizer), texts["target"], texts.get("source", ()), recipe.evaluate.window),
            probe_settings(recipe.train, settings.probe_steps),
            swap=swap_options(recipe, SwapOptions.method),
            options=files.options,
            progress=adaptation.progress,
        )
        write_atomically(out, json.dumps(ranking.rows, indent=2) + "\n")
        return {"rows": ranking.rows}

    stamp = {"swap": asdict(settings), "train": asdict(recipe.train), "bytes": limit, "seed": recipe.seed}
    stamp["share"] = recipe.corpus.source_share
    inputs = {"model": adaptation.model, "tokenizer": tokenizer, "vectors": adaptation.vectors(tokenizer)}
    inputs |= {store.name: Path(store.path) for store in adaptation.stores(tokenizer)}
    inputs |= {f"measured {language}": adaptation.validation(language) for language in adaptation.languages}
    rows: list[dict[str, Any]] = adaptation.run.stage("bake-off", out, make, settings=stamp, inputs=inputs)["rows"]
    return rows


def swap(adaptation: Adaptation, method: str, tokenizer: Path) -> dict[str, Any]:
    """The model with the new tokenizer, rows made by ``method``."""
    settings = adaptation.recipe.swap
    out = adaptation.folder / "swapped" / method
    files = method_inputs(adaptation, tokenizer, method)
    inputs = {"model": adaptation.model, "tokenizer": tokenizer, "store": files.store, "vectors": files.vectors}
    inputs |= {"helper": Path(settings.helper) if settings.helper and method == "clp" else None}
    inputs |= {f"words {i}": Path(file) for i, file in enumerate(settings.words) if method == "wechsel"}
    ranked = settings.method == AUTO and method == adaptation.chosen()
    options = swap_options(adaptation.recipe, method)

    def make() -> dict[str, Any]:
        ranking = adaptation.bake_off() if ranked else None
        limit = adaptation.recipe.evaluate.bytes_while_training
        texts: dict[str, Any] = {
            f"{language}_text": adaptation.validation_texts(language, limit) for language in adaptation.languages
        }
        return swap_folder(
            adaptation.model, tokenizer, out, swap=files.complete(options), ranking=ranking, **texts
        ).to_dict()

    stamp = {name: value for name, value in asdict(options).items() if value is not None}
    present = {name: path for name, path in inputs.items() if path is not None}
    return adaptation.run.stage(f"swap-{method}", out, make, settings=stamp, inputs=present)
