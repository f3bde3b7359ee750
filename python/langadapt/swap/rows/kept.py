"""The weights that a swap made its rows with, kept beside the model: what is learnt later about source rows, such as an
instruct model's difference, can be carried to the new ones.

``swap_rows.npz`` holds compressed sparse rows for the input matrix and, where it was made by another method, for the
output matrix. It is no safetensors file: readers take every one of those in a model's folder for weights.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from langadapt.artefacts.names import SWAP_ROWS_NAME
from langadapt.errors import DataError
from langadapt.swap.rows.plan import RowPlan
from langadapt.swap.rows.tables import TablePlans

MOST_ENTRIES = 256
"""Of one row: of denser rows the largest weights are kept, scaled to the same sum."""


def write_plans(folder: Path, plans: TablePlans) -> None:
    """Keep the plans of a swap in the new model's folder; rows made by a rule have no weights to keep."""
    parts = {"input": plans.input} if plans.output is plans.input else {"input": plans.input, "output": plans.output}
    arrays: dict[str, Any] = {}
    for name, plan in parts.items():
        short = shortened(plan)
        arrays[f"{name}_lengths"] = np.diff(short.starts).astype(np.uint16)
        arrays[f"{name}_ids"] = short.ids.astype(np.uint32)
        arrays[f"{name}_weights"] = short.weights
    np.savez_compressed(folder / SWAP_ROWS_NAME, **arrays)


def shortened(plan: RowPlan) -> RowPlan:
    """The plan with at most :data:`MOST_ENTRIES` in a row."""
    lengths = np.diff(plan.starts)
    if len(lengths) == 0 or lengths.max() <= MOST_ENTRIES:
        return plan
    rows = np.repeat(np.arange(len(lengths)), lengths)
    order = np.lexsort((-np.abs(plan.weights), rows))
    rank = np.arange(len(order)) - np.repeat(plan.starts[:-1], lengths)
    kept = np.sort(order[rank < MOST_ENTRIES])
    starts = np.concatenate([[0], np.cumsum(np.minimum(lengths, MOST_ENTRIES))]).astype(np.int64)
    before = np.bincount(rows, weights=plan.weights, minlength=len(lengths))
    after = np.bincount(rows[kept], weights=plan.weights[kept], minlength=len(lengths))
    factors = np.where(lengths > MOST_ENTRIES, before / np.where(after == 0, 1, after), 1.0)
    weights = (plan.weights[kept] * factors[rows[kept]]).astype(np.float32)
    return replace(plan, starts=starts, ids=plan.ids[kept], weights=weights)


def read_plans(folder: Path) -> TablePlans | None:
    """The plans that a swap kept in ``folder``, without its draws; none where there are none.

    Raises:
        DataError: the file is damaged.
    """
    file = folder / SWAP_ROWS_NAME
    if not file.is_file():
        return None
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
            plans = {name: plan_in(arrays, name) for name in ("input", "output") if f"{name}_ids" in arrays}
        return TablePlans(plans["input"], plans.get("output", plans["input"]))
    except (ValueError, KeyError, EOFError, BadZipFile) as error:
        raise DataError(f"{file}: damaged ({error}); make the swap again") from None


def plan_in(arrays: np.lib.npyio.NpzFile, name: str) -> RowPlan:
    """One plan of the file."""
    lengths, ids, weights = (arrays[f"{name}_{part}"] for part in ("lengths", "ids", "weights"))
    starts = np.concatenate([[0], np.cumsum(lengths.astype(np.int64))])
    if not len(ids) == len(weights) == starts[-1]:
        raise ValueError(f"{len(ids)} ids and {len(weights)} weights for {starts[-1]} entries")
    return RowPlan(starts, ids.astype(np.int64), weights.astype(np.float32))
