"""The finished model on disk: shards are streamed; one tensor at most, and blocks of two others, are in memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from langadapt.artefacts.folders import FINISH_REPORT_NAME, check_replaceable, new_folder
from langadapt.artefacts.places import check_space
from langadapt.checks import at_least
from langadapt.corpus.samples import first_bytes
from langadapt.finish.job import FinishJob, prepare
from langadapt.finish.options import AUTO, Method, Scale
from langadapt.finish.sweep import SAMPLE_BYTES, Probe, choose_scale
from langadapt.finish.writing import write_finished
from langadapt.models.folder import write_json
from langadapt.progress import Progress
from langadapt.swap.rows.kept import read_plans

SHAPED_BY = ("rope_scaling", "rope_theta", "rope_parameters", "max_position_embeddings", "sliding_window")
"""Entries of a configuration that change what the same weights compute."""


@dataclass
class FinishReport:
    """What was done."""

    method: Method
    scale: float
    instruct: str
    base: str | None
    rows: dict[str, int]
    """Rows by how they got a difference: ``own``, ``combined``, ``none``, and markers that were ``added``."""
    sweep: list[dict[str, Any]] = field(default_factory=list)
    """One row for each scale that was measured, see :mod:`langadapt.finish.sweep`."""
    notes: list[str] = field(default_factory=list)
    """What else a user should know."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@torch.no_grad()
def finish_folder(
    model: str | Path,
    instruct: str | Path,
    out: str | Path,
    *,
    base: str | Path | None = None,
    swapped: str | Path | None = None,
    method: Method = "residual",
    scale: Scale = "auto",
    texts: Mapping[str, Iterable[str]] | None = None,
    prompts: Iterable[str] = (),
    device: str = "auto",
    trust_remote_code: bool = False,
    progress: Progress | None = None,
) -> FinishReport:
    """Give an adapted model the chat of an instruct model of the same base.

    Memory is that of one tensor and of blocks of two more; measuring scales holds one model besides.

    Args:
        model: folder of the adapted model.
        instruct: folder of the instruct model: also its chat template, generation config and special tokens are taken.
        out: the new folder, replaced when it exists.
        base: folder of the model that both were made from; ``elchat`` can do without.
        swapped: folder that the swap wrote, with the weights of its rows; none = ``model``, or, where it has none, the
            pieces of each new token weigh alike.
        method: see :mod:`langadapt.finish.arithmetic`.
        scale: how much; ``auto``: see :mod:`langadapt.finish.sweep`.
        texts: of ``auto``: held-out documents by language.
        prompts: of ``auto``: what a user says, besides a few greetings.
        device: of ``auto``.
        trust_remote_code: run model code that comes with the folders.
        progress: called as ``(phase, done, total, unit)``.

    Raises:
        ConfigError: models that do not belong together (names the tensors), no template, or no text for ``auto``.
        DataError: files that are damaged, or quantised weights.
    """
    # Long: a public function, whose arguments and errors are explained; the body has 18 lines.
    check_replaceable(Path(out), [folder for folder in (model, instruct, base) if folder is not None])
    at_least(0, scale=None if scale == AUTO else float(scale))
    places = (None if folder is None else Path(folder) for folder in (base, swapped))
    job = prepare(Path(model), Path(instruct), *places, method=method, trust_remote_code=trust_remote_code)
    sizes = sum(entry.end - entry.start for entry in job.adapted.stored.entries.values())
    check_space(Path(out), sizes * (2 if scale == AUTO else 1))
    sweep: list[dict[str, Any]] = []
    if scale == AUTO:
        probe = Probe(
            {name: first_bytes(documents, SAMPLE_BYTES) for name, documents in (texts or {}).items()},
            tuple(prompts),
            device,
        )
        scale, sweep = choose_scale(job, probe, Path(out).resolve(), progress=progress)
    report = FinishReport(
        method, float(scale), str(instruct), None if base is None else str(base), row_counts(job), sweep, notes_of(job)
    )
    with new_folder(Path(out)) as folder:
        write_finished(job, folder, float(scale), progress)
        write_json(folder / FINISH_REPORT_NAME, report.to_dict())
    return report


def row_counts(job: FinishJob) -> dict[str, int]:
    """How many rows of the input matrix got what."""
    counts = {"added": len(job.tokens.added)}
    if job.method == "elchat":
        return counts
    plan = job.plans.input
    return {"own": len(plan.copied), "combined": len(plan.combined), "none": len(plan.missing), **counts}


def notes_of(job: FinishJob) -> list[str]:
    """What a user should know of the finished model."""
    notes = list(job.tokens.notes)
    if job.method != "elchat" and read_plans(job.swapped) is None:
        notes.append(
            f"{job.swapped}: keeps no weights of a swap; new tokens get the mean difference of their source pieces"
        )
    ours, theirs = (member.stored.config.get_text_config().to_dict() for member in (job.adapted, job.instruct))
    notes += [
        f"`{key}` is {ours.get(key)!r} in the adapted model's configuration, which is kept, and {theirs.get(key)!r} in "
        "the instruct model's"
        for key in SHAPED_BY
        if ours.get(key) != theirs.get(key)
    ]
    return notes
