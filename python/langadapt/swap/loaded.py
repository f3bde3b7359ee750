"""Give a model another tokenizer: rows, sizes, special tokens and files agree afterwards, nothing else changes.

:func:`swap_tokenizer` works on a loaded model, in place; :mod:`langadapt.swap.files` on the files of a model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from langadapt.models.embeddings import TokenTables, attribute, count_parameters, find_token_tables, padded_size
from langadapt.models.skeleton import skeleton_of
from langadapt.swap.matching import VocabularyMatch, match_vocabularies
from langadapt.swap.report import Sizes, SwapReport, make_report
from langadapt.swap.rows.options import DEFAULTS, SwapOptions
from langadapt.swap.rows.tables import TablePlans, plan_tables, shifted, table_matrix
from langadapt.swap.special_ids import mismatch_notes, translated_ids


@torch.no_grad()
def swap_tokenizer(
    model: Any,
    source_tokenizer: Any,
    target_tokenizer: Any,
    *,
    swap: SwapOptions = DEFAULTS,
    target_text: Iterable[str] | None = None,
    source_text: Iterable[str] | None = None,
    **options: Any,
) -> SwapReport:
    """Swap the tokenizer of a loaded model, in place.

    The embedding matrices keep their type and device; in low precision no float32 copy of the model is made, the extra
    memory is the new matrices. All other tensors stay as they are, bit by bit. Configuration and generation
    configuration get the new size and special tokens. Any optimizer made before still holds the old matrices.

    Args:
        model: a ``transformers`` causal LM with tied or untied embeddings. Every table that it reads at token ids is
            swapped by the same plan as the input matrix.
        source_tokenizer: the model's own (any form that :func:`match_vocabularies` takes).
        target_tokenizer: the new one.
        swap: options in one object.
        target_text: documents of the target language: their cost under both tokenizers goes into the report.
        source_text: documents of the source language, likewise.
        options: fields of :class:`langadapt.swap.rows.options.SwapOptions` as keywords: ``method``, ``output_method``,
            ``vectors``, ``seed``, ``pad_to_multiple_of``, ``scale_rows``, ``fuzzy`` and those of single methods.

    Raises:
        MismatchError: model and tokenizer do not belong together, or there are no anchors.
        ConfigError: the method or an option is unknown, or something is missing, or the model has tables that cannot be
            swapped.
        DataError: the model's rows or the vectors are not finite.
    """
    # Long: a public function, whose arguments and errors are explained; the body has 24 lines.
    swap = swap.updated(options)
    match = match_vocabularies(source_tokenizer, target_tokenizer, fuzzy=swap.fuzzy)
    tables = find_token_tables(skeleton_of(model))
    old = {name: attribute(model, name) for name in tables.names}
    matrices = {name: table_matrix(table.detach(), tables.rows, match) for name, table in old.items()}
    before, rows = count_parameters(model), padded_size(match.target_size, swap.pad_to_multiple_of)
    plans = plan_tables(match, swap, tables.output is not None, old[tables.input].device)
    for name, made in new_tables(matrices, tables, plans, swap, rows=rows).items():
        put_parameter(model, old[name], shifted(made, name, tables, swap))
    notes = mismatch_notes(model.config.get_text_config().to_dict(), match, tables.rows)
    update_sizes(model, tables, rows)
    update_special_ids(model, tables, match)
    sizes = Sizes(
        tied=tables.output is None,
        rows_before=tables.rows,
        rows_after=rows,
        width=old[tables.input].shape[1],
        parameters_before=before,
        parameters_after=count_parameters(model),
    )
    return make_report(match, plans.input, swap, sizes, notes=notes, target_text=target_text, source_text=source_text)


def new_tables(
    matrices: Mapping[str, Tensor], tables: TokenTables, plans: TablePlans, swap: SwapOptions, *, rows: int
) -> dict[str, Tensor]:
    """The new tables; those of one plan are made together, which a kernel does in one pass over the similarities."""
    made: dict[str, Tensor] = {}
    for plan in {id(plan): plan for plan in (plans.input, plans.output)}.values():
        names = [name for name in tables.names if name != tables.bias and plans.of(name, tables) is plan]
        group = (matrices[name] for name in names)
        made |= zip(names, plan.apply(*group, seed=swap.seed, rows=rows, scale=swap.scale_rows), strict=True)
    if tables.bias is not None:
        made[tables.bias] = plans.bias.apply(matrices[tables.bias], rows=rows)[0][:, 0].contiguous()
    return made


def put_parameter(model: Any, old: nn.Parameter, rows: Tensor) -> None:
    """Put a new table wherever the old one was, tied as it was, with the sizes that modules keep."""
    new = nn.Parameter(rows, requires_grad=old.requires_grad)
    for name, parameter in list(model.named_parameters(remove_duplicate=False)):
        if parameter is not old:
            continue
        owner, _, leaf = name.rpartition(".")
        module = model.get_submodule(owner)
        setattr(module, leaf, new)
        for size in ("num_embeddings", "out_features"):
            if module.__dict__.get(size) == len(old):
                setattr(module, size, len(new))


def update_sizes(model: Any, tables: TokenTables, rows: int) -> None:
    """Vocabulary sizes in configurations and in modules that keep one (loss functions read it)."""
    text_config = model.config.get_text_config()
    # Its own size may be another than the matrix has rows, which are padded in some models.
    sizes = {tables.rows, text_config.vocab_size, *tables.others.values()}
    for owner in (text_config, model.config, *model.modules()):
        for key, value in list(vars(owner).items()):
            if "vocab_size" in key and type(value) is int and value in sizes:
                setattr(owner, key, rows)
    text_config.vocab_size = rows


def update_special_ids(model: Any, tables: TokenTables, match: VocabularyMatch) -> None:
    """Special-token ids in configuration, generation configuration and the padding index of modules."""
    configs = [model.config, model.config.get_text_config(), getattr(model, "generation_config", None)]
    for config in {id(config): config for config in configs if config is not None}.values():
        for key, value in translated_ids(config.to_dict(), match).items():
            setattr(config, key, value)
    swapped = [attribute(model, name) for name in tables.names]
    for module in model.modules():
        positions = isinstance(module, nn.Embedding) and not any(module.weight is table for table in swapped)
        if module.__dict__.get("padding_idx") is not None and not positions:
            module.padding_idx = match.target.roles.get("pad")
