"""The files of a tokenizer: which they are, where they come from, and what ``AutoTokenizer`` makes of them."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from tokenizers import Tokenizer as Package

from langadapt.errors import DataError, shorten
from langadapt.tokenizer.roles import ROLE_NAMES, content_of, extra_tokens, read_json, special_tokens, tokenizer_config
from langadapt.tokenizer.templates import DEFAULT_FILE, FOLDER

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
    "chat_template.json",
    FOLDER,
)
"""All that a tokenizer may consist of, in its folder; the last is a folder of its own."""

TEMPLATE_FILES = (DEFAULT_FILE, "chat_template.json", FOLDER)

GENERIC_CLASSES = (None, "PreTrainedTokenizerFast", "TokenizersBackend")
"""Classes of transformers that bring no special tokens of their own."""


def read_files(folder: Path) -> dict[str, bytes]:
    """The files of :data:`TOKENIZER_FILES` that ``folder`` has, by name."""
    names = [*TOKENIZER_FILES, *(f"{FOLDER}/{file.name}" for file in sorted((folder / FOLDER).glob("*.jinja")))]
    return {name: (folder / name).read_bytes() for name in names if (folder / name).is_file()}


def write_files(files: Mapping[str, bytes], folder: Path) -> None:
    """Write ``files`` into ``folder``, each whole or not at all; other files of a tokenizer that lie there go.

    Left behind, another tokenizer's ``added_tokens.json`` or chat template would speak in this one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
        with temporary.open("wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        temporary.replace(file)
    for name in read_files(folder).keys() - files.keys():
        (folder / name).unlink()


def fetch(name: str) -> Path:
    """The local folder of a tokenizer on the hub."""
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name:
        raise FileNotFoundError(2, "No such folder, and not the name of a tokenizer on the hub", name)
    try:
        return Path(snapshot_download(name, allow_patterns=[*TOKENIZER_FILES, f"{FOLDER}/*.jinja", "config.json"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DataError(f"{name}: no such folder here, and the hub does not give it: {reason}") from None


def convert(folder: Path) -> dict[str, bytes]:
    """The files in ``folder``, with the ``tokenizer.json`` that transformers makes of them.

    Raises:
        DataError: it cannot, or a package is not installed that it needs.
    """
    files = read_files(folder)
    sentencepiece = {"tokenizer.model", "spiece.model"} & files.keys()
    if not (sentencepiece or {"vocab.json", "vocab.txt", CONFIG_FILE} & files.keys()):
        raise DataError(f"{folder}: no tokenizer.json and no tokenizer.model; name a folder that holds a tokenizer")
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


def load_auto(folder: Path) -> Any:
    """The tokenizer in ``folder`` as transformers loads it.

    Raises:
        DataError: it cannot.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # Of a dozen kinds, which seldom name the folder.
        raise DataError(f"{folder}: transformers cannot load this tokenizer: {shorten(str(error))}") from None


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
    definition = json.loads(files[TOKENIZER_FILE])
    known = {token["content"]: token for token in definition.get("added_tokens") or ()}
    check_roles(roles, {*known, *extra, *added, *map(content_of, listed)}, definition, folder)
    special = {content for content, token in known.items() if token.get("special")}
    differing = any(token.items() - known.get(content_of(token) or "", {}).items() for token in listed)
    if not (own_class or differing or {*roles.values(), *extra} - special or added.keys() - known.keys()):
        return files
    auto = load_auto(folder)
    definition["added_tokens"] = json.loads(auto.backend_tokenizer.to_str())["added_tokens"]
    return {**files, TOKENIZER_FILE: json.dumps(definition, ensure_ascii=False).encode(), **as_loaded(auto, config)}


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


@contextmanager
def package_errors(what: str) -> Iterator[None]:
    """A ``DataError`` that begins with ``what`` for errors of the ``tokenizers`` package, its panics included."""
    try:
        yield
    except BaseException as error:
        # The package raises bare `Exception`; its panics are not even that.
        if type(error) not in (Exception, UnicodeDecodeError) and type(error).__name__ != "PanicException":
            raise
        raise DataError(f"{what}: {error}") from None


def load_package(definition: bytes, name: str) -> Any:
    """The ``tokenizers.Tokenizer`` of a ``tokenizer.json``, which neither cuts nor fills up a text.

    Files of sentence encoders do both, which would falsify all counts and cut a corpus.

    Raises:
        DataError: the package cannot read it.
    """
    with package_errors(f"{name}: the `tokenizers` package cannot read it"):
        package = Package.from_str(definition.decode("utf-8"))
    package.no_truncation()
    package.no_padding()
    return package
