"""Chat templates, in all the forms in which they travel with a tokenizer."""

from __future__ import annotations

from collections.abc import Mapping

from langadapt.tokenizer.roles import read_json

DEFAULT_FILE = "chat_template.jinja"
FOLDER = "additional_chat_templates"
"""Of templates that are asked for by name, each a ``NAME.jinja``."""


def chat_templates(files: Mapping[str, bytes]) -> dict[str, str]:
    """Templates by name, ``"default"`` for the one that needs no name; empty where there is none.

    As in transformers, files of their own go before an entry of ``tokenizer_config.json``, which holds one template
    or a list of named ones. ``chat_template.json``, in which processors keep theirs, comes last.
    """
    found = {}
    if DEFAULT_FILE in files:
        found["default"] = files[DEFAULT_FILE].decode()
    for name, content in files.items():
        if name.startswith(f"{FOLDER}/"):
            found[name.removeprefix(f"{FOLDER}/").removesuffix(".jinja")] = content.decode()
    for name in ("tokenizer_config.json", "chat_template.json"):
        entry = read_json(files, name).get("chat_template")
        if isinstance(entry, str):
            entry = {"default": entry}
        elif isinstance(entry, list):
            entry = {one["name"]: one["template"] for one in entry if {"name", "template"} <= one.keys()}
        found = found or entry or {}
    return found


def template_files(templates: Mapping[str, str]) -> dict[str, bytes]:
    """The files that hold ``templates``: the form that transformers 5 writes."""
    return {
        DEFAULT_FILE if name == "default" else f"{FOLDER}/{name.replace('/', '_')}.jinja": template.encode()
        for name, template in templates.items()
    }
