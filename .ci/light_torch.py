"""Lets PyPI's torch, which is linked against CUDA, load where CUDA's libraries are left out: `make demo` without a GPU.

torch names the libraries of CUDA, 2.7 GB, and the loader wants each to be there, whether it is ever called or not. What
is missing gets a file of its name, linked here, whose functions answer 1, an error in each of these interfaces. The
files stand where NVIDIA's packages put theirs, so that `make setup`, which installs these, replaces them. A torch that
was built for CPUs names none of them and gets none. Needs `cc`, which linking Rust needs, too, and what comes with it.
"""

import re
import subprocess
import sysconfig
import tempfile
from collections import defaultdict
from pathlib import Path

SITE = Path(sysconfig.get_path("purelib"))
# The folder below `nvidia/` that the package of a library fills; all others are in the toolkit's.
FOLDERS = {"libcudnn": "cudnn", "libnccl": "nccl", "libcusparseLt": "cusparselt", "libnvshmem_host": "nvshmem"}
LIBRARY = re.compile(r"\(NEEDED\).*\[((?:libcu|libnccl|libnv)[^]]+)\]")
SYMBOL = re.compile(r" U ((?:__cuda|cu|nccl|nvrtc|nvshmem)[A-Za-z_]\w*)(?:@(\S+))?$", re.MULTILINE)


def output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


torch = [str(each) for each in sorted((SITE / "torch" / "lib").glob("lib*.so"))]
libraries = {name for each in torch for name in LIBRARY.findall(output("readelf", "-d", each))} - {"libcuda.so.1"}
# One set of functions for all: a reference asks its library for a version, and takes the name from any that has both.
versions = defaultdict(set)
for symbol, version in SYMBOL.findall(output("nm", "-D", *torch)):
    versions[version or "WITHOUT_VERSION"].add(symbol)
with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    names = sorted(set().union(*versions.values()))
    (folder / "answers.c").write_text("".join(f"long {each}(void) {{ return 1; }}\n" for each in names))
    (folder / "versions.map").write_text(
        "".join(f"{version} {{ global: {'; '.join(sorted(each))}; }};\n" for version, each in sorted(versions.items()))
    )
    output("cc", "-c", "-fPIC", "-w", str(folder / "answers.c"), "-o", str(folder / "answers.o"))
    for library in sorted(libraries):
        place = SITE / "nvidia" / FOLDERS.get(library.split(".")[0], "cu13") / "lib" / library
        if place.exists():
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        output("cc", "-shared", str(folder / "answers.o"), "-o", str(place), "-nostdlib", f"-Wl,-soname,{library}",
               f"-Wl,--version-script,{folder / 'versions.map'}")  # fmt: skip
