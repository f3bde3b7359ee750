"""The stages that have to do with the swap: which method, from which files, into which folder."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from langadapt.artefacts.folders import write_atomically
from langadapt.pipeline import text
from langadapt.pipeline.choices import settled
from langadapt.pipeline.job import BAKE_OFF_NAME, Job
from langadapt.recipe.recipe import Recipe
from langadapt.recipe.sources import SIDES
from langadapt.swap.files import swap_folder
from langadapt.swap.rows.names import AUTO, DISTILL, KEEP, VECTOR_METHODS
from langadapt.swap.rows.options import SwapOptions
from langadapt.tokenizer.encoder import Tokenizer
from langadapt.training import StoreShare
from langadapt.training.parallel import ProcessGroup
from langadapt.trials.inputs import MethodInputs
from langadapt.trials.probe import ProbeText, probe_methods, probe_settings

Ranking = Sequence[dict[str, Any]]
"""Rows of a bake-off, best first."""


@dataclass(frozen=True)
class Material:
    """What the swaps of a run are made from, besides the source model."""

    tokenizer: Path
    stores: list[StoreShare]
    """Under that tokenizer, the target language's first."""
    store: Path
    """All text of the target language."""
    vectors: Path | None
    """Of its tokens; none where no method asks for them."""


@dataclass(frozen=True)
class Arm:
    """One way of adaptation, ready to be trained."""

    method: str
    model: Path
    tokenizer: Path
    stores: list[StoreShare]
    report: dict[str, Any] | None = None
    """Of the swap, see :class:`langadapt.swap.report.SwapReport`; none where there was none."""


def own_arm(job: Job, corpora: text.Corpora, processes: ProcessGroup) -> tuple[Job, Arm]:
    """All stages of the recipe's own method between its text and its training, and the job with its choices made."""
    method = job.recipe.swap.method
    if method == KEEP:
        arm = kept(job, corpora)
        return settled(job, arm.stores, processes), arm
    made = material(job, corpora, text.tokenizer(job, corpora), [method])
    job = settled(job, made.stores, processes)
    ranking = bake_off(job, corpora, made) if method == AUTO else []
    return job, swapped(job, corpora, made, ranking[0]["method"] if ranking else method, ranking=ranking)


def material(job: Job, corpora: text.Corpora, tokenizer: Path, methods: Iterable[str]) -> Material:
    """Token stores, and vectors where one of ``methods`` needs them."""
    stores = text.stores(job, corpora, tokenizer)
    store = text.target_store(job, corpora, tokenizer, stores)
    return Material(tokenizer, stores, store, text.vectors(job, store) if need_vectors(job, methods) else None)


def need_vectors(job: Job, methods: Iterable[str]) -> bool:
    """Whether a method, or the recipe's method of the output matrix, is made with token vectors."""
    return not {*methods, job.recipe.swap.output_method}.isdisjoint((AUTO, DISTILL, *VECTOR_METHODS))


def method_inputs(job: Job, corpora: text.Corpora, made: Material, method: str) -> MethodInputs:
    """Files that ``method`` needs."""
    settings = job.recipe.swap
    return MethodInputs(
        model=job.model,
        tokenizer=str(made.tokenizer),
        vectors=made.vectors if need_vectors(job, [method]) else None,
        store=made.store,
        words=(Path(settings.words[0]), Path(settings.words[1]), Path(settings.words[2])) if settings.words else None,
        helper=settings.helper,
        source_text=corpora["source"].train if "source" in corpora else [],
        seed=job.recipe.seed,
        match_frequencies=settings.match_frequencies,
        progress=job.progress,
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


def bake_off(job: Job, corpora: text.Corpora, made: Material) -> Ranking:
    """Short trainings with every method that the recipe has everything for."""
    recipe, settings, out = job.recipe, job.recipe.swap, job.folder / BAKE_OFF_NAME
    limit = recipe.evaluate.bytes_while_training

    def make() -> dict[str, Any]:
        files = method_inputs(job, corpora, made, AUTO)
        texts = {language: corpus.held_out(limit).watched for language, corpus in corpora.items()}
        ranking = probe_methods(
            job.model,
            Tokenizer.from_pretrained(made.tokenizer),
            settings.candidates or files.candidates(),
            ProbeText(made.stores, texts["target"], texts.get("source", ()), recipe.evaluate.window),
            settings=probe_settings(recipe.train, settings.probe_steps),
            swap=swap_options(recipe, SwapOptions.method),
            options=files.options,
            match_frequencies=settings.match_frequencies,
            progress=job.progress,
        )
        write_atomically(out, json.dumps(ranking.rows, indent=2) + "\n")
        return {"rows": ranking.rows}

    stamp = {"swap": asdict(settings), "train": asdict(recipe.train), "bytes": limit, "seed": recipe.seed}
    stamp["shares"] = [share.described for share in made.stores]
    inputs: dict[str, Any] = {"model": job.model, "tokenizer": made.tokenizer, "vectors": made.vectors}
    inputs |= {share.name: share.store for share in made.stores}
    inputs |= {f"measured {name}": part.validation for name, part in text.all_parts(corpora).items()}
    rows: Ranking = job.run.stage("bake-off", out, make, settings=stamp, inputs=inputs)["rows"]
    return rows


def swapped(job: Job, corpora: text.Corpora, made: Material, method: str, *, ranking: Ranking = ()) -> Arm:
    """The model with the new tokenizer, rows made by ``method``, which ``ranking`` has chosen if there is one."""
    settings, out = job.recipe.swap, job.folder / "swapped" / method
    files, options = method_inputs(job, corpora, made, method), swap_options(job.recipe, method)
    inputs: dict[str, Path | None] = {
        "model": job.model,
        "tokenizer": made.tokenizer,
        "store": files.store,
        "vectors": files.vectors,
        "helper": Path(settings.helper) if settings.helper and method == "clp" else None,
        **{f"words {i}": Path(file) for i, file in enumerate(settings.words) if method == "wechsel"},
    }

    def make() -> dict[str, Any]:
        limit = job.recipe.evaluate.bytes_while_training
        texts: dict[str, Any] = {
            f"{side}_text": corpora[side].held_out(limit).watched for side in SIDES if side in corpora
        }
        swap = files.complete(options)
        return swap_folder(job.model, made.tokenizer, out, swap=swap, ranking=list(ranking), **texts).to_dict()

    stamp = {name: value for name, value in asdict(options).items() if value is not None}
    stamp["match_frequencies"] = settings.match_frequencies
    present = {name: path for name, path in inputs.items() if path is not None}
    report = job.run.stage(f"swap-{method}", out, make, settings=stamp, inputs=present)
    return Arm(method, out, made.tokenizer, made.stores, report)


def kept(job: Job, corpora: text.Corpora) -> Arm:
    """The model as it is, with its own tokenizer."""
    return Arm(KEEP, job.model, job.model, text.stores(job, corpora, job.model))
