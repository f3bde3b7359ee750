"""Bytes that training holds per GPU, from a model's shape and a layout.

What is counted, and when: parameters, optimizer states and, over several micro-batches, gradient sums are there all the
time. Activations peak when the backward pass begins; gradients are complete when it ends, and by then activations are
gone. In between one shrinks while the other grows, layer by layer, so the peak is at one of the two ends.

Activations are those of transformers' Llama family, with attention that stores no scores. They were counted tensor by
tensor, as autograd saves them and as compiled blocks save them; the tests count them again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from langadapt.costs.adapter import Adapter, coded_share, moving_parameters
from langadapt.costs.flops import Shape

STATES = {"nearest": 4.0, "stochastic": 4.0, "split8": 5.0, "kahan": 6.0, "split": 6.0}
"""Bytes per parameter of optimizer states under pure bf16, what rounding keeps beside the weights included."""
CODES_SPARE = 4.0 - 2.125
"""Of them, bytes that moments do without as codes (`states: int8`)."""
CHUNK_BYTES = {"cpu": 1 << 25, "cuda": 1 << 28}
"""Of fp32 logits held at once, for ``loss_chunk: auto``. Each chunk adds to the head's gradient once, so that few large
ones are fast; on a CPU small ones that stay in its caches are, down to `CHUNK_TOKENS`."""
CHUNK_TOKENS = {"cpu": 512, "cuda": 64}
OVERHEAD = 0.03
"""Share of the rest that the allocator loses to fragments, workspaces and rounding."""
CONTEXT = 600 << 20
"""What libraries (cuBLAS, NCCL) take beside the allocator."""


@dataclass(frozen=True)
class Layout:
    """One way of placing a run on GPUs."""

    precision: str = "pure-bf16"
    rounding: str = "nearest"
    gpus: int = 1
    sharding: str = "none"
    """``none``, ``full`` or ``grad-op``, as in the settings."""
    activation_checkpointing: str = "none"
    micro_batch: int = 1
    """Windows per forward pass and GPU."""
    micro_batches: int = 1
    """Forward passes per step and GPU."""
    windows: int | None = None
    """Per step and GPU; none = of so many whole passes. The last one is smaller where they do not divide."""
    accumulate: str = "auto"
    compiled: bool = False
    """Compiled blocks keep less for the backward pass."""
    whole_sums: bool = False
    """Each of several GPUs sums whole gradients over micro-batches, in fp32, and sends them once per step."""
    parts: str = "all"
    """What has gradients and states: ``all``, or ``embeddings``."""
    adapter: Adapter | None = None
    """Low-rank matrices that are trained in place of the body."""
    teacher: bool = False
    """The source model stands whole beside the trained one on each GPU (``replay_loss: kl``)."""
    states: str = "full"
    """Moments of AdamW under pure bf16: ``full``, or ``int8``."""

    @property
    def kind(self) -> tuple[str, str, str]:
        """What a recipe settles: precision, rounding and states."""
        return self.precision, self.rounding, self.states

    @property
    def sums_whole(self) -> bool:
        """Whether there is something to sum that way."""
        return self.whole_sums and self.gpus > 1 and self.micro_batches > 1

    @property
    def exact_sums(self) -> bool:
        """Whether gradient sums are kept in fp32 beside bf16 parameters."""
        wanted = self.accumulate == "fp32" or (self.accumulate == "auto" and self.micro_batches > 1)
        return wanted and self.precision == "pure-bf16"

    def describe(self) -> str:
        """In few words; `FSDP` gathers parameters for each block, `FSDP grad-op` once per step."""
        parts = [self.described_kind]
        if self.adapter is not None:
            parts.append(self.adapter.name)
        if self.gpus > 1:
            parts.append(self.placement)
        if self.activation_checkpointing != "none":
            parts.append(f"{self.activation_checkpointing} recompute")
        if self.sums == "bf16" and self.precision == "pure-bf16":
            parts.append("bf16 sums")
        parts.append(f"micro-batch {self.micro_batch}")
        return ", ".join(parts)

    @property
    def described_kind(self) -> str:
        """Precision, rounding and states in few words."""
        if self.precision == "mixed-bf16":
            return self.precision
        return f"{self.precision} {self.rounding}" + (" int8 states" if self.states == "int8" else "")

    @property
    def placement(self) -> str:
        """Of parameters on several GPUs."""
        return {"none": "replicated", "full": "FSDP", "grad-op": "FSDP grad-op"}[self.sharding]

    @property
    def sums(self) -> str:
        """Dtype of gradient sums over micro-batches; empty where there is nothing to sum."""
        if self.micro_batches == 1:
            return ""
        return "fp32" if self.exact_sums or self.precision != "pure-bf16" else "bf16"


@dataclass(frozen=True)
class Memory:
    """Bytes per GPU."""

    parameters: int
    states: int
    gradients: int
    """Held when complete: bf16, or fp32 sums."""
    gathered: int
    """Parameters of blocks at work, and their gradients, before they are sharded again."""
    activations: int
    loss: int
    """One chunk of logits and the head's gradient."""
    teacher: int
    """The source model, where it teaches."""
    peak: int
    """Everything at the worst moment, with overhead."""


def estimate(shape: Shape, layout: Layout, sequence_length: int, loss_chunk: int | str = "auto") -> Memory:
    """Memory of a layout; see the module's docstring for what is counted."""
    count = shape.parameters
    shards = layout.gpus if layout.sharding in {"full", "grad-op"} else 1
    pure = layout.precision == "pure-bf16"
    moving = moving_parameters(shape, layout.adapter, layout.parts)
    parameters = weight_bytes(shape, layout) // shards
    coded = coded_share(shape, layout.adapter, layout.parts, layout.states)
    states = int(moving * states_per_parameter(layout.precision, layout.rounding, coded) / shards)
    gradients = int(moving * (4 if layout.exact_sums or not pure else 2) / shards)
    if layout.sums_whole:
        gradients = 4 * moving
    tokens = layout.micro_batch * sequence_length
    # FSDP casts by itself, and what is between blocks stays in bf16.
    autocast = not pure and layout.gpus == 1
    kind: dict[str, Any] = {"compiled": layout.compiled, "autocast": autocast, "adapter": layout.adapter}
    saved = activation_bytes(shape, layout.activation_checkpointing, **kind) * shape.layers * tokens
    # Recomputation brings one layer back in full.
    if layout.activation_checkpointing != "none":
        saved += activation_bytes(shape, "none", **kind) * tokens
    # The last norm, token ids and positions.
    saved += (8 * shape.width + 20) * tokens
    gathered = gathered_bytes(shape, layout)
    if layout.precision == "mixed-bf16" and shards == 1:
        # Autocast keeps bf16 copies of weight matrices for the backward pass; frozen ones beside an adapter are bf16.
        adapter = layout.adapter
        gathered += 2 * (
            shape.multiplied_parameters if adapter is None else shape.embedding_parameters + adapter.parameters(shape)
        )
    head = loss_bytes(shape, tokens, loss_chunk)
    early = saved + head + (gradients if layout.micro_batches > 1 else 0)
    # Until they are summed, bf16 gradients exist of one layer.
    layer = layout.adapter.parameters(shape) // shape.layers if layout.adapter else shape.layer_parameters
    late = gradients + (2 * layer if layout.exact_sums else 0)
    if layout.adapter is not None:
        gathered += layout.adapter.unpacked_bytes(shape)
    # Its logits are held for places of one forward pass, at most of all.
    teacher = (count + shape.vocabulary * tokens) * (2 if pure else 4) if layout.teacher else 0
    held = parameters + states + gathered + teacher + max(early, late)
    peak = int(held * (1 + OVERHEAD)) + CONTEXT
    return Memory(parameters, states, gradients, gathered, saved, head, teacher, peak)


def weight_bytes(shape: Shape, layout: Layout) -> int:
    """Of all parameters of the model and its adapter."""
    each, adapter = 2 if layout.precision == "pure-bf16" else 4, layout.adapter
    if adapter is None:
        return shape.parameters * each
    rest = shape.parameters - adapter.weights(shape) + adapter.parameters(shape)
    return rest * each + adapter.frozen_bytes(shape)


def states_per_parameter(precision: str, rounding: str, coded: float = 0.0) -> float:
    """Bytes of AdamW's states, what rounding keeps beside the weights included; ``coded``: the share of parameters
    whose moments are codes."""
    return STATES[rounding] - CODES_SPARE * coded if precision == "pure-bf16" else 8.0


def activation_bytes(
    shape: Shape,
    checkpointing: str,
    *,
    compiled: bool = False,
    autocast: bool = False,
    adapter: Adapter | None = None,
) -> int:
    """Bytes per token that one layer saves for its backward pass.

    Norms save their input in fp32, the normalised input in bf16 and their output (the next matrix product's input);
    attention saves query, key, value, output and one fp32 number per head; the gated feed-forward part saves the gate
    before and after SiLU, the other factor and the product. Compiled blocks make norms and SiLU again from the block's
    input, one fp32 number per norm, and the outputs of matrix products, but copy attention's output once.
    ``autocast``: of fp32 weights; what is between blocks is fp32, too, and each matrix product keeps a bf16 copy of its
    own, of its input. ``adapter``: weights of norms are frozen, so their normalised input is not kept; the first of two
    low-rank matrices keeps the layer's input, the second the first's output; a policy that keeps what matrix products
    made keeps that of all three.
    """
    width, inner = shape.width, shape.inner * shape.active_experts
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    block_input = 4 * width if autocast else 2 * width
    if checkpointing == "full":
        return block_input
    attention = 2 * (2 * queries + 2 * keys) + 4 * shape.heads
    low_rank = 2 * adapter.rank * len(adapter.layers(shape)) if adapter is not None else 0
    if checkpointing == "selective":
        # The block's input, what matrix products made, and what attention saved.
        made = queries + 2 * keys + 2 * width + (3 if shape.gated else 2) * inner
        return block_input + 2 * (made + (adapter.widths(shape) if adapter else 0)) + attention
    if compiled:
        return low_rank + block_input + 4 * width + 8 + attention + 2 * queries + (6 if shape.gated else 4) * inner
    norms = 2 * (4 * width + 4 + 2 * width + 2 * width)
    if autocast:
        # Of the first norm's output query, key and value have copies, of the second's one or two products.
        norms = 2 * (4 * width + 4 + 4 * width) + 2 * width * (3 + (2 if shape.gated else 1))
    if adapter is not None:
        norms -= 2 * 4 * width if autocast else 2 * 2 * width
    return norms + low_rank + attention + (8 if shape.gated else 4) * inner


def gathered_bytes(shape: Shape, layout: Layout) -> int:
    """FSDP: two blocks whole at a time (one at work, one on its way) with fp32 gradients of one; root always whole."""
    if layout.gpus == 1 or layout.sharding == "none":
        return 0
    root = shape.embedding_parameters * (1 if shape.tied else 2) + shape.width
    blocks = shape.layer_parameters * (shape.layers if layout.sharding == "grad-op" else 2)
    return 2 * (root + blocks) + 4 * max(shape.layer_parameters, root)


def chunk_tokens(vocabulary: int, device: str) -> int:
    """Tokens whose logits are held at once, for ``loss_chunk: auto``, on a device of this type."""
    return max(CHUNK_BYTES.get(device, 1 << 28) // (4 * max(vocabulary, 1)), CHUNK_TOKENS.get(device, 64))


def loss_bytes(shape: Shape, tokens: int, loss_chunk: int | str) -> int:
    """Logits in fp32 and in the compute dtype, gradient of the hidden states and of the head."""
    if loss_chunk == 0:
        return shape.vocabulary * tokens * (2 + 4 + 4 + 2) + 2 * shape.embedding_parameters
    if loss_chunk == "liger":
        # Its chunks of bf16 logits are as large as the hidden states, rounded up to a power of two of tokens.
        chunk = 1 << max(-(-tokens * shape.width // shape.vocabulary) - 1, 0).bit_length()
        return min(chunk, tokens) * shape.vocabulary * 2 + 4 * shape.width * tokens + 6 * shape.embedding_parameters
    chunk = min(loss_chunk if isinstance(loss_chunk, int) else chunk_tokens(shape.vocabulary, "cuda"), tokens)
    several = chunk < tokens
    head = shape.embedding_parameters * ((4 + 2 + 2) if several else 2 + 2)
    return chunk * shape.vocabulary * (4 + 2 + 2) + 2 * shape.width * tokens + head


def best_bytes(parameters: int, settings: Any) -> int:
    """What the best model's weights add to a checkpoint that is not the best itself."""
    return parameters * (2 if settings.precision == "pure-bf16" else 4) if settings.keep == "best" else 0


def checkpoint_bytes(shape: Shape, settings: Any) -> int:
    """Size of one checkpoint on disk: parameters, without those that an adapter leaves as they are, and optimizer
    states."""
    weights = 2 if settings.precision == "pure-bf16" else 4
    coded = coded_share(shape, Adapter.of(settings), "all", settings.states)
    states = states_per_parameter(settings.precision, settings.rounding, coded)
    return int(kept_parameters(shape, settings) * (weights + states))


def kept_parameters(shape: Shape, settings: Any) -> int:
    """Parameters that a checkpoint holds."""
    adapter = Adapter.of(settings)
    return shape.parameters if adapter is None else moving_parameters(shape, adapter, settings.parts)
