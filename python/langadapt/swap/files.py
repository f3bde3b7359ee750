"""The swap on files: shards are streamed, only the embedding matrices are ever in memory."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from langadapt.artefacts.folders import (
    FINISH_REPORT_NAME,
    MANIFEST_NAME,
    SWAP_REPORT_NAME,
    check_replaceable,
    new_folder,
)
from langadapt.artefacts.names import SWAP_ROWS_NAME
from langadapt.artefacts.places import check_space, check_text
from langadapt.errors import ConfigError, DataError, MismatchError
from langadapt.models.embeddings import TokenTables, attribute, find_token_tables, padded_size
from langadapt.models.folder import read_config, read_generation, write_json
from langadapt.models.skeleton import LoadedNames, build_skeleton, loaded_names
from langadapt.models.weights import DTYPES, Entry, read_entries, read_tensor, rewrite_shards, same_values
from langadapt.progress import Progress
from langadapt.swap.matching import VocabularyMatch, match_vocabularies
from langadapt.swap.report import Sizes, SwapReport, make_report
from langadapt.swap.rows.kept import write_plans
from langadapt.swap.rows.options import DEFAULTS, SwapOptions
from langadapt.swap.rows.plan import RowPlan
from langadapt.swap.rows.tables import TablePlans, plan_tables, shifted, table_matrix
from langadapt.swap.special_ids import is_id, mismatch_notes, translated_ids
from langadapt.tokenizer.agreement import check_agreement
from langadapt.tokenizer.files import TOKENIZER_FILES
from langadapt.vectors.cbow import load_vectors

LEFT_OUT = (
    *(".safetensors", ".bin", ".pt", ".pth", ".gguf", ".msgpack", ".h5", ".onnx", ".ot", ".index.json", ".md"),
    *(".model", ".tiktoken", ".spm", ".model.v3"),
)
"""Endings of weights, which are rewritten or would be stale, of the old model's card, and of tokenizers."""
STALE = (
    *(SWAP_REPORT_NAME, SWAP_ROWS_NAME, FINISH_REPORT_NAME, MANIFEST_NAME, *TOKENIZER_FILES),
    *("vocab.bpe", "encoder.json", "tekken.json", "params.json"),
)
"""Files that speak of another model's weights or vocabulary; the last two, Mistral's own, vLLM reads first."""


@dataclass(frozen=True)
class StoredModel:
    """A model in its files: its tensors, and which of them have a row per token."""

    folder: Path
    config: Any
    """What transformers reads from ``config.json``."""
    skeleton: Any
    """The model on the meta device."""
    entries: dict[str, Entry]
    """All tensors, by their names in the files."""
    tables: TokenTables
    names: dict[str, str]
    """Names in the files to names in ``tables``, of all tensors with a row per token; tied ones may be stored twice."""

    @property
    def input(self) -> Entry:
        """The input matrix."""
        return next(self.entries[stored] for stored, name in self.names.items() if name == self.tables.input)

    def total(self, rows: int, size: Callable[[Entry], int]) -> int:
        """A size of all tensors together, with another number of rows."""
        return sum(
            size(entry) // entry.shape[0] * rows if name in self.names else size(entry)
            for name, entry in self.entries.items()
        )


@dataclass(frozen=True)
class PreparedSwap:
    """A swap that is about to be made."""

    stored: StoredModel
    match: VocabularyMatch
    swap: SwapOptions
    plans: TablePlans
    rows: int
    """Of the new tables."""

    @property
    def sizes(self) -> Sizes:
        """For the report."""
        stored, tables = self.stored, self.stored.tables
        return Sizes(
            tied=tables.output is None,
            rows_before=tables.rows,
            rows_after=self.rows,
            width=stored.input.shape[1],
            parameters_before=sum(entry.size for entry in stored.entries.values()),
            parameters_after=stored.total(self.rows, lambda entry: entry.size),
        )


@torch.no_grad()
def swap_folder(
    model: str | Path,
    tokenizer: Any,
    out: str | Path | None,
    *,
    swap: SwapOptions = DEFAULTS,
    source_tokenizer: Any = None,
    trust_remote_code: bool = False,
    dry_run: bool = False,
    target_text: Iterable[str] | None = None,
    source_text: Iterable[str] | None = None,
    ranking: list[dict[str, Any]] | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> SwapReport:
    """Swap the tokenizer of a model on disk.

    Memory is that of the largest embedding matrix before and after; all other tensors are copied as bytes.

    Args:
        model: a Hugging Face folder with safetensors weights.
        tokenizer: the new one: a folder (its files are copied) or any form that :func:`match_vocabularies` takes.
        out: the new folder, replaced when it exists; not needed for a dry run.
        source_tokenizer: the model's own, where it does not lie in the model's folder.
        trust_remote_code: run model code that comes with the folder, to learn where its embeddings are.
        dry_run: report what would happen and write nothing.
        ranking: rows of the bake-off that chose ``method``, for the report.
        progress: called as ``progress(phase, done, total, unit)``.

    The other arguments, and the errors, are those of :func:`langadapt.swap_tokenizer`; ``vectors`` may be a file.
    """
    # Long: one argument a line, and each explained; the body has 20 lines.
    if not dry_run:
        check_out(Path(model), out)
    job = prepare(Path(model), tokenizer, swap.updated(options), source_tokenizer, trust=trust_remote_code)
    notes = stored_notes(job)

    def report(more: Iterable[str] = ()) -> SwapReport:
        texts = {"target_text": target_text, "source_text": source_text}
        made = make_report(job.match, job.plans.input, job.swap, job.sizes, notes=[*notes, *more], **texts)
        return replace(made, ranking=ranking or [])

    if dry_run or out is None:
        for name in job.stored.names:
            load_rows(job, name)
        return report()
    check_space(Path(out), job.stored.total(job.rows, lambda entry: entry.end - entry.start))
    with new_folder(Path(out)) as folder:
        write_configs(job, folder)
        saved, more = job.match.target.tokenizer.with_templates_of(job.match.source.tokenizer)
        saved = saved.with_named_roles()
        saved.save_pretrained(folder)
        check_shapes(job, folder, trust_remote_code)
        check_agreement(saved, folder)
        write_weights(job, folder, progress)
        made = report(more)
        write_report(folder, made, job.plans.input)
        write_plans(folder, job.plans)
    return made


def prepare(folder: Path, tokenizer: Any, swap: SwapOptions, source_tokenizer: Any, *, trust: bool) -> PreparedSwap:
    """All that can be known before anything is written."""
    own = source_tokenizer if source_tokenizer is not None else folder
    match = match_vocabularies(own, tokenizer, fuzzy=swap.fuzzy)
    stored = read_model(folder, trust)
    if isinstance(swap.vectors, (str, Path)):
        swap = replace(swap, vectors=load_vectors(swap.vectors, tokenizer=match.target))
    plans = plan_tables(match, swap, stored.tables.output is not None)
    return PreparedSwap(stored, match, swap, plans, padded_size(match.target_size, swap.pad_to_multiple_of))


def check_out(model: Path, out: str | Path | None) -> None:
    """Refuse a place that cannot be written to, before any work."""
    if out is None:
        raise ConfigError("no output folder was given")
    if Path(out).resolve() == model.resolve():
        raise ConfigError(f"{out}: is the source model itself; choose another folder")
    check_text(Path(out))
    check_replaceable(Path(out))


def read_model(folder: Path, trust_remote_code: bool = False) -> StoredModel:
    """Find the tensors with a row per token: the model's class says which they are, on a skeleton without weights.

    Raises:
        DataError: the files do not hold them, or are no model.
        ConfigError: the model has no embeddings that can be swapped, or further tables for which no rows can be made.
    """
    config, skeleton = build_skeleton(folder, trust_remote_code=trust_remote_code)
    entries = read_entries(folder)
    tables = find_token_tables(skeleton)
    aliases, loaded = table_aliases(skeleton, tables), loaded_names(skeleton, entries)
    names = {key: aliases[name] for key, name in loaded.same.items() if name in aliases}
    missing = [name for name in tables.names if name != tables.bias and name not in names.values()]
    if missing:
        raise DataError(f"{folder}: the weights hold no `{missing[0]}`; the files are no whole model")
    check_tied(folder, entries, names)
    check_parameters(folder, skeleton, entries, loaded=loaded, tables=aliases)
    return StoredModel(folder, config, skeleton, entries, tables, names)


def check_tied(folder: Path, entries: Mapping[str, Entry], names: Mapping[str, str]) -> None:
    """Raise DataError where what the configuration ties is stored twice, and not alike: transformers then takes both,
    others one of them."""
    first: dict[str, str] = {}
    for key, name in names.items():
        one = first.setdefault(name, key)
        if one != key and not same_values(entries[one], entries[key]):
            raise DataError(
                f"{folder}: `{one}` and `{key}` are one matrix by config.json, but not in the files; set "
                "`tie_word_embeddings` to false there if both are meant"
            )


def check_parameters(
    folder: Path, skeleton: Any, entries: Mapping[str, Entry], *, loaded: LoadedNames, tables: Container[str]
) -> None:
    """Raise DataError where the files hold other tensors than the class needs, as far as it loads them as they are.

    Tables by token id are left out, whose rows have errors of their own, and quantised models, whose layers are stored
    in other forms.
    """
    state = skeleton.state_dict(keep_vars=True)
    for key, name in loaded.same.items():
        found, needed = list(entries[key].shape), list(state[name].shape)
        if found != needed and name not in tables and entries[key].dtype in DTYPES:
            raise DataError(f"{folder}: `{key}` is {found}, by config.json {needed}; they are of different models")
    if loaded.complete and not getattr(skeleton.config, "quantization_config", None):
        there = {id(state[name]) for name in loaded.same.values()}
        missing = [name for name, parameter in skeleton.named_parameters() if id(parameter) not in there]
        missing = [name for name in missing if name not in tables]
        if missing:
            raise DataError(
                f"{folder}: the weights lack {len(missing)} parameters of {type(skeleton).__name__}, the first is "
                f"`{missing[0]}`; they are of another model, or not whole"
            )


def table_aliases(skeleton: Any, tables: TokenTables) -> dict[str, str]:
    """All names of the tables, those of tied matrices too, to the one in ``tables``."""
    owners = {id(attribute(skeleton, name)): name for name in tables.names}
    state = skeleton.state_dict(keep_vars=True)
    return {name: owners[id(tensor)] for name, tensor in state.items() if id(tensor) in owners}


def input_rows(folder: Path) -> Tensor:
    """The input embeddings of a model on disk."""
    return read_tensor(read_model(folder).input)


def stored_notes(job: PreparedSwap) -> list[str]:
    """What a user should know of the model before it is swapped."""
    stored = job.stored
    notes = mismatch_notes(stored.config.get_text_config().to_dict(), job.match, stored.tables.rows)
    shift, loaded, rows = job.swap.logit_shift, loaded_names(stored.skeleton, stored.entries), stored.tables.rows
    if shift is not None:
        notes.append(
            f"logits of {len(shift.target_ids):,} new tokens were shifted to how often these come, by {shift.tokens:,} "
            "tokens of text"
        )
    known = loaded.same.keys() | loaded.computed
    unread = [name for name, entry in stored.entries.items() if rows in entry.shape and name not in known]
    if unread:
        notes.append(
            f"{', '.join(unread)}: as long as the input matrix, but transformers does not load it; it was not swapped"
        )
    return notes


def load_rows(job: PreparedSwap, name: str) -> Tensor:
    """A tensor with a row per token, as a matrix."""
    tensor, tables = read_tensor(job.stored.entries[name]), job.stored.tables
    if len(tensor) != tables.others.get(job.stored.names[name], tables.rows):
        raise MismatchError(
            f"{job.stored.folder}: `{name}` has {len(tensor)} rows, but config.json says {tables.rows}; get both again"
        )
    return table_matrix(tensor, tables.rows, job.match)


def write_weights(job: PreparedSwap, out: Path, progress: Progress | None) -> None:
    """Stream all shards into ``out``."""
    stored, rows = job.stored, job.rows

    def make(name: str) -> Tensor:
        table = stored.names[name]
        scale = job.swap.scale_rows and table != stored.tables.bias
        plan = job.plans.of(table, stored.tables)
        made = plan.apply(load_rows(job, name), seed=job.swap.seed, rows=rows, scale=scale)[0]
        return shifted(made, table, stored.tables, job.swap).reshape(shapes[name])

    shapes = {name: (rows, *stored.entries[name].shape[1:]) for name in stored.names}
    rewrite_shards(stored.folder, out, shapes, make, entries=stored.entries, progress=progress)


def write_configs(job: PreparedSwap, out: Path) -> None:
    """Copy what belongs to the model, with sizes and special tokens of the new vocabulary."""
    folder = job.stored.folder
    copy_other_files(folder, out)
    content, section = config_parts(job.stored)
    set_rows(job.stored, content, section, job.rows)
    for part, config in ((content, job.stored.config), (section, job.stored.config.get_text_config())):
        # A file leaves out what is a class's default, which speaks of the class's first vocabulary.
        defaults = {key: value for key, value in config.to_dict().items() if is_id(key)}
        part |= translated_ids(defaults | part, job.match, folder / "config.json")
    write_json(out / "config.json", content)
    generation = read_generation(folder)
    if generation is not None:
        ids = translated_ids(generation, job.match, folder / "generation_config.json")
        write_json(out / "generation_config.json", generation | ids)


def copy_other_files(folder: Path, out: Path) -> None:
    """Copy what belongs to a model besides weights, tokenizer and what was said of them."""
    for path in sorted(folder.iterdir()):
        stale = path.name.endswith(LEFT_OUT) or path.name in STALE
        if path.is_file() and not stale and not path.name.startswith("."):
            shutil.copyfile(path, out / path.name)


def config_parts(stored: StoredModel) -> tuple[dict[str, Any], dict[str, Any]]:
    """The configuration as its file holds it, and its part for text, which may be all of it."""
    content = read_config(stored.folder)
    section = content
    for key in section_path(stored.config, stored.config.get_text_config()):
        section = section.setdefault(key, {})
    return content, section


def set_rows(stored: StoredModel, content: dict[str, Any], section: dict[str, Any], rows: int) -> None:
    """Write the number of rows wherever ``config_parts`` name it."""
    tables, text = stored.tables, stored.config.get_text_config()
    # A file leaves out what is a class's default.
    section |= dict.fromkeys(tables.size_keys({"vocab_size": tables.rows, **text.to_dict()}), rows)
    content |= dict.fromkeys(tables.size_keys(content), rows)


def section_path(config: Any, part: Any) -> tuple[str, ...]:
    """Keys that lead from a configuration to one inside of it."""
    for key, value in vars(config).items() if config is not part else ():
        if value is part:
            return (key,)
        if hasattr(value, "get_text_config") and (path := section_path(value, part)):
            return (key, *path)
    return ()


def check_shapes(job: PreparedSwap, folder: Path, trust_remote_code: bool) -> None:
    """Make sure that the new configuration makes the model that is about to be written, and no other.

    Raises:
        ConfigError: some tensor would get another shape than its file.
    """
    stored = job.stored
    aliases, old = table_aliases(stored.skeleton, stored.tables), stored.skeleton.state_dict()
    for name, tensor in build_skeleton(folder, trust_remote_code=trust_remote_code)[1].state_dict().items():
        shape = [job.rows, *old[name].shape[1:]] if name in aliases else list(old[name].shape)
        if list(tensor.shape) != shape:
            raise ConfigError(
                f"{stored.folder}: with {job.rows} rows `{name}` would be {list(tensor.shape)} instead of {shape}; "
                "this model cannot be swapped; train it with its own tokenizer (`method: keep`)"
            )


def write_report(out: Path, report: SwapReport, plan: RowPlan) -> None:
    """The report beside the weights, with the ids of rows that were not copied as ``[first, last]`` pairs."""
    new = np.setdiff1d(np.arange(report.rows_after), plan.copied)
    breaks = np.flatnonzero(np.diff(new) > 1)
    firsts, lasts = np.concatenate([[0], breaks + 1]), np.concatenate([breaks, [len(new) - 1]])
    spans = [[int(new[a]), int(new[b])] for a, b in zip(firsts, lasts, strict=True)] if len(new) else []
    write_json(out / SWAP_REPORT_NAME, {**report.to_dict(), "new_rows": spans})
