"""A run that was begun elsewhere, perhaps on a machine that is gone: its checkpoints in a store, there and back."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from langadapt.artefacts.folders import write_atomically
from langadapt.artefacts.mirror import Mirror, bring_copy, check_writable, newest_copy
from langadapt.artefacts.remote import shown
from langadapt.errors import DataError
from langadapt.training.checkpoint import STATE, found
from langadapt.training.job import TrainingJob
from langadapt.training.parallel import ProcessGroup, join, main_process_first
from langadapt.training.resume import RUN_NAME, Extend, check_same, with_autos
from langadapt.training.settings import TrainSettings

log = logging.getLogger(__name__)


def mirror_of(job: TrainingJob, processes: ProcessGroup) -> Mirror | None:
    """What sends the checkpoints of a run, in its main process; none where they stay here, as those of rehearsals."""
    url = job.settings.checkpoints_url
    return Mirror(url) if url is not None and job.described and processes.is_main else None


def bring_back(
    settings: TrainSettings, out: Path, describe: Callable[[TrainSettings], Mapping[str, Any]], extend: Extend
) -> None:
    """Fetch the newest checkpoint that ``checkpoints_url`` has of this run into ``out``, if there is none in ``out``.

    Every process of a distributed run calls this. ``describe``: by `resume.describe_run`.

    Raises:
        MismatchError: what lies there is of another run; names what differs.
        ConfigError, PermissionError, LangadaptError: nothing can be read or written there; says why.
        DataError: it is damaged.
    """
    url = settings.checkpoints_url
    if url is None:
        return

    def fetch() -> None:
        check_writable(url)
        if found(out / "checkpoints") or (out / "final").is_dir():
            return
        copy = newest_copy(url, STATE)
        if copy is None:
            return
        name, state = copy
        run = state.get("run")
        if not isinstance(run, dict) or not {"settings", "inputs"} <= run.keys():
            raise DataError(f"{shown(url)}/{name}/{STATE}: says nothing of its run; delete this folder of the store")
        check_same(run, describe(with_autos(settings, run["settings"])), shown(url), extend)
        log.info("fetching %s/%s", shown(url), name)
        bring_copy(url, name, out / "checkpoints")
        write_atomically(out / RUN_NAME, json.dumps(run, indent=2, ensure_ascii=False) + "\n")

    out.mkdir(parents=True, exist_ok=True)
    main_process_first(join(settings), out, fetch)
