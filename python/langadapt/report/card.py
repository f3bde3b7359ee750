"""The model card: Markdown with YAML front matter, as the Hugging Face hub reads it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from langadapt.report import words
from langadapt.report.languages import code_of
from langadapt.report.page import base_name, environment
from langadapt.report.run import RunData, number, section
from langadapt.report.summary import Summary, metric_title, summarize, verdict

SETTINGS = (
    "precision",
    "rounding",
    "learning_rate",
    "embedding_learning_rate",
    "min_learning_rate",
    "schedule",
    "warmup",
    "weight_decay",
    "sequence_length",
    "batch_tokens",
    "batch_sequences",
    "max_grad_norm",
    "seed",
)
"""Entries of a recipe's ``train`` section that a reader of a card asks for."""


def model_card(run: RunData) -> str:
    """The card of the run's final model."""
    summary = summarize(run.results)
    base = hub_name(run)
    return (
        environment()
        .get_template("card.md")
        .render(
            front_matter=front_matter(run, summary),
            summary=summary,
            name=inline(summary.name),
            base=None if base is None else inline(base),
            languages={side: inline(name) for side, name in summary.languages.items()},
            method=inline(run.method or "unknown"),
            swapped=run.method != "keep",
            vocabulary=words.count(summary.trained.vocabulary) if summary.trained else None,
            verdict=[inline(sentence) for sentence in verdict(summary, run.results)],
            table=list(table(summary)),
            tasks=list(tasks(summary)),
            corpora=list(corpora(run, summary)),
            share=number(section(run.recipe, "corpus").get("source_share")),
            training=list(training(run)),
            versions=", ".join(f"{name} {version}" for name, version in section(run.results, "versions").items()),
            device=run.results.get("device"),
            forgotten=forgotten(summary),
        )
    )


def front_matter(run: RunData, summary: Summary) -> str:
    """YAML for the hub. A licence is not guessed: the base model's and the texts' decide."""
    method = run.method or "unknown"
    values: dict[str, Any] = {}
    codes = [code for side in ("target", "source") if (code := code_of(summary.languages[side])) is not None]
    if codes:
        values["language"] = list(dict.fromkeys(codes))
    base = hub_name(run)
    if base is not None:
        values["base_model"] = base
    values |= {"library_name": "transformers", "pipeline_tag": "text-generation"}
    tags = ["langadapt", "language-adaptation", "continued-pretraining"]
    if method != "keep":
        tags += ["tokenizer-swap", method]
    values["tags"] = tags
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True).rstrip()


def hub_name(run: RunData) -> str | None:
    """The base model, if it is a hub id: a folder of the machine that trained means nothing to readers elsewhere."""
    base = base_name(run)
    is_id = base is not None and re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", base) and not Path(base).exists()
    return base if is_id else None


def inline(text: str) -> str:
    """One line of text that Markdown takes as it is."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(str(text).split()))


def table(summary: Summary) -> Iterator[list[str]]:
    """The first table of the report, headings first, best values in bold."""
    texts = [side for side in ("target", "source") if any(row.fertility[side] is not None for row in summary.rows)]
    metric = metric_title(summary.metric).lower()
    names = summary.languages
    heads = ["model", "tokenizer", "parameters"]
    heads += [f"{metric}, {names[side]}" for side in texts] + [
        f"bits per byte, {names[side]}" for side in summary.sides
    ]
    yield [inline(head) for head in heads]
    for row in summary.rows:
        tokenizer = f"{row.tokenizer}, {words.count(row.vocabulary)}" if row.vocabulary else row.tokenizer
        cells = [inline(row.label), inline(tokenizer), words.short_count(row.parameters)]
        cells += [words.decimals(row.fertility[side], 2) for side in texts]
        for side in summary.sides:
            value = row.bits[side]
            text = words.decimals(value)
            cells.append(f"**{text}**" if value is not None and value == summary.best(side) else text)
        yield cells


def tasks(summary: Summary) -> Iterator[tuple[str, str, str, str]]:
    """Task, metric, source model's value, this model's value."""
    if summary.trained is None:
        return
    for task, metrics in summary.trained.suites.items():
        before = section(summary.source.suites, task) if summary.source else {}
        for metric in metrics:
            if metric != "items" and not metric.endswith("_stderr"):
                yield inline(task), inline(metric), with_error(before, metric), with_error(metrics, metric)


def with_error(metrics: Mapping[str, Any], metric: str) -> str:
    """A value and its standard error."""
    value, error = number(metrics.get(metric)), number(metrics.get(f"{metric}_stderr"))
    return words.decimals(value) + ("" if value is None or error is None else f" ± {error:.3f}")


def corpora(run: RunData, summary: Summary) -> Iterator[tuple[str, str]]:
    """Language, and what was read of it."""
    for side, found in section(run.results, "corpus").items():
        if isinstance(found, Mapping):
            train = found.get("train")
            counted = train if isinstance(train, Mapping) else found
            documents, read = number(counted.get("documents")), number(counted.get("bytes"))
            parts = [f"{words.count(documents)} documents"] if documents is not None else []
            parts += [f"{words.size(read)} of text"] if read is not None else []
            if parts:
                yield inline(summary.languages.get(side, side)), ", ".join(parts)


def training(run: RunData) -> Iterator[tuple[str, str]]:
    """Facts of the training."""
    done = section(section(run.results, "training"), run.method or "")
    for name, text in (("steps", words.count), ("tokens", words.count), ("seconds", words.duration)):
        value = number(done.get(name))
        if value is not None:
            yield ("time" if name == "seconds" else name), text(value)
    settings = section(run.recipe, "train")
    for name in SETTINGS:
        if settings.get(name) is not None:
            yield name.replace("_", " "), inline(str(settings[name]))


def forgotten(summary: Summary) -> str | None:
    """Change on the source language."""
    if summary.trained is None or summary.source is None:
        return None
    return words.change(summary.trained.bits["source"], summary.source.bits["source"]) or None
