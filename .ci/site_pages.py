"""Pages of the site that are made from the code when it is built: every command, every public name of Python."""

from __future__ import annotations

import inspect
import re
from typing import Any

import click
import typer
from mkdocs.structure.files import File

import langadapt
import langadapt_kernels
from langadapt.cli.main import app

COMMANDS = """# Command line

Every command and option, from the code. Exit codes: 0, done; 1, something failed; 2, the command line or a recipe is
wrong; 130, interrupted. Run the same command again after an interruption: it goes on where it was.
"""
PYTHON = """# Python

What `import langadapt` gives, and `langadapt_kernels`. Names are imported on first use, so that `import langadapt`
waits for nothing.
"""
ROLES = re.compile(r":(?:func|class|data|meth|mod|attr):")
"""Roles of Sphinx in docstrings, which mkdocstrings does not know: their names stay as code."""
LINK = r"\[([^\]]*)\]\(%s[^)]*\)"


def on_files(files: Any, config: Any) -> Any:
    """mkdocs' event: the pages that no file holds."""
    for name, text in (("commands.md", commands_page()), ("api.md", python_page())):
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """mkdocs' event: a link to what lies beside docs/ becomes its words; the site has no such place."""
    outside = re.escape("../" * (1 + page.file.src_uri.count("/")))
    return re.sub(LINK % outside, r"\1", markdown)


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """mkdocs' event: Python's page without roles."""
    return ROLES.sub("", html) if page.file.src_uri == "api.md" else html


def commands_page() -> str:
    """All commands, in the order of `--help`."""
    parts = [COMMANDS]
    walk(typer.main.get_command(app), "langadapt", parts)
    return "\n".join(parts)


def walk(command: Any, name: str, parts: list[str]) -> None:
    """One command, or what a group holds."""
    if hasattr(command, "commands"):
        for child, inner in command.commands.items():
            if not inner.hidden:
                walk(inner, f"{name} {child}", parts)
        return
    context = click.Context(command, info_name=name)
    parts.append(f"## {name}\n\n{plain(command.help)}\n")
    parts.append("| option | default | meaning |\n|---|---|---|")
    for parameter in command.params:
        if getattr(parameter, "hidden", False) or parameter.name == "help":
            continue
        shown = (
            ", ".join(f"`{form}`" for form in parameter.opts)
            if parameter.opts[0][:1] == "-"
            else f"`{parameter.name.upper()}`"
        )
        default = parameter.get_default(context, call=False)
        known = "required" if parameter.required else "" if default in (None, False, ()) else f"`{default}`"
        parts.append(
            f"| {shown} | {known} | {plain(getattr(parameter, 'help', '') or '').replace('|', chr(92) + '|')} |"
        )
    parts.append("")


def plain(text: str | None) -> str:
    """Help without rich's markup, in one paragraph."""
    return " ".join(inspect.cleandoc(text or "").replace("\\[", "[").replace("``", "`").split())


def python_page() -> str:
    """Every public name, by the module that defines it."""
    ours = [f"{home}.{name}" for home, found in langadapt._HOMES.items() for name in found if name[0] != "_"]
    kernels = [f"{getattr(langadapt_kernels, name).__module__}.{name}" for name in langadapt_kernels.__all__]
    return "\n\n".join([PYTHON, *(f"::: {name}" for name in [*ours, *kernels])])
