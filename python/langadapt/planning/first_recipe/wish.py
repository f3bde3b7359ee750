"""What `langadapt init` is asked for, and what it finds before it decides anything."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from langadapt.costs import devices
from langadapt.costs.flops import Shape
from langadapt.errors import ConfigError, DataError
from langadapt.models.folder import config_to_plan, local_model, stated_context
from langadapt.models.known import known_model
from langadapt.planning.first_recipe.survey import Survey, survey
from langadapt.progress import Progress
from langadapt.tokenizer.encoder import Tokenizer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wish:
    """Arguments of `langadapt init`."""

    model: str
    """Folder, name on the hub, or a known shape."""
    text: Sequence[str]
    """As of ``corpus.target``."""
    language: str
    """Code (``sw``) or name of the new language."""
    source_text: Sequence[str] = ()
    """As of ``corpus.source``."""
    gpus: str | None = None
    """As of ``budget.gpus``; none = this machine."""
    hours: float = 24.0
    """As of ``budget.hours``."""

    def __post_init__(self) -> None:
        if not self.text:
            raise ConfigError("--text: name files of the new language")
        if not self.hours > 0:
            raise ConfigError(f"--hours: {self.hours:g} is not positive")


@dataclass(frozen=True)
class Findings:
    """What a look at model, text and machine shows."""

    wish: Wish
    config: dict[str, Any]
    shape: Shape
    context: int | None
    """Tokens that the model was made for."""
    tokenizer: str | None
    """The model's own; none where it is not here."""
    language: str
    """In words."""
    count: int
    device: devices.Device
    target: Survey
    source: Survey | None
    notes: list[str] = field(default_factory=list)

    @property
    def model(self) -> str:
        """As recipes name it: of a known shape, where the hub has it."""
        known = None if local_model(self.wish.model) else known_model(self.wish.model)
        return self.wish.model if known is None else known.hub

    @property
    def name(self) -> str:
        """Of the run, fit for a folder."""
        folder = local_model(self.wish.model)
        base = self.model.split("/")[-1] if folder is None else folder.resolve().name
        plain = re.sub(r"[^a-z0-9.]+", "-", f"{base}-{self.language}".lower())
        return plain.strip("-.") or "run"

    @property
    def machine(self) -> str:
        """In words."""
        return "this CPU" if self.device.name == "cpu" else f"{self.count} x {self.device.name}"


def look(wish: Wish, *, progress: Progress | None = None) -> Findings:
    """Look at everything that the wish names.

    Raises:
        ConfigError, DataError, FileNotFoundError: something is not there, or no text.
    """
    config = config_to_plan(wish.model)
    count, device = devices.parse(wish.gpus) if wish.gpus else devices.here()
    notes: list[str] = []
    text_config = config.get("text_config") or config
    return Findings(
        wish=wish,
        config=config,
        shape=Shape.of(config),
        context=stated_context(text_config),
        tokenizer=own_tokenizer(wish.model, notes),
        language=in_words(wish.language),
        count=count,
        device=device,
        target=survey(wish.text, progress=progress),
        source=survey(wish.source_text, progress=progress) if wish.source_text else None,
        notes=notes,
    )


def own_tokenizer(model: str, notes: list[str]) -> str | None:
    """Where the model's tokenizer is; none with a note where it cannot be had."""
    known = None if local_model(model) else known_model(model)
    name = model if known is None else known.hub
    try:
        Tokenizer.from_pretrained(name)
    except (DataError, FileNotFoundError) as error:
        notes.append(f"the model's own tokenizer was not looked at: {error}")
        return None
    return name


def in_words(language: str) -> str:
    """``sw`` as ``Swahili``; anything but a known code stays as it is."""
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    return LANGUAGES.get(language.lower(), language).capitalize() if len(language) <= 3 else language
