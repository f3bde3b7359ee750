"""The files of a tokenizer in a model folder, and the chat template that goes with them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from langadapt.tokenizer.encoder import Tokenizer
from langadapt.tokenizer.vocabulary import ROLE_KEYS, Vocabulary

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "spiece.model",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates",
)


def put_tokenizer(tokenizer: Any, vocabulary: Vocabulary, folder: Path) -> None:
    """Write the files of ``tokenizer`` (a folder, a file, or an object with ``save_pretrained``) into ``folder``.

    A bare ``tokenizer.json`` gets the configuration that ``AutoTokenizer`` needs.
    """
    if not isinstance(tokenizer, (str, Path)) and hasattr(tokenizer, "save_pretrained"):
        tokenizer.save_pretrained(folder)
    else:
        copy_tokenizer(tokenizer, vocabulary, folder)
    if not (folder / "tokenizer_config.json").is_file():
        from transformers import PreTrainedTokenizerFast

        roles = {f"{role}_token": vocabulary.names[token] for role, token in vocabulary.roles.items()}
        named = {key: name for key, name in roles.items() if key.removesuffix("_token") in ROLE_KEYS}
        PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), **named).save_pretrained(folder)


def copy_tokenizer(tokenizer: Any, vocabulary: Vocabulary, folder: Path) -> None:
    """Copy files, or write the ``tokenizer.json`` of an object that has no folder."""
    if not isinstance(tokenizer, (str, Path)):
        vocabulary.backend.save(str(folder / "tokenizer.json"))
        return
    path = Path(tokenizer)
    if path.is_file():
        shutil.copyfile(path, folder / "tokenizer.json")
        return
    if not (path / "tokenizer.json").is_file():
        Tokenizer.from_pretrained(path).save_pretrained(folder)
        return
    for name in TOKENIZER_FILES:
        if (path / name).is_dir():
            shutil.copytree(path / name, folder / name)
        elif (path / name).is_file():
            shutil.copyfile(path / name, folder / name)


def chat_template(folder: Path) -> str | None:
    """The chat template of the tokenizer in ``folder``."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    config_file = folder / "tokenizer_config.json"
    if not config_file.is_file():
        return None
    template = json.loads(config_file.read_text(encoding="utf-8")).get("chat_template")
    return template if isinstance(template, str) else None


def carry_chat_template(model: Path, out: Path, source: Vocabulary, target: Vocabulary) -> list[str]:
    """Keep the model's chat template where the new tokenizer has none of its own but all of the template's markers.

    Returns:
        What a user should know.
    """
    template = chat_template(model)
    if template is None or chat_template(out) is not None:
        return []
    specials = (name for name, kind in zip(source.names, source.kinds, strict=True) if kind == "special")
    needed = sorted(name for name in specials if name and name in template)
    lacking = [name for name in needed if name not in target.ids]
    if lacking:
        return [f"the chat template was left out: the new tokenizer lacks {', '.join(lacking)}"]
    (out / "chat_template.jinja").write_text(template, encoding="utf-8")
    return ["the chat template of the source model was kept"]
