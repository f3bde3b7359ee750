"""Give a model another tokenizer: rows, sizes, special tokens and files agree afterwards, nothing else changes.

:func:`swap_tokenizer` works on a loaded model, in place; :mod:`langadapt.swap.files` on the files of a model.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from langadapt.models.embeddings import check_other_tables, count_parameters, embedding_modules, padded_size
from langadapt.swap.matching import VocabularyMatch, match_vocabularies
from langadapt.swap.report import SwapReport, make_report
from langadapt.swap.rows.initialize import check_rows, plan_rows
from langadapt.swap.rows.plan import RowPlan
from langadapt.swap.special_ids import doubts, translated_ids


@torch.no_grad()
def swap_tokenizer(
    model: Any,
    source_tokenizer: Any,
    target_tokenizer: Any,
    *,
    method: str = "focus",
    output_method: str | None = None,
    vectors: Any = None,
    seed: int = 0,
    pad_to_multiple_of: int = 128,
    calibrate: bool = False,
    fuzzy: bool = False,
    target_text: Iterable[str] | None = None,
    source_text: Iterable[str] | None = None,
    **options: Any,
) -> SwapReport:
    """Swap the tokenizer of a loaded model, in place.

    The embedding matrices keep their type and device; in low precision no float32 copy of the model is made, the extra
    memory is the new matrices. All other tensors stay as they are, bit by bit. Configuration and generation
    configuration get the new size and special tokens. Any optimizer made before still holds the old matrices.

    Args:
        model: a ``transformers`` causal LM with tied or untied embeddings.
        source_tokenizer: the model's own (any form that :func:`match_vocabularies` takes).
        target_tokenizer: the new one.
        method: how new rows are made, see :mod:`langadapt.swap.rows.initialize`.
        output_method: the same for the output matrix, where it is another one; default: ``method``.
        vectors: float32 ``[target vocabulary, dim]`` for methods that need them.
        seed: of the draws.
        pad_to_multiple_of: rows are rounded up to this and the padding is filled like rows without an anchor.
        calibrate: scale combined rows to the mean norm of the copied ones.
        fuzzy: match tokens up to case and leading space, too.
        target_text: documents of the target language: their cost under both tokenizers goes into the report.
        source_text: documents of the source language, likewise.
        options: of the method, see :func:`langadapt.swap.rows.initialize.plan_rows`.

    Raises:
        MismatchError: model and tokenizer do not belong together, or there are no anchors.
        ConfigError: the method is unknown or lacks something, or the model has tables that cannot be swapped.
        DataError: the model's rows or the vectors are not finite.
    """
    match = match_vocabularies(source_tokenizer, target_tokenizer, fuzzy=fuzzy)
    table, head = embedding_modules(model)
    rows_before, parameters_before = len(table.weight), count_parameters(model)
    tied = head is not None and head.weight is table.weight
    matrices = [table.weight] if head is None or tied else [table.weight, head.weight]
    for matrix in matrices:
        check_rows(matrix, match)
    check_other_tables(model, table, head)
    rows = padded_size(match.target_size, pad_to_multiple_of)
    plan = plan_rows(method, match, vectors=vectors, device=table.weight.device, **options)
    output_plan = plan
    if output_method not in (None, method) and len(matrices) > 1:
        output_plan = plan_rows(output_method or method, match, vectors=vectors, device=matrices[1].device, **options)
    if plan is output_plan:
        made = plan.apply(*matrices, seed=seed, rows=rows, calibrate=calibrate)
    else:
        made = tuple(
            p.apply(m, seed=seed, rows=rows, calibrate=calibrate)[0]
            for p, m in zip((plan, output_plan), matrices, strict=True)
        )
    put_rows(table, head, made)
    if head is not None and getattr(head, "bias", None) is not None:
        put_bias(head, output_plan, rows)
    notes = doubts(model.config.get_text_config().to_dict(), match, rows_before)
    update_sizes(model, rows_before, rows)
    update_special_ids(model, table, match)
    return make_report(
        match,
        plan,
        method=method,
        output_method=output_method,
        tied=len(matrices) == 1,
        rows_before=rows_before,
        rows_after=rows,
        width=table.weight.shape[1],
        parameters=(parameters_before, count_parameters(model)),
        notes=notes,
        target_text=target_text,
        source_text=source_text,
        counts=options.get("counts"),
    )


def put_rows(table: nn.Embedding, head: Any, made: tuple[Tensor, ...]) -> None:
    """Put the new matrices where the old ones were, tied as they were."""
    tied = head is not None and head.weight is table.weight
    rows = len(made[0])
    table.weight = nn.Parameter(made[0], requires_grad=table.weight.requires_grad)
    table.num_embeddings = rows
    if head is None:
        return
    head.weight = table.weight if tied else nn.Parameter(made[1], requires_grad=head.weight.requires_grad)
    if hasattr(head, "out_features"):
        head.out_features = rows


def put_bias(head: Any, plan: RowPlan, rows: int) -> None:
    """An output bias is a matrix of one column; it is never calibrated, and rows without a source get its mean."""
    column = head.bias.detach()[:, None]
    (made,) = replace(plan, fill="mean").apply(column, rows=rows)
    head.bias = nn.Parameter(made[:, 0].contiguous(), requires_grad=head.bias.requires_grad)


def update_sizes(model: Any, before: int, after: int) -> None:
    """Vocabulary sizes in configurations and in modules that keep one (loss functions read it)."""
    config = model.config
    text_config = config.get_text_config()
    known = {before, getattr(text_config, "vocab_size", before)}
    text_config.vocab_size = after
    if getattr(config, "vocab_size", None) in known:
        config.vocab_size = after
    for module in model.modules():
        if isinstance(module.__dict__.get("vocab_size"), int) and module.vocab_size in known:
            module.vocab_size = after


def update_special_ids(model: Any, table: nn.Embedding, match: VocabularyMatch) -> None:
    """Special-token ids in configuration, generation configuration and the table's padding index."""
    configs = [model.config, model.config.get_text_config(), getattr(model, "generation_config", None)]
    for config in {id(config): config for config in configs if config is not None}.values():
        for key, value in translated_ids(config.to_dict(), match).items():
            setattr(config, key, value)
    padded_modules = (module for module in model.modules() if "padding_idx" in module.__dict__)
    for module in padded_modules:
        if module is table or not isinstance(module, nn.Embedding):
            module.padding_idx = match.target.roles.get("pad") if module.padding_idx is not None else None
