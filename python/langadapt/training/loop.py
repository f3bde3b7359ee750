"""The training loop. `Trainer.run` reads top to bottom: batch, step, measure, validate, save; then the export."""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from langadapt.artefacts.folders import remove_leftovers
from langadapt.errors import LangadaptError, TrainingDiverged, TrainingStopped
from langadapt.progress import Progress
from langadapt.training import adapter, begun, checkpoint, choices, parallel, resume
from langadapt.training import layout as layouts
from langadapt.training import model as models
from langadapt.training.course import Course, check_deadline, parts
from langadapt.training.data import mixture as data
from langadapt.training.data.batches import Batch, StoreShare, prefetch
from langadapt.training.display import Display
from langadapt.training.facts import settled
from langadapt.training.final import write_final
from langadapt.training.job import OldModel, ShareLike, TrainingJob, Validate
from langadapt.training.meters import Journal, peak_memory
from langadapt.training.optimizer import local
from langadapt.training.phases import embeddings_phase, embeddings_rate, main_phase
from langadapt.training.protect import protect
from langadapt.training.result import TrainResult
from langadapt.training.settings import TrainSettings
from langadapt.training.signals import Requests, warn_of_short_grace
from langadapt.training.step import Stepper
from langadapt.training.supervisor import Supervisor
from langadapt.training.teacher import Teacher

log = logging.getLogger(__name__)

LONG_STEP = 1.0
"""Seconds of a step beside which a sync and a few bytes between processes are nothing."""
MODEST_DISK = 5e8
"""Bytes per second that a checkpoint is written with, until one was."""


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
    old: OldModel | None = None,
    extend: resume.Extend = False,
) -> TrainResult:
    """Train a causal language model on token stores; the same call again goes on where it was interrupted.

    Args:
        model: a folder that `AutoModelForCausalLM` loads, or a loaded model (changed in place).
        stores: `StoreShare` objects, or tuples (path, weight, name).
        out: gets ``log.jsonl``, ``checkpoints/`` and, when all is done, the Hugging Face folder ``final/``.
        settings: what to do.
        tokenizer: of the stores, an object or a folder, for ``final``, too; none = the model folder's, or its config's.
        validate: called as ``validate(model, step)`` before, every so often, and after; returns numbers for the log.
        progress: called as ``progress(phase, done, total, unit)`` instead of the display on stderr.
        new_rows: embedding rows that have never been trained: where there are any, they raise the embeddings' rate
            (``embedding_learning_rate: auto``), and ``embeddings_first_steps`` trains them alone.
        old: what was before the swap, for ``protect`` and ``replay_loss: kl``.
        extend: go on with a larger budget, or at other rates: true = from the checkpoint before the final decay if that
            decay is over, else from the newest; or the step of a checkpoint; or ``newest``.

    Raises:
        ConfigError: settings that cannot work here.
        MismatchError: a store of another tokenizer, or ``out`` holds another run.
        DataError: too little text.
        TrainingDiverged: the model got worse; ``final`` is the best there was, if any was validated.
        LangadaptError: the loss is no number any more, or the disk is full.
        TrainingStopped, KeyboardInterrupt: asked to stop by a signal or Ctrl-C; a checkpoint was written.
    """
    # Long: what outside callers may ask for is all said here.
    out = Path(out)
    shares = [share if isinstance(share, StoreShare) else StoreShare(*share) for share in stores]
    begun.bring_back(settings, out, partial(resume.describe_run, model, shares), extend)
    described = resume.describe_run(model, shares, settings := resume.as_before(settings, out))
    job = TrainingJob(model, shares, out, settings, tokenizer, validate, progress, new_rows, old, described)
    done = resume.finished(out, described, extend)
    if done is not None:
        return resume.result_of(done, out)
    check_deadline(settings)
    processes = parallel.join(settings)

    def prepare() -> None:
        out.mkdir(parents=True, exist_ok=True)
        remove_leftovers(out / "final")
        resume.make_room(out, described, extend)
        resume.check_folder(out, described, extend)

    parallel.main_process_first(processes, out, prepare)
    # Steps are seeded one by one; the caller's generators are left as they were.
    gpus = [processes.device] if processes.device.type == "cuda" else []
    with parallel.explain_lost_process(processes, out), torch.random.fork_rng(gpus):
        return Trainer(job, processes).run(extend)


class Trainer:
    """One run in one process."""

    stepper: Stepper
    """Made by `resume`: of a model as it comes, or as a checkpoint has it."""

    def __init__(self, job: TrainingJob, processes: parallel.ProcessGroup) -> None:
        self.out, self.processes = job.out, processes
        self.display = Display(processes.is_main and job.progress is None)
        self.tokenizer = data.load_tokenizer(job.tokenizer, None)
        self.model = models.load(job.model, job.settings, processes.device)
        self.settings = settings = settled(job.settings, job.stores, self.model, processes)
        described = {**job.described, "settings": settings.to_dict()} if job.described else {}
        self.job = replace(job, settings=settings, described=described)
        ids = self.tokenizer if self.tokenizer is not None else data.load_tokenizer(None, job.model)
        self.mixture = data.open_mixture(job.stores, self.tokenizer, ids, self.model, settings=settings)
        self.bytes_per_token = data.bytes_per_token(self.mixture)
        self.step, self.loss = 0, math.nan
        share = self.mixture.parts[0] / sum(self.mixture.parts)
        self.budget = settings.budget_steps(len(self.mixture.sources[0]), share * settings.sequences_per_step)
        self.course = Course.start(settings, self.budget)
        self.supervisor = Supervisor(self.job, self.model, processes, self.display.say)
        self.log_every = choices.log_interval(settings, self.budget)
        background = settings.asynchronous_checkpoints and processes.device.type == "cuda"
        mirror, root = begun.mirror_of(self.job, processes), job.out / "checkpoints"
        self.writer = checkpoint.Writer(root, processes, settings.keep_checkpoints, background, mirror=mirror)
        self.protected: list[int] = []
        self.start = adapter.start_of(self.model)
        self.cold = True
        self.saved_at = self.measured_at = time.monotonic()
        self.measured_step = self.logged_step = 0
        # For the main process, when all last met: the last one is more than `checkpoint_minutes` ago.
        self.checkpoint_is_late = False

    def run(self, extend: resume.Extend) -> TrainResult:
        """Everything after preparation."""
        self.resume(extend)
        if self.processes.is_main:
            resume.write_run_file(self.out, self.job.described, self.stepper.shape, self.settings)
        self.display.say(layouts.describe(self.stepper.describe_layout()))
        journal = Journal(self.out, self.settings, self.step, active=self.processes.is_main, origin=self.course.origin)
        batches = prefetch(self.make_batch, itertools.count(self.step))
        try:
            with Requests(self.out) as requests, contextlib.closing(batches):
                if self.step == 0:
                    self.supervisor.validate(self.stepper, self.step, self.total, journal)
                while not (self.course.finished or self.supervisor.watch.over):
                    self.handle_requests(requests)
                    with self.stepper.data_wait:
                        batch = next(batches)
                    before = self.course.done
                    self.one_step(batch)
                    if self.meets():
                        self.measure()
                        self.writer.complete_if_written()
                    if self.log_is_due():
                        self.write_log(journal)
                    if self.validation_is_due(before):
                        self.supervisor.validate(self.stepper, self.step, self.total, journal)
                    if self.checkpoint_is_due():
                        self.save()
            self.writer.close()
            return self.conclude()
        finally:
            journal.close()
            self.display.close()
            self.stepper.close()

    def make_batch(self, step: int) -> Batch:
        """This process' part of a step's batch."""
        return self.mixture.batch(step, self.processes.rank, self.processes.size)

    def one_step(self, batch: Batch) -> None:
        """An optimizer step; the embeddings-first phase comes before the course begins."""
        self.stepper.wait_for, self.writer.copied = self.writer.copied, None
        if self.step < self.settings.embeddings_first_steps:
            self.stepper.step(batch, self.step, embeddings_rate=embeddings_rate(self.step, self.settings))
        else:
            if self.stepper.phase.name != "main":
                self.stepper.begin(main_phase(self.model, self.settings.parts))
                protect(self.job, self.stepper)
            self.stepper.step(batch, self.step, rate=self.course.rate(self.settings))
            self.course.advance()
        self.step += 1

    def meets(self) -> bool:
        """Whether host and device, and all processes, meet: with each log line, and where that costs nothing. All
        processes answer alike without asking each other."""
        if self.processes.device.type == "cpu" and not self.processes.is_distributed:
            return True
        pace = self.course.step_seconds
        return pace is None or pace >= LONG_STEP or self.log_is_due()

    def measure(self) -> None:
        """Find a lost run, count time, set the pace, as the main process does it; all processes must call it."""
        self.check_finite()
        now = time.monotonic()
        steps = max(self.step - self.measured_step, 1)
        self.course.measure(now - self.measured_at, steps, self.cold)
        self.measured_at, self.measured_step, self.cold = now, self.step, False
        # What comes at the end: a validation, a checkpoint, the export, and a step that takes twice as long.
        after = self.supervisor.seconds + self.writing_seconds() + (self.course.step_seconds or 0.0)
        self.course.replan(self.settings, after + self.writing_seconds())
        warn_of_short_grace(after if self.processes.is_main else 0.0)
        minutes = self.settings.checkpoint_minutes
        late = minutes is not None and now - self.saved_at >= minutes * 60
        self.course, self.checkpoint_is_late = self.processes.broadcast((self.course, late))

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
            tensors = resume.tensors_of(self.model, self.stepper.phase.named, self.stepper.optimizer).values()
            self.writer.seconds = sum(local(tensor).nbytes for tensor in tensors) / MODEST_DISK
        return self.writer.seconds

    def handle_requests(self, requests: Requests) -> None:
        """Do what any process was asked for from outside since the last step; all must call it.

        Raises:
            TrainingStopped, KeyboardInterrupt: after writing a checkpoint.
        """
        if self.processes.is_distributed and not self.meets():
            return
        asked = self.processes.all_gather((requests.stop, requests.anneal))
        stop = next((name for name, _ in asked if name), None)
        anneal = any(wish for _, wish in asked)
        if anneal and self.step >= self.settings.embeddings_first_steps:
            if self.step and not self.course.falling(self.settings):
                self.protected = [self.step]
                self.save()
            steps = self.course.anneal_now(self.settings)
            self.display.say(f"annealing now: {steps} steps to the end")
            if self.processes.is_main:
                requests.anneal_begun()
            self.processes.barrier()
        if stop is not None:
            if self.step and self.writer.latest != self.step:
                self.save()
            self.writer.close()
            text = f"{stop}: stopped after step {self.step}, checkpoint in {self.writer.root}; the same command goes on"
            if stop == "SIGINT":
                self.display.say(text)
                raise KeyboardInterrupt
            raise TrainingStopped(text)

    def log_is_due(self) -> bool:
        """Every ``log_every`` steps and at the end."""
        return self.step % self.log_every == 0 or self.course.finished

    def validation_is_due(self, before: float) -> bool:
        """As asked for, or with every tenth or twentieth of the run, and at the end."""
        if self.job.validate is None:
            return False
        every = self.settings.validate_every
        if self.course.finished:
            return True
        if isinstance(every, int):
            return self.step % every == 0
        count = choices.validations(self.settings, self.budget)
        return parts(self.course.done, count) > parts(before, count)

    def checkpoint_is_due(self) -> bool:
        """By steps, by time, before the final decay (from where a run is best extended), and at the end; but the last
        good one is not pushed out by those of a run that may be diverging."""
        if self.supervisor.watch.suspicious:
            return False
        settings, turn = self.settings, self.course.turn(self.settings)
        if turn is not None and 0 < self.course.done <= turn < self.course.next_done():
            self.protected = [self.step]
            return True
        every = settings.checkpoint_every
        return self.course.finished or self.checkpoint_is_late or (every is not None and self.step % every == 0)

    @property
    def total(self) -> int:
        """Steps of the whole run, as far as can be foreseen."""
        return self.step + self.course.steps_left

    def write_log(self, journal: Journal) -> None:
        """One line of the log, and the display."""
        steps, self.logged_step = self.step - self.logged_step, self.step
        line = {"step": self.step, "progress": self.course.done, "tokens": self.step * self.settings.tokens_per_step}
        line |= self.stepper.report(steps, self.bytes_per_token)
        line |= {"seconds": round(self.course.seconds, 3), "peak_memory_bytes": peak_memory(self.processes.device)}
        self.loss = line["loss"]
        journal.write(line)
        total = self.total
        self.supervisor.saw_loss(self.step, self.loss, steps, total)
        self.display.show(self.step, line, self.course, state=self.supervisor.watch.state())
        if self.job.progress is not None:
            tokens = self.settings.tokens_per_step
            self.job.progress("training", self.step * tokens, total * tokens, "tokens")

    def save(self) -> None:
        """Write a checkpoint, after making sure that it is worth having."""
        self.check_finite()
        state = {
            "run": self.job.described,
            "course": asdict(self.course),
            "phase": self.stepper.phase.name,
            "layout": {**self.stepper.describe_layout(), "attention": self.stepper.attention},
            **self.supervisor.state(),
            **self.start,
            "loss": self.loss if math.isfinite(self.loss) else None,
            "loss_sums": self.stepper.losses.so_far(self.processes),
            "protected": self.protected,
            "optimizer_states": resume.plain_states(self.stepper.phase.named, self.stepper.optimizer),
        }
        tensors = resume.tensors_of(self.model, self.stepper.phase.named, self.stepper.optimizer)
        self.writer.save(self.step, tensors, state, self.protected, copied=self.supervisor.copied(self.step))
        self.saved_at, self.checkpoint_is_late = time.monotonic(), False

    def resume(self, extend: resume.Extend) -> None:
        """Go back to the newest whole checkpoint, if there is one, or to that from which the run is extended."""
        found = resume.starting_point(self.writer.root, self.job.described, extend)
        state: Mapping[str, Any] = {"phase": "embeddings" if self.settings.embeddings_first_steps else "main"}
        if found is not None:
            folder, state = found
            reader = checkpoint.Reader(folder, state)
            self.step = self.logged_step = self.measured_step = self.writer.latest = int(state["step"])
            self.course = Course(**state["course"])
            self.protected = state["protected"]
            self.loss = math.nan if state["loss"] is None else state["loss"]
            adapter.check_start(state, self.start)
            resume.restore_model(reader, self.model)
            self.supervisor.restore(state, reader, self.step)
        rows = self.job.new_rows if self.settings.new_rows_only else None
        first, later = partial(embeddings_phase, new_rows=rows), partial(main_phase, parts=self.settings.parts)
        given: dict[str, Any] = {"swapped": bool(self.job.new_rows), "layout": state.get("layout")}
        given["phase"] = first if state["phase"] == "embeddings" else later
        given["teacher"] = Teacher.wanted(self.job, self.tokenizer, self.processes.device)
        self.stepper = Stepper(self.model, self.mixture, self.settings, self.processes, **given)
        if found is None:
            protect(self.job, self.stepper)
            return
        resume.restore_optimizer(reader, self.stepper.phase.named, self.stepper.optimizer, state["optimizer_states"])
        if self.processes.is_main and "loss_sums" in state:
            self.stepper.losses.add_sums(state["loss_sums"])
        if resume.check_same(state["run"], self.job.described, self.out, extend):
            self.course.extend(self.settings, self.budget, resume.earlier_settings(state))
            self.supervisor.watch.begin_again()
        self.display.say(f"going on after step {self.step} from {folder}")

    def result(self, kept: Mapping[str, Any]) -> TrainResult:
        """Numbers of the whole run; ``kept``: by `Supervisor.conclude`."""
        tokens = self.step * self.settings.tokens_per_step
        return TrainResult(
            out=str(self.out),
            steps=self.step,
            tokens=tokens,
            loss=self.loss,
            seconds=round(self.course.seconds, 3),
            tokens_per_second=round(tokens / max(self.course.seconds, 1e-9), 1),
            epochs=self.mixture.passes(self.step),
            fullness={windows.name: round(windows.packing.fullness, 5) for windows in self.mixture.sources},
            layout=self.stepper.describe_layout(),
            **kept,
        )

    def conclude(self) -> TrainResult:
        """Make the model that is kept the result.

        Raises:
            TrainingDiverged: the run made the model worse.
        """
        passes = self.mixture.passes(self.step)[self.mixture.sources[0].name]
        kept = self.supervisor.conclude(self.step, self.course.finished, self.stepper.shape.parameters, passes=passes)
        result = self.result(kept)
        if self.supervisor.best.copies or not result.diverged:
            self.export(result)
        adapter.fold(self.job.model)
        if result.diverged:
            raise TrainingDiverged(result.diverged, result)
        return result

    def export(self, result: TrainResult) -> None:
        """Write the trained model."""
        write_final(self.job, self.model, self.tokenizer, self.processes, result=result)
