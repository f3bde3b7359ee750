"""A recipe: one YAML file that says everything about a run, read into checked dataclasses.

Reading does nothing but read: no file is opened but the recipe, torch is not imported. Unknown keys are errors and name
the nearest valid one. Paths in a recipe are relative to the working directory.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias

import yaml

from langadapt.checks import at_least, positive, seed_fits
from langadapt.costs.devices import parse
from langadapt.errors import ConfigError
from langadapt.evaluation.by_language import is_auto, language_of, with_language
from langadapt.finish.options import FinishSettings
from langadapt.recipe.plain_values import build, check_texts, read_mapping
from langadapt.recipe.sources import ROUNDING, CorpusSettings
from langadapt.swap.rows.names import AUTO, KEEP, check_methods
from langadapt.tokenizer.options import BpeOptions
from langadapt.training.settings import TrainSettings


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

    weights: dict[str, float] = field(default_factory=dict)
    """Shares of the text that is learnt on, by bytes, by the names of ``corpus.sources``; they sum to 1. none = all
    text of the target language, and ``source_share`` of the source language's."""

    code_tokens: bool = True
    """Give every printable character of ASCII a token, and runs of spaces, tabs and line feeds one each: those that
    ``like`` has, else up to 16, 8 and 4. Text in the new language is short of both, code is full of them."""

    def __post_init__(self) -> None:
        self.check("tokenizer.")
        if not self.weights:
            return
        if self.wants_source:
            raise ConfigError("tokenizer.weights and tokenizer.source_share or parity are both set; keep one of them")
        least, total = min(self.weights.values()), sum(self.weights.values())
        if least < 0 or abs(total - 1) > ROUNDING:
            raise ConfigError(f"tokenizer.weights: they sum to {total:g}, not 1, or one is negative ({least:g})")

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
    match_frequencies: bool = True
    """Shift the logits of new tokens to how often these come in the text."""
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
        for name in ("method", "output_method"):
            if getattr(self, name) not in (None, AUTO):
                check_methods([getattr(self, name)], f"swap.{name}")
        check_methods(self.candidates, "swap.candidates")
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
    """lm-eval suites: ``auto`` (all tasks for ``target_language``), ``auto:LANGUAGE``, ``german``, ``arabic``, or a
    folder of multiple-choice ``.jsonl`` files."""
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
    finish: FinishSettings = field(default_factory=FinishSettings)
    """Chat for the trained model."""
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
        self.check_text()
        self.check_old()
        if self.swap.method in self.compare:
            raise ConfigError(f"compare: {self.swap.method!r} is the method of `swap.method` already")
        if AUTO in self.compare:
            raise ConfigError("compare: `auto` is for `swap.method`; name the methods to compare with")
        check_methods(self.compare, "compare")
        if self.train.data == "chat":
            self.swap = replace(self.swap, method=KEEP)
            if self.compare or self.finish.instruct is not None:
                raise ConfigError("train.data: chat trains one model as it is; `compare` and `finish` are for text")
        if len(set(self.compare)) < len(self.compare):
            raise ConfigError(f"compare: {', '.join(self.compare)} names a method twice")
        suites = with_language(self.evaluate.suites, self.target_language)
        for suite in suites:
            if is_auto(suite):
                language_of(suite.partition(":")[2])
        self.evaluate = replace(self.evaluate, suites=suites)
        if not self.name or "/" in self.name or self.name.startswith("."):
            raise ConfigError(f"name: {self.name!r} must do as a folder's name")
        for field_name in ("model", "out"):
            if not getattr(self, field_name):
                raise ConfigError(f"{field_name}: is empty")
        seed_fits(self.seed)
        self.train = self.train_within(self.budget.hours)
        if self.train.embedding_learning_rate == AUTO:
            # The same in all arms: `compare: [keep]` is to be the same training without a swap.
            peak = self.train.embedding_peak(swapped=self.swap.method != KEEP)
            self.train = replace(self.train, embedding_learning_rate=peak)

    def check_old(self) -> None:
        """Raise ConfigError where the source model is asked about text that there is not."""
        if self.train.protect is not None and not self.corpus.paths_of("source"):
            raise ConfigError("train.protect: corpus.source names no text, which says what to protect")
        if self.train.replay_loss == "kl" and not self.corpus.replay:
            raise ConfigError(
                "train.replay_loss: kl: no source text is replayed; give corpus.source and a source_share above 0"
            )

    def check_text(self) -> None:
        """Raise ConfigError where training or the tokenizer asks for text that there is not."""
        if not (self.corpus.sources or self.corpus.target):
            raise ConfigError("corpus.target: names no text in the new language")
        texts = self.corpus.texts
        if not any(one.share > 0 for one in texts if one.language == "target"):
            raise ConfigError("corpus.sources: no text of `language: target` has a share of the training")
        if self.tokenizer.wants_source and self.tokenizer.path is None and not self.corpus.paths_of("source"):
            raise ConfigError("tokenizer.source_share and tokenizer.parity: corpus.source names no text")
        for name in self.tokenizer.weights:
            if name not in (names := [one.name for one in texts]):
                raise ConfigError(f"tokenizer.weights: no source is named {name!r}; there are {', '.join(names)}")

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

    def of_text(self, command: str) -> Recipe:
        """Itself; raises ConfigError where it trains on conversations, which ``command`` is not for."""
        if self.train.data == "chat":
            raise ConfigError(f"train.data: chat is for `langadapt train RECIPE`; `langadapt {command}` is for text")
        return self

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
            check_texts(content)
            return build(cls, content, "")
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Recipe:
        """A recipe out of plain values, as YAML or :meth:`to_dict` gives them.

        Raises:
            ConfigError: as of :meth:`from_yaml`.
            TypeError: no mapping.
        """
        if not isinstance(content, Mapping):
            raise TypeError(f"recipe: {type(content).__name__}; pass a mapping such as {{'name': ..., 'model': ...}}")
        check_texts(content)
        return build(cls, content, "")

    @classmethod
    def given(cls, source: RecipeLike) -> Recipe:
        """The recipe that a caller named: itself, its file, or its plain values.

        Raises:
            TypeError: something else.
            ConfigError, FileNotFoundError: as of :meth:`from_yaml`.
        """
        if isinstance(source, cls):
            return source
        if isinstance(source, str | os.PathLike):
            return cls.from_yaml(os.fspath(source))
        if isinstance(source, Mapping):
            return cls.from_dict(source)
        raise TypeError(f"recipe: {type(source).__name__}; pass a Recipe, the path of a YAML file, or a mapping")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as in YAML."""
        return asdict(self)

    def to_yaml(self) -> str:
        """YAML that :meth:`from_yaml` reads back."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True)


RecipeLike: TypeAlias = "Recipe | str | os.PathLike[str] | Mapping[str, Any]"
"""A recipe, its file, or its plain values."""
