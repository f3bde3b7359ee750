"""Time, bandwidth and the budget of a run."""

from __future__ import annotations

import gc
import time
import traceback
from collections.abc import Callable
from typing import Any

import torch


class Bench:
    """What every section shares: the device, the sizes' scale, the clock."""

    def __init__(self, *, smoke: bool, budget: float) -> None:
        self.smoke = smoke
        self.device = torch.device("cpu" if smoke else "cuda")
        self.copy_bytes_per_second: float | None = None
        self._deadline = time.monotonic() + budget

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

    def poison(self, megabytes: int = 256) -> None:
        """Leave NaN where the next outputs will be allocated, so that an element never written shows."""
        count = 0 if self.smoke else 4
        blocks = [torch.full((megabytes << 18,), float("nan"), device=self.device) for _ in range(count)]
        del blocks

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

    def attempt(self, needed: float, case: Callable[[], Any]) -> dict[str, Any]:
        """The row of `case`, or why there is none: not enough time (`needed` seconds), or its error."""
        if self.remaining() < needed:
            return {"skipped": f"needs about {needed:.0f} s, {max(self.remaining(), 0):.0f} s left"}
        try:
            row = case()
            return row if isinstance(row, dict) else {"value": row}
        except Exception:
            return {"error": traceback.format_exc(limit=6)}
        finally:
            self.release()


def copy_bandwidth(bench: Bench) -> dict[str, Any]:
    """Bytes read plus written per second of a device-to-device copy of 1 GiB, over four rotating pairs."""
    size = 1 << (12 if bench.smoke else 29)
    pairs = [tuple(torch.zeros(size, dtype=torch.bfloat16, device=bench.device) for _ in range(2)) for _ in range(4)]
    turn = 0

    def copy() -> None:
        nonlocal turn
        source, target = pairs[turn % len(pairs)]
        target.copy_(source)
        turn += 1

    row = bench.time(copy, moved=2.0 * 2 * size, repeats=60)
    bench.copy_bytes_per_second = row["bytes_per_second"]
    return {"bytes_per_second": row["bytes_per_second"], "copy of 1 GiB": row}
