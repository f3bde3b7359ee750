"""Prints the run-time requirements of both distributions, one a line, for one pinned `pip install`.

`--without-cuda`: for an environment that has torch already, without its requirements; of these all but CUDA and Triton.
"""

import re
import sys
from importlib.metadata import requires
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def dependencies(path: Path) -> list[str]:
    """The `dependencies` array of a pyproject.toml; `tomllib` is missing in Python 3.10."""
    block = re.search(r"^dependencies = \[(.*?)\]$", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    if block is None:
        sys.exit(f"{path}: no dependencies")
    return re.findall(r'"([^"]+)"', block.group(1))


def torch_without_cuda() -> list[str]:
    """What the installed torch asks for; of CUDA only the library that says whether there is a GPU."""
    wanted = [line for line in requires("torch") or [] if "extra ==" not in line]
    cuda = [line for line in wanted if re.match("cuda|nvidia|triton", line)]
    return [line for line in wanted if line not in cuda] + ["nvidia-cuda-runtime"] * bool(cuda)


found = dependencies(ROOT / "pyproject.toml") + dependencies(ROOT / "kernels" / "pyproject.toml")
if "--without-cuda" in sys.argv:
    found = [line for line in found if not line.startswith("torch")] + torch_without_cuda()
sys.stdout.write("\n".join(sorted(line for line in set(found) if not line.startswith("langadapt"))) + "\n")
