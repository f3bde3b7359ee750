"""Shards on a cluster: each is a task of Ray, which places, retries and limits them; nothing here schedules.

A task makes one part, whole or not at all. When a worker or a node dies, Ray runs its shard again elsewhere and all
other parts stay; whoever starts the same command anew finds them made. All machines need the same packages and see the
same files.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langadapt.artefacts.shards import Shard, find_parts
from langadapt.errors import ConfigError, LangadaptError
from langadapt.progress import Progress

PATIENCE = 5.0
"""Seconds that an address has to answer in."""
RETRIES = 10
"""Times that a shard is begun again after its worker or node died; errors of the work itself are raised at once."""


@dataclass(frozen=True)
class Engine:
    """A Ray cluster, and into how many shards work is cut."""

    shards: int
    """Parts of each step. Their number changes no byte of the result."""
    address: str | None = None
    """``HOST:PORT``, ``auto``, or none for this machine alone."""
    threads: int = 1
    """Cores that a task takes."""

    def run(
        self,
        work: Callable[..., Any],
        out: Path,
        arguments: Mapping[str, Any],
        *,
        title: str,
        progress: Progress | None = None,
    ) -> list[Path]:
        """``work(shard=..., out=..., threads=..., **arguments)`` for all shards; returns their parts, in order.

        Raises:
            ConfigError: Ray is not installed, or nobody answers at its address.
            LangadaptError: a shard died more often than :data:`RETRIES`; what ``work`` raises itself.
        """
        ray = connect(self.address)
        task = ray.remote(num_cpus=self.threads, max_retries=RETRIES)(call)
        arguments = {**arguments, "out": str(Path(out).resolve()), "threads": self.threads}
        waiting = [
            task.remote(work, Shard(number, self.shards), str(Path.cwd()), arguments) for number in range(self.shards)
        ]
        done = 0
        while waiting:
            ready, waiting = ray.wait(waiting, timeout=1.0)
            for one in ready:
                try:
                    ray.get(one)
                except ray.exceptions.RayTaskError as error:
                    raise error.cause if isinstance(error.cause, Exception) else error from None
                except ray.exceptions.RayError as error:
                    text = str(error).strip().splitlines()[0]
                    raise LangadaptError(
                        f"{title}: a shard was lost {RETRIES} times ({text}); start it again"
                    ) from None
            done += len(ready)
            if progress is not None:
                progress(title, done, self.shards, "shards")
        return find_parts([out])


def call(work: Callable[..., Any], shard: Shard, folder: str, arguments: Mapping[str, Any]) -> None:
    """What a worker does; paths are those of whoever asked."""
    os.chdir(folder)
    work(shard=shard, **arguments)


def check(address: str | None) -> None:
    """Look whether a cluster can be reached, without starting one.

    Raises:
        ConfigError: `ray` is not installed, or nobody answers at ``address`` within :data:`PATIENCE`.
    """
    if importlib.util.find_spec("ray") is None:
        raise ConfigError("--engine ray: needs the package `ray`; install `langadapt[ray]`")
    if address is not None and address != "auto":
        host, _, port = address.removeprefix("ray://").rpartition(":")
        try:
            socket.create_connection((host, int(port)), PATIENCE).close()
        except (OSError, ValueError) as error:
            raise ConfigError(f"--address {address}: no Ray answers there ({error}); is its head node up?") from None


def connect(address: str | None) -> Any:
    """The package `ray`, connected.

    Raises:
        ConfigError: as :func:`check`, or no Ray answers at ``address``.
    """
    check(address)
    import ray

    if ray.is_initialized():
        return ray
    try:
        ray.init(address=address, log_to_driver=False, include_dashboard=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        text = str(error).strip().splitlines()[0]
        raise ConfigError(f"--address {address or 'none'}: no Ray answers there ({text})") from None
    return ray
