"""Where a model lies: a folder in Hugging Face form, here or in the hub's cache."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from langadapt.artefacts.folders import SWAP_REPORT_NAME
from langadapt.errors import ConfigError, DataError, LangadaptError, shorten

CONTEXT_FIELDS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
"""Fields of a config that say how many tokens a model was made for; architectures differ."""


def resolve_model(name: str) -> Path:
    """The folder of a model: a local one, or the hub's after download to the cache.

    Raises:
        ConfigError: neither.
    """
    path = Path(name)
    if (path / "config.json").is_file():
        return path
    if path.exists() or name.startswith((".", "/")):
        raise ConfigError(f"model: {name} is no model folder (no config.json in it)")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.model", "*.jinja", "*.txt"]))
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"model: {name} is no folder here, and the hub did not give it: {reason}") from None


def read_config(folder: Path) -> dict[str, Any]:
    """``config.json`` of a model's folder.

    Raises:
        FileNotFoundError: there is none.
        DataError: it is no model's configuration.
    """
    file = folder / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: not valid JSON: {error}; get the file again") from None
    if not isinstance(config, dict):
        raise DataError(f"{file}: not a model's configuration; get the file again")
    return config


def tokenizer_file(folder: Path) -> Path:
    """What identifies the tokenizer in ``folder``."""
    for name in ("tokenizer.json", "tokenizer.model"):
        if (folder / name).is_file():
            return folder / name
    raise ConfigError(f"{folder}: no tokenizer.json and no tokenizer.model")


def read_new_rows(folder: Path) -> list[int] | None:
    """Embedding rows that a swap made and nobody has trained, from ``swap.json``; none where the model is as it was."""
    file = folder / SWAP_REPORT_NAME
    if not file.is_file():
        return None
    spans = json.loads(file.read_text(encoding="utf-8"))["new_rows"]
    return [row for first, last in spans for row in range(first, last + 1)]


def load_model(folder: str | Path, **options: Any) -> Any:
    """``AutoModelForCausalLM.from_pretrained``, whose errors are of a dozen kinds and seldom name the folder.

    Reads safetensors alone, as everything here does: other formats can hold code.

    Raises:
        DataError: transformers cannot load what is there, or would draw missing parameters at random.
    """
    from transformers import AutoModelForCausalLM

    with readable(folder):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            str(folder), use_safetensors=True, output_loading_info=True, **options
        )
    model, found = loaded
    missing = sorted(set(found["missing_keys"]) & {name for name, _ in model.named_parameters()})
    if missing:
        raise DataError(
            f"{folder}: the weights lack {len(missing)} parameters of {type(model).__name__}, the first is "
            f"`{missing[0]}`; they are of another model, or not whole"
        )
    return model


@contextmanager
def readable(folder: str | Path) -> Iterator[None]:
    """Errors of transformers and safetensors become one that names the model's folder; want of memory stays itself."""
    try:
        yield
    except (LangadaptError, MemoryError):
        raise
    except Exception as error:
        if "memory" in str(error).lower():
            raise
        raise DataError(f"{folder}: transformers cannot load this model: {shorten(str(error))}") from error


def context_length(model: Path) -> int | None:
    """Tokens that a model was made for, by its ``config.json``; none where that does not say.

    Raises:
        DataError: it is no model's configuration.
    """
    try:
        config = read_config(model)
    except FileNotFoundError:
        return None
    config = config.get("text_config", config)
    if not isinstance(config, dict):
        raise DataError(f"{model / 'config.json'}: not a model's configuration; get the file again")
    return stated_context(config)


def stated_context(config: Mapping[str, Any]) -> int | None:
    """Tokens that the model of a text config was made for; none where it does not say."""
    stated = (config.get(name) for name in CONTEXT_FIELDS)
    return next((int(length) for length in stated if isinstance(length, int) and length > 0), None)
