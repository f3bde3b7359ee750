"""The model card: Markdown with YAML front matter, as the Hugging Face hub reads it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from langadapt.costs.adapter import Adapter
from langadapt.evaluation.suites import is_measure
from langadapt.report import words
from langadapt.report.curves import course_remarks
from langadapt.report.languages import code_of
from langadapt.report.page import environment
from langadapt.report.run import RunData
from langadapt.report.summary import Summary, measured_texts, summarize
from langadapt.report.verdict import verdict

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


def model_card(run: RunData, finish: Mapping[str, Any] | None = None) -> str:
    """The card of the run's final model; ``finish``: of the one that was given the chat of an instruct model, by the
    report of that."""
    summary = summarize(run.results)
    base, found, trained = hub_name(run), verdict(summary, run.results), summary.trained
    forgotten = None
    if trained is not None and summary.source is not None:
        forgotten = words.change(trained.bits["source"], summary.source.bits["source"])
    return (
        environment()
        .get_template("card.md")
        .render(
            front_matter=front_matter(run, summary),
            summary=summary,
            name=inline(summary.name),
            base=None if base is None else inline(base),
            languages={side: inline(name) for side, name in summary.languages.items()},
            method=inline(run.results.method),
            swapped=run.results.method != "keep",
            vocabulary=None if trained is None else words.count(trained.vocabulary),
            verdict=inline(found.line),
            remarks=[inline(one) for one in (*chat_remarks(finish), *found.remarks, *course_remarks(run, summary))],
            table=list(table(summary)),
            tasks=list(tasks(summary)),
            corpora=list(corpora(run, summary)),
            share=run.recipe.corpus.replay,
            training=list(training(run)),
            versions=", ".join(f"{name} {version}" for name, version in run.results.versions.items()),
            device=run.results.device,
            forgotten=forgotten,
        )
    )


def chat_remarks(finish: Mapping[str, Any] | None) -> Iterator[str]:
    """Where the chat of a finished model is from."""
    if finish is None:
        return
    path = Path(str(finish.get("instruct")))
    # A folder of the machine says nothing to readers elsewhere but its name.
    name = path.name if path.is_absolute() else path.as_posix()
    how = f"{finish.get('method')}, scale {finish.get('scale')}"
    yield (
        f"It chats: what the instruct model {name} learnt was added to the trained weights ({how}); template, end "
        "tokens and ways to generate are that model's."
    )


def front_matter(run: RunData, summary: Summary) -> str:
    """YAML for the hub. A licence is not guessed: the base model's and the texts' decide."""
    method = run.results.method
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
    base = run.recipe.model
    return base if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", base) and not Path(base).exists() else None


def inline(text: str) -> str:
    """One line of text that Markdown takes as it is."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(str(text).split()))


def table(summary: Summary) -> Iterator[list[str]]:
    """The first table of the report, headings first, best values in bold."""
    texts = measured_texts(summary.rows)
    metric = words.title(summary.metric).lower()
    names = summary.languages
    heads = ["model", "tokenizer", "parameters"]
    heads += [f"{metric}, {names[side]}" for side in texts] + [
        f"bits per byte, {names[side]}" for side in summary.sides
    ]
    yield [inline(head) for head in heads]
    for row in summary.rows:
        tokenizer = f"{row.tokenizer}, {words.count(row.vocabulary)}"
        cells = [inline(row.label), inline(tokenizer), words.short_count(row.parameters)]
        cells += [words.decimals(row.fertility[side], 2) for side in texts]
        for side in summary.sides:
            value = row.bits[side]
            text = words.decimals(value)
            cells.append(f"**{text}**" if value is not None and value == summary.best(side) else text)
        yield cells


def tasks(summary: Summary) -> Iterator[tuple[str, str, str, str]]:
    """Task, metric, source model's value, this model's value."""
    for task, metrics in (summary.trained.suites if summary.trained else {}).items():
        before = summary.source.suites.get(task, {}) if summary.source else {}
        for metric in metrics:
            if is_measure(metric):
                yield inline(task), inline(metric), with_error(before, metric), with_error(metrics, metric)


def with_error(metrics: Mapping[str, float | None], metric: str) -> str:
    """A value and its standard error."""
    error = metrics.get(f"{metric}_stderr")
    return words.decimals(metrics.get(metric)) + ("" if error is None else f" ± {error:.3f}")


def corpora(run: RunData, summary: Summary) -> Iterator[tuple[str, str]]:
    """Language, and what of it was trained on."""
    bits = (
        {}
        if summary.trained is None
        else {row.method: row.bits_per_byte for row in run.results.rows if row.phase == "trained"}.get(
            run.results.method, {}
        )
    )
    shares = {one.name: one.share for one in run.recipe.corpus.sources}
    for name, found in run.results.corpus.items():
        documents, size = found["train"]["documents"], found["train"]["bytes"]
        told = f"{words.count(documents)} documents, {words.size(size)} of text"
        if name in shares:
            told += f", {100 * shares[name]:.3g} % of the training, {words.decimals(bits.get(name))} bits per byte"
        yield inline(run.results.spoken(name)), told


def training(run: RunData) -> Iterator[tuple[str, str]]:
    """Facts of the training."""
    done = run.results.main
    if done is None:
        return
    yield from (("steps", words.count(done.steps)), ("tokens", words.count(done.tokens)))
    yield "time", words.duration(done.seconds)
    adapter = Adapter.of(run.recipe.train)
    if adapter is not None:
        yield "body", f"{adapter.name}, merged"
    for name in SETTINGS:
        value = getattr(run.recipe.train, name)
        if value is not None:
            yield name.replace("_", " "), inline(str(value))
