"""What low-rank matrices beside a frozen body cost: parameters, bytes, arithmetic.

Counted for the Llama family, whose seven linear layers per block have the names of `matrices`; other families have as
many parameters in as many layers, about. Experts of a mixture are no linear layers in transformers: nothing stands
beside them, and they stay in bf16.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from langadapt.costs.flops import GROUP, Shape

FOUR_BITS = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes per weight of NF4: half a byte, a scale of one byte per 64, one of four bytes per 256 of these (arXiv
2305.14314, section 3)."""


@dataclass(frozen=True)
class Adapter:
    """What memory and FLOPs depend on."""

    rank: int
    targets: tuple[str, ...] = ()
    """Names of layers; none = all of the body."""
    four_bit: bool = False

    @classmethod
    def of(cls, settings: Any) -> Adapter | None:
        """The adapter that a training's settings ask for."""
        asked = settings.adapter
        return None if asked is None else cls(asked.rank, tuple(asked.targets), asked.kind == "qlora")

    @property
    def name(self) -> str:
        """In two words."""
        return f"{'QLoRA' if self.four_bit else 'LoRA'} rank {self.rank}"

    def layers(self, shape: Shape) -> list[tuple[int, int]]:
        """(in, out) of each layer of a block beside which matrices stand; all where the names are of another family."""
        every = matrices(shape)
        named = [size for name, size in every.items() if any(one.rpartition(".")[2] == name for one in self.targets)]
        return named or list(every.values())

    def parameters(self, shape: Shape) -> int:
        """Of all low-rank matrices."""
        return shape.layers * self.rank * sum(into + out for into, out in self.layers(shape))

    def weights(self, shape: Shape) -> int:
        """Parameters of the frozen matrices beside which they stand."""
        return shape.layers * sum(into * out for into, out in self.layers(shape))

    def widths(self, shape: Shape) -> int:
        """Outputs of the low-rank matrices per block and token: rank each, and the layer's width again."""
        return sum(self.rank + out for _, out in self.layers(shape))

    def frozen_bytes(self, shape: Shape) -> int:
        """Of the matrices beside which they stand."""
        return int(self.weights(shape) * (FOUR_BITS if self.four_bit else 2))

    def unpacked_bytes(self, shape: Shape) -> int:
        """Of one 4-bit matrix while it is multiplied with."""
        return 2 * max(into * out for into, out in self.layers(shape)) if self.four_bit else 0


def matrices(shape: Shape) -> dict[str, tuple[int, int]]:
    """(in, out) of the linear layers of a block by their names in the Llama family."""
    width, queries, keys = shape.width, shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    found = {
        "q_proj": (width, queries),
        "k_proj": (width, keys),
        "v_proj": (width, keys),
        "o_proj": (queries, width),
    }
    if shape.experts > 1:
        return found
    gate = {"gate_proj": (width, shape.inner)} if shape.gated else {}
    return found | gate | {"up_proj": (width, shape.inner), "down_proj": (shape.inner, width)}


def tables(shape: Shape) -> int:
    """Parameters of the rows of tokens, which are always trained."""
    return shape.embedding_parameters * (1 if shape.tied else 2)


def moving_parameters(shape: Shape, adapter: Adapter | None, parts: str) -> int:
    """Parameters that have gradients and states."""
    if adapter is not None:
        return tables(shape) + adapter.parameters(shape)
    return shape.parameters if parts == "all" else tables(shape)


def coded_share(shape: Shape, adapter: Adapter | None, parts: str, states: str) -> float:
    """Of the parameters that are trained, those whose moments are codes: none but under `states: int8`, see
    :meth:`Shape.coded_share`."""
    if states != "int8":
        return 0.0
    if adapter is None:
        return shape.coded_share(parts)
    rows, rank = shape.coded_share("embeddings") * tables(shape), adapter.rank
    each = (
        (rank * into) * (into % GROUP == 0) + (rank * out) * (rank % GROUP == 0) for into, out in adapter.layers(shape)
    )
    return (rows + shape.layers * sum(each)) / moving_parameters(shape, adapter, parts)


def flops_per_token(shape: Shape, context: float, adapter: Adapter | None, parts: str) -> float:
    """As :meth:`Shape.flops_per_token`, without the gradients of frozen weights: 4 per weight instead of 6, as errors
    still pass through them; and with the low-rank matrices."""
    flops = shape.flops_per_token(context)
    if adapter is None and parts == "all":
        return flops
    flops -= 2.0 * (shape.multiplied_parameters - shape.embedding_parameters)
    return flops + (6.0 * adapter.parameters(shape) if adapter is not None else 0.0)
