"""What a training was asked for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from langadapt.errors import ConfigError
from langadapt.progress import Progress
from langadapt.training.data.batches import StoreShare
from langadapt.training.settings import TrainSettings

Validate = Callable[[Any, int], dict[str, float]]
ShareLike = StoreShare | tuple[Any, ...]


@dataclass(frozen=True)
class OldModel:
    """What a run starts from, before any swap: it knows what is not to be forgotten."""

    folder: Path
    """With its own tokenizer."""
    text: Sequence[str] = ()
    """Files of text that it knows, for ``protect``."""
    replayed: Collection[str] = ("source",)
    """Names of the stores of such text, for ``replay_loss: kl``."""


@dataclass(frozen=True)
class TrainingJob:
    """What `train_model` was asked for; see there."""

    model: Any
    stores: Sequence[StoreShare]
    out: Path
    settings: TrainSettings
    tokenizer: Any = None
    validate: Validate | None = None
    progress: Progress | None = None
    new_rows: Sequence[int] | None = None
    old: OldModel | None = None
    described: Mapping[str, Any] = field(default_factory=dict)
    """By `resume.describe_run`; empty for a run of which nothing is kept."""

    def __post_init__(self) -> None:
        """Raise ConfigError for settings that ask what nobody can answer."""
        old = self.old
        if self.settings.protect is not None and (old is None or not old.text):
            raise ConfigError("protect: no source text says what to protect; give corpus.source (`old` of train_model)")
        if self.settings.replay_loss == "kl" and not self.names.intersection(old.replayed if old else ()):
            raise ConfigError(
                "replay_loss: kl: no source text is replayed; give corpus.source and a corpus.source_share above 0 "
                "(`old` of train_model)"
            )

    @property
    def names(self) -> set[str]:
        """Of the stores that are read."""
        return {share.name for share in self.stores if share.weight > 0}
