"""Models side by side for a terminal of 80 columns: what `langadapt evaluate` prints."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from string import ascii_uppercase
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from langadapt.errors import ConfigError
from langadapt.evaluation.bootstrap import paired_difference
from langadapt.evaluation.suites import is_measure
from langadapt.evaluation.telling import wavering, word
from langadapt.report.differences import ENOUGH_DOCUMENTS, in_full
from langadapt.terminal import literal

SIDE_BY_SIDE = 3
"""Models in one table: as many values with their errors as a terminal has room for."""
LONG_NAME = 14
"""Names up to this many characters stand above their column; longer ones are told below a letter."""
LOWER_IS_BETTER = frozenset({"perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte"})
"""Metrics of lm-eval; of all others more is better."""


def comparison(results: Mapping[str, Any], *, over_training: bool = False) -> Group:
    """One row per measure, one column per model, the best value of a row in bold; then differences with intervals.

    ``over_training``: the models are those of one training, in the order of their steps.
    """
    heads, found = heads_of(list(results)), list(results.values())
    rows = list(rows_of(found, wavering([one["suites"] for one in found]) if over_training else ()))
    told = [literal(f"{head}: {name}") for name, head in heads.items() if head != name]
    tables = []
    for start in range(0, len(heads), SIDE_BY_SIDE):
        part = slice(start, start + SIDE_BY_SIDE)
        table = Table()
        table.add_column("measure", overflow="fold")
        for head in list(heads.values())[part]:
            table.add_column(literal(head), justify="right", no_wrap=True)
        for measure, cells in rows:
            table.add_row(literal(measure), *cells[part])
        tables.append(table)
    return Group(*told, *tables, *map(literal, differences(results, heads)))


def heads_of(names: Sequence[str]) -> dict[str, str]:
    """What stands above each model's column: its name, or a letter where names are long."""
    if all(len(name) <= LONG_NAME for name in names) or len(names) > len(ascii_uppercase):
        return {name: name for name in names}
    return dict(zip(names, ascii_uppercase, strict=False))


def rows_of(
    found: Sequence[Mapping[str, Any]], waver: Collection[tuple[str, str]] = ()
) -> Iterator[tuple[str, list[Text]]]:
    """Measure, and its value for each model; ``waver``: tasks and metrics that go to and fro over a training."""
    yield "parameters", [Text(f"{one['parameters']:,}") for one in found]
    for corpus in found[0]["bits_per_byte"]:
        values = [one["bits_per_byte"][corpus]["bits_per_byte"] for one in found]
        yield f"bits per byte, {corpus} (lower is better)", marked(values, min, "{:.4f}")
    for task, metrics in found[0]["suites"].items():
        for metric in filter(is_measure, metrics):
            values = [one["suites"][task][metric] for one in found]
            errors = [one["suites"][task].get(f"{metric}_stderr") for one in found]
            best = min if metric in LOWER_IS_BETTER else max
            cells = marked(values, best, "{:.4f}")
            chance = f" (chance {metrics['chance']:.2f})" if metric == "acc" and "chance" in metrics else ""
            flag = word([one["suites"][task] for one in found], metric, over_training=(task, metric) in waver)
            yield (
                f"{task}, {metric}{chance}{f', {flag}' if flag else ''}",
                [with_error(*pair) for pair in zip(cells, errors, strict=True)],
            )


def differences(results: Mapping[str, Any], heads: Mapping[str, str]) -> Iterator[str]:
    """Each model against the first one, on each text, by what single documents cost."""
    first, *others = results
    for corpus, old in results[first]["bits_per_byte"].items():
        for name in others:
            new = results[name]["bits_per_byte"][corpus]
            try:
                found = paired_difference(new["document_bits"], old["document_bits"], old["document_bytes"])
            except ConfigError:
                continue
            text = f"{corpus}: {heads[name]} needs {in_full(found, heads[first])}, over {found.documents:,} documents"
            few = found.documents < ENOUGH_DOCUMENTS
            yield text + (f"; fewer than {ENOUGH_DOCUMENTS} make intervals that are too narrow." if few else ".")


def marked(values: Sequence[float], best: Callable[[Sequence[float]], float], shape: str) -> list[Text]:
    """Formatted values, the best in bold where there is something to compare."""
    top = best(values)
    return [Text(shape.format(one), style="bold" if one == top and len(values) > 1 else "") for one in values]


def with_error(cell: Text, error: float | None) -> Text:
    """A value and its standard error."""
    return cell if error is None else Text.assemble(cell, f" ± {error:.4f}")
