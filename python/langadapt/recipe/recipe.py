"""A recipe: one YAML file that says everything about a run, read into checked dataclasses.

Reading does nothing but read: no file is opened but the recipe, torch is not imported. Unknown keys are errors and name
the nearest valid one. Paths in a recipe are relative to the working directory.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import yaml

from langadapt.checks import at_least, positive
from langadapt.corpus.documents import BuildOptions
from langadapt.costs.devices import parse
from langadapt.errors import ConfigError
from langadapt.recipe.plain_values import build, read_mapping
from langadapt.swap.rows.names import AUTO, KEEP, check_methods
from langadapt.tokenizer.options import BpeOptions
from langadapt.training.settings import TrainSettings


@dataclass(kw_only=True)
class CorpusSettings(BuildOptions):
    """What is read, what is left out, what is set aside."""

    target: list[str] = field(default_factory=list)
    """Files, folders or globs with text in the new language, or one ``hf:NAME[:CONFIG[:SPLIT]]``."""
    source: list[str] = field(default_factory=list)
    """Text in the language that the model already speaks: for measuring what it forgets, and for replay."""
    source_share: float = 0.0
    """Share of training tokens taken from ``source`` (replay), in [0, 1)."""

    def __post_init__(self) -> None:
        if not 0 <= self.source_share < 1:
            raise ConfigError(f"corpus.source_share: {self.source_share} is not in [0, 1)")
        if self.source_share > 0 and not self.source:
            raise ConfigError("corpus.source_share is above 0, but corpus.source names no text")
        if not 0 < self.validation_share < 1:
            raise ConfigError(f"corpus.validation_share: {self.validation_share} is not in (0, 1)")
        if not all(self.target) or not all(self.source):
            raise ConfigError("corpus.target and corpus.source: an empty name stands for no text")
        at_least(1, "corpus.", validation_bytes=self.validation_bytes, validation_documents=self.validation_documents)
        self.check("corpus.")

    def building(self) -> dict[str, Any]:
        """The options of :func:`langadapt.build_corpus`, by name."""
        return {one.name: getattr(self, one.name) for one in fields(BuildOptions)}


@dataclass(kw_only=True)
class TokenizerSettings(BpeOptions):
    """The new tokenizer: trained, or taken from a folder."""

    path: str | None = None
    """An existing tokenizer folder; nothing is trained then."""
    like: str | None = None
    """Copy normalizer, pre-tokenizer, decoder, special tokens and chat template of this tokenizer; ``source`` means the
    model's own."""
    special_tokens: list[str] | dict[str, str] = field(default_factory=list)
    """Tokens, or roles (``bos_token``) and their tokens, which get the first ids; none = those of the style. With
    ``like``: more tokens."""

    def __post_init__(self) -> None:
        self.check("tokenizer.")

    def training(self, like: str | None) -> dict[str, Any]:
        """The options of :func:`langadapt.train_bpe`, by name, ``like`` as the folder that it stands for."""
        return {one.name: getattr(self, one.name) for one in fields(BpeOptions)} | {"like": like}


@dataclass
class VectorSettings:
    """Auxiliary token vectors for FOCUS (CBOW on the target text)."""

    dim: int = 300
    """Width of a vector."""
    epochs: int = 3
    """Passes over the target tokens."""
    window: int = 5
    """Tokens of context on each side, at most."""
    negative: int = 10
    """Negative samples per position."""
    min_count: int = 10
    """Tokens seen less often get no vector."""
    threads: int | None = None
    """Threads; 1 makes the vectors, and with them the run, reproducible bit by bit; none = all cores."""

    def __post_init__(self) -> None:
        at_least(1, "vectors.", dim=self.dim, epochs=self.epochs, window=self.window, threads=self.threads)
        at_least(0, "vectors.", negative=self.negative, min_count=self.min_count)


@dataclass
class SwapSettings:
    """How rows of new tokens are made."""

    RENAMED: ClassVar = {"calibrate": "scale_rows"}
    """Keys of earlier releases, which are still taken."""

    method: str = "focus"
    """``focus``, ``subword_mean``, ``mean``, ... (see ``langadapt swap --help``), ``auto``: the winner of a bake-off,
    or ``keep``: no swap at all."""
    output_method: str | None = None
    """For the output matrix of models with untied embeddings; none = as the input."""
    weighting: Literal["uniform", "characters"] = "uniform"
    """Of ``subword_mean``: all pieces alike, or by their length."""
    scale_rows: bool = False
    """Scale combined rows to the mean norm of copied ones."""
    fuzzy: bool = False
    """Match tokens up to case and leading space, too."""
    words: list[str] = field(default_factory=list)
    """For ``wechsel``: word vectors of the source and of the target language, and a dictionary of pairs."""
    helper: str | None = None
    """For ``clp``: folder of a small model with the new tokenizer."""
    probe_steps: int = 50
    """Of ``auto``: training steps for each method, at the run's batches and peak rate."""
    candidates: list[str] = field(default_factory=list)
    """Of ``auto``: methods to try; none = all that the recipe has everything for."""
    pad_to_multiple_of: int = 128
    """Rows of the embedding matrices are rounded up to this."""

    def __post_init__(self) -> None:
        check_methods([method for method in (self.method, self.output_method) if method not in (None, AUTO)])
        check_methods(self.candidates)
        at_least(1, "swap.", pad_to_multiple_of=self.pad_to_multiple_of)
        if self.words and len(self.words) != 3:
            raise ConfigError(
                f"swap.words: {len(self.words)} files, but three are needed: vectors of the source language, of the "
                "target language, and a dictionary"
            )
        if self.probe_steps < 1:
            raise ConfigError(f"swap.probe_steps: {self.probe_steps}, but at least 1 is needed")
        if self.candidates and self.method != "auto":
            raise ConfigError(f"swap.candidates are for `method: auto`, but method is {self.method}")


@dataclass
class EvaluateSettings:
    """What is measured before and after."""

    window: int | None = None
    """Tokens per forward pass for bits per byte; none = the model's context, 2048 at most."""
    stride: int | None = None
    """Tokens scored per window of a long document; none = half a window."""
    suites: list[str] = field(default_factory=list)
    """lm-eval suites: ``german``, ``arabic``, or a folder of multiple-choice ``.jsonl`` files."""
    limit: int | None = None
    """Items per task, at most."""
    bytes_while_training: int = 200_000
    """UTF-8 bytes of each language that are measured at intervals during training."""
    parallel: str | None = None
    """JSON lines of aligned sentences, ``{"source": ..., "target": ...}``, for tokenizer parity."""

    def __post_init__(self) -> None:
        at_least(1, "evaluate.", window=self.window, stride=self.stride, limit=self.limit)
        at_least(1, "evaluate.", bytes_while_training=self.bytes_while_training)


@dataclass
class BudgetSettings:
    """What may be spent; the plan fits the run into it."""

    gpus: str | None = None
    """Such as ``2 x h100-80gb``; none = what this machine has."""
    hours: float | None = None
    """Wall-clock hours of training: its budget where `train` names none, else a limit, towards which the schedule ends
    early if it must."""
    price_per_gpu_hour: float | None = None
    """In your currency, for the plan's estimate."""

    def __post_init__(self) -> None:
        at_least(0, "budget.", price_per_gpu_hour=self.price_per_gpu_hour)
        positive("budget.", hours=self.hours)
        if self.gpus is not None:
            parse(self.gpus)


@dataclass
class Recipe:
    """Everything about a run."""

    name: str
    """Shown in the report and used in the model card."""
    model: str
    """Folder or hub id of the pretrained causal language model."""
    out: str
    """Folder for everything that the run makes."""
    corpus: CorpusSettings
    """Text."""
    tokenizer: TokenizerSettings = field(default_factory=TokenizerSettings)
    """The new tokenizer."""
    vectors: VectorSettings = field(default_factory=VectorSettings)
    """Auxiliary token vectors."""
    swap: SwapSettings = field(default_factory=SwapSettings)
    """The swap."""
    train: TrainSettings = field(default_factory=TrainSettings)
    """Continued pretraining."""
    evaluate: EvaluateSettings = field(default_factory=EvaluateSettings)
    """Measurements."""
    budget: BudgetSettings = field(default_factory=BudgetSettings)
    """What may be spent."""
    compare: list[str] = field(default_factory=list)
    """Other methods (``keep``, ``random``, ...) that get the same training, for the report."""
    seed: int = 0
    """Of everything that is random."""
    source_language: str = "source"
    """Name for tables."""
    target_language: str = "target"
    """Name for tables."""

    def __post_init__(self) -> None:
        if not self.corpus.target:
            raise ConfigError("corpus.target: names no text in the new language")
        if self.swap.method in self.compare:
            raise ConfigError(f"compare: {self.swap.method!r} is the method of `swap.method` already")
        if AUTO in self.compare:
            raise ConfigError("compare: `auto` is for `swap.method`; name the methods to compare with")
        check_methods(self.compare)
        if len(set(self.compare)) < len(self.compare):
            raise ConfigError(f"compare: {', '.join(self.compare)} names a method twice")
        if not self.name or "/" in self.name or self.name.startswith("."):
            raise ConfigError(f"name: {self.name!r} must do as a folder's name")
        for field_name in ("model", "out"):
            if not getattr(self, field_name):
                raise ConfigError(f"{field_name}: is empty")
        if not 0 <= self.seed < 1 << 63:
            raise ConfigError(f"seed: {self.seed} is not in [0, 2**63)")
        self.train = self.train_within(self.budget.hours)
        if self.train.embedding_learning_rate == AUTO:
            # The same in all arms: `compare: [keep]` is to be the same training without a swap.
            peak = self.train.embedding_peak(swapped=self.swap.method != KEEP)
            self.train = replace(self.train, embedding_learning_rate=peak)

    def train_within(self, hours: float | None) -> TrainSettings:
        """The training's settings with the budget's hours in them."""
        train = self.train
        if hours is None or train.hours == hours:
            return train
        if train.hours is not None:
            raise ConfigError(f"budget.hours: {hours:g} and train.hours: {train.hours:g} differ; keep one of them")
        if train.steps is None and train.tokens is None and train.epochs is None:
            return replace(train, hours=hours)
        return replace(train, limit_hours=hours)

    @classmethod
    def from_yaml(cls, path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
        """Read a recipe; ``overrides`` are strings such as ``train.steps=100`` (values in YAML).

        Raises:
            ConfigError: not YAML, an unknown key (with the nearest valid one), a value of the wrong kind, or values
                that do not go together.
            FileNotFoundError: no such recipe.
        """
        content = read_mapping(path, overrides)
        try:
            return build(cls, content, "")
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as in YAML."""
        return asdict(self)

    def to_yaml(self) -> str:
        """YAML that :meth:`from_yaml` reads back."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)
