"""One process or many: what `torchrun` started, and how the model is spread over it (FSDP2)."""

from __future__ import annotations

import contextlib
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh

from langadapt.errors import ConfigError, LangadaptError
from langadapt.machine import choose_device
from langadapt.training.adapter_settings import check_alone
from langadapt.training.model import blocks, fp32_modules, norms
from langadapt.training.settings import TrainSettings

PATIENCE = timedelta(days=30)
"""For which processes wait for the first one to prepare everything; if it ends, so do they, at once."""
NETWORK_DISK = 20.0
"""Seconds in which a file is seen on another machine that shares the disk, at the latest."""
GLOO_REST = 0.2
"""Seconds in which gloo's threads come to rest before a process exits."""


@dataclass(frozen=True)
class ProcessGroup:
    """The processes of this run."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    patient: Any = field(default=None, compare=False)
    """A gloo group that waits for `PATIENCE`: NCCL's watchdog ends runs whose main process writes for ten minutes."""

    @property
    def is_main(self) -> bool:
        """Whether this process writes logs and drives the display."""
        return self.rank == 0

    @property
    def is_distributed(self) -> bool:
        """Whether there are others."""
        return self.size > 1

    def barrier(self) -> None:
        """Wait until all processes are here, for hours where it takes them."""
        if self.is_distributed:
            dist.barrier(group=self.patient)

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Sum over processes, in place."""
        if self.is_distributed:
            dist.all_reduce(tensor)
        return tensor

    def broadcast(self, value: Any) -> Any:
        """The main process' value, on all."""
        if not self.is_distributed:
            return value
        box = [value]
        dist.broadcast_object_list(box, device=self.device)
        return box[0]

    def all_gather(self, value: Any) -> list[Any]:
        """All processes' values."""
        if not self.is_distributed:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found


def join(settings: TrainSettings) -> ProcessGroup:
    """The processes that `torchrun` describes in the environment, or this one alone.

    Raises:
        ConfigError: a device that is not there, or a batch that does not divide among the processes.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    wanted = choose_device(settings.device)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    if size == 1:
        device = torch.device(wanted)
        if device.type == "cuda" and device.index is not None:
            # Events and pinned memory belong to the present device.
            torch.cuda.set_device(device)
        return ProcessGroup(device=device)
    if settings.optimizer != "adamw":
        raise ConfigError(f"optimizer: {settings.optimizer} works in one process, but there are {size}; use adamw")
    check_alone(settings.adapter, size)
    if settings.has_batch and settings.sequences_per_step % size:
        raise ConfigError(
            f"{settings.sequences_per_step} windows per step (batch_tokens / sequence_length) do not divide among "
            f"{size} processes"
        )
    device = torch.device(wanted)
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        gpu = device.type == "cuda"
        # With its device NCCL connects at once: a GPU that cannot be reached shows here, not in the first step.
        dist.init_process_group("nccl" if gpu else "gloo", device_id=device if gpu else None)
    patient = dist.new_group(backend="gloo", timeout=PATIENCE)
    return ProcessGroup(dist.get_rank(), dist.get_world_size(), device, patient)


def under_torchrun() -> bool:
    """Whether `torchrun` has started other processes beside this one."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def main_process_first(processes: ProcessGroup, folder: Path, prepare: Callable[[], Any]) -> Any:
    """What ``prepare`` gives in the first process, for all; the others wait, for hours where it takes them.

    Raises:
        LangadaptError: the first process has ended, or ``folder`` is not one and the same for all.
    """
    if not processes.is_distributed:
        return prepare()
    box: list[Any] = [None]
    if processes.is_main:
        made = prepare()
        mark = folder / f".shared-{uuid.uuid4().hex}"
        mark.touch()
        box = [(made, mark.name)]
    with explain_lost_process(processes, folder):
        dist.broadcast_object_list(box, group=processes.patient)
        made, name = box[0]
        seen: list[Any] = [None] * processes.size
        dist.all_gather_object(seen, (is_seen(folder / name), socket.gethostname()), group=processes.patient)
    if processes.is_main:
        (folder / name).unlink()
    blind = sorted({host for sees, host in seen if not sees})
    if blind:
        raise LangadaptError(
            f"{folder}: what the first process, on {seen[0][1]}, writes there is not seen on {', '.join(blind)}; "
            "set `out` to a folder that all machines share (such as NFS or Lustre)"
        )
    return made


def is_seen(file: Path) -> bool:
    """Whether a file that another machine has written is there, after a while at the latest."""
    end = time.monotonic() + NETWORK_DISK
    while not file.exists():
        if time.monotonic() > end:
            return False
        # Asking for the folder makes NFS look again.
        with contextlib.suppress(OSError):
            list(file.parent.iterdir())
        time.sleep(0.2)
    return True


@contextlib.contextmanager
def explain_lost_process(processes: ProcessGroup, out: Path) -> Iterator[None]:
    """Say in one line that another process has gone, which torch tells in the terms of its transport.

    Raises:
        LangadaptError: in place of torch's error.
    """
    try:
        yield
    except RuntimeError as error:
        kind, text = type(error).__name__, str(error)
        if not processes.is_distributed or not (
            kind.startswith("Dist") or "gloo" in text or "NCCL" in text or "by peer" in text
        ):
            raise
        raise LangadaptError(
            f"process {processes.rank} of {processes.size}: another process has ended or cannot be reached; "
            f"its own output says why. Whole checkpoints below {out} are kept: start the same command on all machines "
            "again"
        ) from error


def leave() -> None:
    """Part with the other processes, all at the same moment: who exits while others still talk may take them down."""
    if dist.is_available() and dist.is_initialized():
        dist.barrier()
        gloo = dist.get_backend() == "gloo"
        dist.destroy_process_group()
        if gloo:
            # DTensor's caches keep the group's threads alive. One that has yet to let go of the last collective's
            # tensors needs the interpreter for it, and aborts the process (torch 2.11) where that is gone already.
            time.sleep(GLOO_REST)


def shard_model(model: nn.Module, settings: TrainSettings, processes: ProcessGroup) -> bool:
    """Shard the model over all processes with FSDP2, block by block; whether it was."""
    if not processes.is_distributed:
        return False
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    kind = processes.device.type
    local = int(os.environ.get("LOCAL_WORLD_SIZE", str(processes.size)))
    if settings.sharding == "none":
        mesh = init_device_mesh(kind, (processes.size, 1), mesh_dim_names=("replicate", "shard"))
    elif settings.sharding == "hybrid" and processes.size > local:
        mesh = init_device_mesh(kind, (processes.size // local, local), mesh_dim_names=("replicate", "shard"))
    else:
        mesh = init_device_mesh(kind, (processes.size,))
    # Gradients are summed over processes in fp32; under pure bf16 they are then stored in bf16 like everything else.
    compute = None if settings.precision == "fp32" else torch.bfloat16
    policy = MixedPrecisionPolicy(param_dtype=compute, reduce_dtype=torch.float32)
    reshard = settings.sharding not in {"grad-op", "none"}
    # One dtype per group of parameters, and compute in it: what is in fp32 travels by itself.
    whole = MixedPrecisionPolicy(reduce_dtype=torch.float32)
    alone = [*(norms(model) if settings.norms_in_fp32 else ()), *fp32_modules(model).values()]
    # What lies inside of another comes first.
    for module in reversed(dict.fromkeys(alone)):
        fully_shard(module, mesh=mesh, mp_policy=whole, reshard_after_forward=False)
    for block in blocks(model):
        fully_shard(block, mesh=mesh, mp_policy=policy, reshard_after_forward=reshard)
    fully_shard(model, mesh=mesh, mp_policy=policy, reshard_after_forward=False)
    return True


def shard_group(model: nn.Module) -> Any:
    """The processes that hold the shards of a parameter; none for a model that is not sharded."""
    mesh = getattr(next(model.parameters()), "device_mesh", None)
    return None if mesh is None else mesh.get_group(mesh.ndim - 1)
