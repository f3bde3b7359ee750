"""Everything about the kernels that needs a GPU, in one run: correctness first, then timings beside the rivals.

    python benches/gpu.py [--out FILE.json] [--budget SECONDS] [--wheels FOLDER] [--only adamw,focus] [--smoke]

One call takes less than eight minutes on an H100 or H200 and needs torch and triton alone. Rivals are measured where
they can be imported; `--wheels` names a folder of wheels (torch-optimi, flashoptim, torchao, liger-kernel, entmax) to
unpack and import from. `--smoke` runs every section on a CPU through Triton's interpreter, at sizes that say nothing
about speed, so that this script itself can be tested.

Timings are of CUDA events around each call, after warm-up, on working sets larger than the L2 cache: medians and the
10th and 90th percentile. "% of copy" is the bytes that the operation must move, over the time, against the bandwidth of
a device-to-device copy (bytes read plus written) measured in the same run. A section that fails records its error
and the others go on. Asymmetries: rivals keep their own defaults for block sizes; the loop of deepfocus is
extrapolated from a sample.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "kernels" / "src")]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="where the JSON goes")
    parser.add_argument("--budget", type=float, default=440.0, help="seconds; sections that no longer fit are skipped")
    parser.add_argument("--wheels", type=Path, help="folder of wheels of rivals")
    parser.add_argument("--only", default="", help="comma-separated sections to run; all by default")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes on a CPU, through the interpreter")
    return parser.parse_args()


def unpack_wheels(folder: Path) -> list[str]:
    """Make the wheels importable; a wheel that does not fit this machine fails when it is imported."""
    target = tempfile.mkdtemp(prefix="rivals-")
    names = []
    for wheel in sorted(folder.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(target)
        names.append(wheel.name)
    sys.path.append(target)
    return names


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


def run_section(name: str, section: Callable[[Any], Any], bench: Any, report: dict[str, Any]) -> None:
    """Run one section; its error is a result like any other."""
    started = time.monotonic()
    entry: dict[str, Any] = {}
    if bench.remaining() <= 0:
        entry["skipped"] = "no time left in the budget"
    else:
        try:
            entry["results"] = section(bench)
        except Exception:
            entry["error"] = traceback.format_exc(limit=8)
        bench.release()
    entry["seconds"] = round(time.monotonic() - started, 2)
    report["sections"][name] = entry
    print(
        f"[{entry['seconds']:6.1f} s] {name}: {'failed' if 'error' in entry else 'done'}", file=sys.stderr, flush=True
    )


def print_table(report: dict[str, Any]) -> None:
    copy = report["sections"].get("copy", {}).get("results", {})
    print(f"{report['machine']['device']}, torch {report['machine']['torch']}, triton {report['machine']['triton']}")
    if copy:
        print(f"copy bandwidth, read plus written: {copy['bytes_per_second'] / 1e12:.3f} TB/s\n")
    print(f"{'':58} {'median':>10} {'p10':>10} {'p90':>10} {'% of copy':>9}")
    for name, section in report["sections"].items():
        for label, row in (section.get("results") or {}).items():
            if not isinstance(row, dict):
                continue
            label = f"{name}: {label}"
            if "median_ms" in row:
                share = f"{100 * row['share_of_copy']:8.1f}%" if "share_of_copy" in row else ""
                times = " ".join(f"{row[key]:10.3f}" for key in ("median_ms", "p10_ms", "p90_ms"))
                print(f"{label:58} {times} {share:>9}")
            elif "ok" in row:
                print(f"{label:58} {'ok' if row['ok'] else 'WRONG':>10}  {row.get('note', '')}")
            elif "error" in row or "skipped" in row:
                print(f"{label:58} {(row.get('error') or row.get('skipped')).strip().splitlines()[-1]}")
        if "error" in section or "skipped" in section:
            print(f"{name:58} {(section.get('error') or section['skipped']).strip().splitlines()[-1]}")


def main() -> int:
    arguments = parse()
    if arguments.smoke:
        # Before Triton is imported, and without a GPU even where there is one.
        os.environ["TRITON_INTERPRET"] = "1"
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    wheels = unpack_wheels(arguments.wheels) if arguments.wheels else []
    import torch
    from gpu_parts import adamw, correctness, focus
    from gpu_parts.measure import Bench, copy_bandwidth

    if not arguments.smoke and not torch.cuda.is_available():
        print("no CUDA device; `--smoke` runs on a CPU", file=sys.stderr)
        return 1
    bench = Bench(smoke=arguments.smoke, budget=arguments.budget)
    report: dict[str, Any] = {"machine": describe(), "wheels": wheels, "smoke": arguments.smoke, "sections": {}}
    sections: dict[str, Callable[[Any], Any]] = {
        "copy": copy_bandwidth,
        "correct adamw": correctness.adamw,
        "correct stochastic": correctness.stochastic,
        "correct optimizer": correctness.optimizer,
        "correct graph": correctness.graph,
        "correct sparsemax": correctness.sparsemax_rows,
        "correct focus": correctness.focus,
        "correct offsets": correctness.offsets,
        "adamw 1B": adamw.ours_small,
        "adamw 7B": adamw.ours_large,
        "adamw clip": adamw.clipping,
        "focus": focus.combine,
        "sparsemax": focus.sparsemax_rows,
        "adamw rivals 1B": adamw.rivals_small,
        "adamw rivals 7B": adamw.rivals_large,
        "focus rivals": focus.rivals,
        "adamw sweep": adamw.sweep,
        "focus sweep": focus.sweep,
    }
    chosen = [part.strip() for part in arguments.only.split(",") if part.strip()]
    for name, section in sections.items():
        if not chosen or name == "copy" or any(part in name for part in chosen):
            run_section(name, section, bench, report)
            # After every section: what was measured survives a crash of the next.
            arguments.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print_table(report)
    return int(any("error" in section for section in report["sections"].values()) or not report_is_right(report))


def report_is_right(report: dict[str, Any]) -> bool:
    results = [section.get("results") or {} for name, section in report["sections"].items() if "correct" in name]
    return all(row.get("ok", True) for rows in results for row in rows.values() if isinstance(row, dict))


if __name__ == "__main__":
    raise SystemExit(main())
