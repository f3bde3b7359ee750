"""What can be asked of an adapter; readable without torch, as all settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from langadapt.checks import positive
from langadapt.errors import ConfigError


@dataclass
class AdapterSettings:
    """Low-rank matrices beside the linear layers of the body, which are trained in their place and merged into them at
    the end; embeddings and output head are trained in full."""

    kind: Literal["lora", "qlora"] = "lora"
    """lora: the body stays in bf16 (LoRA, arXiv 2106.09685); qlora: in 4 bits (NF4, arXiv 2305.14314), on a GPU, by the
    package `bitsandbytes`. Both need the package `peft`."""
    rank: int = 16
    """Columns of one matrix and rows of the other."""
    alpha: float | None = None
    """The product of the two counts ``alpha / rank`` times; none = 2 x ``rank``."""
    rate: float = 3.0
    """Peak rate of the matrices in multiples of ``learning_rate``; 3 was better than 10 and 30 on a small model
    (``docs/runs/adapter.md``)."""
    targets: list[str] = field(default_factory=list)
    """Names of linear layers, such as `q_proj`; none = all of the body."""

    def __post_init__(self) -> None:
        if self.kind not in ("lora", "qlora"):
            raise ConfigError(f"kind: {self.kind!r} is none of lora and qlora")
        if type(self.rank) is not int or self.rank < 1:
            raise ConfigError(f"rank: {self.rank!r} is no positive whole number")
        positive(alpha=self.alpha, rate=self.rate)

    @property
    def scale(self) -> float:
        """What the product of the two matrices is multiplied by."""
        return 2.0 if self.alpha is None else self.alpha / self.rank

    @classmethod
    def given(cls, wish: AdapterSettings | Mapping[str, Any] | None) -> AdapterSettings | None:
        """As an object, also where it comes as plain values: from Python, or from a checkpoint.

        Raises:
            ConfigError: an unknown key, or a value that none can have.
        """
        if wish is None or isinstance(wish, AdapterSettings):
            return wish
        known = [field.name for field in fields(cls)]
        keys = wish if isinstance(wish, Mapping) else (wish,)
        other = next((name for name in keys if name not in known), None)
        if other is not None:
            raise ConfigError(f"adapter: {other!r} is none of its keys, which are {', '.join(known)}")
        try:
            return cls(**wish)
        except ConfigError as error:
            raise ConfigError(f"adapter.{error}") from None


@dataclass
class BodySettings:
    """What is trained of the body where its weights are not."""

    adapter: AdapterSettings | None = None
    """Train low-rank matrices beside the body's weights instead of these: a section with ``kind``, ``rank``, ``alpha``,
    ``rate`` and ``targets``, see below; none = the weights themselves."""


def check_alone(adapter: AdapterSettings | None, processes: int) -> None:
    """Raise ConfigError where several processes or GPUs are to share a training of an adapter."""
    if adapter is not None and processes > 1:
        raise ConfigError(f"adapter: {adapter.kind} works on one GPU, but there are {processes}; take one")
