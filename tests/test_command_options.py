"""Every option and default of every command, as users' scripts rely on them.

A failure here is a question: is the change meant? Then `python tests/test_command_options.py` writes the list anew, and
the changelog says so.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).with_name("command_options.txt")


def describe(command: Any, name: str) -> Iterator[str]:
    """One line per argument and option, commands in order."""
    for child in sorted(getattr(command, "commands", {})):
        yield from describe(command.commands[child], f"{name} {child}")
    for parameter in command.params:
        if parameter.name == "help":
            continue
        spelled = " ".join([*parameter.opts, *parameter.secondary_opts])
        kind = "argument" if parameter.param_type_name == "argument" else "option"
        default = "required" if parameter.required else f"default {parameter.default}"
        yield f"{name}: {kind} {spelled}, {default}"


def options() -> str:
    import typer

    from langadapt.cli.main import app

    return "\n".join(describe(typer.main.get_command(app), "langadapt")) + "\n"


def test_no_option_changes_by_accident() -> None:
    assert options() == GOLDEN.read_text(encoding="utf-8")


if __name__ == "__main__":
    GOLDEN.write_text(options(), encoding="utf-8")
    sys.stdout.write(f"{GOLDEN} written\n")
