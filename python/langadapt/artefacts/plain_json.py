"""JSON for people and programs alike: nested values on lines of their own, lists of numbers on one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

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
