"""Shards as tasks of `datatrove`, whose executors run them on one machine, under Slurm or elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from datatrove.pipeline.base import PipelineStep

from langadapt.artefacts.shards import Shard


class ShardStep(PipelineStep):
    """Makes one part: task r of n that of shard r of n; ``langadapt merge`` puts them together.

    Args:
        work: :func:`langadapt.corpus.parts.make_corpus_part`, :func:`langadapt.tokenizer.counting.make_counts` or
            :func:`langadapt.store.make_store`; a part that is there and whole is not made again.
        out: folder of all parts.
        threads: cores of a task.
        arguments: of ``work``, such as ``inputs``, the same for all tasks.
    """

    type, name = "langadapt", "shard"

    def __init__(self, work: Callable[..., Any], out: str | Path, *, threads: int = 1, **arguments: Any) -> None:
        super().__init__()
        self.work, self.arguments = work, {**arguments, "out": str(out), "threads": threads}

    def run(self, data: Iterable[Any] | None = None, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        """What datatrove calls; documents of steps before go on as they are."""
        yield from data or ()
        self.work(shard=Shard(rank, world_size), **self.arguments)
