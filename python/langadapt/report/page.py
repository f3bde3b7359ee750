"""The page: sections as plain values, then one template."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from markupsafe import Markup

from langadapt.evaluation.telling import read_course
from langadapt.report import samples, sections, words
from langadapt.report.charts import STROKES, stroke
from langadapt.report.curves import best_step, bits_charts, course_remarks, other_charts
from langadapt.report.results import Training
from langadapt.report.run import AXES, Log, RunData
from langadapt.report.summary import fertility_tables, measured_texts, shown, summarize
from langadapt.report.verdict import verdict


def environment() -> Any:
    """Templates; text is escaped everywhere in the page."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("langadapt.report"),
        autoescape=lambda name: name is not None and name.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.globals |= {"words": words, "stroke": stroke, "strokes": STROKES}
    made.filters["code"] = code
    return made


def code(text: str) -> Markup:
    """Text for the page, escaped, with what stands in backticks set as code."""
    parts = re.split("`([^`]+)`", text)
    shapes = (Markup("{}"), Markup("<code>{}</code>"))
    return Markup("").join(shapes[at % 2].format(part) for at, part in enumerate(parts))


def page(run: RunData) -> str:
    """The whole page as HTML that needs nothing else."""
    # Long: a line for each part of the page.
    templates, results = environment(), run.results
    summary = summarize(results)
    found, charts, tables = (
        verdict(summary, results, finished=not run.so_far),
        bits_charts(run, summary),
        fertility_tables(results),
    )
    suites = sections.suites(summary, read_course(run.folder))
    measured = {row.method for row in summary.rows if row.phase == "trained"}
    style = Markup(templates.get_template("page.css").render())
    return templates.get_template("page.html").render(
        style=style,
        summary=summary,
        texts=measured_texts(summary.rows),
        metric_title=words.title(summary.metric),
        base=run.recipe.model,
        method=shown(results.method),
        device=results.device,
        so_far=run.so_far,
        tiles=list(sections.tiles(summary, results)),
        verdict=found,
        remarks=[*found.remarks, *course_remarks(run, summary)],
        compressed={side: facts.xz_bits_per_byte for side, facts in results.held_out.items()},
        suites=suites,
        paired=any(row.gained or row.remark for row in suites),
        samples=samples.samples(summary, results),
        writing=samples.writing(summary),
        axes={axis: title for axis, title in AXES.items() if any(axis in chart.svgs for chart in charts)},
        bits=charts,
        charts=other_charts(run),
        fertility=[sections.fertility(kind, cells, summary.metric) for kind, cells in tables.items()],
        swaps=[sections.swap(method, report, method in measured) for method, report in results.swap.items()],
        corpus=sections.facts_table({results.spoken(name): report for name, report in results.corpus.items()}),
        sources=sections.sources(run),
        training=sections.facts_table(
            {shown(name): trained(one, run.logs.get(name)) for name, one in results.training.items()}
        ),
        times=sections.times(results.cost),
        seconds=[(name, words.duration(value)) for name, value in results.cost.seconds.items()],
        layouts=list(sections.layouts(run)),
        recipe=run.recipe.to_yaml(),
        versions=results.versions,
    )


def trained(training: Training, log: Log | None) -> Mapping[str, Any]:
    """Facts of one training without the folders of the machine that it ran on."""
    facts = {key: value for key, value in asdict(training).items() if key not in ("log", "out")}
    best = best_step(log) if log and training.best_step is None else None
    if log is not None and best is not None:
        facts["best_validation"] = {"step": best, "bits_per_byte_target": dict(log.validations)[best]["target"]}
    return facts
