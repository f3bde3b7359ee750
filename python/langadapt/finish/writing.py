"""Writes a finished model: other files and configurations, then the weights shard by shard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from langadapt.finish.job import FinishJob
from langadapt.models.folder import read_generation, write_json
from langadapt.models.weights import rewrite_shards
from langadapt.progress import Progress
from langadapt.swap.files import config_parts, copy_other_files, set_rows
from langadapt.swap.special_ids import ALWAYS, translated_ids


def write_finished(job: FinishJob, out: Path, scale: float, progress: Progress | None = None) -> None:
    """All files of the finished model."""
    copy_other_files(job.adapted.folder, out)
    write_configs(job, out)
    job.tokens.tokenizer.save_pretrained(out)
    write_weights(job, out, scale, progress)


def write_weights(job: FinishJob, out: Path, scale: float, progress: Progress | None) -> None:
    """Stream all shards into ``out``."""
    stored, names = job.adapted.stored, job.adapted.names
    shapes = {key: (job.rows, *stored.entries[key].shape[1:]) for key in stored.names}
    if scale:
        body = job.adapted.body
        shapes |= {key: entry.shape for key, entry in stored.entries.items() if names[key] in body and entry.size}
    elif not job.tokens.added:
        shapes = {}
    rewrite_shards(
        stored.folder,
        out,
        shapes,
        lambda key: job.tensor(names[key], scale),
        entries=stored.entries,
        progress=progress,
    )


def write_configs(job: FinishJob, out: Path) -> None:
    """The adapted configuration with the instruct model's special tokens; its way to generate, in the new ids."""
    stored, tuned = job.adapted.stored, job.instruct.stored
    content, section = config_parts(stored)
    if job.rows != stored.tables.rows:
        set_rows(stored, content, section, job.rows)
    spoken = translated_ids(special_ids(tuned.config.get_text_config().to_dict()), job.spoken)
    for part in {id(part): part for part in (content, section)}.values():
        part |= spoken
    write_json(out / "config.json", content)
    generation, own = read_generation(tuned.folder), read_generation(job.adapted.folder)
    if generation is not None:
        ids = translated_ids(generation, job.spoken, tuned.folder / "generation_config.json")
        ends, document_end = ids["eos_token_id"], job.adapted.tokenizer.eos_token_id
        if isinstance(ends, list) and document_end is not None and document_end not in ends:
            # Of several ends one is that of documents, which has another name in the adapted vocabulary.
            ends.append(document_end)
        write_json(out / "generation_config.json", generation | ids)
    elif own is not None:
        # What the adapted model has of its own would end replies at the end of documents alone.
        write_json(out / "generation_config.json", own | {key: spoken[key] for key in ALWAYS})


def special_ids(config: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a configuration that hold special tokens' ids."""
    return {key: value for key, value in config.items() if key.endswith("_token_id") and value is not None}
