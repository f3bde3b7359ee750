"""What `auto` in a recipe's training comes to, once its text is counted: one answer for all arms."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from langadapt.models.folder import read_config
from langadapt.pipeline.job import Job
from langadapt.training import StoreShare
from langadapt.training.choices import is_settled, notes, settle
from langadapt.training.facts import facts_of
from langadapt.training.parallel import ProcessGroup
from langadapt.training.resume import as_before

log = logging.getLogger(__name__)


def settled(job: Job, stores: Sequence[StoreShare], processes: ProcessGroup) -> Job:
    """``job`` with a recipe whose training says numbers, which is kept with what is made by it; what a user should know
    of them is said. ``stores``: of the recipe's own method."""
    settings = job.recipe.train
    for run in sorted(job.folder.glob("trained/*")):
        settings = as_before(settings, run)
    facts = facts_of(stores, read_config(job.model), settings, processes, folder=job.model)
    if not is_settled(settings):
        settings = settle(settings, facts)
    job = replace(job, recipe=replace(job.recipe, train=settings))
    job.write_recipe()
    for note in notes(settings, facts):
        log.warning("note: %s", note)
    return job
