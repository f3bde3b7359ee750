"""One optimizer step: micro-batches forward and backward, gradient sums, clipping, update, meters."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from langadapt.costs import devices
from langadapt.costs.flops import Shape
from langadapt.costs.memory import Layout
from langadapt.errors import ConfigError, LangadaptError
from langadapt.training import layout as layouts
from langadapt.training import model as models
from langadapt.training import optimizer as optimizers
from langadapt.training import parallel
from langadapt.training.attention.choice import packed_inputs
from langadapt.training.checkpoint import good_checkpoints
from langadapt.training.data.batches import Batch, Mixture
from langadapt.training.loss import HeadLoss
from langadapt.training.meters import LossMeter, Stopwatch
from langadapt.training.options import Option
from langadapt.training.settings import TrainSettings

log = logging.getLogger(__name__)

Search = Callable[["Stepper", list[Option], float], Layout]
"""Times some of the layouts on the machine, within so many bytes, and gives the fastest."""

STALE_WARNING = 0.9
"""Share of unmoved weights from which on a run is warned of."""


class Stepper:
    """The model, the optimizer of the present phase, and what is measured about them."""

    def __init__(
        self, model: Any, mixture: Mixture, settings: TrainSettings, team: parallel.Team, new_rows: Sequence[int] | None
    ) -> None:
        self.model, self.mixture, self.settings, self.team = model, mixture, settings, team
        self.device = team.device
        self.new_rows = list(new_rows) if new_rows is not None and settings.new_rows_only else None
        self.embedding_ratio = settings.embedding_peak(bool(new_rows)) / max(settings.learning_rate, 1e-30)
        self.losses = LossMeter(len(mixture.sources), self.device)
        self.data_wait, self.optimizer_time = Stopwatch(torch.device("cpu")), Stopwatch(self.device)
        self.phase = ""
        self.micro_batch = 0
        self.may_recompute = settings.activation_checkpointing == "auto" and not team.many
        self.once = False
        self.sums: optimizers.GradientSums | None = None
        self.rows: optimizers.RowTrainer | None = None
        # First step whose loss was no number, or -1; stays on the device until somebody looks.
        self.lost = torch.full((), -1, dtype=torch.int64, device=self.device)
        self.grad_norm = torch.zeros((), device=self.device)
        self.stale: float | None = None
        self.warned = False
        self.reported_at = time.monotonic()
        self.named: optimizers.Named = []

    def prepare(self, before: Mapping[str, Any] | None, phase: str | None = None, *, search: Search) -> None:
        """Make the model ready: attention, loss, layout, sharding, compilation, optimizer.

        ``before`` and ``phase``: of the checkpoint that the run goes on from; ``before`` as `layout` describes it.
        ``search``: finds the fastest layout where the settings leave it open.
        """
        team = self.team
        self.attention = models.set_attention(self.model, self.settings, self.device)
        self.head_loss = HeadLoss(self.model, self.settings.loss_chunk)
        with self.compute():
            self.check_loss()
        self.embedding_weights = models.embeddings(self.model)
        self.head_rows = self.model.get_input_embeddings().weight.shape[0]
        self.shape = Shape.of(self.model.config.to_dict(), self.head_rows)
        known = devices.named(torch.cuda.get_device_name(self.device)) if self.device.type == "cuda" else None
        self.peak_flops = known.flops if known is not None else None
        self.settings = layouts.settle(self.settings, self.shape, team, before)
        if self.settings.activation_checkpointing != "auto":
            models.recompute(self.model, self.settings.activation_checkpointing)
        self.sharded = parallel.spread(self.model, self.settings, team)
        self.shards, self.shard_group = parallel.shards(self.model)
        if self.settings.compile:
            for block in models.blocks(self.model):
                block.compile()
        if "auto" in (self.settings.micro_batch, self.settings.activation_checkpointing):
            self.try_layouts(search)
        self.micro_batch = int(self.settings.micro_batch)
        if phase == "embeddings" or (phase is None and self.settings.embeddings_first_steps > 0):
            self.begin_embeddings()
        else:
            self.begin_main()

    def try_layouts(self, search: Search) -> None:
        """Find the fastest layout of one GPU by trial."""
        gpu = layouts.this_gpu(self.device)
        options = layouts.options(self.settings, self.shape, self.team, gpu)
        found = search(self, options, gpu.memory)
        self.take_layout(found.micro_batch, found.activation_checkpointing)
        self.settings = layouts.settled(self.settings, found)

    def layout(self) -> dict[str, Any]:
        """What a checkpoint remembers, so that a run that goes on need not search again."""
        chosen = {name: getattr(self.settings, name) for name in ("activation_checkpointing", "sharding")}
        return {"micro_batch": self.micro_batch, **chosen, "processes": self.team.size}

    def check_loss(self) -> None:
        """Hand the head back if this architecture does more with logits than hand them out."""
        windows = torch.arange(48, device=self.device)[None] % 7
        inputs = packed_inputs(windows, torch.arange(48, device=self.device)[None], self.attention)
        if not self.head_loss.fits(inputs, torch.roll(windows, -1, 1)):
            log.info("this architecture transforms its logits; its loss is computed on all of them at once")

    def take_layout(self, micro_batch: int, recompute: str) -> None:
        """Windows per forward pass, and what is made again in the backward pass."""
        self.micro_batch = micro_batch
        models.recompute(self.model, recompute)
        if self.settings.compile:
            # After a second shape the compiler makes slower code for any shape.
            torch.compiler.reset()

    def reduces_once(self) -> bool:
        """Whether a team sums gradients over micro-batches before it sums them over processes: whole and in fp32, so
        that nothing is lost and each is sent once, where every process has room for that."""
        if not self.sharded or not self.several():
            return False
        return layouts.has_room_for_whole_sums(self.settings, self.shape, self.team)

    @contextlib.contextmanager
    def summing(self) -> Iterator[None]:
        """Gradient sums for passes before the first step, if its layout has them."""
        sums = optimizers.GradientSums(list(self.model.parameters())) if self.exact_sums() else None
        try:
            yield
        finally:
            if sums is not None:
                sums.release()

    def compute(self) -> Any:
        """The context for forward passes."""
        if self.settings.precision == "mixed-bf16" and not getattr(self, "sharded", False):
            return torch.autocast(self.device.type, torch.bfloat16)
        return contextlib.nullcontext()

    def uncompiled(self) -> Any:
        """The context for validations: their windows have many shapes, each of which would be compiled, and training's
        after them for shapes that vary."""
        # FlexAttention is nothing without its compiled kernel.
        if not self.settings.compile or self.attention == "flex_attention":
            return contextlib.nullcontext()
        return torch.compiler.set_stance("force_eager")

    def begin_embeddings(self) -> None:
        """Switch to the phase that trains embeddings only."""
        if self.phase == "embeddings":
            return
        self.phase = "embeddings"
        tokens = {id(weight) for weight in self.embedding_weights}
        names = {id(parameter): name for name, parameter in self.model.named_parameters()}
        if not self.sharded:
            # Under FSDP the other gradients are made and thrown away: sharding fixes at the start what is trained.
            for parameter in self.model.parameters():
                parameter.requires_grad_(id(parameter) in tokens)
        weights = [(names[id(weight)], weight) for weight in models.embeddings(self.model)]
        if self.new_rows is not None:
            rows = torch.tensor(sorted(set(self.new_rows)), dtype=torch.int64)
            count = weights[0][1].shape[0]
            if len(rows) and not 0 <= int(rows[0]) <= int(rows[-1]) < count:
                raise ConfigError(f"new_rows: {int(rows[-1])} is no row of the {count} embedding rows")
            self.rows = optimizers.RowTrainer(weights, rows)
            weights = self.rows.named
        self.make_optimizer({"embeddings": weights})

    def begin_main(self) -> None:
        """Switch to training everything."""
        if self.phase == "main":
            return
        self.phase, self.rows = "main", None
        for parameter in self.model.parameters():
            parameter.requires_grad_(True)
        self.make_optimizer(models.groups(self.model))

    def make_optimizer(self, groups: dict[str, optimizers.Named]) -> None:
        """A fresh optimizer, gradient sums and meters for a phase."""
        settings = self.settings
        self.named = [item for named in groups.values() for item in named]
        self.parameters = [parameter for _, parameter in self.named]
        # Shards of single rows are no DTensors: their norm is summed over processes here.
        self.clip_apart = settings.optimizer != "adamw" or (self.rows is not None and self.sharded)
        self.once = self.reduces_once()
        exact = self.exact_sums()
        # On a CPU the hooks push what the backward pass needs next out of the caches, and cost more than they save.
        whole = self.device.type == "cuda" and not (exact or self.team.many or self.rows is not None)
        self.optimizer = optimizers.make(groups, settings, self.clip_apart, whole)
        self.metered = settings.stale_every > 0 and hasattr(self.optimizer, "stale_meter")
        if self.sums is not None:
            self.sums.release()
            self.sums = None
        if exact:
            trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
            self.sums = optimizers.GradientSums(trained)

    def exact_sums(self) -> bool:
        """Whether gradients are summed here, in fp32 beside bf16 parameters."""
        settings = self.settings
        wanted = settings.accumulate == "fp32" or (settings.accumulate == "auto" and self.several())
        return wanted and settings.precision == "pure-bf16" and not self.once

    def several(self) -> bool:
        """Whether a step has more than one micro-batch."""
        return self.settings.sequences_per_step // self.team.size > self.micro_batch

    def step(self, batch: Batch, step: int, *, rate: float = 0.0, embeddings_rate: float | None = None) -> None:
        """One update. ``rate`` is of everything but embeddings, whose rate follows it or is ``embeddings_rate``."""
        settings = self.settings
        # Dropout of a step is a function of seed, step and rank, so a resumed run draws the same.
        torch.manual_seed(settings.seed * 1_000_003 + step * self.team.size + self.team.rank)
        for group in self.optimizer.param_groups:
            its = rate
            if group["name"] == "embeddings":
                its = embeddings_rate if embeddings_rate is not None else rate * self.embedding_ratio
            if isinstance(group["lr"], Tensor):
                # torchao's optimizers compile their step and take rates that change as tensors only.
                group["lr"].fill_(its)
            else:
                group["lr"] = its
        self.backward(batch, step)
        if self.sums is not None:
            self.sums.hand_over()
        if self.rows is not None:
            self.rows.take_gradients()
        with self.optimizer_time:
            self.update(step)

    def backward(self, batch: Batch, step: int) -> None:
        """Gradients of the mean loss over all learnt tokens of the step, in this process' share of it."""
        arrays = (batch.input_ids, batch.labels, batch.positions, batch.sources)
        ids, labels, positions, sources = (
            torch.from_numpy(array).pin_memory().to(self.device, non_blocking=True)
            if self.device.type == "cuda"
            else torch.from_numpy(array)
            for array in arrays
        )
        # FSDP averages gradients over processes; the sum is what is wanted.
        scale = (self.team.size if self.sharded else 1) / max(batch.learnt, 1)
        self.losses.begin_step()
        done = 0
        while done < len(ids):
            part = slice(done, done + self.micro_batch)
            last = part.stop >= len(ids)
            if self.sharded:
                self.model.set_requires_gradient_sync(last or not self.once)
            try:
                documents = int(np.count_nonzero(batch.positions[part] == 0))
                with contextlib.nullcontext() if last else self.accumulating():
                    losses = self.forward_backward(ids[part], labels[part], positions[part], scale, documents)
            except torch.OutOfMemoryError:
                self.shrink(step)
                done = 0
                continue
            self.losses.add(losses, labels[part], sources[part])
            bad = ~torch.isfinite(losses.sum())
            self.lost = torch.where(bad & (self.lost < 0), step, self.lost)
            done = part.stop

    def accumulating(self) -> Any:
        """The context of a micro-batch whose gradients more will be added to."""
        begin = getattr(self.optimizer, "accumulating", contextlib.nullcontext)
        return begin()

    def forward_backward(
        self, ids: Tensor, labels: Tensor, positions: Tensor, scale: float, documents: int | None = None
    ) -> Tensor:
        """One micro-batch, of so many documents; returns the losses of its tokens, fp32."""
        if self.settings.isolate_documents:
            inputs = packed_inputs(ids, positions, self.attention, documents)
        else:
            inputs = {"input_ids": ids}
        with self.compute():
            loss, losses = self.head_loss(inputs, labels, scale)
        loss.backward()
        return losses

    def shrink(self, step: int) -> None:
        """Start the step again with half the micro-batch, or with more recomputation; no weight has moved yet.

        Raises:
            LangadaptError: one window alone does not fit, or other processes cannot follow.
        """
        recompute = self.settings.activation_checkpointing
        if self.micro_batch == 1 and self.may_recompute and recompute != "full":
            recompute = "full"
        elif self.micro_batch == 1 or self.team.many:
            raise LangadaptError(
                f"step {step + 1}: out of memory with {self.micro_batch} windows of {self.settings.sequence_length} "
                "tokens per forward pass; lower micro_batch or sequence_length, or set activation_checkpointing: full"
            ) from None
        self.take_layout(max(self.micro_batch // 2, 1), recompute)
        self.settings = replace(self.settings, activation_checkpointing=recompute)
        self.model.zero_grad(set_to_none=True)
        if self.sums is not None:
            self.sums.clear()
        elif self.exact_sums():
            self.sums = optimizers.GradientSums([p for p in self.model.parameters() if p.requires_grad])
        self.losses.forget()
        torch.cuda.empty_cache()
        log.warning(
            "out of memory: going on with %d windows per forward pass, %s recompute", self.micro_batch, recompute
        )

    def update(self, step: int) -> None:
        """Clip and step."""
        if self.clip_apart:
            self.grad_norm = optimizers.gradient_norm(self.parameters, self.shard_group)
            if self.settings.max_grad_norm is not None:
                optimizers.clip(self.parameters, self.grad_norm, self.settings.max_grad_norm)
        due = self.metered and (step + 1) % self.settings.stale_every == 0
        if self.metered:
            self.optimizer.stale_meter = due  # type: ignore[attr-defined]
        self.optimizer.step()
        if due:
            self.stale = float(self.optimizer.stale_share())  # type: ignore[attr-defined]
            self.warn_if_stale()
        if not self.clip_apart:
            self.grad_norm = self.optimizer.grad_norm  # type: ignore[attr-defined]
        if self.rows is not None:
            self.rows.put_back()
        self.optimizer.zero_grad(set_to_none=True)
        if self.phase == "embeddings":
            self.model.zero_grad(set_to_none=True)

    def warn_if_stale(self) -> None:
        """Say once that most updates are lost, and what helps."""
        if self.warned or self.stale is None or self.stale < STALE_WARNING or self.settings.rounding != "nearest":
            return
        self.warned = True
        log.warning(
            "%.0f %% of the weights did not move in this step: their updates are below half a bf16 unit. "
            "Set `rounding: stochastic` (no more memory), `kahan` or `split` (2 bytes per parameter), or a higher rate",
            100 * self.stale,
        )

    def check_finite(self, step: int, out: Path) -> None:
        """Raise LangadaptError if a loss or the gradient was no number since the last call; waits for the device."""
        lost = int(self.lost)
        norm = float(self.grad_norm)
        if self.team.many:
            lost = max(self.team.gather(lost))
        if lost < 0 and math.isfinite(norm):
            return
        bad = lost if lost >= 0 else step - 1
        batch = self.mixture.batch(bad)
        names: dict[str, list[int]] = {}
        for source, found in zip(batch.sources.tolist(), batch.documents, strict=True):
            names.setdefault(self.mixture.sources[source].name, []).extend(found)
        listed = "; ".join(
            f"{name}: {', '.join(map(str, sorted(set(found))[:20]))}{' ...' if len(set(found)) > 20 else ''}"
            for name, found in names.items()
        )
        what = "loss" if lost >= 0 else "gradient norm"
        raise LangadaptError(
            f"step {bad + 1}: the {what} is not a number. Documents in its batch: {listed}. "
            f"{good_checkpoints(out / 'checkpoints', bad)}"
        )

    def report(self, steps: int, bytes_per_token: list[float | None]) -> dict[str, Any]:
        """What the log says about the last ``steps`` steps; waits for the device and, in a team, for all."""
        sums, counts = self.losses.take(self.team)
        now = time.monotonic()
        seconds, self.reported_at = max(now - self.reported_at, 1e-9), now
        tokens = steps * self.settings.tokens_per_step
        names = [windows.name for windows in self.mixture.sources]
        line: dict[str, Any] = {"loss": sum(sums) / max(sum(counts), 1)}
        if len(names) > 1:
            line["loss_by_source"] = {
                name: total / count for name, total, count in zip(names, sums, counts, strict=True) if count
            }
        line["learning_rate"] = {group["name"]: float(group["lr"]) for group in self.optimizer.param_groups}
        line["grad_norm"] = float(self.grad_norm)
        line["tokens_per_second"] = round(tokens / seconds, 1)
        if all(size is not None for size in bytes_per_token):
            read = sum(count * size for count, size in zip(counts, bytes_per_token, strict=True) if size is not None)
            line["bytes_per_second"] = round(read / seconds, 1)
        if self.peak_flops is not None:
            window, peak = self.settings.sequence_length, self.peak_flops * self.team.size
            line["mfu"] = round(self.shape.mfu(tokens / seconds, window, peak), 4)
        line["data_wait_seconds"] = round(self.data_wait.take(), 4)
        line["optimizer_seconds"] = round(self.optimizer_time.take(), 4)
        if self.stale is not None:
            line["stale_share"], self.stale = round(self.stale, 4), None
        return line

    def close(self) -> None:
        """Detach from the model."""
        if self.sums is not None:
            self.sums.release()
        if hasattr(self, "head_loss"):
            self.head_loss.release()
