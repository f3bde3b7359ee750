"""Prints the packages of the running environment as constraints: `.venv/bin/python .ci/freeze.py > constraints.txt`.

A package whose pinned version does not support Python 3.10 gets a marker, so that older interpreters may take an older
version.
"""

import re
import sys
from importlib.metadata import distributions

OURS = {"langadapt", "langadapt-kernels", "pip", "setuptools", "wheel"}

sys.stdout.write("# Versions for development and CI, by .ci/freeze.py; `pyproject.toml` holds the honest ranges.\n")
lines = set()
for distribution in distributions():
    name = distribution.metadata["Name"]
    if name.lower() in OURS:
        continue
    lower = re.search(r">=\s*3\.(\d+)", distribution.metadata.get("Requires-Python") or "")
    marker = f' ; python_version >= "3.{lower.group(1)}"' if lower and int(lower.group(1)) > 10 else ""
    lines.add(f"{name}=={distribution.version}{marker}")
sys.stdout.write("\n".join(sorted(lines, key=str.lower)) + "\n")
