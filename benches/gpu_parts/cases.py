"""What `benches/gpu_train.py` measures: shapes, settings, and how long each case may take."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Case:
    """One training, measured in a process of its own."""

    name: str
    shape: str
    """A key of :data:`SHAPES`."""
    seconds: int
    """Killed after so long, whatever it does; imports, compilation and warm-up are in it."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Of `TrainSettings`; of the Trainer, those that it has."""
    document: int | None = None
    """Tokens per document; none: as long as a window."""
    trainer: bool = False
    """By the Hugging Face Trainer instead of by us."""
    needs: tuple[str, ...] = ()
    """Packages, as they are imported."""


def llama(width: int, inner: int, layers: int, heads: int, kv_heads: int, vocabulary: int = 32768) -> dict[str, int]:
    """A config's numbers."""
    return {
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocabulary,
    }


SHAPES = {
    "1b": llama(2048, 5632, 22, 16, 4),
    "7b": llama(4096, 14336, 32, 32, 8),
    "tiny": llama(64, 128, 2, 4, 2, 256),
}
PURE = {"precision": "pure-bf16", "rounding": "stochastic", "compile": True}
MIXED = {"precision": "mixed-bf16", "rounding": "nearest", "compile": True}
EIGHT = {"micro_batch": 8, "batch_sequences": 16, "activation_checkpointing": "none"}
ONE = {"micro_batch": 1, "batch_sequences": 4, "activation_checkpointing": "none"}
FULL = {"activation_checkpointing": "full"}
SUMS = {"accumulate": "bf16"}

BUDGET = 540
"""Seconds of one part: its cases' limits stay below it, so that none is cut short by those before."""
PARTS: dict[str, tuple[Case, ...]] = {
    "1b": (
        Case("pure 1b", "1b", 85, PURE | EIGHT),
        Case("mixed 1b", "1b", 80, MIXED | EIGHT),
        # All logits at once, so eight windows hardly fit, and the model compiled as a whole, which takes long.
        Case("trainer 1b", "1b", 200, EIGHT | {"micro_batch": 4, "compile": True}, trainer=True, needs=("accelerate",)),
        Case("pure 1b, documents of 512", "1b", 80, PURE | EIGHT, document=512),
        Case("pure 1b, documents of 64", "1b", 80, PURE | EIGHT, document=64),
    ),
    "7b": (
        Case("pure 7b", "7b", 100, PURE | ONE | SUMS),
        # Needs an H200: parameters, states, gradients and copies alone are over 120 GiB.
        Case("mixed 7b, full recompute", "7b", 120, MIXED | ONE | FULL),
        Case("pure 7b, selective", "7b", 100, PURE | ONE | SUMS | {"activation_checkpointing": "selective"}),
        Case("pure 7b, fp32 sums", "7b", 100, PURE | ONE | FULL),
        Case("pure 7b, fused loss", "7b", 100, PURE | ONE | SUMS | {"loss_chunk": "fused"}),
    ),
    "ways": (
        Case("pure 1b, not compiled", "1b", 70, PURE | EIGHT | {"compile": False, "micro_batch": 4}),
        Case("pure 1b, sdpa", "1b", 80, PURE | EIGHT | {"attention": "sdpa"}),
        Case("pure 1b, Liger's loss", "1b", 80, PURE | EIGHT | {"loss_chunk": "liger"}, needs=("liger_kernel",)),
        # Their warm-up is the search for the layout.
        Case("pure 1b, auto", "1b", 120, PURE | {"compile": False, "micro_batch": "auto", "batch_sequences": 16}),
        Case("pure 1b, auto, compiled", "1b", 180, PURE | {"micro_batch": "auto", "batch_sequences": 16}),
    ),
}
"""The most telling first: a run that is cut short has them."""


def tiny(case: Case) -> Case:
    """The case as a smoke test runs it: a few windows of a tiny model on a CPU, without compiler and packages."""
    micro = 1 if case.settings["micro_batch"] == 1 else 2
    settings = {"batch_sequences": 4, "micro_batch": micro, "compile": False, "loss_chunk": "auto"}
    document = None if case.document is None else case.document // 8
    changes = {"name": f"{case.name} (smoke)", "shape": "tiny", "seconds": 120, "needs": (), "document": document}
    return replace(case, settings=case.settings | settings, **changes)


def chosen(parts: list[str], smoke: bool) -> list[Case]:
    """All cases of these parts."""
    return [tiny(case) if smoke else case for part in parts for case in PARTS[part]]
