"""Time, bandwidth and the budget of a run."""

from __future__ import annotations

import gc
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


class Bench:
    """What every section shares: the device, the sizes' scale, the clock, and where its rows go."""

    def __init__(self, *, smoke: bool, deadline: float, tell: Callable[[str, Any], None]) -> None:
        """``deadline``: the end of everything on the monotonic clock. ``tell`` is handed each row as it comes."""
        self.smoke = smoke
        self.device = torch.device("cpu" if smoke else "cuda")
        self.copy_bytes_per_second: float | None = None
        self.tell = tell
        self._deadline = deadline

    def remaining(self) -> float:
        """Seconds left in the budget."""
        return self._deadline - time.monotonic()

    def release(self) -> None:
        """Give memory back, so that a section meets the same device as the one before it."""
        gc.collect()
        if not self.smoke:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    @contextmanager
    def poisoned(self) -> Iterator[None]:
        """Memory that is allocated here without values holds NaN or huge numbers: an element never written shows."""
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(False)

    def time(
        self,
        call: Callable[[], Any],
        *,
        moved: float | None = None,
        seconds: float = 3.0,
        warmup: int = 3,
        repeats: int = 30,
    ) -> dict[str, Any]:
        """Median, percentiles and count of the times of `call` in ms; with `moved` bytes, bandwidth beside a copy's."""
        if self.smoke:
            warmup, repeats = 0, 1
        for _ in range(warmup):
            call()
        times: list[float] = []
        deadline = time.monotonic() + seconds
        while len(times) < repeats and (len(times) < 3 or time.monotonic() < deadline):
            # A few calls are enqueued before the clock is read, so that the host's time hides behind the device's.
            times += self._batch(call, 1 if self.smoke else 5)
        times.sort()

        def percentile(share: float) -> float:
            return times[min(len(times) - 1, int(share * len(times)))]

        row: dict[str, Any] = {
            "median_ms": percentile(0.5),
            "p10_ms": percentile(0.1),
            "p90_ms": percentile(0.9),
            "repeats": len(times),
        }
        if moved is not None:
            row["bytes"] = moved
            row["bytes_per_second"] = moved / (row["median_ms"] / 1e3)
            if self.copy_bytes_per_second:
                row["share_of_copy"] = row["bytes_per_second"] / self.copy_bytes_per_second
        return row

    def _batch(self, call: Callable[[], Any], count: int) -> list[float]:
        if self.smoke:
            started = time.perf_counter()
            call()
            return [(time.perf_counter() - started) * 1e3]
        marks = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(count)]
        for start, end in marks:
            start.record()
            call()
            end.record()
        torch.cuda.synchronize()
        return [start.elapsed_time(end) for start, end in marks]

    def replayed(self, call: Callable[[], Any]) -> Callable[[], Any]:
        """What `call` launches, as one launch of a CUDA graph; `call` itself without a GPU."""
        call()
        if self.smoke:
            return call
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            call()
        return graph.replay

    def rival(self, label: str, needed: float, case: Callable[[], Any]) -> Any:
        """As `row`, of a library that need not be there."""

        def where_installed() -> Any:
            try:
                return case()
            except ModuleNotFoundError as missing:
                return {"skipped": f"not installed: {missing.name}"}

        return self.row(label, needed, where_installed)

    def row(self, label: str, needed: float, case: Callable[[], Any]) -> Any:
        """Tell of the row of `case`, or why there is none: not enough time (`needed` seconds), or its error.

        An error of the device itself, after which nothing can be measured in this process, is raised once it is told.
        """
        if self.remaining() < needed:
            found: Any = {"skipped": f"needs about {needed:.0f} s, {max(self.remaining(), 0):.0f} s left"}
        else:
            try:
                found = case()
            except Exception:
                found = {"error": traceback.format_exc(limit=6)}
        self.tell(label, found)
        self.release()
        return found


def copy_bandwidth(bench: Bench) -> None:
    """Bytes read plus written per second of a device-to-device copy of 1 GiB, over four rotating pairs."""
    size = 1 << (12 if bench.smoke else 29)
    # Random bits: zeros take less power, and may be copied faster than anything that is of interest.
    pairs = [
        tuple(torch.randint(-(2**15), 2**15, (size,), dtype=torch.int16, device=bench.device) for _ in range(2))
        for _ in range(4)
    ]
    turn = 0

    def copy() -> None:
        nonlocal turn
        source, target = pairs[turn % len(pairs)]
        target.copy_(source)
        turn += 1

    def case() -> dict[str, Any]:
        row = bench.time(copy, moved=2.0 * 2 * size, repeats=60)
        bench.copy_bytes_per_second = row["bytes_per_second"]
        return row

    bench.row("copy of 1 GiB", 2, case)
