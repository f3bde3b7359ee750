"""The swap on files: shards are streamed, only the embedding matrices are ever in memory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from langadapt.artefacts.folders import MANIFEST_NAME, SWAP_REPORT_NAME, new_folder
from langadapt.errors import ConfigError, DataError, MismatchError
from langadapt.models.embeddings import check_other_tables, embedding_modules, padded_size
from langadapt.models.folder import read_config, readable
from langadapt.models.weights import INDEX, Entry, read_header, read_tensor, rewrite, weight_files
from langadapt.swap.matching import VocabularyMatch, match_vocabularies
from langadapt.swap.report import SwapReport, make_report
from langadapt.swap.rows.initialize import check_rows, plan_rows
from langadapt.swap.rows.plan import RowPlan
from langadapt.swap.special_ids import doubts, translated_ids
from langadapt.tokenizer.files import TOKENIZER_FILES
from langadapt.vectors.cbow import load_vectors

LEFT_OUT = {".safetensors", ".bin", ".pt", ".pth", ".gguf", ".msgpack", ".h5", ".onnx", ".md"}
"""Weights that are rewritten or would be stale, and the old model's card."""


@dataclass(frozen=True)
class Layout:
    """Where the rows of a model lie in its files."""

    entries: dict[str, Entry]
    """All tensors."""
    table: str
    """Name of the input matrix."""
    head: str | None
    """Name of the output matrix, where the files hold one."""
    bias: str | None
    """Name of the output bias."""

    @property
    def names(self) -> list[str]:
        """All tensors with a row per token."""
        return [name for name in (self.table, self.head, self.bias) if name is not None]


@torch.no_grad()
def swap_folder(
    model: str | Path,
    tokenizer: Any,
    out: str | Path | None,
    *,
    method: str = "focus",
    output_method: str | None = None,
    vectors: Any = None,
    seed: int = 0,
    pad_to_multiple_of: int = 128,
    calibrate: bool = False,
    fuzzy: bool = False,
    source_tokenizer: Any = None,
    trust_remote_code: bool = False,
    dry_run: bool = False,
    target_text: Iterable[str] | None = None,
    source_text: Iterable[str] | None = None,
    ranking: list[dict[str, Any]] | None = None,
    progress: Callable[[str, int, int | None, str], Any] | None = None,
    **options: Any,
) -> SwapReport:
    """Swap the tokenizer of a model on disk.

    Memory is that of the largest embedding matrix before and after; all other tensors are copied as bytes.

    Args:
        model: a Hugging Face folder with safetensors weights.
        tokenizer: the new one: a folder (its files are copied) or any form that :func:`match_vocabularies` takes.
        out: the new folder, replaced when it exists; not needed for a dry run.
        vectors: an array, or a file of ``save_vectors``, for methods that need them.
        source_tokenizer: the model's own, where it does not lie in the model's folder.
        trust_remote_code: run model code that comes with the folder, to learn where its embeddings are.
        dry_run: report what would happen and write nothing.
        ranking: rows of the bake-off that chose ``method``, for the report.
        progress: called as ``progress(phase, done, total, unit)``.

    The other arguments, and the errors, are those of :func:`langadapt.swap_tokenizer`.
    """
    folder = Path(model)
    match = match_vocabularies(source_tokenizer if source_tokenizer is not None else folder, tokenizer, fuzzy=fuzzy)
    layout = find_layout(folder, trust_remote_code)
    rows = padded_size(match.target_size, pad_to_multiple_of)
    if isinstance(vectors, (str, Path)):
        vectors = load_vectors(vectors, tokenizer=match.target)
    plans = make_plans(layout, match, method, output_method, vectors, options)
    changed = sum(layout.entries[name].size for name in layout.names)
    before = sum(entry.size for entry in layout.entries.values())
    old_rows, width = layout.entries[layout.table].shape
    after = before - changed + changed // old_rows * rows
    config = read_config(folder)
    warnings = doubts(config.get("text_config") or config, match, old_rows)

    def report(notes: list[str]) -> SwapReport:
        made = make_report(
            match,
            plans[layout.table],
            method=method,
            output_method=output_method,
            tied=layout.head is None,
            rows_before=old_rows,
            rows_after=rows,
            width=width,
            parameters=(before, after),
            notes=[*warnings, *notes],
            target_text=target_text,
            source_text=source_text,
            counts=options.get("counts"),
        )
        return made if ranking is None else replace(made, ranking=ranking)

    if dry_run:
        check_layout(layout, match)
        return report([])
    if out is None:
        raise ConfigError("no output folder was given")
    if Path(out).resolve() == folder.resolve():
        raise ConfigError(f"{out}: is the source model itself; choose another folder")
    with new_folder(Path(out)) as temporary:
        write_weights(folder, temporary, layout, match, plans, (rows, seed, calibrate), progress)
        write_configs(folder, temporary, match, rows)
        saved, notes = match.target.tokenizer.with_templates_of(match.source.tokenizer)
        saved.save_pretrained(temporary)
        result = report(notes)
        write_report(temporary, result, plans, layout)
    return result


def make_plans(
    layout: Layout,
    match: VocabularyMatch,
    method: str,
    output_method: str | None,
    vectors: Any,
    options: dict[str, Any],
) -> dict[str, RowPlan]:
    """A plan for each tensor with a row per token; one computation where the methods are the same."""
    plan = plan_rows(method, match, vectors=vectors, **options)
    other = (
        plan if output_method in (None, method) else plan_rows(output_method or "", match, vectors=vectors, **options)
    )
    plans = {layout.table: plan}
    if layout.head is not None:
        plans[layout.head] = other
    if layout.bias is not None:
        plans[layout.bias] = replace(other if layout.head is not None else plan, fill="mean")
    return plans


def find_layout(folder: Path, trust_remote_code: bool = False) -> Layout:
    """Find the embedding tensors: the model's class says where, on a skeleton without weights.

    Raises:
        DataError: the files do not hold them, or are no model.
        ConfigError: the model has no embeddings that can be swapped.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    if not (folder / "config.json").is_file():
        raise DataError(f"{folder}: no config.json; this is no model folder")
    entries: dict[str, Entry] = {}
    for file in weight_files(folder):
        entries.update(read_header(file)[0])
    with readable(folder), torch.device("meta"):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
        skeleton = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    table, head = embedding_modules(skeleton)
    check_other_tables(skeleton, table, head)
    prefix = skeleton.base_model_prefix
    module_names = {id(module): name for name, module in skeleton.named_modules()}
    table_name = stored_name(f"{module_names[id(table)]}.weight", prefix, entries)
    if table_name is None:
        raise DataError(
            f"{folder}: the weights hold no `{module_names[id(table)]}.weight`; the files are no whole model"
        )
    head_name = bias_name = None
    if head is not None:
        head_name = stored_name(f"{module_names[id(head)]}.weight", prefix, entries)
        if head_name is None and head.weight is not table.weight:
            raise DataError(f"{folder}: the weights hold no `{module_names[id(head)]}.weight`, and it is not tied")
        if getattr(head, "bias", None) is not None:
            bias_name = stored_name(f"{module_names[id(head)]}.bias", prefix, entries)
    return Layout(entries, table_name, head_name if head_name != table_name else None, bias_name)


def input_rows(folder: Path) -> Tensor:
    """The input embeddings of a model on disk."""
    layout = find_layout(folder)
    return read_tensor(layout.entries[layout.table])


def stored_name(name: str, prefix: str, entries: Mapping[str, Entry]) -> str | None:
    """``name`` as the files have it: with or without the base model's prefix."""
    for candidate in (name, name.removeprefix(f"{prefix}."), f"{prefix}.{name}"):
        if candidate in entries:
            return candidate
    return None


def check_layout(layout: Layout, match: VocabularyMatch) -> None:
    """What a swap would check, tensor by tensor."""
    for name in layout.names:
        load_rows(layout, name, match)


def load_rows(layout: Layout, name: str, match: VocabularyMatch) -> Tensor:
    """A tensor with a row per token, as a matrix."""
    tensor = read_tensor(layout.entries[name])
    matrix = tensor[:, None] if tensor.dim() == 1 else tensor
    check_rows(matrix, match)
    if len(matrix) != layout.entries[layout.table].shape[0]:
        raise MismatchError(
            f"`{name}` has {len(matrix)} rows, `{layout.table}` {layout.entries[layout.table].shape[0]}; "
            "they must be as many"
        )
    return matrix


def write_weights(
    folder: Path,
    out: Path,
    layout: Layout,
    match: VocabularyMatch,
    plans: Mapping[str, RowPlan],
    settings: tuple[int, int, bool],
    progress: Callable[[str, int, int | None, str], Any] | None,
) -> None:
    """Stream all shards into ``out``."""
    rows, seed, calibrate = settings
    done, total = 0, sum(entry.end - entry.start for entry in layout.entries.values())

    def advance(n: int) -> None:
        nonlocal done
        done += n
        if progress is not None:
            progress("write weights", done, max(total, done), "bytes")

    def make(name: str) -> Tensor:
        matrix = load_rows(layout, name, match)
        # A bias is no direction: its size is not calibrated.
        scaled = calibrate and name != layout.bias
        (made,) = plans[name].apply(matrix, seed=seed, rows=rows, calibrate=scaled)
        return made.reshape(shapes[name])

    shapes = {name: (rows, *layout.entries[name].shape[1:]) for name in layout.names}
    size = 0
    for file in weight_files(folder):
        size += rewrite(file, out / file.name, shapes, make, advance)
    index = folder / INDEX
    if index.is_file():
        content = json.loads(index.read_text(encoding="utf-8"))
        content.setdefault("metadata", {})["total_size"] = size
        (out / INDEX).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def write_configs(folder: Path, out: Path, match: VocabularyMatch, rows: int) -> None:
    """Copy what belongs to the model, with sizes and special tokens of the new vocabulary."""
    for path in sorted(folder.iterdir()):
        stale = path.suffix in LEFT_OUT or path.name in (INDEX, SWAP_REPORT_NAME, MANIFEST_NAME, *TOKENIZER_FILES)
        if path.is_file() and not stale and not path.name.startswith("."):
            shutil.copyfile(path, out / path.name)
    config = read_config(folder)
    sections = [config, *(config[key] for key in ("text_config", "llm_config") if isinstance(config.get(key), dict))]
    sized = [section for section in sections if "vocab_size" in section] or [sections[-1]]
    for section in sized:
        section["vocab_size"] = rows
    for section in sections:
        section.update(translated_ids(section, match))
    write_json(out / "config.json", config)
    generation = folder / "generation_config.json"
    if generation.is_file():
        content = json.loads(generation.read_text(encoding="utf-8"))
        content.update(translated_ids(content, match))
        write_json(out / "generation_config.json", content)


def write_json(path: Path, content: Any) -> None:
    """As transformers writes it."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_report(out: Path, report: SwapReport, plans: Mapping[str, RowPlan], layout: Layout) -> None:
    """The report beside the weights, with the ids of rows that were not copied as ``[first, last]`` pairs."""
    kept = plans[layout.table].copied
    new = np.setdiff1d(np.arange(report.rows_after), kept)
    breaks = np.flatnonzero(np.diff(new) > 1)
    firsts, lasts = np.concatenate([[0], breaks + 1]), np.concatenate([breaks, [len(new) - 1]])
    spans = [[int(new[a]), int(new[b])] for a, b in zip(firsts, lasts, strict=True)] if len(new) else []
    write_json(out / SWAP_REPORT_NAME, {**report.to_dict(), "new_rows": spans})
