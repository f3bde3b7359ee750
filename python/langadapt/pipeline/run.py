"""``adapt``: the stages of a recipe, in order.

    files -> documents -> tokenizer -> token store -> token vectors -> swapped model -> training -> evaluation -> report

Every arm of the comparison (the recipe's method, and each of ``compare``) shares the corpus, the tokenizer and the
budget; they differ in how the rows of new tokens are made. ``keep`` trains the model as it is, with its own tokenizer.
A stage is a function that takes what it reads and returns what it wrote; each is entered once.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from langadapt.artefacts.engine import Engine
from langadapt.artefacts.folders import write_atomically
from langadapt.artefacts.names import RESULTS_NAME
from langadapt.artefacts.plain_json import to_json
from langadapt.machine import describe_device, versions
from langadapt.pipeline import swap, text
from langadapt.pipeline.chat import conversations
from langadapt.pipeline.choices import settled
from langadapt.pipeline.evaluation import evaluated, held_out
from langadapt.pipeline.finish import finished
from langadapt.pipeline.job import Job, open_job
from langadapt.pipeline.training import check_converged, folder_of, train_arm, trained
from langadapt.progress import Progress
from langadapt.recipe.recipe import Recipe, RecipeLike
from langadapt.report import write_report
from langadapt.report.outcome import Outcome
from langadapt.report.results import Cost, Results, TokenizerFacts, Training
from langadapt.swap.rows.names import AUTO, KEEP
from langadapt.tokenizer.conversations import Example
from langadapt.tokenizer.encoder import Tokenizer
from langadapt.training import parallel
from langadapt.training.result import TrainResult
from langadapt.training.resume import Extend

log = logging.getLogger(__name__)


def adapt(recipe: RecipeLike, *, progress: Progress | None = None, engine: Engine | None = None) -> Outcome:
    """Run all stages of ``recipe`` and return the results, as written to ``OUT/results.json``, with a verdict.

    Stages whose inputs and settings have not changed are not run again, an interrupted training goes on from its last
    checkpoint: call it again after any interruption.

    Args:
        recipe: itself, the path of its YAML file, or its plain values.
        progress: called as ``(phase, done, total or None, unit)``.
        engine: builds the corpora in shards, on a cluster.

    Raises:
        ConfigError: the recipe cannot work.
        TypeError: it is none.
        DataError: an input or an artefact is broken; the message names the file.
        TrainingDiverged: the recipe's own training made the model worse; results and report say so, too.
        LangadaptError: another process is running in the same folder.
    """
    job = open_job(Recipe.given(recipe).of_text("adapt"), progress)
    with job.run.locked():
        job.write_recipe()
        outcome = Outcome(asdict(run_stages(job)), job.folder)
        outcome["verdict"] = outcome.verdict.to_dict()
        write_atomically(job.folder / RESULTS_NAME, to_json(outcome) + "\n")
        write_report(job.folder)
    for method, training in outcome["training"].items():
        if method != outcome["method"] and training["diverged"]:
            log.warning("%s: %s", method, training["diverged"])
    check_converged(outcome["training"][outcome["method"]])
    return outcome


def run_stages(job: Job) -> Results:
    """All stages, and what they found."""
    recipe = job.recipe
    corpora = text.corpora(job)
    tokenizer = text.tokenizer(job, corpora)
    fertility = text.fertility(job, corpora, tokenizer)
    held = held_out(job, corpora)
    rows = [evaluated(job, corpora, job.model, job.model)]
    methods = [recipe.swap.method, *recipe.compare]
    made = swap.material(job, corpora, tokenizer, methods) if {*methods} != {KEEP} else None
    own = made.stores if made and methods[0] != KEEP else text.stores(job, corpora, job.model)
    job = settled(job, own, parallel.ProcessGroup())
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
        if recipe.finish.instruct is not None and method == methods[0]:
            chat = finished(job, corpora, arm, final)
            rows.append(evaluated(job, corpora, chat, chat, method=method, phase="finished"))
    tokenizers = {"source": (job.model, Path(recipe.model).name), "target": (tokenizer, "new")}
    return Results(
        name=recipe.name,
        languages={"source": recipe.source_language, "target": recipe.target_language},
        versions=versions(),
        device=describe_device(),
        method=methods[0],
        tokenizers={side: describe_tokenizer(folder, name) for side, (folder, name) in tokenizers.items()},
        fertility=fertility,
        corpus={name: part.report for name, part in text.all_parts(corpora).items()},
        swap={arm.method: arm.report for arm in arms if arm.report is not None},
        bake_off=list(ranking),
        rows=rows,
        training=trainings,
        cost=cost(recipe, trainings[methods[0]], job.run.seconds),
        held_out=held,
    )


def train(recipe: RecipeLike, *, progress: Progress | None = None, extend: Extend = False) -> dict[str, Any]:
    """Run the stages of ``recipe`` up to its main training, and return that training's summary.

    Under ``torchrun`` the first process makes the stages before training while the others wait, then all train. Like
    :func:`adapt` without evaluation, comparison and report; ``adapt`` of the same recipe goes on from here. ``extend``:
    go on with a larger budget or at other rates.
    """
    wanted = Recipe.given(recipe)
    job = open_job(wanted, progress)
    processes = parallel.join(wanted.train) if parallel.under_torchrun() else parallel.ProcessGroup()

    def prepare() -> tuple[text.Corpora, Recipe, swap.Arm, Sequence[Example]]:
        job.write_recipe()
        if wanted.train.data == "chat":
            corpora = text.corpora(job, but="target")
            arm, replies = conversations(job, corpora)
            return corpora, settled(job, arm.stores, processes).recipe, arm, replies
        corpora = text.corpora(job)
        ready, arm = swap.own_arm(job, corpora, processes)
        return corpora, ready.recipe, arm, ()

    with job.run.locked() if processes.is_main else nullcontext():
        corpora, ready, arm, replies = parallel.main_process_first(processes, job.folder, prepare)
        job = replace(job, recipe=ready)
        if processes.is_main:
            summary = trained(job, corpora, arm, extend=extend, replies=replies)
        else:
            summary = train_arm(job, corpora, arm, extend=extend, replies=replies)
    check_converged(summary)
    return summary


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
