"""One optimizer step: micro-batches forward and backward, gradient sums, clipping, update, meters."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from langadapt.costs import devices
from langadapt.costs.flops import Shape
from langadapt.errors import LangadaptError
from langadapt.models import products
from langadapt.training import layout as layouts
from langadapt.training import model as models
from langadapt.training import optimizer as optimizers
from langadapt.training import parallel
from langadapt.training.attention.choice import packed_inputs
from langadapt.training.checkpoint import good_checkpoints
from langadapt.training.data.batches import Batch, Mixture
from langadapt.training.data.rows import Part, idle, rows, windows
from langadapt.training.layout_trials import fastest_layout
from langadapt.training.loss import HeadLoss
from langadapt.training.meters import LossMeter, Stopwatch, losses_by_source
from langadapt.training.phases import Phase, main_phase
from langadapt.training.settings import TrainSettings
from langadapt.training.teacher import Teacher, teach

log = logging.getLogger(__name__)

STALE_WARNING = 0.9
"""Share of unmoved weights from which on a run is warned of."""


class Stepper:
    """The model, the optimizer of the present phase, and what is measured about them."""

    model: Any
    mixture: Mixture
    settings: TrainSettings
    """With what `auto` came to."""
    processes: parallel.ProcessGroup
    device: torch.device
    attention: str
    """Name of the kernel."""
    apart: str
    """How documents are kept apart, as `models.set_attention` gives it."""
    head_loss: HeadLoss
    shape: Shape
    peak_flops: float | None
    """FLOP/s of one GPU that is known."""
    sharded: bool
    micro_batch: int
    may_checkpoint_activations: bool
    """Whether running out of memory may turn recomputation on."""
    embedding_ratio: float
    """Rate of the embeddings over that of all else."""
    phase: Phase
    optimizer: Any
    sums: optimizers.GradientSums | None
    """Of gradients over micro-batches, in fp32, where bf16 would lose digits."""
    reduces_once: bool
    """Whether gradients are summed over micro-batches before they are sent to other processes."""
    clips_apart: bool
    """Whether the norm is measured and limited here instead of in the optimizer."""
    losses: LossMeter
    data_wait: Stopwatch
    optimizer_time: Stopwatch
    first_bad_step: Tensor
    """First step whose loss was no number, or -1; stays on the device until somebody looks."""
    grad_norm: Tensor
    stale_share: float | None
    warned_of_stale: bool
    reported_at: float
    wait_for: Any
    """Event on the GPU that the next update waits for: a checkpoint has been copied."""

    def __init__(
        self,
        model: Any,
        mixture: Mixture,
        settings: TrainSettings,
        processes: parallel.ProcessGroup,
        *,
        swapped: bool = False,
        layout: Mapping[str, Any] | None = None,
        teacher: Teacher | None = None,
        phase: Callable[[Any], Phase] = main_phase,
    ) -> None:
        """Make the model ready: attention, loss, layout, sharding, compilation, optimizer.

        ``swapped``: some embeddings have never been trained. ``layout``: of the checkpoint that the run goes on from,
        as `describe_layout` gave it. ``teacher``: of replayed text. ``phase``: makes the first phase of a ready model.
        """
        self.model, self.mixture, self.settings, self.processes = model, mixture, settings, processes
        self.device, self.sharded, self.reduces_once, self.micro_batch = processes.device, False, False, 0
        self.may_checkpoint_activations = settings.activation_checkpointing == "auto" and not processes.is_distributed
        self.embedding_ratio = settings.embedding_peak(swapped) / max(settings.learning_rate, 1e-30)
        self.losses = LossMeter(len(mixture.sources), self.device)
        self.data_wait, self.optimizer_time = Stopwatch(torch.device("cpu")), Stopwatch(self.device)
        self.first_bad_step = torch.full((), -1, dtype=torch.int64, device=self.device)
        self.grad_norm = torch.zeros((), device=self.device)
        self.sums, self.stale_share, self.warned_of_stale, self.wait_for = None, None, False, None
        self.reported_at = time.monotonic()
        known = (layout or {}).get("attention")
        attention, self.apart = processes.broadcast(models.set_attention(model, settings, self.device, known))
        # Each process has timed kernels for itself.
        if attention != model.config._attn_implementation:
            model.set_attn_implementation(attention)
        self.attention = attention
        self.head_loss, self.teacher = HeadLoss(model, settings.loss_chunk), teacher
        self.check_loss()
        self.shape = Shape.of(model.config.to_dict(), model.get_input_embeddings().weight.shape[0])
        known = devices.named(torch.cuda.get_device_name(self.device)) if self.device.type == "cuda" else None
        self.peak_flops = known.flops if known is not None else None
        self.choose_layout(layout)
        self.begin(phase(model))

    def choose_layout(self, before: Mapping[str, Any] | None) -> None:
        """Shard, compile, and find micro-batch and recomputation; ``before``: the layout to go on with."""
        self.settings = layouts.resolve(self.settings, self.shape, self.processes, before)
        if self.settings.activation_checkpointing != "auto":
            models.checkpoint_activations(self.model, self.settings.activation_checkpointing)
        self.sharded = parallel.shard_model(self.model, self.settings, self.processes)
        if self.settings.compile:
            for block in models.blocks(self.model):
                block.compile()
        if "auto" in (self.settings.micro_batch, self.settings.activation_checkpointing):
            gpu = layouts.this_gpu(self.device)
            options = layouts.options(self.settings, self.shape, self.processes, gpu)
            fastest = fastest_layout(self, options, gpu.memory)
            self.apply_layout(fastest.micro_batch, fastest.activation_checkpointing)
            self.settings = layouts.fill_in(self.settings, fastest)
        self.micro_batch = int(self.settings.micro_batch)

    def describe_layout(self) -> dict[str, Any]:
        """What a checkpoint remembers, so that a run that goes on need not search again."""
        chosen = {name: getattr(self.settings, name) for name in ("activation_checkpointing", "sharding")}
        return {"micro_batch": self.micro_batch, **chosen, "processes": self.processes.size}

    def check_loss(self) -> None:
        """Compare the loss with the model's own, on a window of one document."""
        window = torch.arange(48, device=self.device)[None]
        with self.compute():
            self.head_loss.check(self.inputs(window % 7, window), torch.roll(window % 7, -1, 1))

    def apply_layout(self, micro_batch: int, activation_checkpointing: str) -> None:
        """Windows per forward pass, and what is made again in the backward pass."""
        self.micro_batch = micro_batch
        models.checkpoint_activations(self.model, activation_checkpointing)
        if self.settings.compile:
            # After a second shape the compiler makes slower code for any shape.
            torch.compiler.reset()

    @contextlib.contextmanager
    def summing(self) -> Iterator[None]:
        """Gradient sums for passes before the first step, if its layout has them."""
        sums = self.gradient_sums() if self.sums_in_fp32() else None
        try:
            yield
        finally:
            if sums is not None:
                sums.release()

    @contextlib.contextmanager
    def compute(self) -> Iterator[None]:
        """The context for forward passes."""
        mixed = self.settings.precision == "mixed-bf16" and not self.sharded
        # The compiler makes products of its own.
        widened = contextlib.nullcontext() if self.settings.compile else products.widening(self.device)
        with widened, torch.autocast(self.device.type, torch.bfloat16) if mixed else contextlib.nullcontext():
            yield

    def uncompiled(self) -> Any:
        """The context for validations: their windows have many shapes, each of which would be compiled, and training's
        after them for shapes that vary."""
        # FlexAttention is nothing without its compiled kernel.
        if not self.settings.compile or self.attention == "flex_attention":
            return contextlib.nullcontext()
        return torch.compiler.set_stance("force_eager")

    def begin(self, phase: Phase) -> None:
        """Train ``phase`` from now on, by a fresh optimizer."""
        settings, self.phase = self.settings, phase
        # Shards of single rows are no DTensors: their norm is summed over processes here.
        self.clips_apart = settings.optimizer != "adamw" or (phase.rows is not None and self.sharded)
        # Gradients are summed over micro-batches whole and in fp32, so that nothing is lost and each is sent once,
        # where every process has room for that.
        self.reduces_once = (
            self.sharded
            and self.accumulates()
            and layouts.has_room_for_whole_sums(settings, self.shape, self.processes)
        )
        exact = self.sums_in_fp32()
        # On a CPU the hooks push what the backward pass needs next out of the caches, and cost more than they save.
        whole = self.device.type == "cuda" and not (exact or self.processes.is_distributed or phase.rows is not None)
        self.optimizer = optimizers.make(phase.groups, settings, self.clips_apart, whole)
        if self.sums is not None:
            self.sums.release()
        self.sums = self.gradient_sums() if exact else None

    def gradient_sums(self) -> optimizers.GradientSums:
        """fp32 sums of the gradients of all that is trained."""
        return optimizers.GradientSums([one for one in self.model.parameters() if one.requires_grad])

    def sums_in_fp32(self) -> bool:
        """Whether gradients are summed here, in fp32 beside bf16 parameters."""
        settings = self.settings
        wanted = settings.accumulate == "fp32" or (settings.accumulate == "auto" and self.accumulates())
        return wanted and settings.precision == "pure-bf16" and not self.reduces_once

    def accumulates(self) -> bool:
        """Whether a step has more than one micro-batch; where documents have rows of their own, that is not known."""
        return self.apart == models.ROWS or self.settings.sequences_per_step // self.processes.size > self.micro_batch

    def step(self, batch: Batch, step: int, *, rate: float = 0.0, embeddings_rate: float | None = None) -> None:
        """One update. ``rate`` is of everything but embeddings, whose rate follows it or is ``embeddings_rate``."""
        settings = self.settings
        # Dropout of a step is a function of seed, step and rank, so a resumed run draws the same.
        torch.manual_seed(settings.seed * 1_000_003 + step * self.processes.size + self.processes.rank)
        others = {"embeddings": rate * self.embedding_ratio if embeddings_rate is None else embeddings_rate}
        if settings.adapter is not None:
            others["adapter"] = rate * settings.adapter.rate
        optimizers.set_rates(self.optimizer, rate, others)
        self.backward(batch, step)
        if self.sums is not None:
            self.sums.hand_over()
        if self.phase.rows is not None:
            self.phase.rows.take_gradients()
        if self.wait_for is not None:
            torch.cuda.current_stream(self.device).wait_event(self.wait_for)
        with self.optimizer_time:
            self.update(step)

    def backward(self, batch: Batch, step: int) -> None:
        """Gradients of the mean loss over all learnt tokens of the step, in this process' share of it."""
        # FSDP averages gradients over processes; the sum is what is wanted.
        scale = (self.processes.size if self.sharded else 1) / max(batch.learnt, 1)
        self.losses.begin_step()
        parts, done = self.parts(batch), 0
        while done < len(parts):
            part, last = parts[done], done + 1 == len(parts)
            if self.sharded:
                self.model.set_requires_gradient_sync(last or not self.reduces_once)
            accumulating = not last and self.settings.optimizer == "adamw"
            self.head_loss.soft, part = teach(self.teacher, part, self.mixture.names)
            ids, labels, positions, sources = part.on(self.device)
            losses = None
            try:
                with self.optimizer.accumulating() if accumulating else contextlib.nullcontext():
                    losses = self.forward_backward(ids, labels, positions, scale=scale, documents=part.documents)
            except torch.OutOfMemoryError:
                log.debug("step %d: out of memory", step + 1)
            # Not above: until that block ends, its traceback keeps the tensors of the failed pass.
            if losses is None:
                self.shrink(step)
                parts, done = self.parts(batch), 0
                continue
            self.losses.add(losses, labels, sources)
            bad = ~torch.isfinite(losses.sum()) & (self.first_bad_step < 0)
            self.first_bad_step = torch.where(bad, step, self.first_bad_step)
            done += 1

    def parts(self, batch: Batch) -> list[Part]:
        """What each forward pass of a step sees; in all processes there are as many."""
        if self.apart != models.ROWS:
            return windows(batch, self.micro_batch)
        parts = rows(batch, self.micro_batch)
        most = max(self.processes.all_gather(len(parts)))
        return parts + [idle(parts[-1])] * (most - len(parts))

    def forward_backward(
        self, ids: Tensor, labels: Tensor, positions: Tensor, *, scale: float, documents: int | None = None
    ) -> Tensor:
        """One micro-batch, of so many documents; returns the losses of its tokens, fp32."""
        with self.compute():
            loss, losses = self.head_loss(self.inputs(ids, positions, documents), labels, scale)
        loss.backward()
        return losses

    def inputs(self, ids: Tensor, positions: Tensor, documents: int | None = None) -> dict[str, Any]:
        """The model's arguments."""
        if self.apart in (models.ROWS, models.WHOLE):
            return {"input_ids": ids}
        return packed_inputs(ids, positions, self.attention, documents, states=self.apart == models.STATES)

    def shrink(self, step: int) -> None:
        """Start the step again with half the micro-batch, or with more recomputation; no weight has moved yet.

        Raises:
            LangadaptError: one window alone does not fit, or other processes cannot follow.
        """
        checkpointing = self.settings.activation_checkpointing
        if self.micro_batch == 1 and self.may_checkpoint_activations and checkpointing != "full":
            checkpointing = "full"
        elif self.micro_batch == 1 or self.processes.is_distributed:
            raise LangadaptError(
                f"step {step + 1}: out of memory with {self.micro_batch} windows of {self.settings.window} "
                "tokens per forward pass; lower micro_batch or sequence_length, or set activation_checkpointing: full"
            )
        self.apply_layout(max(self.micro_batch // 2, 1), checkpointing)
        self.settings = replace(self.settings, activation_checkpointing=checkpointing)
        self.model.zero_grad(set_to_none=True)
        if self.sums is not None:
            self.sums.clear()
        elif self.sums_in_fp32():
            self.sums = self.gradient_sums()
        self.losses.forget()
        torch.cuda.empty_cache()
        log.warning(
            "out of memory: going on with %d windows per forward pass, activation checkpointing %s",
            *(self.micro_batch, checkpointing),
        )

    def update(self, step: int) -> None:
        """Clip and step."""
        settings = self.settings
        if self.clips_apart:
            parameters = [parameter for _, parameter in self.phase.named]
            self.grad_norm = optimizers.gradient_norm(parameters, parallel.shard_group(self.model))
            if settings.max_grad_norm is not None:
                optimizers.clip(parameters, self.grad_norm, settings.max_grad_norm)
        metered = settings.optimizer == "adamw" and settings.stale_every > 0 and (step + 1) % settings.stale_every == 0
        self.optimizer.stale_meter = metered
        try:
            self.optimizer.step()
        except torch.OutOfMemoryError:
            # A smaller micro-batch would not help: activations are gone by now, and its gradient sums would come.
            raise LangadaptError(
                f"step {step + 1}: out of memory in the optimizer, which has its states beside weights and "
                "gradients; set accumulate: bf16 or rounding: stochastic, or take more GPUs (see `langadapt plan`)"
            ) from None
        if metered:
            self.stale_share = float(self.optimizer.stale_share())
            self.warn_if_stale(self.stale_share)
        if not self.clips_apart:
            self.grad_norm = self.optimizer.grad_norm
        if self.phase.rows is not None:
            self.phase.rows.put_back()
        self.optimizer.zero_grad(set_to_none=True)
        self.model.zero_grad(set_to_none=True)

    def warn_if_stale(self, share: float) -> None:
        """Say once that most updates are lost, and what helps."""
        if self.warned_of_stale or share < STALE_WARNING or self.settings.rounding != "nearest":
            return
        self.warned_of_stale = True
        log.warning(
            "%.0f %% of the weights did not move in this step: their updates are below half a bf16 unit. "
            "Set `rounding: stochastic` (no more memory), `kahan` or `split` (2 bytes per parameter), or a higher rate",
            100 * share,
        )

    def check_finite(self, step: int, out: Path) -> None:
        """Raise LangadaptError if a loss or the gradient was no number since the last call; waits for the device."""
        lost, norm = max(self.processes.all_gather(int(self.first_bad_step))), float(self.grad_norm)
        if lost < 0 and math.isfinite(norm):
            return
        bad = lost if lost >= 0 else step - 1
        what = "loss" if lost >= 0 else "gradient norm"
        raise LangadaptError(
            f"step {bad + 1}: the {what} is not a number. Documents in its batch: {self.mixture.documents(bad)}. "
            f"{good_checkpoints(out / 'checkpoints', bad)}"
        )

    def report(self, steps: int, bytes_per_token: list[float | None]) -> dict[str, Any]:
        """What the log says about the last ``steps`` steps; waits for the device and, for all processes."""
        sums, counts = self.losses.take(self.processes)
        now = time.monotonic()
        seconds, self.reported_at = max(now - self.reported_at, 1e-9), now
        tokens = steps * self.settings.tokens_per_step
        line = losses_by_source(self.mixture.names, sums, counts, bytes_per_token)
        line["learning_rate"] = {group["name"]: float(group["lr"]) for group in self.optimizer.param_groups}
        line["grad_norm"] = float(self.grad_norm)
        line["tokens_per_second"] = round(tokens / seconds, 1)
        if all(size is not None for size in bytes_per_token):
            read = sum(count * size for count, size in zip(counts, bytes_per_token, strict=True) if size is not None)
            line["bytes_per_second"] = round(read / seconds, 1)
        if self.peak_flops is not None:
            window, peak = self.settings.window, self.peak_flops * self.processes.size
            line["mfu"] = round(self.shape.mfu(tokens / seconds, window, peak), 4)
        line["data_wait_seconds"] = round(self.data_wait.take(), 4)
        line["optimizer_seconds"] = round(self.optimizer_time.take(), 4)
        if self.stale_share is not None:
            line["stale_share"], self.stale_share = round(self.stale_share, 4), None
        return line

    def close(self) -> None:
        """Detach from the model."""
        if self.sums is not None:
            self.sums.release()
        self.head_loss.release()
