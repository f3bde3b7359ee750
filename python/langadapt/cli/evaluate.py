"""``langadapt evaluate``."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from langadapt.cli.options import AsJson, TextField, warn_renamed
from langadapt.cli.progress import progress
from langadapt.corpus.documents import read_documents
from langadapt.errors import ConfigError
from langadapt.evaluation.suites import evaluate_suites
from langadapt.machine import choose_device, quiet_transformers
from langadapt.models.folder import load_model, resolve_model

if TYPE_CHECKING:
    from rich.table import Table

Measure = Callable[[Any, str], "dict[str, Any]"]
"""Takes a model and its tokenizer's folder."""


Suites = Annotated[
    list[str] | None,
    typer.Option(
        "--suites",
        "--suite",
        metavar="german|arabic|PATH",
        help="Suite of lm-eval tasks or a .yaml list of them, a multiple-choice .jsonl file or a folder of them, or a "
        "task of lm-eval.",
    ),
]
Corpora = Annotated[
    list[str] | None,
    typer.Option(metavar="[NAME=]CORPUS", help="Text to measure bits per byte on: file, folder or glob."),
]


def command(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help="Folders or hub ids of causal models.", show_default=False)
    ],
    *,
    suites: Suites = None,
    text: Corpora = None,
    old_text: Annotated[list[str] | None, typer.Option("--bytes", hidden=True)] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Tokenizer of all models, where it is not in their folders.")
    ] = None,
    window: Annotated[
        int | None, typer.Option(help="Tokens per forward pass [default: context, at most 2048].")
    ] = None,
    stride: Annotated[int | None, typer.Option(help="Tokens scored per window of a long text [default: half].")] = None,
    limit: Annotated[int | None, typer.Option(help="Items per task of a suite, at most.", min=1)] = None,
    batch_size: Annotated[int, typer.Option(help="Requests per forward pass of a suite.", min=1)] = 8,
    text_field: TextField = "text",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    as_json: AsJson = False,
) -> None:
    """Measure models: bits per byte of text, whatever the tokenizer, and suites of tasks through lm-eval."""
    if old_text:
        warn_renamed("--bytes", "--text")
    named = named_corpora([*(text or ()), *(old_text or ())])
    if not suites and not named:
        raise ConfigError("nothing to measure: give --text CORPUS, --suite SUITE, or both")

    windows = {"window": window, "stride": stride}

    def measure(model: Any, folder: str) -> dict[str, Any]:
        bits = {name: bits_of(model, folder, path, text_field, **windows) for name, path in named.items()}
        tasks = run_suites(model, folder, suites or (), limit=limit, batch_size=batch_size)
        return {"parameters": model.num_parameters(), "bits_per_byte": bits, "suites": tasks}

    results = measure_models(models, tokenizer, device, measure)
    if as_json:
        typer.echo(json.dumps(results, indent=2, ensure_ascii=False))
    else:
        Console().print(comparison(results))


def named_corpora(given: Sequence[str]) -> dict[str, str]:
    """Paths by name.

    Raises:
        ConfigError: two have one name.
    """
    named = dict(named_corpus(one) for one in given)
    if len(named) < len(given):
        raise ConfigError("--text: two corpora of one name; tell them apart as NAME=CORPUS")
    return named


def named_corpus(text: str) -> tuple[str, str]:
    """``NAME=PATH``, or a path that gives its own name; a path that exists may have an equals sign in it."""
    name, separator, path = text.partition("=")
    if separator and name and not Path(text).exists():
        return name, path
    return text, text


def measure_models(models: Sequence[str], tokenizer: str | None, device: str, measure: Measure) -> dict[str, Any]:
    """What ``measure`` finds of each model, one in memory at a time."""
    quiet_transformers()
    chosen = choose_device(device)
    results = {}
    for name in models:
        folder = resolve_model(name)
        model: Any = load_model(folder, dtype="auto")
        results[name] = measure(model.to(chosen).eval(), tokenizer or str(folder))
        del model
    return results


def bits_of(model: Any, tokenizer: str, path: str, text_field: str, **windows: Any) -> dict[str, Any]:
    """Bits per byte of one corpus, with its counts."""
    from langadapt.evaluation.bits_per_byte import measure_bits_per_byte
    from langadapt.tokenizer.encoder import Tokenizer

    loaded = Tokenizer.from_pretrained(tokenizer)
    with progress("bits per byte") as report:
        texts = read_documents(path, text_field=text_field)
        return asdict(measure_bits_per_byte(model, loaded, texts, **windows, progress=report))


def run_suites(
    model: Any, tokenizer: str, suites: Sequence[str], *, limit: int | None, batch_size: int
) -> dict[str, dict[str, float]]:
    """Metrics by task, with the tokenizer as transformers loads it. lm-eval draws its own bars, on stderr."""
    return evaluate_suites(model, tokenizer, suites, limit=limit, batch_size=batch_size)


def comparison(results: Mapping[str, Any]) -> Table:
    """One row per measure, one column per model, the best value of a row in bold."""
    table = Table()
    table.add_column("measure")
    for name in results:
        table.add_column(name, justify="right", overflow="fold")
    found = list(results.values())
    table.add_row("parameters", *(f"{one['parameters']:,}" for one in found))
    for corpus in found[0]["bits_per_byte"]:
        values = [one["bits_per_byte"][corpus]["bits_per_byte"] for one in found]
        table.add_row(f"bits per byte, {corpus} (lower is better)", *marked(values, min, "{:.4f}"))
    for task, metrics in found[0]["suites"].items():
        for metric in (metric for metric in metrics if metric != "items" and not metric.endswith("_stderr")):
            values = [one["suites"][task][metric] for one in found]
            errors = [one["suites"][task].get(f"{metric}_stderr") for one in found]
            best = min if metric in LOWER_IS_BETTER else max
            cells = marked(values, best, "{:.4f}")
            table.add_row(f"{task}, {metric}", *(with_error(*pair) for pair in zip(cells, errors, strict=True)))
    return table


LOWER_IS_BETTER = frozenset({"perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte"})
"""Metrics of lm-eval; of all others more is better."""


def marked(values: Sequence[float], best: Callable[[Sequence[float]], float], shape: str) -> list[str]:
    """Formatted values, the best in bold where there is something to compare."""
    top = best(values)
    return [f"[bold]{shape.format(one)}[/]" if one == top and len(values) > 1 else shape.format(one) for one in values]


def with_error(cell: str, error: float | None) -> str:
    """A value and its standard error."""
    return cell if error is None else f"{cell} ± {error:.4f}"
