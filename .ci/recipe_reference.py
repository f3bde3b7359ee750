"""Writes docs/recipe.md: every setting of a recipe, from the docstrings beside the fields.

python .ci/recipe_reference.py > docs/recipe.md
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import sys
import textwrap
import types
import typing
from typing import Any

import yaml

from langadapt.recipe.recipe import Recipe

HEAD = """# Recipe

Every setting of a recipe, with its type and default. Made from the code by `make docs`; a test holds that it is up to
date. [examples/](../examples) has whole recipes; `langadapt adapt RECIPE.yaml --set train.steps=100` changes a setting
for one run. `none` is `null` in YAML. Paths are relative to the working directory; unknown settings are errors.
"""


def explained(kind: type) -> dict[str, str]:
    """What the docstring beside each field says, in one line, by the field's name."""
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for base in kind.__bases__:
        found |= explained(base) if dataclasses.is_dataclass(base) else {}
    for statement, after in zip(body.body, body.body[1:], strict=False):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            assert isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant), statement.target.id
            found[statement.target.id] = " ".join(str(after.value.value).split()).replace("``", "`")
    return found


def default_of(field: dataclasses.Field[Any]) -> str:
    """The default as YAML, or what stands for one."""
    if field.default is not dataclasses.MISSING:
        value = field.default
    elif field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    else:
        return "required"
    if value is None:
        return "none"
    if isinstance(value, tuple):
        value = list(value)
    return f"`{yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix('...' + chr(10)).strip()}`"


WORDS = {str: "text", int: "whole number", float: "number", bool: "`true` or `false`", type(None): "none"}


def spoken(hint: Any) -> str:
    """A type in words that a reader of YAML knows."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(spoken(part) for part in parts)
    if origin is typing.Literal:
        return ("one of " if len(parts) > 1 else "") + ", ".join(f"`{part}`" for part in parts)
    if origin in (list, tuple):
        return f"list of {WORDS.get(parts[0], 'section')}s"
    if origin is dict:
        return f"mapping of {WORDS[parts[0]]}s to {WORDS[parts[1]]}s"
    return "section" if dataclasses.is_dataclass(hint) else WORDS[hint]


def table(kind: type, fields: list[dataclasses.Field[Any]]) -> str:
    """Settings of one class as a table."""
    meaning, hints = explained(kind), typing.get_type_hints(kind)
    lines = ["| setting | type | default | meaning |", "|---|---|---|---|"]
    for field in fields:
        cells = [f"`{field.name}`", spoken(hints[field.name]), default_of(field), meaning[field.name]]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def page() -> str:
    """The whole page."""
    fields = dataclasses.fields(Recipe)
    sections = {field.name: kind for field in fields if (kind := section_of(field)) is not None}
    parts = [HEAD, table(Recipe, [field for field in fields if field.name not in sections])]
    for name, kind in sections.items():
        parts.append(f"## {name}\n\n{about(kind)}\n")
        # Settings in groups, which are their base classes: one table each.
        bases = [base for base in reversed(kind.__bases__) if dataclasses.is_dataclass(base)]
        for group in bases if len(bases) > 1 else [kind]:
            heading = f"**{about(group)}**\n\n" if group is not kind else ""
            parts.append(heading + table(group, list(dataclasses.fields(group))))
            for inner, section in sections_in(group):
                parts.append(
                    f"**`{name}.{inner}`**: {about(section)}\n\n" + table(section, list(dataclasses.fields(section)))
                )
    return "\n".join(parts)


def sections_in(kind: type) -> list[tuple[str, type]]:
    """Settings of a section that may be a section themselves, with their classes."""
    hints = typing.get_type_hints(kind)
    found = [(field.name, part) for field in dataclasses.fields(kind) for part in typing.get_args(hints[field.name])]
    return [(name, part) for name, part in found if dataclasses.is_dataclass(part)]


def about(kind: type) -> str:
    """A class's docstring in one line."""
    return " ".join((inspect.getdoc(kind) or "").split()).replace("``", "`")


def section_of(field: dataclasses.Field[Any]) -> type | None:
    """The class behind a field that is a section of its own."""
    kind = typing.get_type_hints(Recipe)[field.name]
    return kind if dataclasses.is_dataclass(kind) else None


if __name__ == "__main__":
    sys.stdout.write(page())
