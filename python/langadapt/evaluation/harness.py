"""The only module that imports lm-evaluation-harness and datasets; :mod:`suites <.suites>` imports it when asked to."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache
from typing import Any

import datasets
from lm_eval import simple_evaluate
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from langadapt.errors import ConfigError, DataError, nearest
from langadapt.evaluation.by_language import is_auto
from langadapt.evaluation.requests import Likelihoods, Request
from langadapt.progress import Progress

log = logging.getLogger(__name__)

BOOTSTRAP_ROUNDS = 1000
"""For standard errors of metrics that have no formula; accuracies have one."""


class MultipleChoice(ConfigurableTask):
    """A task over documents in memory: the likeliest choice after the prompt is the model's answer."""

    def __init__(self, name: str, documents: Sequence[dict[str, Any]]) -> None:
        # Set first: the base class loads its data while it is being made.
        self.documents = list(documents)
        super().__init__(
            config={
                "task": name,
                "output_type": "multiple_choice",
                "test_split": "test",
                "doc_to_text": "prompt",
                "doc_to_choice": "choices",
                "doc_to_target": "answer",
                "num_fewshot": 0,
                "metric_list": [
                    {"metric": metric, "aggregation": "mean", "higher_is_better": True}
                    for metric in ("acc", "acc_norm")
                ],
            }
        )

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **_: Any) -> None:
        """Take the documents as they are, past the hub and its cache on disk."""
        self.dataset = datasets.DatasetDict({"test": datasets.Dataset.from_list(self.documents)})


class Model(HFLM):
    """A Hugging Face model that always sees BOS before a text, as it does in bits per byte.

    Many tokenizers have a BOS token but no post-processor that adds it, and models trained with it fail without.
    Log-likelihoods are computed by :mod:`requests <.requests>`: lm-eval itself computes the context of each choice anew
    and makes logits of all of it.
    """

    def __init__(self, model: Any, tokenizer: Any, *, batch_size: int, progress: Progress | None = None) -> None:
        """``progress``: told of log-likelihoods, in tokens."""
        super().__init__(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)
        self.progress = progress
        self.likelihoods = Likelihoods(model, batch=batch_size)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **options: Any) -> list[int]:
        """Ids of ``string``, BOS in front unless it is there or unwanted."""
        ids = list(super().tok_encode(string, add_special_tokens, **options))
        bos = self.tokenizer.bos_token_id
        if add_special_tokens is not False and bos is not None and ids[:1] != [bos]:
            ids.insert(0, bos)
        return ids

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """As lm-eval's, without its bars, which count requests as if all were of one length."""
        found: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=True)
        return found

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """As lm-eval's, without its bars."""
        found: list[float] = super().loglikelihood_rolling(requests, disable_tqdm=True)
        return found

    def _loglikelihood_tokens(
        self,
        requests: list[tuple[Any, list[int], list[int]]],
        disable_tqdm: bool = False,
        override_bs: int | None = None,
    ) -> list[tuple[float, bool]]:
        """Log-likelihoods of ``(texts, context, continuation)``, as lm-eval's own function gives them."""
        most = self.max_length
        asked = [
            Request(tuple([*context, *continuation][-(most + 1) : -1]), tuple(continuation[-most:]))
            for _, context, continuation in requests
        ]
        found = self.likelihoods.score(asked, self.progress)
        for (texts, _, _), answer in zip(requests, found, strict=True):
            if texts is not None:
                self.cache_hook.add_partial("loglikelihood", texts, answer)
        return found


@cache
def task_manager(own_tasks: bool) -> TaskManager:
    """lm-eval's index; reading that of its own tasks takes many seconds."""
    return TaskManager(include_defaults=own_tasks)


def known_tasks() -> list[str]:
    """Names of all tasks of the installed lm-eval."""
    return list(task_manager(True).all_tasks)


def load_tasks(wanted: Sequence[tuple[str, str, Any]], manager: TaskManager) -> tuple[list[Any], list[str]]:
    """Task objects for ``(suite, name, documents or none)``, and the names under which results will be found.

    Documents are none for lm-eval's own tasks, groups and tags; a tag stands for several tasks. Of a language's tasks,
    which nobody has named, those whose data cannot be had are left out with a warning.

    Raises:
        ConfigError: lm-eval knows no such task.
        DataError: a task's data cannot be had, or those of all of a language's tasks; lm-eval loads it from the Hugging
            Face hub.
    """
    tasks: list[Any] = []
    names: list[str] = []
    left: dict[str, DataError] = {}
    for suite, name, documents in wanted:
        if documents is not None:
            tasks.append(MultipleChoice(name, documents))
            names.append(name)
            continue
        if name not in manager.all_tasks:
            near = nearest(name, manager.all_tasks, 3)
            raise ConfigError(
                f"suite {suite}: no such file or folder, and the installed lm-eval has no task of that name"
                + (f"; near ones: {', '.join(near)}" if near else "")
            )
        try:
            loaded = load_task(suite, name, manager)
        except DataError as error:
            if not is_auto(suite):
                raise
            log.warning("%s", error)
            left[suite] = error
            continue
        if name in loaded["groups"]:
            tasks.append(loaded["groups"][name])
            names.append(name)
        else:
            tasks.extend(loaded["tasks"].values())
            names.extend(loaded["tasks"])
    for suite, problem in left.items():
        if not any(one == suite and name in names for one, name, _ in wanted):
            raise problem
    return tasks, names


def load_task(suite: str, name: str, manager: TaskManager) -> dict[str, Any]:
    """``groups`` and ``tasks`` of a name, with their data.

    Raises:
        DataError: the data cannot be had.
    """
    try:
        loaded: dict[str, Any] = manager.load([name])
    except Exception as error:
        # Hub, cache, network and parsing fail in many ways, none of which is ours to tell apart.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(
            f"suite {suite}: no data for lm-eval's task {name!r} ({reason}); it comes from the Hugging Face hub: "
            "run once with access to it, or name a folder of multiple-choice .jsonl files instead"
        ) from error
    return loaded


def run(
    model: Any,
    tokenizer: Any,
    wanted: Sequence[tuple[str, str, Any]],
    *,
    limit: int | None,
    batch_size: int,
    progress: Progress | None = None,
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, list[float]]]]:
    """lm-eval's metrics, as it names them, by task; and what each item of a task got, by metric."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(max(level, logging.WARNING))
    try:
        manager = task_manager(any(documents is None for _, _, documents in wanted))
        tasks, names = load_tasks(wanted, manager)
        found = simple_evaluate(
            model=Model(model, tokenizer, batch_size=batch_size, progress=progress),
            tasks=tasks,
            task_manager=manager,
            limit=limit,
            log_samples=True,
            bootstrap_iters=BOOTSTRAP_ROUNDS,
            # The caller's random state is not lm-eval's to set.
            random_seed=None,
            numpy_random_seed=None,
            torch_random_seed=None,
        )
    finally:
        logger.setLevel(level)
    results = {**found["results"], **found.get("groups", {})}
    counts = found["n-samples"]
    each = {name: of_items(found["samples"][name]) for name in names if name in found["samples"]}
    return {name: {**results[name], "items": counts.get(name, {}).get("effective")} for name in names}, each


def of_items(samples: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    """Metric to what each item got, in the items' order; of several filters the first."""
    values: dict[str, dict[int, float]] = {}
    for sample in samples:
        for metric in sample["metrics"]:
            if isinstance(sample.get(metric), int | float):
                values.setdefault(metric, {}).setdefault(sample["doc_id"], float(sample[metric]))
    return {metric: [found[item] for item in sorted(found)] for metric, found in values.items()}
