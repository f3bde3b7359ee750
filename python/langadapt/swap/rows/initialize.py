"""Rows for the tokens of a new vocabulary, made from the rows of the old one.

Every method is a pure function from what is known about the two vocabularies to a
:class:`langadapt.swap.rows.plan.RowPlan`; the plan is then applied to the input matrix, the output matrix, or both. All
methods but ``random`` and ``wechsel`` copy the rows of tokens that both vocabularies have.

| method | a new token's row | needs |
|---|---|---|
| ``focus`` | sparsemax-weighted mean of similar shared tokens (FOCUS) | vectors |
| ``subword_mean`` | mean of the source tokens that spell it, uniform or by characters | |
| ``mean`` | mean of all source rows | |
| ``normal`` | a draw from the source rows' mean and standard deviation by dimension | |
| ``random`` | a draw around zero with the source rows' standard deviation, for shared tokens too | |
| ``zipf`` | the row of the source token of the same frequency rank | counts, where known |
| ``wechsel`` | softmax-weighted mean of the nearest source tokens in aligned word vectors (WECHSEL) | both vectors |
| ``clp`` | mean of all shared tokens weighted by similarity in a helper model (CLP-Transfer) | helper rows |
| ``omp`` | sparse reconstruction of its vector from shared tokens' vectors (orthogonal matching pursuit) | vectors |
| ``distill`` | learnt, so that hidden states are those of the old tokens (token distillation) | model, token store |
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langadapt.errors import ConfigError, DataError, MismatchError
from langadapt.swap.matching import VocabularyMatch
from langadapt.swap.rows.clp import plan_clp
from langadapt.swap.rows.focus import plan_focus, plan_focus_on_gpu
from langadapt.swap.rows.names import DISTILL
from langadapt.swap.rows.omp import plan_omp
from langadapt.swap.rows.options import SwapOptions
from langadapt.swap.rows.plan import Fill, RowPlan, copied_entries, plan_of
from langadapt.swap.rows.wechsel import plan_wechsel

TOKEN_VECTORS = "vectors of the target tokens, from `langadapt vectors train` or `train_vectors`, as `vectors`"
NEEDS = {
    "distill": "rows that the old model has taught, from `langadapt.swap.distill.distil_rows`, as `learnt_rows`",
    "clp": "rows of a helper model, as `helper_rows`",
    "wechsel": "vectors of target and source tokens in one space, as `vectors` and `source_vectors`",
}
"""What errors ask for."""


def initialize_embeddings(method: str, source_rows: Tensor, match: VocabularyMatch, **options: Any) -> Tensor:
    """Rows of the target vocabulary.

    Args:
        method: one of :data:`langadapt.swap.rows.names.METHODS` (see the module's table).
        source_rows: ``[rows, d]``, floating, at least as many rows as the source tokenizer has ids.
        match: of the two vocabularies.
        options: fields of :class:`langadapt.swap.rows.options.SwapOptions`, such as ``vectors``, ``seed`` and
            what the method needs; there is no padding.

    Returns:
        ``[target vocabulary, d]`` of the source's dtype and device.

    Raises:
        ConfigError: an unknown method or option, or something that the method needs is missing.
        MismatchError: sizes do not fit, or there is nothing to start from.
        DataError: rows or vectors are not finite.
    """
    swap = SwapOptions(method).updated(options)
    check_rows(source_rows, match)
    plan = plan_rows(match, swap, source_rows.device)
    return plan.apply(source_rows, seed=swap.seed, scale=swap.scale_rows)[0]


def plan_rows(
    match: VocabularyMatch, swap: SwapOptions, device: torch.device | str = "cpu", *, output: bool = False
) -> RowPlan:
    """The plan of ``swap.method``, for any number of matrices; on a CUDA device FOCUS runs as one kernel.

    ``output``: for the output matrix, which learns rows of its own where it is untied.

    Raises:
        ConfigError: something that the method needs is missing.
        MismatchError: sizes do not fit, or there is nothing to start from.
        DataError: vectors are not finite.
    """
    method, needs = swap.method, NEEDS.get(swap.method, TOKEN_VECTORS)
    if method == DISTILL:
        if swap.learnt_rows is None:
            raise ConfigError(f"method `{method}` needs {needs}")
        rule = swap.learnt_rows.rule(output)
        if not np.array_equal(rule.target_ids, match.new_ids):
            raise MismatchError("learnt rows are of other new tokens than this swap has; they are of other tokenizers")
        # What its rows began as: other tables by token id, and what is learnt later of old rows, go by it.
        return replace(plan_rows(match, replace(swap, method=swap.start)), rule=rule)
    if method == "clp":
        return plan_clp(match, check_vectors(swap.helper_rows, match, method, needs))
    if method in ("focus", "omp", "wechsel"):
        vectors = check_vectors(swap.vectors, match, method, needs)
        if method == "omp":
            return plan_omp(match, vectors, atoms=swap.atoms, ridge=swap.ridge)
        if method == "wechsel":
            source_vectors = float_array(swap.source_vectors, method, needs)
            return plan_wechsel(
                match, vectors, source_vectors, neighbours=swap.neighbours, temperature=swap.temperature
            )
        on_gpu = torch.device(device).type == "cuda"
        return plan_focus_on_gpu(match, vectors, torch.device(device)) if on_gpu else plan_focus(match, vectors)
    if method == "subword_mean":
        return plan_subword_mean(match, swap.weighting)
    if method == "zipf":
        return plan_zipf(match, swap.counts, swap.source_counts)
    # Of `random`, without a match there is nothing to keep; an extended tokenizer's old tokens are no new rows.
    kept = [] if method == "random" and not match.keeps_ids() else [copied_entries(match)]
    return replace(plan_of(kept, match.target_size), fill=cast("Fill", method))


def plan_subword_mean(match: VocabularyMatch, weighting: str = "uniform") -> RowPlan:
    """A new token is the mean of its source pieces (FVT; Gee et al., 2022); tokens without pieces are drawn."""
    lengths = np.diff(match.piece_starts)
    targets = np.repeat(np.arange(match.target_size), lengths)
    share = match.piece_lengths.astype(np.float64) if weighting == "characters" else np.ones(len(targets))
    total = np.bincount(targets, weights=share, minlength=match.target_size)
    weights = (share / total[targets]).astype(np.float32)
    return plan_of([copied_entries(match), (targets, match.piece_ids, weights)], match.target_size)


def plan_zipf(
    match: VocabularyMatch,
    counts: NDArray[np.integer] | None = None,
    source_counts: NDArray[np.integer] | None = None,
) -> RowPlan:
    """A new token takes the row of the ordinary source token at the same relative rank of frequency.

    Norms and anisotropy of embedding rows go with frequency, so a row of like frequency starts at a likely place,
    whatever it means.
    """
    ranked_source = ids_by_frequency(match.source.kinds, source_counts)
    ranked_target = ids_by_frequency(match.target.kinds, counts)
    if len(ranked_source) == 0:
        raise MismatchError(f"the source tokenizer has no ordinary token among its {match.source_size}")
    place = np.zeros(match.target_size)
    place[ranked_target] = np.arange(len(ranked_target)) / max(1, len(ranked_target))
    new = match.new_ids[np.isin(match.new_ids, ranked_target)]
    source = ranked_source[(place[new] * len(ranked_source)).astype(np.int64)]
    return plan_of([copied_entries(match), (new, source, np.ones(len(new), dtype=np.float32))], match.target_size)


def ids_by_frequency(kinds: list[str], counts: NDArray[np.integer] | None) -> NDArray[np.int64]:
    """Ids of ordinary tokens, most frequent first; ties by id."""
    ordinary = np.flatnonzero([kind in ("normal", "added", "byte") for kind in kinds])
    if counts is None:
        return ordinary
    if len(counts) != len(kinds):
        raise MismatchError(f"counts of {len(counts)} tokens for a vocabulary of {len(kinds)}")
    return ordinary[np.argsort(-np.asarray(counts, dtype=np.int64)[ordinary], kind="stable")]


def check_rows(source_rows: Tensor, match: VocabularyMatch) -> None:
    """Refuse a source matrix that the source tokenizer does not fit, or that is not finite.

    Raises:
        MismatchError: fewer rows than ids.
        DataError: NaN or infinity, with the first row that holds one.
    """
    if source_rows.dim() != 2 or not source_rows.is_floating_point():
        raise ConfigError(
            f"source rows must be a floating [rows, d] matrix: {source_rows.dtype} {list(source_rows.shape)}"
        )
    if match.source_size > len(source_rows):
        raise MismatchError(
            f"the source tokenizer has {match.source_size} ids but the model only {len(source_rows)} embedding rows; "
            "they do not belong together"
        )
    broken = torch.cat([~block.isfinite().all(dim=1) for block in source_rows.split(8192)])
    if bool(broken.any()):
        raise DataError(
            f"{int(broken.sum())} of {len(source_rows)} source rows are not finite, the first is row "
            f"{int(broken.nonzero()[0])}; the model's weights are damaged"
        )


def check_vectors(vectors: Any, match: VocabularyMatch, method: str, needed: str) -> NDArray[np.float32]:
    """``vectors`` as a float32 array that fits the target vocabulary."""
    array = float_array(vectors, method, needed)
    if array.ndim != 2 or len(array) < match.target_size:
        raise MismatchError(
            f"vectors of shape {list(array.shape)} for a target tokenizer of {match.target_size} ids; they were made "
            "with another tokenizer"
        )
    # Rows of a helper model may be padded; vectors never are.
    if len(array) > match.target_size and method != "clp":
        raise MismatchError(
            f"{len(array)} vectors for a target tokenizer of {match.target_size} ids; they were made with another "
            "tokenizer"
        )
    return array[: match.target_size]


def float_array(values: Any, method: str, needed: str) -> NDArray[np.float32]:
    """A finite float32 array from an array or tensor."""
    if values is None:
        raise ConfigError(f"method `{method}` needs {needed}")
    array = values.detach().cpu().float().numpy() if isinstance(values, Tensor) else np.asarray(values)
    array = np.ascontiguousarray(array, dtype=np.float32)
    if not np.isfinite(array).all():
        bad = int(np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(axis=1))[0])
        raise DataError(f"vectors are not finite, the first bad row is {bad}; make them again")
    return array
