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
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langadapt.errors import ConfigError, DataError, MismatchError
from langadapt.swap.matching import VocabularyMatch
from langadapt.swap.rows.clp import plan_clp
from langadapt.swap.rows.focus import copies, plan_focus, plan_focus_on_gpu
from langadapt.swap.rows.names import METHODS
from langadapt.swap.rows.omp import RIDGE, plan_omp
from langadapt.swap.rows.plan import RowPlan, plan_of
from langadapt.swap.rows.wechsel import plan_wechsel


def initialize_embeddings(
    method: str,
    source_rows: Tensor,
    match: VocabularyMatch,
    *,
    vectors: Any = None,
    seed: int = 0,
    calibrate: bool = False,
    **options: Any,
) -> Tensor:
    """Rows of the target vocabulary.

    Args:
        method: one of :data:`METHODS` (see the module's table).
        source_rows: ``[rows, d]``, floating, at least as many rows as the source tokenizer has ids.
        match: of the two vocabularies.
        vectors: float32 ``[target vocabulary, dim]`` (array or tensor) where the method needs them; zero rows mean "no
            vector".
        seed: of the draws.
        calibrate: scale combined rows to the mean norm of the copied ones.
        options: of the method, see :func:`plan_rows`.

    Returns:
        ``[target vocabulary, d]`` of the source's dtype and device.

    Raises:
        ConfigError: unknown method, or something that it needs is missing.
        MismatchError: sizes do not fit, or there is nothing to start from.
        DataError: rows or vectors are not finite.
    """
    check_rows(source_rows, match)
    plan = plan_rows(method, match, vectors=vectors, device=source_rows.device, **options)
    return plan.apply(source_rows, seed=seed, calibrate=calibrate)[0]


def plan_rows(
    method: str,
    match: VocabularyMatch,
    *,
    vectors: Any = None,
    device: torch.device | str = "cpu",
    weighting: str = "uniform",
    counts: NDArray[np.integer] | None = None,
    source_counts: NDArray[np.integer] | None = None,
    source_vectors: Any = None,
    helper_rows: Any = None,
    neighbours: int = 10,
    temperature: float = 0.1,
    atoms: int | None = None,
    ridge: float = RIDGE,
) -> RowPlan:
    """The plan of a method, for any number of matrices.

    Args:
        method: one of :data:`METHODS`.
        match: of the two vocabularies.
        vectors: as for :func:`initialize_embeddings`.
        device: where the matrices are; on a CUDA device FOCUS runs as one kernel.
        weighting: for ``subword_mean``: ``uniform``, or ``characters``: by the pieces' lengths.
        counts: for ``zipf``: how often each target token occurs; default: the order of the ids, which is that of
            merges and so roughly that of frequency.
        source_counts: likewise for source tokens.
        source_vectors: for ``wechsel``: float32 ``[source vocabulary, dim]`` in the space of ``vectors`` (see
            :func:`langadapt.swap.rows.wechsel.aligned_token_vectors`).
        neighbours: for ``wechsel``: source tokens per target token.
        temperature: for ``wechsel``: of the softmax.
        helper_rows: for ``clp``: ``[target vocabulary, any]``: input embeddings of a model with the target tokenizer.
        atoms: for ``omp``: shared tokens per new token, see :func:`langadapt.swap.rows.omp.plan_omp`.
        ridge: for ``omp``: how far large coefficients are held back, see :mod:`langadapt.swap.rows.omp`.
    """
    if method not in METHODS:
        raise ConfigError(f"unknown method {method!r}; there are {', '.join(METHODS)}")
    if method == "focus":
        array = check_vectors(vectors, match, method)
        on_gpu = torch.device(device).type == "cuda"
        return plan_focus_on_gpu(match, array, torch.device(device)) if on_gpu else plan_focus(match, array)
    if method == "omp":
        return plan_omp(match, check_vectors(vectors, match, method), atoms=atoms, ridge=ridge)
    if method == "clp":
        return plan_clp(match, check_vectors(helper_rows, match, method, "rows of a helper model, as `helper_rows`"))
    if method == "wechsel":
        needed = "vectors of target and source tokens in one space, as `vectors` and `source_vectors`"
        target_array = check_vectors(vectors, match, method, needed)
        source_array = float_array(source_vectors, method, needed)
        return plan_wechsel(match, target_array, source_array, neighbours=neighbours, temperature=temperature)
    if method == "subword_mean":
        return plan_subword_mean(match, weighting)
    if method == "zipf":
        return plan_zipf(match, counts, source_counts)
    if method == "random":
        # Without a match there is nothing to keep; an extended tokenizer's old tokens are no new rows.
        kept = [copies(match)] if match.keeps_ids() else [empty_entries()]
        return replace(plan_of(kept, match.target_size), fill="random")
    plan = plan_of([copies(match)], match.target_size)
    return replace(plan, fill="mean") if method == "mean" else plan


def plan_subword_mean(match: VocabularyMatch, weighting: str = "uniform") -> RowPlan:
    """A new token is the mean of its source pieces (FVT; Gee et al., 2022); tokens without pieces are drawn."""
    if weighting not in ("uniform", "characters"):
        raise ConfigError(f"unknown weighting {weighting!r}; there are uniform and characters")
    lengths = np.diff(match.piece_starts)
    targets = np.repeat(np.arange(match.target_size), lengths)
    share = match.piece_lengths.astype(np.float64) if weighting == "characters" else np.ones(len(targets))
    total = np.bincount(targets, weights=share, minlength=match.target_size)
    weights = (share / total[targets]).astype(np.float32)
    return plan_of([copies(match), (targets, match.piece_ids, weights)], match.target_size)


def plan_zipf(
    match: VocabularyMatch,
    counts: NDArray[np.integer] | None = None,
    source_counts: NDArray[np.integer] | None = None,
) -> RowPlan:
    """A new token takes the row of the ordinary source token at the same relative rank of frequency.

    Norms and anisotropy of embedding rows go with frequency, so a row of like frequency starts at a likely place,
    whatever it means.
    """
    ranked_source = ranking(match.source.kinds, source_counts)
    ranked_target = ranking(match.target.kinds, counts)
    if len(ranked_source) == 0:
        raise MismatchError(f"the source tokenizer has no ordinary token among its {match.source_size}")
    place = np.zeros(match.target_size)
    place[ranked_target] = np.arange(len(ranked_target)) / max(1, len(ranked_target))
    new = match.new_ids[np.isin(match.new_ids, ranked_target)]
    source = ranked_source[(place[new] * len(ranked_source)).astype(np.int64)]
    return plan_of([copies(match), (new, source, np.ones(len(new), dtype=np.float32))], match.target_size)


def ranking(kinds: list[str], counts: NDArray[np.integer] | None) -> NDArray[np.int64]:
    """Ids of ordinary tokens, most frequent first; ties by id."""
    ordinary = np.flatnonzero([kind in ("normal", "added", "byte") for kind in kinds])
    if counts is None:
        return ordinary
    if len(counts) != len(kinds):
        raise MismatchError(f"counts of {len(counts)} tokens for a vocabulary of {len(kinds)}")
    return ordinary[np.argsort(-np.asarray(counts, dtype=np.int64)[ordinary], kind="stable")]


def empty_entries() -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """No entries of a plan."""
    return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32)


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


def check_vectors(
    vectors: Any,
    match: VocabularyMatch,
    method: str,
    needed: str = "vectors of the target tokens, from `langadapt vectors train` or `train_vectors`, as `vectors`",
) -> NDArray[np.float32]:
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
