"""``adapt``: the stages of a recipe, in order.

    files -> documents -> tokenizer -> token store -> token vectors -> swapped model -> training -> evaluation -> report

Every arm of the comparison (the recipe's method, and each of ``compare``) shares the corpus, the tokenizer and the
budget; they differ in how the rows of new tokens are made. ``keep`` trains the model as it is, with its own tokenizer.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from langadapt.artefacts.folders import remove_leftovers, write_atomically
from langadapt.artefacts.stages import Run
from langadapt.machine import choose_device, describe_device, quiet_transformers, versions
from langadapt.models.folder import load_model, read_new_rows, resolve_model, tokenizer_file
from langadapt.pipeline.precheck import check_run
from langadapt.pipeline.swap import BAKE_OFF
from langadapt.pipeline.text import Progress, TextStages
from langadapt.recipe.recipe import Recipe
from langadapt.swap.rows.names import AUTO, KEEP

log = logging.getLogger(__name__)


def adapt(recipe: Recipe, *, progress: Progress | None = None) -> dict[str, Any]:
    """Run all stages of ``recipe`` and return the results, as written to ``OUT/results.json``.

    Stages whose inputs and settings have not changed are not run again, an interrupted training goes on from its last
    checkpoint: call it again after any interruption.

    Raises:
        ConfigError: the recipe cannot work.
        DataError: an input or an artefact is broken; the message names the file.
        LangadaptError: another process is running in the same folder.
    """
    quiet_transformers()
    run = Run(Path(recipe.out), log.info)
    with run.locked():
        write_atomically(run.folder / "recipe.yaml", recipe.to_yaml())
        return Adaptation(recipe, run, progress).results()


def train(recipe: Recipe, *, progress: Progress | None = None, extend: bool | int | str = False) -> dict[str, Any]:
    """Run the stages of ``recipe`` up to its main training, and return that training's summary.

    Under ``torchrun`` the first process makes the stages before training while the others wait, then all train. Like
    :func:`adapt` without evaluation, comparison and report; ``adapt`` of the same recipe goes on from here. ``extend``:
    go on with a larger budget or at other rates.
    """
    from langadapt.training import parallel

    run = Run(Path(recipe.out), log.info)
    adaptation = Adaptation(recipe, run, progress)
    adaptation.extend = extend
    processes = parallel.join(recipe.train) if parallel.under_torchrun() else parallel.ProcessGroup()

    def prepare() -> str:
        write_atomically(run.folder / "recipe.yaml", recipe.to_yaml())
        for language in adaptation.languages:
            adaptation.build_corpus(language)
        method = adaptation.chosen()
        adaptation.stores(adaptation.prepare(method)[1])
        return method

    if not processes.is_main:
        method = parallel.main_process_first(processes, run.folder, prepare)
        return adaptation.train_arm(method, *adaptation.places(method))
    with run.locked():
        method = parallel.main_process_first(processes, run.folder, prepare)
        return adaptation.train(method, *adaptation.places(method))


class Adaptation(TextStages):
    """One run of one recipe; the methods are the stages."""

    def __init__(self, recipe: Recipe, run: Run, progress: Progress | None) -> None:
        super().__init__(recipe, run, resolve_model(recipe.model), progress)
        self.extend: bool | int | str = False
        self.ranked: list[dict[str, Any]] | None = None
        check_run(recipe, self.model, [recipe.swap.method, *recipe.compare])

    def results(self) -> dict[str, Any]:
        """All stages, then ``results.json`` and the report."""
        from langadapt.report import write_report

        recipe = self.recipe
        corpus = {language: self.build_corpus(language) for language in self.languages}
        tokenizer = self.make_tokenizer()
        fertility = self.measure_fertility(tokenizer)
        rows = [self.evaluate("source", self.model, self.model, method=None, phase="source")]
        swaps: dict[str, Any] = {}
        trainings: dict[str, Any] = {}
        chosen = self.chosen()
        for method in [chosen, *(other for other in recipe.compare if other != chosen)]:
            start, its_tokenizer = self.prepare(method)
            if method != KEEP:
                swaps[method] = self.swap(method, its_tokenizer)
                rows.append(self.evaluate(f"{method}-swapped", start, its_tokenizer, method=method, phase="swapped"))
            trainings[method] = self.train(method, start, its_tokenizer)
            final = self.trained(method) / "final"
            rows.append(self.evaluate(f"{method}-trained", final, its_tokenizer, method=method, phase="trained"))
        results = {
            "name": recipe.name,
            "languages": {"source": recipe.source_language, "target": recipe.target_language},
            "versions": versions(),
            "device": describe_device(),
            "method": chosen,
            "tokenizers": {
                "source": describe_tokenizer(self.model, Path(recipe.model).name),
                "target": describe_tokenizer(tokenizer, "new"),
            },
            "fertility": fertility,
            "corpus": corpus,
            "swap": swaps,
            "bake_off": self.bake_off() if recipe.swap.method == AUTO else [],
            "rows": rows,
            "training": trainings,
            "cost": self.cost(trainings),
        }
        write_atomically(self.folder / "results.json", json.dumps(results, indent=2, ensure_ascii=False) + "\n")
        remove_leftovers(self.folder / "report")
        write_report(self.folder)
        return results

    def chosen(self) -> str:
        """The recipe's method; ``auto`` is the winner of the bake-off.

        Only the first process of a distributed run makes the bake-off; the others read its outcome.
        """
        if self.recipe.swap.method != AUTO:
            return self.recipe.swap.method
        leads = int(os.environ.get("RANK", "0")) == 0
        rows = self.bake_off() if leads else json.loads((self.folder / BAKE_OFF).read_text(encoding="utf-8"))
        return str(rows[0]["method"])

    def bake_off(self) -> list[dict[str, Any]]:
        """Rows of the bake-off, best first."""
        from langadapt.pipeline import swap as swap_stages

        if self.ranked is None:
            self.ranked = swap_stages.bake_off(self)
        return self.ranked

    def places(self, method: str) -> tuple[Path, Path]:
        """Folders of the model that an arm starts from, and of its tokenizer."""
        if method == KEEP:
            return self.model, self.model
        return self.folder / "swapped" / method, self.folder / "tokenizer"

    def prepare(self, method: str) -> tuple[Path, Path]:
        """All stages of an arm before its training; returns its :meth:`places`."""
        method = self.chosen() if method == AUTO else method
        start, tokenizer = self.places(method)
        if method != KEEP:
            self.swap(method, self.make_tokenizer())
        return start, tokenizer

    def swap(self, method: str, tokenizer: Path) -> dict[str, Any]:
        """The model with the new tokenizer, rows made by ``method``."""
        from langadapt.pipeline import swap as swap_stages

        return swap_stages.swap(self, method, tokenizer)

    def trained(self, method: str) -> Path:
        """Where an arm's training leaves its logs, checkpoints and final model."""
        return self.folder / "trained" / method

    def train(self, method: str, start: Path, tokenizer: Path) -> dict[str, Any]:
        """Continued pretraining of one arm."""
        share = self.recipe.corpus.source_share
        return self.run.stage(
            f"train-{method}",
            self.trained(method) / "final",
            lambda: self.train_arm(method, start, tokenizer),
            settings={"train": asdict(self.recipe.train), "source_share": share},
            inputs={"model": start, **{store.name: Path(store.path) for store in self.stores(tokenizer)}},
        )

    def train_arm(self, method: str, start: Path, tokenizer: Path) -> dict[str, Any]:
        """The training itself; every process of a distributed run calls this."""
        from langadapt.tokenizer.encoder import Tokenizer
        from langadapt.training import train_model

        out = self.trained(method)
        result = train_model(
            start,
            self.stores(tokenizer),
            out,
            self.recipe.train,
            tokenizer=Tokenizer.from_pretrained(tokenizer),
            validate=self.validator(tokenizer),
            new_rows=read_new_rows(start),
            extend=self.extend,
        )
        return {**result.to_dict(), "log": str((out / "log.jsonl").relative_to(self.folder))}

    def validator(self, tokenizer: Path) -> Callable[[Any, int], dict[str, float]]:
        """A callback for training: bits per byte of both languages on a part of the validation text."""
        from langadapt.evaluation.bits_per_byte import measure_bits_per_byte
        from langadapt.tokenizer.encoder import Tokenizer

        settings = self.recipe.evaluate
        loaded = Tokenizer.from_pretrained(tokenizer)
        texts = {
            language: self.validation_texts(language, settings.bytes_while_training) for language in self.languages
        }

        def validate(model: Any, step: int) -> dict[str, float]:
            return {
                f"bits_per_byte_{language}": measure_bits_per_byte(
                    model, loaded, some, window=settings.window, stride=settings.stride
                ).bits_per_byte
                for language, some in texts.items()
            }

        return validate

    def evaluate(self, name: str, model: Path, tokenizer: Path, *, method: str | None, phase: str) -> dict[str, Any]:
        """One row of the results: parameters, bits per byte on both languages, and the suites."""
        settings = self.recipe.evaluate
        out = self.folder / "evaluation" / f"{name}.json"
        which = "source" if tokenizer == self.model else "target"

        def make() -> dict[str, Any]:
            row = self.measure(model, tokenizer)
            row = {"label": label(method, phase), "method": method, "phase": phase, "tokenizer": which, **row}
            out.parent.mkdir(exist_ok=True)
            write_atomically(out, json.dumps(row, indent=2) + "\n")
            return row

        inputs = {"model": model, "tokenizer": tokenizer_file(tokenizer)}
        inputs |= {language: self.validation(language) for language in self.languages}
        return self.run.stage(f"evaluate-{name}", out, make, settings=asdict(settings), inputs=inputs)

    def measure(self, model: Path, tokenizer: Path) -> dict[str, Any]:
        """Numbers of one model."""
        import torch

        from langadapt.evaluation.bits_per_byte import evaluate_suites, measure_bits_per_byte
        from langadapt.tokenizer.encoder import Tokenizer

        settings = self.recipe.evaluate
        loaded: Any = load_model(model, dtype=torch.bfloat16)
        loaded.to(choose_device(self.recipe.train.device)).eval()
        its_tokenizer = Tokenizer.from_pretrained(tokenizer)
        bits = {
            language: measure_bits_per_byte(
                loaded,
                its_tokenizer,
                self.validation_texts(language),
                window=settings.window,
                stride=settings.stride,
                progress=self.progress,
            ).bits_per_byte
            for language in self.languages
        }
        suites = {}
        if settings.suites:
            suites = evaluate_suites(loaded, tokenizer, settings.suites, limit=settings.limit)
        return {"parameters": loaded.num_parameters(), "bits_per_byte": bits, "suites": suites}

    def cost(self, trainings: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Seconds per stage, and what the accelerators cost."""
        import torch

        price, training = self.recipe.budget.price_per_gpu_hour, trainings[self.chosen()]
        hours = None
        if torch.cuda.is_available() and not self.recipe.train.device.startswith("cpu"):
            # Not the GPUs that are here now: a team trains, one process evaluates.
            hours = training["seconds"] * training.get("layout", {}).get("processes", 1) / 3600
        money = hours * price if hours is not None and price is not None else None
        seconds = {name: round(value, 3) for name, value in self.run.seconds.items()}
        return {"seconds": seconds, "gpu_hours": hours, "price": money}


def label(method: str | None, phase: str) -> str:
    """A row's name for readers."""
    if method is None:
        return "source model"
    if method == KEEP:
        return "trained without a swap"
    return f"{method}, before training" if phase == "swapped" else f"{method}, trained"


def describe_tokenizer(folder: Path, name: str) -> dict[str, Any]:
    """Name and size for the report."""
    from langadapt.tokenizer.encoder import Tokenizer

    tokenizer = Tokenizer.from_pretrained(folder)
    return {"name": name, "vocab_size": tokenizer.vocab_size, "backend": tokenizer.backend}
