"""The training loop. `Trainer.run` reads top to bottom: batch, step, measure, validate, save; then the export."""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from langadapt.artefacts.folders import new_folder, remove_leftovers, write_manifest
from langadapt.errors import LangadaptError, TrainingStopped
from langadapt.progress import Progress
from langadapt.training import checkpoint, parallel, probe, resume
from langadapt.training import layout as layouts
from langadapt.training import model as models
from langadapt.training.course import Course, check_deadline, tenths
from langadapt.training.data import mixture as data
from langadapt.training.data.batches import Batch, StoreShare, prefetch
from langadapt.training.display import Display
from langadapt.training.meters import Journal, peak_memory
from langadapt.training.optimizer import local
from langadapt.training.result import TrainResult
from langadapt.training.schedule import embeddings_first_rate
from langadapt.training.settings import TrainSettings
from langadapt.training.signals import Requests, warn_of_short_grace
from langadapt.training.step import Stepper

log = logging.getLogger(__name__)

LONG_STEP = 1.0
"""Seconds of a step beside which a sync and a few bytes between processes are nothing."""
MODEST_DISK = 5e8
"""Bytes per second that a checkpoint is written with, until one was."""

Validate = Callable[[Any, int], dict[str, float]]
ShareLike = StoreShare | tuple[Any, ...]


def train_model(
    model: Any,
    stores: Sequence[ShareLike],
    out: str | Path,
    settings: TrainSettings,
    *,
    tokenizer: Any = None,
    validate: Validate | None = None,
    progress: Progress | None = None,
    new_rows: Sequence[int] | None = None,
    extend: resume.Extend = False,
) -> TrainResult:
    """Train a causal language model on token stores; the same call again goes on where it was interrupted.

    Args:
        model: a folder that `AutoModelForCausalLM` loads, or a loaded model (changed in place).
        stores: `StoreShare` objects, or tuples (path, weight, name).
        out: gets ``log.jsonl``, ``checkpoints/`` and, when all is done, the Hugging Face folder ``final/``.
        settings: what to do.
        tokenizer: of the stores (an object or a folder); its ids begin and end documents and its files go into
            ``final``. Without one the model folder's is taken, or the ids of the model's config.
        validate: called as ``validate(model, step)`` before, every so often, and after; returns numbers for the log.
        progress: called as ``progress(phase, done, total, unit)`` instead of the display on stderr.
        new_rows: embedding rows that have never been trained: where there are any, they raise the embeddings' rate
            (``embedding_learning_rate: auto``), and ``embeddings_first_steps`` trains them alone.
        extend: go on with a larger budget, or at other rates: true = from the checkpoint before the final decay if that
            decay is over, else from the newest; or the step of a checkpoint; or ``newest``.

    Raises:
        ConfigError: settings that cannot work here.
        MismatchError: a store of another tokenizer, or ``out`` holds another run.
        DataError: too little text.
        LangadaptError: the loss is no number any more, or the disk is full.
        TrainingStopped: asked to stop by a signal; a checkpoint was written.
        KeyboardInterrupt: Ctrl-C; a checkpoint was written.
    """
    out = Path(out)
    shares = [share if isinstance(share, StoreShare) else StoreShare(*share) for share in stores]
    described = resume.describe_run(model, shares, settings)
    done = resume.finished(out, described, extend)
    if done is not None:
        return TrainResult(**{**done, "out": str(out)})
    check_deadline(settings)
    team = parallel.join(settings)

    def prepare() -> None:
        out.mkdir(parents=True, exist_ok=True)
        remove_leftovers(out / "final")
        resume.check_folder(out, described, extend)

    parallel.lead_first(team, out, prepare)
    # Steps are seeded one by one; the caller's generators are left as they were.
    gpus = [team.device] if team.device.type == "cuda" else []
    with parallel.partners(team, out), torch.random.fork_rng(gpus):
        trainer = Trainer(model, shares, out, settings, team, tokenizer, validate, progress, new_rows, described)
        return trainer.run(extend)


class Trainer:
    """One run in one process."""

    def __init__(
        self,
        model: Any,
        shares: list[StoreShare],
        out: Path,
        settings: TrainSettings,
        team: parallel.Team,
        tokenizer: Any,
        validate: Validate | None,
        progress: Progress | None,
        new_rows: Sequence[int] | None,
        described: dict[str, Any],
    ) -> None:
        self.out, self.settings, self.team, self.validate, self.progress = out, settings, team, validate, progress
        self.described, self.tokenizer_files = described, Path(model) if isinstance(model, (str, Path)) else None
        self.display = Display(team.leads and progress is None)
        self.tokenizer = data.load_tokenizer(tokenizer, None)
        self.model = models.load(model, settings, team.device)
        ids = self.tokenizer if self.tokenizer is not None else data.load_tokenizer(None, model)
        self.mixture = data.open_mixture(shares, self.tokenizer, ids, self.model, settings)
        self.bytes_per_token = data.bytes_per_token(self.mixture)
        self.stepper = Stepper(self.model, self.mixture, settings, team, new_rows)
        self.step, self.loss = 0, math.nan
        self.validation: dict[str, float] = {}
        self.course = Course.start(settings, self.planned_steps())
        self.writer = checkpoint.Writer(
            out / "checkpoints",
            team,
            settings.keep_checkpoints,
            settings.asynchronous_checkpoints and team.device.type == "cuda",
        )
        self.protected: list[int] = []
        self.validation_seconds, self.cold = 0.0, True
        self.saved_at = self.measured_at = time.monotonic()
        self.measured_step = self.logged_step = 0

    def planned_steps(self) -> int | None:
        """Steps that the budget comes to; none under `hours`."""
        settings, mixture = self.settings, self.mixture
        if settings.hours is not None:
            return None
        if settings.steps is not None:
            return settings.steps
        if settings.tokens is not None:
            return -(-settings.tokens // settings.tokens_per_step)
        share = mixture.parts[0] / sum(mixture.parts)
        windows = (settings.epochs or 1.0) * len(mixture.sources[0])
        return max(1, math.ceil(windows / (share * settings.sequences_per_step)))

    def run(self, extend: resume.Extend) -> TrainResult:
        """Everything after preparation."""
        self.resume(extend)
        if self.team.leads:
            resume.note(self.out, self.described, self.stepper.shape, self.settings)
        self.display.say(layouts.describe(self.stepper.layout()))
        journal = Journal(self.out, self.settings, self.step, self.team.leads, self.course.origin)
        batches = prefetch(self.make_batch, itertools.count(self.step))
        try:
            with Requests(self.out) as requests, contextlib.closing(batches):
                if self.step == 0:
                    self.run_validation(journal)
                while not self.course.finished:
                    self.heed(requests)
                    with self.stepper.data_wait:
                        batch = next(batches)
                    before = self.course.done
                    self.one_step(batch)
                    if self.meeting():
                        self.measure()
                        self.writer.look()
                    if self.due_log():
                        self.write_log(journal)
                    if self.due_validation(before):
                        self.run_validation(journal)
                    if self.due_checkpoint():
                        self.save()
            self.writer.close()
            result = self.result()
            self.export(result)
            return result
        finally:
            journal.close()
            self.display.close()
            self.stepper.close()

    def make_batch(self, step: int) -> Batch:
        """This process' part of a step's batch."""
        return self.mixture.batch(step, self.team.rank, self.team.size)

    def one_step(self, batch: Batch) -> None:
        """An optimizer step; the embeddings-first phase comes before the course begins."""
        if self.step < self.settings.embeddings_first_steps:
            self.stepper.begin_embeddings()
            self.stepper.step(batch, self.step, embeddings_rate=embeddings_first_rate(self.step, self.settings))
        else:
            self.stepper.begin_main()
            self.stepper.step(batch, self.step, rate=self.course.rate(self.settings))
            self.course.advance()
        self.step += 1

    def meeting(self) -> bool:
        """Whether host and device, and all processes, may meet: with each log line, and where that costs nothing."""
        if self.team.device.type == "cpu" and not self.team.many:
            return True
        pace = self.course.step_seconds
        return pace is None or pace >= LONG_STEP or self.due_log()

    def measure(self) -> None:
        """Find a lost run, count time, set the pace."""
        self.check_finite()
        now = time.monotonic()
        steps = max(self.step - self.measured_step, 1)
        self.course.measure(now - self.measured_at, steps, self.cold)
        self.measured_at, self.measured_step, self.cold = now, self.step, False
        # What comes at the end: a validation, a checkpoint, the export, and a step that takes twice as long.
        after = self.validation_seconds + self.writing_seconds() + (self.course.step_seconds or 0.0)
        self.course.replan(self.settings, after + self.writing_seconds())
        warn_of_short_grace(after if self.team.leads else 0.0)
        if self.team.many:
            self.course = Course(**self.team.share(self.course.to_dict()))

    def check_finite(self) -> None:
        """Raise LangadaptError for a lost run, after what is being written is whole."""
        try:
            self.stepper.check_finite(self.step, self.out)
        except LangadaptError:
            self.writer.wait()
            raise

    def writing_seconds(self) -> float:
        """What a checkpoint takes, as the last one did, or as a modest disk will."""
        if self.writer.seconds is None:
            tensors = resume.tensors_of(self.model, self.stepper.named, self.stepper.optimizer).values()
            self.writer.seconds = sum(local(tensor).nbytes for tensor in tensors) / MODEST_DISK
        return self.writer.seconds

    def heed(self, requests: Requests) -> None:
        """Do what was asked for from outside since the last step.

        Raises:
            TrainingStopped, KeyboardInterrupt: after writing a checkpoint.
        """
        stop, anneal = requests.stop, requests.anneal
        if self.team.many:
            if not self.meeting():
                return
            asked = self.team.gather((stop, anneal))
            stop = next((name for name, _ in asked if name), None)
            anneal = any(wish for _, wish in asked)
        if anneal and self.step >= self.settings.embeddings_first_steps:
            if self.step and not self.course.falling(self.settings):
                self.protected = [self.step]
                self.save()
            steps = self.course.anneal_now(self.settings)
            self.display.say(f"annealing now: {steps} steps to the end")
            if self.team.leads:
                requests.anneal_begun()
            self.team.wait()
        if stop is not None:
            if self.step and self.writer.latest != self.step:
                self.save()
            self.writer.wait()
            text = f"{stop}: stopped after step {self.step}, checkpoint in {self.writer.root}; the same command goes on"
            if stop == "SIGINT":
                self.display.say(text)
                raise KeyboardInterrupt
            raise TrainingStopped(text)

    def due_log(self) -> bool:
        """Every ``log_every`` steps and at the end."""
        return self.step % self.settings.log_every == 0 or self.course.finished

    def due_validation(self, before: float) -> bool:
        """As asked for, or with every tenth of the run, and at the end."""
        if self.validate is None:
            return False
        every = self.settings.validate_every
        if self.course.finished:
            return True
        return self.step % every == 0 if every else tenths(self.course.done) > tenths(before)

    def due_checkpoint(self) -> bool:
        """By steps, by time, before the final decay (from where a run is best extended), and at the end."""
        settings, turn = self.settings, self.course.turn(self.settings)
        if turn is not None and 0 < self.course.done <= turn < self.course.next_done():
            self.protected = [self.step]
            return True
        if self.course.finished or (settings.checkpoint_every and self.step % settings.checkpoint_every == 0):
            return True
        if settings.checkpoint_minutes is None or not self.meeting():
            return False
        return bool(self.team.share(time.monotonic() - self.saved_at >= settings.checkpoint_minutes * 60))

    def write_log(self, journal: Journal) -> None:
        """One line of the log, and the display."""
        steps, self.logged_step = self.step - self.logged_step, self.step
        line = {"step": self.step, "progress": self.course.done, "tokens": self.step * self.settings.tokens_per_step}
        line |= self.stepper.report(steps, self.bytes_per_token)
        line |= {"seconds": round(self.course.seconds, 3), "peak_memory_bytes": peak_memory(self.team.device)}
        self.loss = line["loss"]
        journal.write(line)
        total = self.step + self.course.steps_left
        left = self.course.steps_left * (self.course.step_seconds or 0.0)
        self.display.show(self.course.done, self.step, total, line, left)
        if self.progress is not None:
            tokens = self.settings.tokens_per_step
            self.progress("training", self.step * tokens, total * tokens, "tokens")

    def run_validation(self, journal: Journal) -> None:
        """Let the caller measure the model as it is."""
        if self.validate is None:
            return
        begun = time.monotonic()
        self.model.eval()
        with torch.no_grad(), self.stepper.compute(), self.stepper.uncompiled():
            self.validation = {key: float(value) for key, value in self.validate(self.model, self.step).items()}
        self.model.train()
        self.validation_seconds = time.monotonic() - begun
        journal.write({"step": self.step, "validation": self.validation})
        shown = ", ".join(f"{key} {value:.4f}" for key, value in self.validation.items())
        self.display.say(f"step {self.step}: {shown}")

    def save(self) -> None:
        """Write a checkpoint, after making sure that it is worth having."""
        self.check_finite()
        state = {
            "run": self.described,
            "course": self.course.to_dict(),
            "phase": self.stepper.phase,
            "layout": self.stepper.layout(),
            "validation": self.validation,
            "loss": self.loss if math.isfinite(self.loss) else None,
            "protected": self.protected,
            "optimizer_states": resume.plain_states(self.stepper.named, self.stepper.optimizer),
        }
        tensors = resume.tensors_of(self.model, self.stepper.named, self.stepper.optimizer)
        self.writer.save(self.step, tensors, state, self.protected)
        self.saved_at = time.monotonic()

    def resume(self, extend: resume.Extend) -> None:
        """Go back to the newest whole checkpoint, if there is one, or to that from which the run is extended."""
        found = resume.starting_point(self.writer.root, self.described, extend)
        if found is None:
            self.stepper.prepare(None, search=probe.fastest_layout)
            return
        folder, state = found
        reader = checkpoint.Reader(folder, state)
        self.step = self.logged_step = self.measured_step = self.writer.latest = int(state["step"])
        self.course = Course(**state["course"])
        self.validation, self.protected = state["validation"], state["protected"]
        self.loss = math.nan if state["loss"] is None else state["loss"]
        resume.restore_model(reader, self.model)
        self.stepper.prepare(state.get("layout"), state["phase"], search=probe.fastest_layout)
        resume.restore_optimizer(reader, self.stepper.named, self.stepper.optimizer, state["optimizer_states"])
        changed = resume.check_same(state["run"], self.described, self.out, extend)
        if changed:
            self.course.extend(self.settings, self.planned_steps(), resume.earlier_settings(state))
        self.display.say(f"going on after step {self.step} from {folder}")

    def result(self) -> TrainResult:
        """Numbers of the whole run."""
        tokens = self.step * self.settings.tokens_per_step
        slots = self.step * self.settings.sequences_per_step
        total = sum(self.mixture.parts)
        sources = self.mixture.sources
        return TrainResult(
            out=str(self.out),
            steps=self.step,
            tokens=tokens,
            loss=self.loss,
            validation=self.validation,
            seconds=round(self.course.seconds, 3),
            tokens_per_second=round(tokens / max(self.course.seconds, 1e-9), 1),
            epochs={
                windows.name: round(slots * parts / total / len(windows), 4)
                for windows, parts in zip(sources, self.mixture.parts, strict=True)
            },
            fullness={windows.name: round(windows.packing.fullness, 5) for windows in sources},
            layout=self.stepper.layout(),
        )

    def export(self, result: TrainResult) -> None:
        """Write the trained model as a Hugging Face folder."""
        state = models.gather(self.model, self.team.leads)
        try:
            if self.team.leads:
                with new_folder(self.out / "final") as folder:
                    models.export(self.model, state, folder, self.tokenizer_files, self.tokenizer)
                    run = self.described
                    write_manifest(folder, "train", run["settings"], run["inputs"], result.to_dict())
        except OSError as error:
            raise LangadaptError(
                f"{self.out / 'final'}: cannot write the trained model: {error.strerror or error}; the last "
                f"checkpoint in {self.writer.root} is whole; free some space and run the same command again"
            ) from error
        self.team.wait()
