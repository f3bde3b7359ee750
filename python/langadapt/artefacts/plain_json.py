"""JSON for people and programs alike: nested values on lines of their own, lists of numbers on one; and objects read
from files that people may have changed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from langadapt.errors import DataError

STEP = "  "


def to_json(value: Any, indent: str = "") -> str:
    """``value`` as JSON like ``json.dumps(value, indent=2, ensure_ascii=False)``, but lists of plain values, which may
    be thousands of numbers, stand on one line each.
    """
    inner = indent + STEP
    if isinstance(value, Mapping) and value:
        # A key on its own would lose what `json` does with keys that are no strings.
        names = [json.dumps({key: None}, ensure_ascii=False)[1:-7] for key in value]
        parts = [f"{name}: {to_json(one, inner)}" for name, one in zip(names, value.values(), strict=True)]
        return f"{{\n{inner}" + f",\n{inner}".join(parts) + f"\n{indent}}}"
    if isinstance(value, Sequence) and any(isinstance(one, (Mapping, list, tuple)) for one in value):
        return f"[\n{inner}" + f",\n{inner}".join(to_json(one, inner) for one in value) + f"\n{indent}]"
    return json.dumps(value, ensure_ascii=False)


def read_object(file: Path, advice: str) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        FileNotFoundError: there is none.
        DataError: it holds something else; gives ``advice``.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: not valid JSON ({error}); {advice}") from None
    if not isinstance(content, dict):
        raise DataError(f"{file}: a JSON object is expected; {advice}")
    return content
