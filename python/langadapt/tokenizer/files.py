"""The files of a tokenizer: which they are, where they come from, and what ``AutoTokenizer`` makes of them."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from langadapt.artefacts.folders import STAMP_NAME, replacing, whole_file
from langadapt.artefacts.places import check_fetched
from langadapt.errors import DataError, shorten
from langadapt.models import hub
from langadapt.models.folder import tokenizer_file
from langadapt.tokenizer.package import package_errors
from langadapt.tokenizer.roles import ROLE_NAMES, content_of, extra_tokens, read_json, special_tokens, tokenizer_config
from langadapt.tokenizer.templates import DEFAULT_FILE, FOLDER, PROCESSOR_FILE

logger = logging.getLogger(__name__)

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"

TOKENIZER_FILES = (
    TOKENIZER_FILE,
    CONFIG_FILE,
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "spiece.model",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    DEFAULT_FILE,
    PROCESSOR_FILE,
    FOLDER,
)
"""All that a tokenizer may consist of, in its folder; the last is a folder of its own."""

ID_MAP = "id_map.json"
"""Of a tokenizer that was trimmed: the new id of each old one, or -1."""

TEMPLATE_FILES = (DEFAULT_FILE, PROCESSOR_FILE, FOLDER)

GENERIC_CLASSES = (None, "PreTrainedTokenizerFast", "TokenizersBackend")
"""Classes of transformers that bring no special tokens of their own."""


def read_files(folder: Path) -> dict[str, bytes]:
    """The files of :data:`TOKENIZER_FILES` that ``folder`` has, by name."""
    names = [*TOKENIZER_FILES, *(f"{FOLDER}/{file.name}" for file in sorted((folder / FOLDER).glob("*.jinja")))]
    check_fetched(folder / name for name in names)
    return {name: (folder / name).read_bytes() for name in names if (folder / name).is_file()}


def write_files(files: Mapping[str, bytes], folder: Path) -> None:
    """Write ``files`` into ``folder``, where other files of a tokenizer go and all others stay.

    Left behind, another tokenizer's ``added_tokens.json`` or chat template would speak in this one. Where nothing but a
    tokenizer lies there, it is replaced as a whole; beside other files there is, for a moment, none.
    """
    there = {path.name for path in folder.iterdir()} - {STAMP_NAME} if folder.is_dir() else set()
    if not folder.exists() or (there and there <= {*TOKENIZER_FILES, ID_MAP} and not folder.is_mount()):
        with replacing(folder) as new:
            for name, content in files.items():
                (new / name).parent.mkdir(exist_ok=True)
                (new / name).write_bytes(content)
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name in {TOKENIZER_FILE, ID_MAP, *read_files(folder)} - (files.keys() - {TOKENIZER_FILE}):
        (folder / name).unlink(missing_ok=True)
    # The last one makes a tokenizer of the others.
    for name in sorted(files, key=lambda name: name == TOKENIZER_FILE):
        with whole_file(folder / name) as file:
            file.write_bytes(files[name])


def fetch(name: str) -> Path:
    """The local folder of a tokenizer on the hub."""
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name:
        raise FileNotFoundError(2, "No such folder, and not the name of a tokenizer on the hub", name)
    try:
        return hub.fetch(name, [*TOKENIZER_FILES, f"{FOLDER}/*.jinja", "config.json"])
    except LookupError as error:
        raise DataError(f"{name}: no such folder here, and no tokenizer from the hub: {error.args[0]}") from None


def convert(folder: Path) -> dict[str, bytes]:
    """The files in ``folder``, with the ``tokenizer.json`` that transformers makes of them.

    Raises:
        DataError: it cannot, or a package is not installed that it needs.
    """
    files = read_files(folder)
    sentencepiece = {"tokenizer.model", "spiece.model"} & files.keys()
    if not (sentencepiece or {"vocab.json", "vocab.txt", CONFIG_FILE} & files.keys()):
        others = [file.name for file in sorted(folder.iterdir()) if file.name.endswith(("tekken.json", ".tiktoken"))]
        what = f"{others[0]} is not read; make a tokenizer.json of it" if others else "name a folder with a tokenizer"
        raise DataError(f"{folder}: no tokenizer.json and no tokenizer.model; {what}")
    auto = load_auto(folder)
    logger.info("%s: converted by transformers, there is no tokenizer.json", folder)
    return {
        **files,
        **as_loaded(auto, tokenizer_config(files, str(folder))),
        TOKENIZER_FILE: auto.backend_tokenizer.to_str().encode(),
    }


def as_loaded(auto: Any, config: dict[str, Any]) -> dict[str, bytes]:
    """The configuration with the special tokens of a tokenizer of transformers spelt out."""
    roles = {role: str(token) for role, token in auto.special_tokens_map.items() if role.endswith("_token")}
    return {CONFIG_FILE: json_bytes(config | roles)}


def load_auto(folder: str | Path) -> Any:
    """The tokenizer in ``folder`` as transformers loads it, without running code that lies there.

    Raises:
        DataError: it cannot.
    """
    from transformers import AutoTokenizer

    failure = f"{folder}: transformers cannot load this tokenizer"
    try:
        with package_errors(failure):
            # Without the answer transformers would ask the terminal, where none is expected.
            return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except DataError:
        raise
    except Exception as error:
        # Of a dozen kinds, which seldom name the folder.
        if "custom code" in str(error):
            failure += ", which comes with code of its own; save it as a tokenizer.json first"
            raise DataError(failure) from None
        raise DataError(f"{failure}: {shorten(str(error))}") from None


def complete(files: dict[str, bytes], folder: Path) -> dict[str, bytes]:
    """``files`` with what ``AutoTokenizer`` adds to ``tokenizer.json``: tokens and roles that only others name.

    transformers, which needs seconds to be imported, is asked only where the files leave a doubt.

    Raises:
        DataError: they name a special token that no file has.
    """
    config = tokenizer_config(files, str(folder))
    roles, extra = special_tokens(config), extra_tokens(config)
    listed = [token for token in (config.get("added_tokens_decoder") or {}).values() if isinstance(token, dict)]
    added = read_json(files, "added_tokens.json", str(folder)) if "added_tokens_decoder" not in config else {}
    own_class = config.get("tokenizer_class") not in GENERIC_CLASSES and not {"bos_token", "eos_token"} <= roles.keys()
    if not (roles or extra or listed or added or own_class):
        return files
    definition = read_json(files, TOKENIZER_FILE, str(folder))
    if not is_definition(definition):
        # Whoever reads it says what is wrong with it.
        return files
    known = {token["content"]: token for token in definition.get("added_tokens") or ()}
    check_roles(roles, {*known, *extra, *added, *map(content_of, listed)}, definition, folder)
    special = {content for content, token in known.items() if token.get("special")}
    differing = any(token.items() - known.get(content_of(token) or "", {}).items() for token in listed)
    if not (own_class or differing or {*roles.values(), *extra} - special or added.keys() - known.keys()):
        return files
    auto = load_auto(folder)
    definition["added_tokens"] = json.loads(auto.backend_tokenizer.to_str())["added_tokens"]
    return {**files, TOKENIZER_FILE: json.dumps(definition, ensure_ascii=False).encode(), **as_loaded(auto, config)}


def is_definition(content: Mapping[str, Any]) -> bool:
    """Whether a ``tokenizer.json`` has a model, and added tokens that have a text."""
    added, model = content.get("added_tokens") or [], content.get("model")
    vocabulary = model.get("vocab") or {} if isinstance(model, dict) else None
    return (
        isinstance(added, list)
        and all(isinstance(token, dict) and isinstance(token.get("content"), str) for token in added)
        and (
            isinstance(vocabulary, dict)
            or (isinstance(vocabulary, list) and all(isinstance(piece, list) and piece for piece in vocabulary))
        )
    )


def check_roles(roles: Mapping[str, str], added: Set[str | None], definition: Mapping[str, Any], folder: Path) -> None:
    """Raise DataError where a role is given to a token that exists nowhere; transformers would make one up."""
    pieces = definition["model"].get("vocab") or {}
    known = added | ({piece[0] for piece in pieces} if isinstance(pieces, list) else pieces.keys())
    for role in (f"{role}_token" for role in ROLE_NAMES):
        if role in roles and roles[role] not in known:
            raise DataError(
                f"{folder}: {role} is {roles[role]!r}, which is no token of this tokenizer; add it to {TOKENIZER_FILE} "
                f"or name another one in {CONFIG_FILE}"
            )


def json_bytes(content: Mapping[str, Any]) -> bytes:
    """The content of a configuration file."""
    return json.dumps(content, ensure_ascii=False, indent=2).encode() + b"\n"


def copied_from(like: str | None) -> dict[str, Path]:
    """The file whose rules are taken, by the name that stamps have for it, where it lies here."""
    if like is None or not Path(like).exists():
        return {}
    return {"like": Path(like) if Path(like).is_file() else tokenizer_file(Path(like))}
