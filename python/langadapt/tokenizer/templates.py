"""Chat templates, in all the forms in which they travel with a tokenizer."""

from __future__ import annotations

from collections.abc import Mapping

from langadapt.errors import DataError
from langadapt.tokenizer.roles import read_json

DEFAULT_FILE = "chat_template.jinja"
PROCESSOR_FILE = "chat_template.json"
FOLDER = "additional_chat_templates"
"""Of templates that are asked for by name, each a ``NAME.jinja``."""


def chat_templates(files: Mapping[str, bytes], tokenizer: str = "tokenizer") -> dict[str, str]:
    """Templates by name, ``"default"`` for the one that needs no name; empty where there is none.

    As in transformers, files of their own go before an entry of ``tokenizer_config.json``, which holds one template
    or a list of named ones. ``chat_template.json``, in which processors keep theirs, comes last.

    Raises:
        DataError: one of the files of ``tokenizer`` holds something else.
    """
    found = {}
    for name, content in files.items():
        if name != DEFAULT_FILE and not name.startswith(f"{FOLDER}/"):
            continue
        which = "default" if name == DEFAULT_FILE else name.removeprefix(f"{FOLDER}/").removesuffix(".jinja")
        try:
            found[which] = content.decode()
        except UnicodeDecodeError:
            raise DataError(f"{tokenizer}: the {name} beside it is no text in UTF-8; write it anew") from None
    for name in ("tokenizer_config.json", PROCESSOR_FILE):
        entry = read_json(files, name, tokenizer).get("chat_template")
        if isinstance(entry, list) and all(isinstance(one, dict) for one in entry):
            entry = {one.get("name"): one.get("template") for one in entry}
        elif entry is not None:
            entry = {"default": entry}
        if any(not isinstance(text, str) for pair in (entry or {}).items() for text in pair):
            raise DataError(f"{tokenizer}: the chat_template in the {name} beside it is no template; write it anew")
        found = found or entry or {}
    return found


def template_files(templates: Mapping[str, str]) -> dict[str, bytes]:
    """The files that hold ``templates``: the form that transformers 5 writes."""
    return {
        DEFAULT_FILE if name == "default" else f"{FOLDER}/{name.replace('/', '_')}.jinja": template.encode()
        for name, template in templates.items()
    }
