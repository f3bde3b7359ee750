"""``langadapt evaluate``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from langadapt.artefacts.folders import write_atomically
from langadapt.artefacts.plain_json import to_json
from langadapt.cli.comparison import comparison
from langadapt.cli.options import AsJson, TextField, warn_renamed
from langadapt.cli.progress import next_step, progress, say
from langadapt.cli.sheet import show
from langadapt.corpus.documents import read_documents
from langadapt.corpus.samples import Beginning
from langadapt.errors import ConfigError
from langadapt.evaluation.sheet import judge
from langadapt.evaluation.suites import BATCH_SIZE, evaluate_suites
from langadapt.evaluation.telling import FEWEST, OVER_TRAINING, write_course
from langadapt.machine import choose_device, quiet_transformers
from langadapt.models.folder import load_model
from langadapt.pipeline.finished import held_out, is_checkpoint, is_run, model_of, models_of_training
from langadapt.report.words import size
from langadapt.terminal import Terminal, echo

Measure = Callable[[Any, str], "dict[str, Any]"]
"""Takes a model and its tokenizer's folder."""


Suites = Annotated[
    list[str] | None,
    typer.Option(
        "--suites",
        "--suite",
        metavar="auto:LANGUAGE|german|arabic|PATH",
        help="All tasks that lm-eval has for a language (auto:swh_Latn, auto:Swahili), a suite or a .yaml list of "
        "tasks, a multiple-choice .jsonl file or a folder of them, or a task of lm-eval.",
    ),
]
Corpora = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[NAME=]CORPUS",
        help="Text to measure bits per byte on: file, folder or glob. Default for a run: what it set aside.",
    ),
]
Sheets = Annotated[
    list[Path] | None,
    typer.Option("--sheet", metavar="ANSWERS.json", help="What judges of a `langadapt sheet` saved, a file each."),
]
Checkpoints = Annotated[
    bool,
    typer.Option(
        "--checkpoints",
        help="Of a run: the model before its training, its checkpoints, and the trained one; says which tasks waver.",
    ),
]
MaxBytes = Annotated[
    int, typer.Option(help="Read so much of each text, whole documents, at most; 0 reads all of it.", min=0)
]


def command(
    ctx: typer.Context,
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL", help="Folders or hub ids of causal models, or a run's folder.", show_default=False
        ),
    ] = None,
    *,
    suites: Suites = None,
    text: Corpora = None,
    old_text: Annotated[list[str] | None, typer.Option("--bytes", hidden=True)] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Tokenizer of all models, where it is not in their folders.")
    ] = None,
    window: Annotated[
        int | None, typer.Option(help="Tokens per forward pass. Default: the context, at most 2048.")
    ] = None,
    stride: Annotated[
        int | None, typer.Option(help="Tokens scored per window of a long text. Default: half a window.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Items per task of a suite, at most.", min=1)] = None,
    batch_size: Annotated[int, typer.Option(help="Different texts per forward pass of a suite.", min=1)] = BATCH_SIZE,
    text_field: TextField = "text",
    max_bytes: MaxBytes = 1_000_000,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    checkpoints: Checkpoints = False,
    sheet: Sheets = None,
    key: Annotated[Path | None, typer.Option(help="Of the sheet. Default: the one beside the answers.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure models: bits per byte of text, whatever the tokenizer, and suites of tasks through lm-eval."""
    # Long: a line for each flag.
    if sheet:
        show_answers(sheet, key, as_json)
        return
    if not models:
        raise ConfigError("give one model or more, or --sheet ANSWERS.json")
    places = {name: model_of(name) for name in models} if not checkpoints else over_training(models, suites)
    if old_text:
        warn_renamed("--bytes", "--text")
    named = named_corpora([*(text or ()), *(old_text or ())]) or ({} if suites else set_aside(models))
    check_use(ctx, bool(named), bool(suites))
    windows = {"window": window, "stride": stride}

    def measure(model: Any, folder: str) -> dict[str, Any]:
        how: dict[str, Any] = {**windows, "text_field": text_field, "max_bytes": max_bytes}
        bits = bits_of(model, folder, named, **how)
        tasks = run_suites(model, folder, suites or (), limit=limit, batch_size=batch_size)
        return {"parameters": model.num_parameters(), "bits_per_byte": bits, "suites": tasks}

    results = measure_models(places, tokenizer, device, measure)
    if checkpoints:
        course = {name: found["suites"] for name, found in results.items()}
        write_atomically(Path(models[0]) / OVER_TRAINING, write_course(Path(models[0]), course))
    if as_json:
        echo(to_json(results))
    else:
        Terminal().print(comparison(results, over_training=checkpoints))
        next_step(f"langadapt generate {models[0]} --prompt TEXT")


def show_answers(files: Sequence[Path], key: Path | None, as_json: bool) -> None:
    """What judges of a blind sheet found."""
    found = judge(files, key)
    if as_json:
        echo(to_json(asdict(found)))
    else:
        show(found)


def set_aside(models: Sequence[str]) -> dict[str, str]:
    """Texts that the only run among ``models`` set aside, by language; none where there is no run."""
    runs = [model for model in models if is_run(model)]
    return {name: str(file) for name, file in held_out(Path(runs[0])).items()} if len(runs) == 1 else {}


def check_use(ctx: typer.Context, text: bool, suites: bool) -> None:
    """Refuse to measure nothing, and options of what is not measured.

    Raises:
        ConfigError: as the name says.
    """
    if not suites and not text:
        raise ConfigError("nothing to measure: give --text CORPUS, --suite SUITE, or both")
    refuse_idle(ctx, text, ("window", "stride", "text_field", "max_bytes"), "text is measured")
    refuse_idle(ctx, suites, ("limit", "batch_size"), "a suite is run (--suite)")


def refuse_idle(ctx: typer.Context, used: bool, names: Sequence[str], when: str) -> None:
    """Refuse options that would do nothing.

    Raises:
        ConfigError: one of ``names`` was given, and is for what is not done.
    """
    for name in names:
        source = ctx.get_parameter_source(name)
        if not used and source is not None and source.name == "COMMANDLINE":
            raise ConfigError(f"--{name.replace('_', '-')}: does something only where {when}")


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


def over_training(models: Sequence[str], suites: Sequence[str] | None) -> dict[str, Path]:
    """The models of a run's training by name, in the order of their steps; says where they are too few to judge by.

    Raises:
        ConfigError: not one finished run, or no suite.
    """
    if len(models) != 1 or not is_run(models[0]):
        raise ConfigError("--checkpoints: give the folder of one run")
    if not suites:
        raise ConfigError("--checkpoints: does something only where a suite is run (--suite)")
    places = models_of_training(Path(models[0]))
    if len(places) < FEWEST:
        say(
            f"{models[0]}: no checkpoint is left from the midst of its training, so that no task can be seen to waver; "
            "`train.keep_checkpoints` and `checkpoint_every` keep more"
        )
    return places


def measure_models(places: Mapping[str, Path], tokenizer: str | None, device: str, measure: Measure) -> dict[str, Any]:
    """What ``measure`` finds of each model, one in memory at a time."""
    from langadapt.training.snapshot import model_at

    quiet_transformers()
    chosen = choose_device(device)
    # Of a run the first is what its training began with, the last what it ended with.
    folders, results = list(places.values()), {}
    for name, folder in places.items():
        if is_checkpoint(folder):
            model: Any = model_at(folder, start=folders[0], trained=folders[-1], device=chosen)
        else:
            model = load_model(folder, dtype="auto").to(chosen).eval()
        results[name] = measure(model, tokenizer or str(folders[-1] if is_checkpoint(folder) else folder))
        del model
    return results


def bits_of(
    model: Any, tokenizer: str, named: Mapping[str, str], *, text_field: str, max_bytes: int, **windows: Any
) -> dict[str, dict[str, Any]]:
    """Bits per byte of the beginning of each corpus, with its counts; says where that is not all of it."""
    from langadapt.evaluation.bits_per_byte import measure_bits_per_byte
    from langadapt.tokenizer.encoder import Tokenizer

    loaded, measured = Tokenizer.from_pretrained(tokenizer) if named else None, {}
    for name, path in named.items():
        texts = Beginning(read_documents(path, text_field=text_field), max_bytes)
        with progress("bits per byte") as report:
            found = measure_bits_per_byte(model, loaded, texts, **windows, progress=report)
        if texts.cut:
            say(f"{name}: measured on its first {size(found.bytes)}; --max-bytes 0 reads all of it")
        measured[name] = asdict(found)
    return measured


def run_suites(
    model: Any, tokenizer: str, suites: Sequence[str], *, limit: int | None, batch_size: int
) -> dict[str, dict[str, float]]:
    """Metrics by task, with the tokenizer as transformers loads it."""
    with progress("tasks") as report:
        return evaluate_suites(model, tokenizer, suites, limit=limit, batch_size=batch_size, progress=report)
