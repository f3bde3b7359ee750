"""Task suites: lm-eval's own by name, a language's as a file that lists them, and multiple-choice questions from files,
which need no network.

A multiple-choice file has one JSON object per line: ``question``, ``choices`` (two or more), ``answer`` (index from 0),
and optionally ``context`` and ``premise``, which are read before the question. The prompt is those parts, one a line,
and a space; it says nothing in any language, so that one rule serves them all. The answer is the choice with the
highest likelihood (``acc``), or the highest per character (``acc_norm``).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from langadapt.errors import ConfigError, DataError, LangadaptError, shorten
from langadapt.evaluation.by_language import is_auto, tasks_for
from langadapt.models.folder import load_model
from langadapt.progress import Progress
from langadapt.tokenizer.files import load_auto

SUITES = {file.stem: file for file in sorted((Path(__file__).parent / "languages").glob("*.yaml"))}
"""Languages by name: files that list tasks of lm-eval."""

CHANCE = "chance"
"""Among a task's metrics: no measure, but what guessing gets."""

BATCH_SIZE = 16
"""Different texts per forward pass."""


@dataclass(frozen=True)
class SuiteResults:
    """What a model got in all tasks."""

    metrics: dict[str, dict[str, float]]
    """Task, metric, value."""
    items: dict[str, dict[str, list[float]]]
    """Task, metric, what each item got: what paired comparisons of models are made from. Groups of tasks have none."""


def evaluate_suites(
    model: Any,
    tokenizer: Any,
    suites: Sequence[str | Path],
    *,
    limit: int | None = None,
    batch_size: int = BATCH_SIZE,
    progress: Progress | None = None,
) -> dict[str, dict[str, float]]:
    """Run suites through lm-eval and return metrics by task, such as ``{"arc_de": {"acc": 0.31, "acc_stderr": 0.01}}``.

    Args:
        model: a folder or hub id of a causal language model, or the model itself, which keeps its mode.
        tokenizer: its tokenizer's folder or hub id, or a tokenizer of transformers.
        suites: each ``auto:LANGUAGE`` (a code such as ``swh_Latn``, or a name), ``german``, ``arabic``, a
            ``.yaml`` list of suites, a multiple-choice ``.jsonl`` file, a folder of
            them, or the name of one of lm-eval's tasks.
        limit: items per task, at most: the first ones.
        batch_size: different texts per forward pass, at most; the choices of a question share its beginning.
        progress: called as ``("tasks", done, total, "tokens")``.

    Raises:
        LangadaptError: the extra ``evaluate`` is not installed.
        ConfigError: no such suite, or two tasks of one name.
        DataError: a file that is not multiple choice (names the line), or a task whose data cannot be had.
    """
    return measure_suites(model, tokenizer, suites, limit=limit, batch_size=batch_size, progress=progress).metrics


def measure_suites(
    model: Any,
    tokenizer: Any,
    suites: Sequence[str | Path],
    *,
    limit: int | None = None,
    batch_size: int = BATCH_SIZE,
    progress: Progress | None = None,
) -> SuiteResults:
    """As :func:`evaluate_suites`, with what single items got."""
    wanted, chances = check_suites(suites, limit)
    if not wanted:
        return SuiteResults({}, {})
    harness = need_harness()
    model, tokenizer = loaded_model(model), loaded_tokenizer(tokenizer)
    modes = [(module, module.training) for module in model.modules()]
    try:
        found, items = harness.run(model, tokenizer, wanted, limit=limit, batch_size=batch_size, progress=progress)
    finally:
        for module, training in modes:
            module.training = training
    metrics = {
        name: plain_metrics(values) | ({CHANCE: chances[name]} if name in chances else {})
        for name, values in found.items()
    }
    return SuiteResults(metrics, items)


def need_harness() -> Any:
    """The module that imports lm-eval.

    Raises:
        LangadaptError: the extra ``evaluate`` is not installed.
    """
    try:
        from langadapt.evaluation import harness
    except ImportError as error:
        raise LangadaptError(
            f"suites need lm-eval and datasets ({error}); install them: pip install 'langadapt[evaluate]'"
        ) from None
    return harness


def auto_tasks(suite: str | Path, chances: dict[str, float]) -> list[tuple[str, str, None]]:
    """What the installed lm-eval has for the language of ``suite``; notes what guessing gets in ``chances``."""
    found = tasks_for(str(suite), need_harness().known_tasks())
    chances |= {task.name: task.chance for task in found}
    return [(str(suite), task.name, None) for task in found]


def check_suites(
    suites: Sequence[str | Path], limit: int | None = None
) -> tuple[list[tuple[str, str, list[dict[str, Any]] | None]], dict[str, float]]:
    """The tasks of suites as :func:`tasks_of` gives them, after making sure that they can be run, and what guessing
    gets in those that were found by their language and in files of questions.

    Raises:
        LangadaptError, ConfigError, DataError: as :func:`evaluate_suites`, but for what lm-eval alone knows.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"limit: {limit} items per task; give at least 1")
    chances: dict[str, float] = {}
    wanted = [task for suite in suites for task in (auto_tasks(suite, chances) if is_auto(suite) else tasks_of(suite))]
    for at, (suite, name, _) in enumerate(wanted):
        if any(name == other for _, other, _ in wanted[:at]):
            raise ConfigError(f"suite {suite}: the task {name!r} is asked for twice; results go by its name")
    for _, name, documents in wanted:
        if documents is not None:
            chances[name] = sum(1 / len(one["choices"]) for one in documents) / len(documents)
    if wanted:
        need_harness()
    return wanted, chances


def tasks_of(suite: str | Path) -> list[tuple[str, str, list[dict[str, Any]] | None]]:
    """``(suite, task, documents)`` of one suite; documents are none for lm-eval's own tasks."""
    path = SUITES.get(str(suite), Path(suite))
    if path.is_file() and path.suffix in (".yaml", ".yml"):
        return [(str(suite), name, documents) for one in read_list(path) for _, name, documents in tasks_of(one)]
    if path.is_dir():
        files = sorted(path.glob("*.jsonl"))
        if not files:
            raise DataError(
                f"{path}: no .jsonl file in this folder; a suite is a folder of multiple-choice .jsonl files"
            )
        return [(str(suite), file.stem, read_questions(file)) for file in files]
    if path.is_file():
        return [(str(suite), path.stem, read_questions(path))]
    if path.suffix or "/" in str(suite):
        raise ConfigError(
            f"suite {suite}: no such file or folder; a suite is {', '.join(SUITES)}, a multiple-choice .jsonl file "
            "or a folder of them, or a task of lm-eval"
        )
    return [(str(suite), str(suite), None)]


def read_list(file: Path) -> list[str]:
    """Names in a YAML list.

    Raises:
        DataError: it is none.
    """
    try:
        names = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: not valid YAML: {shorten(str(error))}") from None
    plain = isinstance(names, list) and all(isinstance(name, str) for name in names)
    # No list in a list: one that names itself would never end.
    if not plain or any(name in SUITES or name.endswith((".yaml", ".yml")) for name in names):
        raise DataError(f"{file}: a list of lm-eval's tasks or of files of questions is expected, one a line after `-`")
    return names


def read_questions(file: Path) -> list[dict[str, Any]]:
    """Documents ``{"prompt", "choices", "answer"}`` of one multiple-choice file.

    Raises:
        DataError: names the file, the line and what is wrong with it.
    """
    documents = []
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                documents.append(question(json.loads(line)))
            except (ValueError, UnicodeDecodeError) as error:
                raise DataError(f"{file}:{number}: not a multiple-choice question: {error}") from None
    if not documents:
        raise DataError(f"{file}: no question in it")
    return documents


def question(item: Any) -> dict[str, Any]:
    """One checked document; raises ``ValueError`` with what is wrong."""
    if not isinstance(item, dict):
        raise ValueError("a JSON object is expected")
    for field in ("question", "choices", "answer"):
        if field not in item:
            raise ValueError(f"no field `{field}`")
    choices, answer = item["choices"], item["answer"]
    if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(one, str) and one for one in choices):
        raise ValueError("`choices` is a list of two or more texts that are not empty")
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < len(choices):
        raise ValueError(f"`answer` is {answer!r}, but choices are numbered from 0 to {len(choices) - 1}")
    parts = {name: item.get(name) or "" for name in ("context", "premise", "question")}
    for name, part in parts.items():
        if not isinstance(part, str):
            raise ValueError(f"`{name}` is not a text")
    # The beginning of a sentence to be finished (Winograd schemas): read whole, it would be there twice.
    if parts["question"] and parts["premise"].startswith(parts["question"]):
        parts["premise"] = ""
    prompt = "\n".join(part.strip() for part in parts.values() if part.strip())
    return {"prompt": prompt, "choices": choices, "answer": answer}


def loaded_model(model: Any) -> Any:
    """A model in evaluation on the device at hand, where a folder or name was given."""
    if not isinstance(model, (str, Path)):
        return model
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded: Any = load_model(model, dtype="auto")
    return loaded.to(device).eval()


def loaded_tokenizer(tokenizer: Any) -> Any:
    """A tokenizer of transformers, where a folder or name was given."""
    return load_auto(tokenizer) if isinstance(tokenizer, (str, Path)) else tokenizer


def is_measure(metric: str) -> bool:
    """Whether an entry of a task's metrics says how good the model is."""
    return metric not in ("items", CHANCE) and not metric.endswith("_stderr")


def plain_metrics(values: dict[str, Any]) -> dict[str, float]:
    """Numbers only, with ``acc,none`` called ``acc``; what is no number (no standard error: ``N/A``) is left out.

    Where several filters give one metric (``exact_match,strict``), the first one counts. lm-eval counts the items
    among the metrics, too (``sample_len``), and only here would that be a measure.
    """
    plain: dict[str, float] = {}
    for name, value in values.items():
        if name != "sample_len" and isinstance(value, (int, float)) and not isinstance(value, bool):
            plain.setdefault(name.partition(",")[0], value)
    return plain
