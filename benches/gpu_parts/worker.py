"""The process that measures: runs sections one after the other and tells of every row as soon as it is there.

What it tells are lines of JSON in a file: `{"machine": ...}` first, then `{"begin": section}`, a
`{"section": ..., "row": ..., "value": ...}` for each row and `{"end": section, ...}`. Whoever reads it loses nothing
but the row in hand when this process hangs or the device fails.
"""

from __future__ import annotations

import json
import platform
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

BUDGET = 440
"""Seconds of one part: its sections' limits stay below it."""
PARTS = {
    "correct": {
        "correct adamw": 110,
        "correct stochastic": 40,
        "correct optimizer": 40,
        "correct graph": 40,
        "correct sparsemax": 75,
        "correct cross-entropy": 20,
        "correct focus": 50,
        "correct offsets": 40,
    },
    "ours": {"adamw 1B": 110, "adamw 7B": 60, "focus": 60, "sparsemax": 70, "cross-entropy": 30, "adamw clip": 60},
    "rivals": {
        "adamw rivals 1B": 110,
        "adamw rivals 7B": 90,
        "focus rivals": 60,
        # They compile a step for each shape, a minute in all.
        "adamw slow rivals 1B": 150,
    },
    "sweeps": {"adamw sweep": 120, "focus sweep": 70},
}
"""Sections, and how many seconds each may take. The copy belongs to every part: all shares are of it."""
SECTIONS = {"copy": 20} | {name: limit for part in PARTS.values() for name, limit in part.items()}


def measures() -> dict[str, Callable[[Any], None]]:
    """The sections themselves."""
    from gpu_parts import adamw, correctness, focus, head
    from gpu_parts.measure import copy_bandwidth

    return {
        "copy": copy_bandwidth,
        "correct adamw": correctness.adamw,
        "correct stochastic": correctness.stochastic,
        "correct optimizer": correctness.optimizer,
        "correct graph": correctness.graph,
        "correct sparsemax": correctness.sparsemax_rows,
        "correct cross-entropy": head.correct,
        "correct focus": correctness.focus,
        "correct offsets": correctness.offsets,
        "adamw 1B": adamw.ours_small,
        "adamw 7B": adamw.ours_large,
        "adamw clip": adamw.clipping,
        "adamw rivals 1B": adamw.rivals_small,
        "adamw rivals 7B": adamw.rivals_large,
        "adamw slow rivals 1B": adamw.rivals_slow,
        "adamw sweep": adamw.sweep,
        "focus": focus.combine,
        "focus rivals": focus.rivals,
        "focus sweep": focus.sweep,
        "sparsemax": focus.sparsemax_rows,
        "cross-entropy": head.speed,
    }


def describe() -> dict[str, Any]:
    """Device, versions and date: what a figure is worth nothing without."""
    import torch
    import triton

    facts: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "device": platform.processor() or "cpu",
    }
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        facts |= {
            "device": properties.name,
            "memory_bytes": properties.total_memory,
            "multiprocessors": properties.multi_processor_count,
            "l2_bytes": properties.L2_cache_size,
            "cuda": torch.version.cuda,
        }
    return facts


def work(log: Path, names: Sequence[str], *, smoke: bool, deadline: float, copy: float | None) -> int:
    """Run the sections `names` until `deadline` on the monotonic clock, which all processes share; the exit code.

    `copy`: a bandwidth measured before, in bytes per second.

    An error of the device itself ends the process: it would be the answer to everything that comes after.
    """
    from gpu_parts.measure import Bench

    if smoke:
        from langadapt_kernels.backend import mend_interpreter

        mend_interpreter()
    with log.open("a", encoding="utf-8") as file:

        def tell(**line: Any) -> None:
            file.write(json.dumps(line) + "\n")
            file.flush()

        section = ""
        bench = Bench(
            smoke=smoke, deadline=deadline, tell=lambda label, row: tell(section=section, row=label, value=row)
        )
        bench.copy_bytes_per_second = copy
        tell(machine=describe())
        known = measures()
        for section in names:
            started, entry = time.monotonic(), {}
            tell(begin=section)
            if bench.remaining() <= 0:
                entry["skipped"] = "no time left in the budget"
            else:
                try:
                    known[section](bench)
                except Exception:
                    entry["error"] = traceback.format_exc(limit=8)
            seconds = round(time.monotonic() - started, 2)
            tell(end=section, seconds=seconds, **entry)
            bench.release()
    return 0
