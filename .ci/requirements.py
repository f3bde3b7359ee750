"""Prints the run-time requirements of both distributions, one a line, for one pinned `pip install`."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def dependencies(path: Path) -> list[str]:
    """The `dependencies` array of a pyproject.toml; `tomllib` is missing in Python 3.10."""
    block = re.search(r"^dependencies = \[(.*?)\]$", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    if block is None:
        sys.exit(f"{path}: no dependencies")
    return re.findall(r'"([^"]+)"', block.group(1))


found = dependencies(ROOT / "pyproject.toml") + dependencies(ROOT / "kernels" / "pyproject.toml")
sys.stdout.write("\n".join(sorted(line for line in set(found) if not line.startswith("langadapt"))) + "\n")
