"""``adapt``: the stages of a recipe, in order.

    files -> documents -> tokenizer -> token store -> token vectors -> swapped model -> training -> evaluation -> report

Every arm of the comparison (the recipe's method, and each of ``compare``) shares the corpus, the tokenizer and the
budget; they differ in how the rows of new tokens are made. ``keep`` trains the model as it is, with its own tokenizer.
A stage is a function that takes what it reads and returns what it wrote; each is entered once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from langadapt.artefacts.folders import write_atomically
from langadapt.machine import describe_device, versions
from langadapt.pipeline import swap, text
from langadapt.pipeline.evaluation import evaluated
from langadapt.pipeline.job import Job, open_job
from langadapt.pipeline.training import folder_of, train_arm, trained
from langadapt.progress import Progress
from langadapt.recipe.recipe import Recipe
from langadapt.report import write_report
from langadapt.report.results import RESULTS_NAME, Cost, Results, TokenizerFacts, Training
from langadapt.swap.rows.names import AUTO, KEEP
from langadapt.tokenizer.encoder import Tokenizer
from langadapt.training import parallel
from langadapt.training.result import TrainResult
from langadapt.training.resume import Extend


def adapt(recipe: Recipe, *, progress: Progress | None = None) -> dict[str, Any]:
    """Run all stages of ``recipe`` and return the results, as written to ``OUT/results.json``.

    Stages whose inputs and settings have not changed are not run again, an interrupted training goes on from its last
    checkpoint: call it again after any interruption.

    Raises:
        ConfigError: the recipe cannot work.
        DataError: an input or an artefact is broken; the message names the file.
        LangadaptError: another process is running in the same folder.
    """
    job = open_job(recipe, progress)
    with job.run.locked():
        job.write_recipe()
        results = asdict(run_stages(job))
        write_atomically(job.folder / RESULTS_NAME, json.dumps(results, indent=2, ensure_ascii=False) + "\n")
        write_report(job.folder)
    return results


def run_stages(job: Job) -> Results:
    """All stages, and what they found."""
    recipe = job.recipe
    corpora = text.corpora(job)
    tokenizer = text.tokenizer(job, corpora["target"])
    fertility = text.fertility(job, corpora, tokenizer)
    rows = [evaluated(job, corpora, job.model, job.model)]
    methods = [recipe.swap.method, *recipe.compare]
    made = swap.material(job, corpora, tokenizer, methods) if {*methods} != {KEEP} else None
    ranking = swap.bake_off(job, corpora, made) if made and recipe.swap.method == AUTO else []
    if ranking:
        winner = ranking[0]["method"]
        methods = [winner, *(method for method in recipe.compare if method != winner)]
    arms, trainings = [], {}
    for method in methods:
        if made is None or method == KEEP:
            arm = swap.kept(job, corpora)
        else:
            arm = swap.swapped(job, corpora, made, method, ranking=ranking if method == methods[0] else ())
            rows.append(evaluated(job, corpora, arm.model, arm.tokenizer, method=method, phase="swapped"))
        arms.append(arm)
        trainings[method] = Training(**trained(job, corpora, arm))
        final = folder_of(job, arm) / "final"
        rows.append(evaluated(job, corpora, final, arm.tokenizer, method=method, phase="trained"))
    tokenizers = {"source": (job.model, Path(recipe.model).name), "target": (tokenizer, "new")}
    return Results(
        name=recipe.name,
        languages={"source": recipe.source_language, "target": recipe.target_language},
        versions=versions(),
        device=describe_device(),
        method=methods[0],
        tokenizers={side: describe_tokenizer(folder, name) for side, (folder, name) in tokenizers.items()},
        fertility=fertility,
        corpus={language: corpus.report for language, corpus in corpora.items()},
        swap={arm.method: arm.report for arm in arms if arm.report is not None},
        bake_off=list(ranking),
        rows=rows,
        training=trainings,
        cost=cost(recipe, trainings[methods[0]], job.run.seconds),
    )


def train(recipe: Recipe, *, progress: Progress | None = None, extend: Extend = False) -> dict[str, Any]:
    """Run the stages of ``recipe`` up to its main training, and return that training's summary.

    Under ``torchrun`` the first process makes the stages before training while the others wait, then all train. Like
    :func:`adapt` without evaluation, comparison and report; ``adapt`` of the same recipe goes on from here. ``extend``:
    go on with a larger budget or at other rates.
    """
    job = open_job(recipe, progress)
    processes = parallel.join(recipe.train) if parallel.under_torchrun() else parallel.ProcessGroup()

    def prepare() -> tuple[text.Corpora, swap.Arm]:
        job.write_recipe()
        corpora = text.corpora(job)
        return corpora, swap.own_arm(job, corpora)

    if not processes.is_main:
        corpora, arm = parallel.main_process_first(processes, job.folder, prepare)
        return train_arm(job, corpora, arm, extend=extend)
    with job.run.locked():
        corpora, arm = parallel.main_process_first(processes, job.folder, prepare)
        return trained(job, corpora, arm, extend)


def cost(recipe: Recipe, training: TrainResult, seconds: Mapping[str, float]) -> Cost:
    """Seconds per stage, and what the accelerators cost."""
    price, hours = recipe.budget.price_per_gpu_hour, None
    if torch.cuda.is_available() and not recipe.train.device.startswith("cpu"):
        # Not the GPUs that are here now: several processes train, one evaluates.
        hours = training.seconds * training.layout.get("processes", 1) / 3600
    money = hours * price if hours is not None and price is not None else None
    return Cost({name: round(value, 3) for name, value in seconds.items()}, hours, money)


def describe_tokenizer(folder: Path, name: str) -> TokenizerFacts:
    """Name and size for the report."""
    tokenizer = Tokenizer.from_pretrained(folder)
    return TokenizerFacts(name, tokenizer.vocab_size, tokenizer.backend)
