"""What a training run can be asked for: plain values, checked against each other, readable without torch.

Settings come in small groups; `TrainSettings` is all of them, flat, as under ``train`` in a recipe. Those of the
learning rate are beside the schedules that read them; the owners of the others need torch, and settings must not.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any, Literal

from langadapt.checks import at_least, positive
from langadapt.errors import ConfigError
from langadapt.training.adapter_settings import AdapterSettings, BodySettings
from langadapt.training.schedule import ScheduleSettings, settled

Precision = Literal["pure-bf16", "mixed-bf16", "fp32"]
Rounding = Literal["nearest", "stochastic", "kahan", "split", "split8"]


@dataclass
class BudgetSettings:
    """How much is trained, and by when."""

    steps: int | None = None
    """Optimizer steps in all."""
    tokens: int | None = None
    """Training tokens in all; rounded up to whole steps."""
    epochs: float | None = None
    """Passes over the first store; rounded up to whole steps. The default, one pass, where nothing else is set."""
    hours: float | None = None
    """Hours of training, summed over restarts; the schedule stretches so that its decay ends in time."""
    limit_hours: float | None = None
    """Hours of training, summed over restarts, after which the run must be over, whatever its budget: the schedule ends
    early if it must. A recipe's `budget.hours` beside a budget of another kind."""
    deadline: str | None = None
    """Moment (ISO 8601, such as `2026-01-31T18:00`) at which the run must be over; may be combined with any budget."""

    def check(self) -> None:
        """At most one budget, each positive; a deadline that can be read."""
        given = {name: getattr(self, name) for name in BUDGET if getattr(self, name) is not None}
        if len(given) > 1:
            raise ConfigError(f"{' and '.join(given)} are both set; keep one of them")
        positive(**given, limit_hours=self.limit_hours)
        self.deadline_timestamp()

    def deadline_timestamp(self) -> float | None:
        """The deadline in seconds since 1970; without a zone it is local time."""
        if self.deadline is None:
            return None
        try:
            return datetime.fromisoformat(str(self.deadline)).timestamp()
        except ValueError:
            raise ConfigError(f"deadline: {self.deadline!r} is not a time such as 2026-01-31T18:00") from None


@dataclass
class BatchSettings:
    """Which tokens an optimizer step sees."""

    data: Literal["text", "chat"] = "text"
    """What ``corpus.target`` holds. chat = conversations, a line ``{"messages": [{"role": ..., "content": ...}]}`` each
    in `.jsonl` files, written by the model's chat template; the assistant's turns are learnt. For `langadapt train`
    alone: the model is trained as it is, `swap`, `tokenizer` and `evaluate.suites` play no part."""
    sequence_length: int | Literal["auto"] = "auto"
    """Tokens per window; auto = 2048, or the model's context where that is shorter."""
    batch_tokens: int | Literal["auto"] | None = "auto"
    """Tokens per optimizer step over all processes; a multiple of ``sequence_length``. auto = the largest useful batch
    for the D tokens that budget and text come to, a power of two of windows: 0.58 D^0.571 (Step Law, arXiv 2503.04715),
    at most D / 500, so that there are 500 steps. Under ``steps``: what one pass over the text gives each of them, at
    most 524,288. none = ``batch_sequences``."""
    batch_sequences: int | None = None
    """Windows per optimizer step over all processes; instead of ``batch_tokens``. Where both are none, 256."""
    micro_batch: int | Literal["auto"] = "auto"
    """Windows per forward pass and process; auto = the fastest that fits, found by trial on one GPU, predicted under
    `torchrun`."""
    isolate_documents: bool = True
    """Nothing of one document of a window reaches another: by position ids, else by a row for each document."""
    document_start: Literal["auto", "bos", "eos", "none"] = "auto"
    """Token set before each document so that its first token is learnt too; auto = BOS, or EOS where there is none."""
    seed: int = 42
    """Of the data order, of dropout and of stochastic rounding."""

    def check(self) -> None:
        """Batch, window and micro-batch fit together."""
        if self.batch_sequences is not None and self.batch_tokens == "auto":
            self.batch_tokens = None
        if self.batch_tokens is not None and self.batch_sequences is not None:
            raise ConfigError("batch_tokens and batch_sequences are both set; keep one of them")
        at_least(1, batch_sequences=self.batch_sequences)
        at_least(1, micro_batch=None if self.micro_batch == "auto" else self.micro_batch)
        if self.sequence_length != "auto":
            at_least(2, sequence_length=self.sequence_length)
        if isinstance(self.batch_tokens, int):
            at_least(1, batch_tokens=self.batch_tokens)
            if self.sequence_length != "auto" and self.batch_tokens % self.sequence_length:
                raise ConfigError(
                    f"batch_tokens: {self.batch_tokens} is not a multiple of sequence_length: {self.sequence_length}"
                )
        if self.has_batch and self.micro_batch != "auto" and self.micro_batch > self.sequences_per_step:
            raise ConfigError(
                f"micro_batch: {self.micro_batch} is not between 1 and the {self.sequences_per_step} windows of a step "
                "(batch_tokens / sequence_length)"
            )

    @property
    def has_batch(self) -> bool:
        """Whether the windows of a step are known: `auto` waits for budget and text."""
        return self.batch_tokens is None or "auto" not in (self.batch_tokens, self.sequence_length)

    @property
    def window(self) -> int:
        """``sequence_length`` once it is a number."""
        return settled("sequence_length", self.sequence_length)

    @property
    def sequences_per_step(self) -> int:
        """Windows per optimizer step over all processes."""
        if self.batch_tokens is not None:
            return settled("batch_tokens", self.batch_tokens) // self.window
        return self.batch_sequences if self.batch_sequences is not None else 256

    @property
    def tokens_per_step(self) -> int:
        """Tokens per optimizer step over all processes."""
        return self.sequences_per_step * self.window


@dataclass
class OptimizerSettings:
    """AdamW, and what its gradients are limited to."""

    weight_decay: float = 0.05
    """Decoupled decay of weight matrices; never applied to norms, biases and embeddings."""
    betas: tuple[float, ...] = (0.9, 0.95)
    """Decay of Adam's first and second moment. Above 0.99 for the second, pure-bf16 second moments are rounded
    stochastically whatever ``rounding`` says: to nearest, they could not shrink."""
    eps: float = 1e-8
    """Added to the denominator of Adam."""
    max_grad_norm: float | None = 1.0
    """Gradients are scaled down to this global norm; none = never."""
    optimizer: Literal["adamw", "adamw-8bit"] = "adamw"
    """`adamw-8bit` is that of `torchao` or `bitsandbytes`, one of which it needs; `states: int8` does without."""


@dataclass
class PrecisionSettings:
    """How a step is computed, and in which digits weights, gradients and states are kept."""

    precision: Precision = "pure-bf16"
    """All of parameters, gradients and states in bf16; or fp32 parameters with bf16 compute; or fp32."""
    rounding: Rounding | Literal["auto"] = "auto"
    """How pure-bf16 updates are rounded: 8 bytes per parameter (nearest, stochastic), 9 (split8), 10 (kahan, split).
    auto = stochastic, or nearest where ``optimizer`` knows no other: to nearest, as in the paper, most small updates
    are lost (``docs/runs/precision.md``)."""
    states: Literal["full", "int8"] = "full"
    """AdamW's two moments under `pure-bf16`: full = bf16, 4 bytes per parameter; int8 = companded codes of a byte with
    a scale for each 64 neighbours (FlashOptim, arXiv 2602.23349), 2.125 bytes; vectors stay as they are, and matrices
    whose rows are not whole groups of 64. Of the fp32 moments of other precisions there are only full ones."""
    norms_in_fp32: bool = False
    """Keep norm weights in fp32 under `pure-bf16`: they are near 1, where bf16 cannot hold small updates."""
    accumulate: Literal["auto", "bf16", "fp32"] = "auto"
    """Gradient sums over micro-batches: fp32 loses nothing and costs 2 bytes per parameter; auto = fp32 if there is
    more than one micro-batch per step. Under `torchrun` gradients are summed whole, in fp32, and sent once per step
    where each GPU has room for 4 bytes per parameter."""
    attention: Literal["auto", "flash", "varlen", "flex", "sdpa"] = "auto"
    """Kernel for packed documents: FlashAttention's (package `flash-attn`), torch's own, FlexAttention, or SDPA with a
    mask; auto = the fastest that agrees with `sdpa` on this machine."""
    loss_chunk: int | Literal["auto", "fused", "liger"] = "auto"
    """Tokens whose logits are held at once; auto = 32 MB of logits (and 512 tokens), 256 MB on a GPU; 0 = the
    model's own loss; fused = as auto, with one kernel of `langadapt-kernels` for softmax, loss and gradient, which no
    GPU has timed yet; liger = the kernel of the package `liger-kernel`, which chooses its chunks itself."""

    def check(self) -> None:
        """What is for bf16 weights is not asked of others."""
        if self.precision != "pure-bf16" and self.rounding != "nearest":
            raise ConfigError(
                f"rounding: {self.rounding} is for `precision: pure-bf16`, but precision is {self.precision}, "
                "whose fp32 parameters need none"
            )
        if self.precision != "pure-bf16" and self.states != "full":
            raise ConfigError(
                f"states: {self.states} is for `precision: pure-bf16`, but precision is {self.precision}, whose "
                "moments are fp32"
            )
        if isinstance(self.loss_chunk, int) and self.loss_chunk < 0:
            raise ConfigError(f"loss_chunk: {self.loss_chunk} is negative")
        if self.precision != "pure-bf16" and self.norms_in_fp32:
            raise ConfigError(f"norms_in_fp32 is for `precision: pure-bf16`, but precision is {self.precision}")


@dataclass
class EmbeddingsFirstSettings:
    """A first phase that trains embeddings only."""

    embeddings_first_steps: int = 0
    """Steps of a first phase that trains embeddings only, before the budget counts. None by default: at equal steps in
    all it gained nothing beside ``embedding_learning_rate: auto`` where FOCUS made the rows, and 0 to 1.3 % of bits per
    byte with 5 % of the steps where most rows had no source (`mean`, `random`)."""
    embeddings_first_learning_rate: float | None = None
    """Peak rate of that phase; none = 10 x ``learning_rate``. It falls by a cosine to a tenth."""
    new_rows_only: bool = True
    """That phase trains only rows of new tokens, if the caller names them; all other rows stay as they are, exactly."""


@dataclass
class ForgettingSettings:
    """What is done so that the model forgets less of what it knew; the source text and the source model tell what."""

    parts: Literal["all", "embeddings"] = "all"
    """What is trained: everything, or the rows of tokens alone: the body stays as it is, bit by bit, and has neither
    gradients nor states."""
    protect: float | None = None
    """Share of the columns of each of the body's matrices that stay as they are: those that matter most to source text,
    by |weight| x norm of the activations (source-shielded updates). Needs ``corpus.source``; none = all move."""
    replay_loss: Literal["cross_entropy", "kl"] = "cross_entropy"
    """Of replayed source text: the next token, or, at words that both tokenizers begin alike, the source model's
    distribution over it. `kl` holds the source model beside the trained one. Needs ``corpus.source_share``."""

    def check(self) -> None:
        """What is protected is trained, by an optimizer that can."""
        if self.protect is None:
            return
        if not 0 < self.protect < 1:
            raise ConfigError(f"protect: {self.protect:g} is not a share in (0, 1)")
        if self.parts == "embeddings":
            raise ConfigError("protect: `parts: embeddings` leaves the whole body as it is; keep one of them")


@dataclass
class KeepSettings:
    """Which of a run's models is its result."""

    keep: Literal["best", "last"] = "best"
    """`best`: the best of all that were validated, by bits per byte of target text, the model before training included;
    `last`: that of the last step, as it is where nothing is validated."""
    source_weight: float = 0.0
    """Weight of the source text's bits per byte beside the target's in what is best, where both are validated."""
    patience: int | None = None
    """Validations without a better one after which the run ends; none = never."""


@dataclass
class CheckpointSettings:
    """When checkpoints are written, and how many are kept."""

    checkpoint_every: int | None = None
    """Steps between checkpoints; none = by time only."""
    checkpoint_minutes: float | None = 30.0
    """Minutes between checkpoints; none = by steps only."""
    keep_checkpoints: int = 2
    """Older ones are deleted, but for the last one before the final decay, from which a run is best extended."""
    asynchronous_checkpoints: bool = True
    """On a GPU: copy to memory, go on, write meanwhile."""
    checkpoints_url: str | None = None
    """Folder in a store (`s3://`, `gs://`, `az://`) that gets a copy of each checkpoint while training goes on. A run
    that has none of its own, on another machine say, goes on from the newest whole copy there."""


@dataclass
class LogSettings:
    """What is measured beside the loss, and where it is written."""

    validate_every: int | Literal["auto"] | None = "auto"
    """Steps between validations; none = a tenth of the run; auto = a twentieth where it has 1,000 steps or more."""
    log_every: int | Literal["auto"] = "auto"
    """Steps between lines of the log; losses are averaged over them. auto = a hundredth of the run, at most 10."""
    stale_every: int = 100
    """Steps between measurements of the share of weights that an update leaves unmoved; 0 = never."""
    tensorboard: bool = False
    """Write TensorBoard events beside the log."""
    wandb_project: str | None = None
    """Log to Weights & Biases, too."""


@dataclass
class LayoutSettings:
    """Where and in which pieces a step is computed; which update follows which does not depend on it."""

    activation_checkpointing: Literal["auto", "none", "selective", "full"] = "auto"
    """Recompute in the backward pass: nothing, all but matrix products and attention, whole blocks; auto = whatever is
    fastest with the micro-batch that it leaves room for: found by trial on one GPU, predicted under `torchrun`."""
    sharding: Literal["auto", "none", "full", "grad-op", "hybrid"] = "auto"
    """Under `torchrun`: nothing, everything (FSDP2), parameters kept gathered between forward and backward, or full
    inside a node and replicated between nodes; auto = the fastest of the first three that should fit."""
    compile: bool = False
    """Compile each block of the model."""
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1`; auto = a GPU if there is one."""
    threads: int | None = None
    """CPU threads; none = torch's choice."""


BUDGET = ("steps", "tokens", "epochs", "hours")
"""How much is trained; changed on purpose by `extend`, as `RATES` and `KEPT` are."""
RATES = frozenset({"max_grad_norm", "weight_decay"} | {field.name for field in fields(ScheduleSettings)})
KEPT = frozenset(field.name for field in fields(KeepSettings))
FREE_TO_CHANGE = frozenset(
    {"deadline", "limit_hours", "micro_batch"}
    | {field.name for group in (CheckpointSettings, LogSettings, LayoutSettings) for field in fields(group)}
)
"""May change between the start of a run and its resumption: none of these alters which update follows which."""


@dataclass
class TrainSettings(  # the fields of the last base come first
    LayoutSettings,
    LogSettings,
    CheckpointSettings,
    KeepSettings,
    ForgettingSettings,
    BodySettings,
    EmbeddingsFirstSettings,
    PrecisionSettings,
    OptimizerSettings,
    ScheduleSettings,
    BatchSettings,
    BudgetSettings,
):
    """Continued pretraining. Exactly one of ``steps``, ``tokens``, ``epochs`` and ``hours`` says for how long."""

    def __post_init__(self) -> None:
        if self.rounding == "auto":
            able = self.precision == "pure-bf16" and self.optimizer == "adamw"
            self.rounding = "stochastic" if able else "nearest"
        for group in (BudgetSettings, BatchSettings, ScheduleSettings, PrecisionSettings, ForgettingSettings):
            group.check(self)
        self.adapter = AdapterSettings.given(self.adapter)
        self.check_adapter()
        if self.protect is not None and self.optimizer != "adamw":
            raise ConfigError(f"protect: needs `optimizer: adamw`, whose step reads masks, but it is {self.optimizer}")
        at_least(1, keep_checkpoints=self.keep_checkpoints, patience=self.patience)
        at_least(0, source_weight=self.source_weight)
        at_least(0, weight_decay=self.weight_decay, eps=self.eps, stale_every=self.stale_every)
        at_least(0, embeddings_first_steps=self.embeddings_first_steps)
        at_least(0, embeddings_first_learning_rate=self.embeddings_first_learning_rate)
        positive(checkpoint_every=self.checkpoint_every, checkpoint_minutes=self.checkpoint_minutes)
        positive(threads=self.threads, max_grad_norm=self.max_grad_norm)
        at_least(1, log_every=None if self.log_every == "auto" else self.log_every)
        at_least(1, validate_every=None if self.validate_every == "auto" else self.validate_every)
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"betas: {self.betas} are not two numbers in [0, 1)")
        if self.optimizer != "adamw" and self.rounding != "nearest":
            raise ConfigError(f"rounding: {self.rounding} needs `optimizer: adamw`, but optimizer is {self.optimizer}")
        if self.optimizer != "adamw" and self.states != "full":
            raise ConfigError(
                f"states: {self.states} needs `optimizer: adamw`, but optimizer is {self.optimizer}, which has states "
                "of its own; keep one of them"
            )

    def check_adapter(self) -> None:
        """Raise ConfigError where an adapter stands beside what leaves it nothing to do."""
        if self.adapter is None:
            return
        if self.parts == "embeddings":
            raise ConfigError("adapter: `parts: embeddings` leaves the body as it is; keep one of them")
        if self.protect is not None:
            raise ConfigError("adapter: the weights whose columns `protect` keeps do not move; keep one of them")
        if self.norms_in_fp32:
            raise ConfigError("adapter: norms are not trained beside it, so norms_in_fp32 gains nothing; leave it out")

    def budget_steps(self, epoch: float, per_step: float) -> int | None:
        """Steps that the budget comes to; none under ``hours``. An epoch is ``epoch`` windows or tokens, of which each
        step takes ``per_step``."""
        if self.hours is not None or self.steps is not None:
            return self.steps
        if self.tokens is not None:
            return -(-self.tokens // self.tokens_per_step)
        return max(1, math.ceil((self.epochs or 1.0) * epoch / per_step))

    @property
    def checkpoints_at_most(self) -> int:
        """Checkpoints on the disk at once: those that are kept, that before the final decay, one being written."""
        return self.keep_checkpoints + (self.schedule in {"wsd", "infinite"}) + 1

    @property
    def embeddings_first_peak(self) -> float:
        """Peak rate of the phase that trains embeddings only."""
        rate = self.embeddings_first_learning_rate
        return 10 * self.learning_rate if rate is None else rate

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as in YAML and JSON."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
