"""Everything about the kernels that needs a GPU, in one run: correctness first, then timings beside the rivals.

    python benches/gpu.py [--out FILE.json] [--budget SECONDS] [--wheels FOLDER] [--only adamw,focus] [--smoke]

One call takes less than eight minutes on an H100 or H200 and needs torch and triton alone. Rivals are measured where
they can be imported; `--wheels` names a folder of wheels (torch-optimi, flashoptim, torchao, liger-kernel, entmax) to
unpack and import from. `--smoke` runs every section on a CPU through Triton's interpreter, at sizes that say nothing
about speed, so that this script itself can be tested.

Timings are of CUDA events around each call, after warm-up, on working sets larger than the L2 cache: medians and the
10th and 90th percentile. "% of copy" is the bytes that the operation must move, over the time, against the bandwidth of
a device-to-device copy (bytes read plus written) measured in the same run. Asymmetries: rivals keep their own defaults
for block sizes; the loop of deepfocus is extrapolated from a sample.

Sections run in a process of their own, which tells of each row as it comes, and FILE.json is written again each time. A
section that fails records its error; one that hangs is ended at its limit, and where the device itself fails, the
sections that are left go on in a new process. The table is printed whatever happens.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
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
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)  # measure in this process, and tell this file
    parser.add_argument("--deadline", type=float, help=argparse.SUPPRESS)  # of the worker, on the monotonic clock
    parser.add_argument("--copy", type=float, help=argparse.SUPPRESS)  # bandwidth measured by a worker before
    return parser.parse_args()


def unpack_wheels(folder: Path, target: str) -> list[str]:
    """Make the wheels importable from `target`; a wheel that does not fit this machine fails when it is imported."""
    names = []
    for wheel in sorted(folder.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(target)
        names.append(wheel.name)
    return names


class Run:
    """What is known so far, and the process that finds out more."""

    def __init__(self, arguments: argparse.Namespace, folder: str) -> None:
        """`folder`: for the worker's files and the rivals."""
        from gpu_parts.worker import SECTIONS

        chosen = [part.strip() for part in arguments.only.split(",") if part.strip()]
        self.arguments, self.folder = arguments, folder
        self.left = [name for name in SECTIONS if not chosen or name == "copy" or any(part in name for part in chosen)]
        self.deadline = time.monotonic() + arguments.budget
        wheels = unpack_wheels(arguments.wheels, f"{folder}/rivals") if arguments.wheels else []
        self.report: dict[str, Any] = {"machine": {}, "wheels": wheels, "smoke": arguments.smoke, "sections": {}}
        self.running, self.since = "", time.monotonic()

    def go(self) -> None:
        """Start workers until all sections are done, or time is up."""
        number = 0
        while self.left and time.monotonic() < self.deadline:
            number += 1
            before = len(self.left)
            self.work(Path(self.folder) / f"worker-{number}.jsonl")
            if len(self.left) == before:
                # It did not come as far as a section: nor will the next.
                return

    def work(self, log: Path) -> None:
        """One worker: follow it to its end, or put an end to it."""
        from gpu_parts.worker import SECTIONS

        log.touch()
        self.running, self.since, read, failure = "", time.monotonic(), 0, ""
        command = [sys.executable, __file__, "--worker", str(log), "--only", ",".join(self.left)]
        command += ["--deadline", str(self.deadline)]
        command += ["--smoke"] if self.arguments.smoke else []
        copy = self.report["sections"].get("copy", {}).get("results", {}).get("copy of 1 GiB", {})
        command += ["--copy", str(copy["bytes_per_second"])] if "bytes_per_second" in copy else []
        path = os.pathsep.join(part for part in (os.environ.get("PYTHONPATH"), f"{self.folder}/rivals") if part)
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": path}) as worker:
            while True:
                ended = worker.poll() is not None
                # Whole lines only.
                lines = log.read_text(encoding="utf-8")[read:]
                lines = lines[: lines.rfind("\n") + 1]
                read += len(lines)
                for line in lines.splitlines():
                    self.hear(json.loads(line))
                if ended:
                    failure = f"the process ended with exit code {worker.returncode}"
                    break
                limit = self.since + SECTIONS.get(self.running, 120) * (10 if self.arguments.smoke else 1)
                # A worker plans with the budget: what is late by more than a row is stuck.
                if time.monotonic() > min(limit, self.deadline + 20):
                    failure = f"no end after {time.monotonic() - self.since:.0f} s"
                    worker.kill()
                    break
                time.sleep(0.1)
        if failure and worker.returncode != 0:
            # Until the device has the worker's memory back.
            time.sleep(2)
        if self.running:
            self.hear({"end": self.running, "error": failure, "seconds": round(time.monotonic() - self.since, 2)})

    def hear(self, line: dict[str, Any]) -> None:
        """Note what a worker tells, and write it down."""
        sections = self.report["sections"]
        if "machine" in line:
            self.report["machine"] = line["machine"]
        elif "begin" in line:
            self.running, self.since = line["begin"], time.monotonic()
            sections[self.running] = {"results": {}}
        elif "row" in line:
            sections[line["section"]]["results"][line["row"]] = line["value"]
        else:
            name = line.pop("end")
            sections[name] |= line
            self.left = [other for other in self.left if other != name]
            self.running = ""
        self.arguments.out.write_text(json.dumps(self.report, indent=1) + "\n", encoding="utf-8")


def print_table(report: dict[str, Any]) -> None:
    machine = report["machine"]
    print(" ".join(f"{machine.get(name)}" for name in ("device", "date", "torch", "triton", "cuda")))
    print(f"{'':58} {'median':>10} {'p10':>10} {'p90':>10} {'TB/s':>7} {'% of copy':>9}")
    for name, section in report["sections"].items():
        for label, row in section["results"].items():
            label = f"{name}: {label}"
            if "median_ms" in row:
                times = " ".join(f"{row[key]:10.3f}" for key in ("median_ms", "p10_ms", "p90_ms"))
                speed = f"{row['bytes_per_second'] / 1e12:7.3f}" if "bytes_per_second" in row else ""
                share = f"{100 * row['share_of_copy']:8.1f}%" if "share_of_copy" in row else ""
                print(f"{label:58} {times} {speed:>7} {share:>9}")
            elif "ok" in row:
                print(f"{label:58} {'ok' if row['ok'] else 'WRONG':>10}  {row.get('note', '')}")
            elif "ratio" in row:
                print(f"{label:58} {row['ratio']:10.3f}")
            else:
                print(f"{label:58} {(row.get('error') or row.get('skipped')).strip().splitlines()[-1][:120]}")
        if "error" in section or "skipped" in section:
            print(f"{name:58} {(section.get('error') or section['skipped']).strip().splitlines()[-1][:120]}")


def is_right(report: dict[str, Any]) -> bool:
    """Whether every section ran, and every check found what it should."""
    sections = report["sections"]
    checks = [row for name, section in sections.items() if "correct" in name for row in section["results"].values()]
    broken = any("error" in section for section in sections.values())
    return bool(sections) and not broken and all(row.get("ok", "skipped" in row) for row in checks)


def main() -> int:
    arguments = parse()
    if arguments.smoke:
        # Before Triton is imported, and without a GPU even where there is one.
        os.environ["TRITON_INTERPRET"] = "1"
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if arguments.worker is not None:
        import torch
        from gpu_parts.worker import work

        if not arguments.smoke and not torch.cuda.is_available():
            print("no CUDA device; `--smoke` runs on a CPU", file=sys.stderr)
            return 1
        names = arguments.only.split(",")
        return work(arguments.worker, names, smoke=arguments.smoke, deadline=arguments.deadline, copy=arguments.copy)
    with tempfile.TemporaryDirectory(prefix="gpu-bench-") as folder:
        run = Run(arguments, folder)
        run.go()
    print_table(run.report)
    return int(not is_right(run.report))


if __name__ == "__main__":
    raise SystemExit(main())
