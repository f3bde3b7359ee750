"""`langadapt doctor`: what this machine has, what will be used of it, and why not more."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from langadapt import _core
from langadapt.costs import devices
from langadapt.costs.devices import GIB
from langadapt.machine import thread_count, versions

HUB_SECONDS = 3.0
"""For which the hub is waited for."""
LITTLE_DISK = 20 * GIB
"""Free bytes below which a run of a model of a billion parameters would not end."""
LITTLE_MEMORY = 4 * GIB
EXTRAS = {
    "lm_eval": "suites of tasks (`pip install 'langadapt[evaluate]'`)",
    "datasets": "`hf:` streams of text (`pip install 'langadapt[datasets]'`)",
    "s3fs": "text in stores, `s3://` and `https://` (`pip install 'langadapt[remote]'`)",
    "liger_kernel": "`loss_chunk: liger` (`pip install 'langadapt[liger]'`)",
    "flash_attn": "`attention: flash`",
}
"""Optional packages, and what they bring."""

EMPTY = "99aa06d3014798d86001c324468d497f"
"""XXH3-128 of nothing."""

State = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    state: State
    """``problem``: nothing can be trained until that is mended."""
    text: str


def examine(folder: Path | None = None) -> list[Finding]:
    """Look at everything; ``folder``: where runs are to lie, by default the working directory."""
    return [*software(), *hardware(), *gpus(), *kernels(), disk(folder or Path.cwd()), hub(), *extras(), use()]


def usable(findings: list[Finding]) -> bool:
    """Whether langadapt works here."""
    return not any(finding.state == "problem" for finding in findings)


def software() -> Iterator[Finding]:
    """Versions, and whether the compiled core answers."""
    found = versions()
    yield Finding("versions", "ok", ", ".join(f"{name} {version}" for name, version in found.items()))
    works = _core.hash_bytes(b"") == EMPTY
    text = "corpus, tokenizers and vectors are compiled for this machine" if works else "gives no answer; install again"
    yield Finding("core", "ok" if works else "problem", text)


def hardware() -> Iterator[Finding]:
    """Cores and memory that this process may use."""
    cores, all_cores = thread_count(), os.cpu_count() or 1
    text = (
        f"{cores} cores" if cores == all_cores else f"{cores} of {all_cores} cores: the others are not for this process"
    )
    yield Finding("processor", "ok", text)
    total, limit = memory()
    limited = f", of which this process may use {limit / GIB:.1f}" if limit < total else ""
    state: State = "note" if limit < LITTLE_MEMORY else "ok"
    short = "; that is little for any model but tiny ones" if limit < LITTLE_MEMORY else ""
    yield Finding("memory", state, f"{total / GIB:.1f} GiB{limited}{short}")


def memory() -> tuple[int, int]:
    """Bytes of this machine, and of what a control group allows."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
    except (OSError, ValueError):
        return total, total
    return total, min(limit, total)


def gpus() -> Iterator[Finding]:
    """What the driver has, what torch sees of it, and whether its speed is known."""
    import torch

    names, driver = devices.gpu_names(), driver_version()
    if not names:
        yield Finding("gpu", "note", "the driver's tool (nvidia-smi) finds none: small models train on the CPU")
        return
    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    yield Finding("gpu", "ok", f"{len(names)} x {names[0]}, driver {driver}")
    if not seen:
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "a build for CPUs alone"
        why = f"torch {torch.__version__} is {built}; install one that fits the driver"
        yield Finding("torch and gpu", "problem", f"torch sees no GPU: {why}")
        return
    for number in range(seen):
        free, total = torch.cuda.mem_get_info(number)
        major, minor = torch.cuda.get_device_capability(number)
        busy = "; something else takes the rest" if free < 0.9 * total else ""
        known = devices.named(torch.cuda.get_device_name(number))
        plan = f"planned as {known.name}" if known else "not in the table: plans need `budget.gpus`"
        text = f"sm_{major}{minor}, {free / GIB:.1f} of {total / GIB:.1f} GiB free{busy}; {plan}"
        yield Finding(f"gpu {number}", "ok" if known and not busy else "note", text)
        if major < 8:
            yield Finding(f"gpu {number} bf16", "note", "no bf16 tensor cores: training will be slow, or use fp32")


def driver_version() -> str:
    """Of the first GPU."""
    try:
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.splitlines()[0].strip() if done.stdout.strip() else "unknown"


def kernels() -> Iterator[Finding]:
    """Triton, and the kernels for attention that this machine can be offered."""
    import torch

    from langadapt.training.attention import varlen
    from langadapt_kernels.backend import has_triton

    gpu = torch.cuda.is_available()
    if not gpu:
        why = (
            "installed, but there is no GPU for it" if has_triton() else "not installed; without a GPU nothing needs it"
        )
        yield Finding("triton", "ok", f"{why}: kernels take their CPU paths")
        yield Finding("attention", "ok", "document by document on the CPU, else torch's SDPA with a mask")
        return
    if has_triton():
        yield Finding("triton", "ok", "installed: fused optimizer, FOCUS and loss run on the GPU")
    else:
        yield Finding("triton", "note", "not installed (`pip install triton`): the optimizer takes several passes")
    varlen.find()
    names = {varlen.FLASH3: "FlashAttention 3", varlen.FLASH2: "FlashAttention 2", varlen.TORCH: "torch's varlen"}
    here = [names[name] for name in varlen.candidates(torch.device("cuda"))]
    tried = ", ".join([*here, "FlexAttention", "SDPA"])
    yield Finding(
        "attention", "ok" if here else "note", f"`auto` times these and takes the fastest that is right: {tried}"
    )


def disk(folder: Path) -> Finding:
    """Room where runs are to lie."""
    there = next(place for place in (folder, *folder.resolve().parents) if place.is_dir())
    free = shutil.disk_usage(there).free
    little = free < LITTLE_DISK
    advice = "; a 7 B model wants about 100 GiB, `langadapt plan` says how much yours takes" if little else ""
    return Finding("disk", "note" if little else "ok", f"{free / GIB:,.1f} GiB free at {there.resolve()}{advice}")


def hub() -> Finding:
    """Whether models can be fetched, asked once and not waited for."""
    import huggingface_hub.constants as constants

    cache, address = Path(constants.HF_HUB_CACHE), constants.ENDPOINT
    here = f"{len(list(cache.glob('models--*')))} models in its cache, {cache}"
    if constants.HF_HUB_OFFLINE:
        return Finding("hub", "note", f"HF_HUB_OFFLINE is set, nothing is fetched: give folders; {here}")
    try:
        request = urllib.request.Request(address, method="HEAD")
        with urllib.request.urlopen(request, timeout=HUB_SECONDS):
            pass
    except urllib.error.HTTPError:
        pass  # It answers.
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return Finding("hub", "note", f"{address} does not answer ({reason}): give folders instead of names; {here}")
    return Finding("hub", "ok", f"{address} answers; {here}")


def extras() -> Iterator[Finding]:
    """Optional packages."""
    there = [name for name in EXTRAS if importlib.util.find_spec(name) is not None]
    absent = [f"{name}: {what}" for name, what in EXTRAS.items() if name not in there]
    yield Finding(
        "extras", "ok", f"installed: {', '.join(there) or 'none'}; not installed: {'; '.join(absent) or 'none'}"
    )


def use() -> Finding:
    """What training will take, and why not more."""
    import torch

    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        if count == 1:
            return Finding("use", "ok", "training, evaluation and FOCUS run on the GPU, in pure bf16")
        command = f"torchrun --nproc-per-node {count} -m langadapt train RECIPE"
        return Finding(
            "use", "ok", f"one GPU by `langadapt adapt`; all {count} by `{command}`, then `langadapt adapt RECIPE`"
        )
    threads = torch.get_num_threads()
    by = f"{threads} threads" if threads > 1 else "one thread"
    return Finding("use", "ok", f"everything runs on the CPU, by {by}: for models of some million parameters")
