"""Where a model lies: a folder in Hugging Face form, here or in the hub's cache."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import NoneType
from typing import Any

from langadapt.artefacts.folders import MANIFEST_NAME, SWAP_REPORT_NAME
from langadapt.artefacts.places import check_fetched
from langadapt.artefacts.plain_json import read_object
from langadapt.artefacts.stages import read_stamp
from langadapt.errors import ConfigError, DataError, LangadaptError, nearest, shorten
from langadapt.models.hub import fetch
from langadapt.models.known import KNOWN, known_model

CONTEXT_FIELDS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
"""Fields of a config that say how many tokens a model was made for; architectures differ."""


ADAPTER = "adapter_config.json"
AGAIN = "get the file again"
"""What to do about a damaged one."""
WEIGHTS = ("*.json", "*.safetensors", "*.model", "*.jinja", "*.txt")
"""Files of a model that are fetched from the hub."""


def resolve_model(name: str) -> Path:
    """The folder of a model: a local one, or the hub's after download to the cache.

    Raises:
        ConfigError: neither.
        DataError: a clone of it is not whole.
    """
    if (found := local_model(name)) is not None:
        check_fetched(file for pattern in WEIGHTS for file in sorted(found.glob(pattern)))
        return found
    known = known_model(name)
    if known is not None and ":" in name:
        raise ConfigError(
            f"model: {name} is a shape to plan with; to train give its weights, a folder or `model: {known.hub}`"
        )
    return from_hub(name, WEIGHTS)


def local_model(name: str) -> Path | None:
    """The folder of this name if it is a model's; none where the name may be one of the hub.

    Raises:
        ConfigError: it is a path, and no model is there.
    """
    path = Path(name)
    if (path / "config.json").is_file():
        return path
    if path.exists():
        merge = "; it is an adapter: merge it into its model first" if (path / ADAPTER).is_file() else ""
        raise ConfigError(f"model: {name} is no model folder (no config.json in it){merge}")
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ConfigError(f"model: {name}: no such folder")
    return None


def from_hub(name: str, patterns: Sequence[str]) -> Path:
    """The folder in the hub's cache with some files of a model.

    Raises:
        ConfigError: the hub does not give them.
    """
    try:
        return fetch(name, patterns)
    except LookupError as error:
        raise ConfigError(f"model: {name} is no folder here, and no model from the hub: {error.args[0]}") from None


def config_to_plan(name: str) -> dict[str, Any]:
    """``config.json`` of a model, or what stands for it in a plan: no weights are fetched.

    Args:
        name: a folder in which a ``config.json`` is enough, a name in :data:`langadapt.models.known.KNOWN`, or one of
            the hub.

    Raises:
        ConfigError: none of these.
    """
    if (found := local_model(name)) is not None:
        return read_config(found)
    known = known_model(name)
    if known is not None:
        return known.config()
    try:
        return read_config(from_hub(name, ["config.json"]))
    except ConfigError as error:
        near = nearest(name.lower(), KNOWN, 3, cutoff=0.3) or list(KNOWN)[:3]
        hint = "to plan without it name a folder with its config.json, or a known shape such as"
        raise ConfigError(f"{error}; {hint} {', '.join(f'`{one}`' for one in near)}") from None


def read_config(folder: Path) -> dict[str, Any]:
    """``config.json`` of a model's folder.

    Raises:
        FileNotFoundError: there is none.
        DataError: it is no model's configuration.
    """
    file = folder / "config.json"
    config = read_object(file, AGAIN)
    if not isinstance(config.get("text_config"), (dict, NoneType)):
        raise DataError(f"{file}: not a model's configuration; {AGAIN}")
    return config


def read_generation(folder: Path) -> dict[str, Any] | None:
    """``generation_config.json`` of a model's folder, if it has one.

    Raises:
        DataError: it is no configuration.
    """
    file = folder / "generation_config.json"
    return read_object(file, AGAIN) if file.is_file() else None


def write_json(path: Path, content: Any) -> None:
    """As transformers writes it."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def tokenizer_file(folder: Path) -> Path:
    """What identifies the tokenizer in ``folder``."""
    for name in ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt"):
        if (folder / name).is_file():
            return folder / name
    raise ConfigError(f"{folder}: no tokenizer.json and no tokenizer.model")


def read_new_rows(folder: Path) -> list[int] | None:
    """Embedding rows that a swap made and nobody has trained, from ``swap.json``; none where the model is as it was."""
    file = folder / SWAP_REPORT_NAME
    if not file.is_file():
        return None
    try:
        return [row for first, last in read_object(file, AGAIN)["new_rows"] for row in range(first, last + 1)]
    except (KeyError, TypeError, ValueError):
        raise DataError(f"{file}: not the report of a swap; move it away, or make the swap again") from None


def load_model(folder: str | Path, **options: Any) -> Any:
    """``AutoModelForCausalLM.from_pretrained``, whose errors are of a dozen kinds and seldom name the folder.

    Reads safetensors alone, as everything here does: other formats can hold code.

    Raises:
        DataError: transformers cannot load what is there, or would draw missing parameters at random.
    """
    from transformers import AutoModelForCausalLM

    check_whole(Path(folder))
    with readable(folder):
        # Without an answer about code transformers would ask the terminal.
        how = {"trust_remote_code": False, **options, "use_safetensors": True, "output_loading_info": True}
        loaded: Any = AutoModelForCausalLM.from_pretrained(str(folder), **how)
    model, found = loaded
    missing = sorted(set(found["missing_keys"]) & {name for name, _ in model.named_parameters()})
    if missing:
        raise DataError(
            f"{folder}: the weights lack {len(missing)} parameters of {type(model).__name__}, the first is "
            f"`{missing[0]}`; they are of another model, or not whole"
        )
    return model


def check_whole(folder: Path) -> None:
    """Raise DataError where an adapter lies in a model's folder, or its configuration names a file of weights:
    transformers would load the model that the one names, or the file."""
    if (folder / ADAPTER).is_file():
        raise DataError(
            f"{folder / ADAPTER}: transformers would load the model that this adapter names, not the one beside it; "
            "merge it (peft's `merge_and_unload`) and give that model, or move the adapter away"
        )
    if (folder / "config.json").is_file() and read_config(folder).get("transformers_weights"):
        raise DataError(
            f"{folder / 'config.json'}: names a file of weights (`transformers_weights`); call it model.safetensors "
            "and take that line out"
        )


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
        if "custom code" in str(error):
            raise DataError(
                f"{folder}: this model comes with code of its own, which is not run; `swap`, `finish` and "
                "`tokenizer compare` do so with `--trust-remote-code`"
            ) from None
        said = shorten(str(error))
        if "ignore_mismatched_sizes" in said:
            said = "its weights have other shapes than its config.json says; they are of different models"
        raise DataError(f"{folder}: transformers cannot load this model: {said}") from error


def context_length(model: Path) -> int | None:
    """Tokens that a model was made for, by its ``config.json``; none where that does not say.

    Raises:
        DataError: it is no model's configuration.
    """
    try:
        config = read_config(model)
    except FileNotFoundError:
        return None
    return stated_context(text_config(config))


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a configuration that is about text, where it has parts."""
    part: Mapping[str, Any] = config.get("text_config") or config
    return part


def trained_at(folder: Path) -> float | None:
    """Peak rate that a model was trained with, where its folder says so, as those do that this project has trained."""
    manifest = read_stamp(folder / MANIFEST_NAME) or {}
    rate = (manifest.get("settings") or {}).get("learning_rate")
    return float(rate) if isinstance(rate, (int, float)) and rate > 0 else None


def stated_context(config: Mapping[str, Any]) -> int | None:
    """Tokens that the model of a text config was made for; none where it does not say."""
    stated = (config.get(name) for name in CONTEXT_FIELDS)
    return next((int(length) for length in stated if isinstance(length, int) and length > 0), None)
