"""What terabytes and many GPUs cost, from measured rates, and a simulation of the same with things going wrong.

    python benches/scale.py                      # the table of docs/scale.md
    python benches/scale.py --terabytes 1 --workers 8 --loss 0.01

The closed form divides work by rates. The simulation runs shards on workers one by one: nodes die at random moments and
take the shards with them that they are at, some workers are slow, the merge waits for the last. Rates are measured on
one core by `benches/shards.py`; see there. Disk and network are what is assumed, and said so.
"""

from __future__ import annotations

import argparse
import heapq
import math
import random
from dataclasses import dataclass, replace

from tables import markdown


@dataclass(frozen=True)
class Work:
    """A job and the machines for it. Rates are of one core, in MB of text per second."""

    terabytes: float = 10.0
    """Text, UTF-8."""
    workers: int = 64
    """Nodes at work."""
    cores: int = 32
    """Of each."""
    map_rate: float = 0.0
    """Of the step."""
    start_seconds: float = 5.0
    """To start Python, read a tokenizer and write a manifest, for each shard."""
    shards: int = 4096
    merge_rate: float = 500.0
    """MB of the result per second that one node copies: that of its disk or network, assumed."""
    merge_share: float = 0.0
    """Bytes that the merge writes, by byte of text."""
    settle_rate: float = math.inf
    """MB of text per second that a merge decides on and compresses once more, on one core."""
    loss: float = 0.0
    """Chance that a node dies, per hour of its work."""
    slow_share: float = 0.0
    """Share of nodes that are slow."""
    slowness: float = 3.0
    """How many times as long they take."""

    @property
    def shard_seconds(self) -> float:
        """Of one shard on one healthy node."""
        return self.start_seconds + self.terabytes * 1e6 / self.shards / (self.map_rate * self.cores)

    @property
    def merge_seconds(self) -> float:
        """On one node."""
        return self.terabytes * 1e6 * max(self.merge_share / self.merge_rate, 1 / self.settle_rate)


def closed_form(work: Work) -> float:
    """Seconds with nothing going wrong: full rounds of shards, then the merge."""
    return math.ceil(work.shards / work.workers) * work.shard_seconds + work.merge_seconds


def simulate(work: Work, seed: int) -> tuple[float, int]:
    """Seconds until the merge is done, and how many shards had to be begun again.

    A dead node is back after a minute; its shard waits with the others.
    """
    draw = random.Random(seed)
    slow = [draw.random() < work.slow_share for _ in range(work.workers)]
    free = [(0.0, node) for node in range(work.workers)]
    heapq.heapify(free)
    waiting, again, last = work.shards, 0, 0.0
    while waiting:
        now, node = heapq.heappop(free)
        takes = work.shard_seconds * (work.slowness if slow[node] else 1.0)
        dies = draw.expovariate(work.loss / 3600) if work.loss else math.inf
        if dies < takes:
            again += 1
            heapq.heappush(free, (now + dies + 60.0, node))
            continue
        waiting -= 1
        last = max(last, now + takes)
        heapq.heappush(free, (now + takes, node))
    return last + work.merge_seconds, again


STEPS = {
    # As `benches/shards.py` found on 105 MB of text; 189 is what its eight shards took longer than the plain command.
    "corpus, nothing deduplicated": {"map_rate": 115.2, "merge_share": 0.34},
    "corpus, near duplicates": {"map_rate": 18.8, "merge_share": 0.34, "settle_rate": 189.0},
    "word counts": {"map_rate": 108.2},
    "token store, in its parts": {"map_rate": 144.7},
}
"""Measured fields by step."""
CASES = {
    "nothing goes wrong": {},
    "a node dies every 10 h of its work": {"loss": 0.1},
    "one node in 20 three times as slow": {"slow_share": 0.05},
}
"""What goes wrong, by name."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("terabytes", "loss", "slow-share"):
        parser.add_argument(f"--{name}", type=float, default=getattr(Work, name.replace("-", "_")))
    for name in ("workers", "cores", "shards"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Work, name))
    given = vars(parser.parse_args())
    rows = []
    for step, measured in STEPS.items():
        work = replace(Work(**given), **measured)
        for case, wrong in CASES.items():
            seconds, again = zip(*(simulate(replace(work, **wrong), seed) for seed in range(20)), strict=True)
            mean = sum(seconds) / len(seconds)
            cells = [step, case, f"{closed_form(work) / 3600:.2f}", f"{mean / 3600:.2f}", f"{max(seconds) / 3600:.2f}"]
            rows.append([*cells, f"{sum(again) / len(again):.1f}"])
    heads = ["step", "case", "hours, closed form", "simulated", "worst of 20", "shards begun again"]
    print(markdown(heads, rows, words=(0, 1)))


if __name__ == "__main__":
    main()
