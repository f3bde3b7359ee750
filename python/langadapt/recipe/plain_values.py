"""Plain values, as in YAML, into checked dataclasses: unknown keys and wrong kinds are errors that name the place."""

from __future__ import annotations

import logging
import re
import types
import typing
from collections.abc import Collection, Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from langadapt.errors import ConfigError, nearest, shorten

logger = logging.getLogger(__name__)

Section = TypeVar("Section")

MOST_VALUES = 100_000
"""In a recipe whose aliases are written out: ten lines of YAML can stand for more than any memory holds."""


LARGEST = 2**63 - 1
"""Of whole numbers: what the core takes."""


class UniqueKeys(yaml.SafeLoader):
    """YAML in which a key may stand once: of two, the first would be lost without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.value == "<<":
                continue
            if key.value in seen:
                raise ConfigError(f"line {key.start_mark.line + 1}: `{key.value}` is there twice; keep one of them")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def spelt_out(node: yaml.Node, known: dict[int, int]) -> int:
    """Values below ``node`` if each alias were written out; what holds itself comes to too many. ``known``: by id."""
    if id(node) not in known:
        known[id(node)] = MOST_VALUES + 1
        parts = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        below = parts if isinstance(node, yaml.CollectionNode) else ()
        known[id(node)] = 1 + sum(spelt_out(part, known) for part in below)
    return known[id(node)]


def parse(text: str) -> Any:
    """The one value in a YAML text.

    Raises:
        ConfigError: a key is there twice, or the text stands for more than a recipe may say.
        yaml.YAMLError: it is no YAML.
    """
    loader = UniqueKeys(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if spelt_out(node, {}) > MOST_VALUES:
            raise ConfigError(
                f"its aliases (`*name`) stand for more than {MOST_VALUES:,} values; write out what is meant"
            )
        return loader.construct_document(node)
    except RecursionError:
        raise ConfigError("nested too deeply; a recipe has sections and lists in them, no more") from None


def read_mapping(path: str | Path, overrides: Iterable[str]) -> dict[str, Any]:
    """The mapping in a YAML file, with :func:`apply_override` applied.

    Raises:
        ConfigError: it is no YAML, or no mapping.
        FileNotFoundError: no such file.
    """
    try:
        content = parse(Path(path).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {str(error).replace(chr(10), ' ')}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 ({error})") from None
    except ValueError as error:
        # What has the form of a date or a number, and is none.
        raise ConfigError(f"{path}: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: a recipe is a mapping such as `model: ...`, this is {kind(content)}")
    for override in overrides:
        apply_override(content, override)
    return content


def apply_override(content: dict[str, Any], override: str) -> None:
    """Set ``a.b=c`` in nested mappings."""
    dotted, separator, text = override.partition("=")
    if not separator or not dotted:
        raise ConfigError(f"--set {override}: expected KEY=VALUE, such as train.steps=100")
    try:
        value = parse(text)
    except (yaml.YAMLError, ValueError):
        raise ConfigError(f"--set {override}: the value is not valid YAML") from None
    *parents, last = dotted.split(".")
    place: Any = content
    for parent in parents:
        place = place.setdefault(parent, {})
        if not isinstance(place, dict):
            raise ConfigError(f"--set {override}: `{parent}` is not a section")
    place[last] = value


def build(cls: type[Section], content: Mapping[str, Any], where: str) -> Section:
    """Make a checked dataclass out of plain values; ``where`` is the dotted path for messages."""
    known = {item.name: item for item in fields(cls)}  # type: ignore[arg-type]
    hints = get_type_hints(cls)
    content = with_new_names(content, getattr(cls, "RENAMED", {}), where)
    for key in content:
        if key not in known:
            raise ConfigError(f"unknown key `{where}{key}`; {meant(str(key), known, where)}")
    for name, item in known.items():
        if name not in content and item.default is MISSING and item.default_factory is MISSING:
            raise ConfigError(f"`{where}{name}` is missing")
    values = {key: convert(value, hints[key], f"{where}{key}") for key, value in content.items()}
    try:
        return cls(**values)
    except ConfigError as error:
        text = str(error)
        raise ConfigError(text if text.startswith(where) else f"{where}{text}") from None


GONE = {"train.optimizer": {"galore-adamw": "take `adamw`, with `states: int8` for states of a byte each"}}
"""By dotted path, words of earlier releases and what to take instead."""

ELSEWHERE = {
    "block_size": "sequence_length",
    "bs": "batch_sequences",
    "batch_size": "batch_sequences",
    "context_length": "sequence_length",
    "eval_steps": "validate_every",
    "grad_clip": "max_grad_norm",
    "gradient_checkpointing": "activation_checkpointing",
    "logging_steps": "log_every",
    "lr": "learning_rate",
    "lr_scheduler_type": "schedule",
    "max_length": "sequence_length",
    "max_seq_length": "sequence_length",
    "max_steps": "steps",
    "min_lr": "min_learning_rate",
    "num_epochs": "epochs",
    "num_train_epochs": "epochs",
    "optim": "optimizer",
    "output_dir": "out",
    "per_device_train_batch_size": "micro_batch",
    "replay": "source_share",
    "save_steps": "checkpoint_every",
    "save_total_limit": "keep_checkpoints",
    "scheduler": "schedule",
    "seq_len": "sequence_length",
    "warmup_ratio": "warmup",
    "warmup_steps": "warmup",
    "wd": "weight_decay",
}
"""What other trainers call a setting, and its name here."""
NAMED_AT_MOST = 8
"""Keys that an error lists; the rest is in docs/recipe.md."""


def meant(key: str, known: Collection[str], where: str) -> str:
    """What a user who wrote an unknown ``key`` may want: its name here, the nearest key, or some of those there are."""
    translated = ELSEWHERE.get(key.lower().replace("-", "_"))
    near = [translated] if translated in known else nearest(key, known)
    if near:
        return f"did you mean `{where}{near[0]}`?"
    names = list(known)
    more = f" and {len(names) - NAMED_AT_MOST} more, see docs/recipe.md" if len(names) > NAMED_AT_MOST else ""
    return f"valid keys: {', '.join(names[:NAMED_AT_MOST])}{more}"


def with_new_names(content: Mapping[str, Any], renamed: Mapping[str, str], where: str) -> Mapping[str, Any]:
    """``content`` with the keys of earlier releases under their new names."""
    for key in content.keys() & renamed.keys():
        if renamed[key] in content:
            raise ConfigError(f"`{where}{key}` is the old name of `{where}{renamed[key]}`; give one of them")
        logger.warning("`%s%s` is called `%s%s` now", where, key, where, renamed[key])
    return {renamed.get(key, key): value for key, value in content.items()}


def convert(value: Any, hint: Any, where: str) -> Any:
    """``value`` as ``hint``, or an error that names ``where``."""
    origin, options = get_origin(hint), get_args(hint)
    if is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise ConfigError(f"`{where}` is a section, but got {kind(value)}")
        return build(typing.cast("type[Any]", hint), value, f"{where}.")
    if origin in (Union, types.UnionType):
        return convert_union(value, options, where)
    if origin is Literal:
        if str(value) in GONE.get(where, {}):
            raise ConfigError(f"`{where}`: {value} is gone; {GONE[where][str(value)]}")
        if value not in options:
            raise ConfigError(f"`{where}`: {shown(value)} is none of {', '.join(map(repr, options))}")
        return value
    if origin in (list, tuple):
        if isinstance(value, str) or not isinstance(value, (list, tuple)):
            value = [value]
        items = [convert(item, options[0], where) for item in value]
        return tuple(items) if origin is tuple else items
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"`{where}` is a mapping, but got {kind(value)}")
        return {convert(k, options[0], where): convert(v, options[1], f"{where}.{k}") for k, v in value.items()}
    return convert_scalar(value, hint, where)


def convert_union(value: Any, options: tuple[Any, ...], where: str) -> Any:
    """The first option that fits; ``None`` only where it is one of them."""
    if value is None and type(None) in options:
        return None
    errors = []
    for option in options:
        if option is type(None):
            continue
        try:
            return convert(value, option, where)
        except ConfigError as error:
            errors.append(str(error))
    words = [word for option in options if get_origin(option) is Literal for word in get_args(option)]
    kinds = [kind(option()) for option in options if option in (int, float, str, bool)]
    if words:
        other = f" and not {' or '.join(kinds)}" if kinds else ""
        raise ConfigError(f"`{where}`: {shown(value)} is none of {', '.join(map(repr, words))}{other}")
    raise ConfigError(errors[-1])


def convert_scalar(value: Any, hint: Any, where: str) -> Any:
    """Numbers and strings. YAML 1.1 reads ``4e-5`` as a string; a field of numbers takes it as a number."""
    if hint is float and isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            pass
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if hint is int and isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            number = 0.5
        if number.is_integer():
            return int(number)
    if hint is str and isinstance(value, date):
        # YAML reads a date or a full time, unquoted, as one.
        value = value.isoformat()
    if hint in (int, float, str, bool) and (type(value) is not hint):
        raise ConfigError(f"`{where}`: expected {kind(hint())}, got {kind(value)} {shown(value)}")
    if hint is int and abs(value) > LARGEST:
        raise ConfigError(f"`{where}`: {shown(value)} is beyond {LARGEST:,}, the largest whole number of a setting")
    return value


def check_texts(value: Any, where: str = "") -> None:
    """Raise ConfigError where a setting below ``where`` is a text that no system takes for a name or path.

    What models write and results keep is none: it may hold anything.
    """
    if isinstance(value, Mapping):
        for key, inner in value.items():
            check_texts(inner, f"{where}.{key}" if where else str(key))
    elif isinstance(value, (list, tuple)):
        for inner in value:
            check_texts(inner, where)
    elif isinstance(value, str) and re.search("[\0\ud800-\udfff]", value):
        raise ConfigError(f"`{where}`: {shown(value)} holds a zero byte or half a character, as no name has")


def shown(value: Any) -> str:
    """A value in an error."""
    return shorten(repr(value))


def kind(value: Any) -> str:
    """What a YAML value is, in a reader's words."""
    names: dict[type, str] = {
        dict: "a mapping",
        list: "a list",
        str: "a text",
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        type(None): "nothing",
    }
    return names.get(type(value), type(value).__name__)
