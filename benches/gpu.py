"""Everything about the kernels that needs a GPU: correctness first, then timings beside the rivals.

    python benches/gpu.py [--out FILE.jsonl] [--part correct ours ...] [--budget SECONDS] [--wheels FOLDER]
                          [--only adamw,focus] [--smoke]

Needs torch and triton alone. One part takes less than eight minutes on an H100 or H200. Rivals are measured where they
can be imported; `--wheels` names a folder of wheels (torch-optimi, flashoptim, d9d, torchao, liger-kernel, entmax) to
unpack and import from. `--smoke` runs every section on a CPU through Triton's interpreter, at sizes that say nothing
about speed, so that this script itself can be tested.

Timings are of CUDA events around each call, after warm-up, on working sets larger than the L2 cache: medians and the
10th and 90th percentile. "% of copy" is the bytes that the operation must move, over the time, against the bandwidth of
a device-to-device copy (bytes read plus written) measured in the same run. What else must be known to read them is
printed with the table (`NOTES`).

Sections run in a process of their own, which tells of each row as it comes, and FILE.jsonl is written again each time:
a line per row, with its section, and a line per section. A section that fails records its error; one that hangs is
ended at its limit, and where the device itself fails, the sections that are left go on in a new process. Rows and
sections that are left out have a line with the reason. The stderr of a process in which something failed stays beside
FILE.jsonl, as FILE-worker-N.err. The table is printed whatever happens.
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

from gpu_parts.children import TELLS_WHERE, abort  # noqa: E402
from gpu_parts.worker import BUDGET, PARTS, SECTIONS  # noqa: E402
from row_files import Row, write_rows  # noqa: E402

NOTES = (
    "One call in five starts on an idle device, so the 90th percentile holds host time; the median does not.",
    "Rivals keep their own defaults for block sizes; their shares are of the 14 bytes per parameter of pure bfloat16, "
    "whatever they move (flashoptim less: by its layout 12.3, weights of 24 bits and moments of 8).",
    "optimi, flashoptim, d9d and torchao launch a kernel per tensor, for which the host may be too slow at 1B: the "
    "fair comparison is at 7B. `torch compiled, one flat buffer` is the best case for torch, which no model offers.",
    "d9d rounds both moments stochastically too; its fair counterpart is `stochastic, variance too`.",
    "The loop of deepfocus is extrapolated from a sample; rivals of sparsemax from some of the rows.",
)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu.jsonl"), help="where the rows go")
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS), help="all by default")
    parser.add_argument("--budget", type=float, help=f"seconds; {BUDGET} for each part by default")
    parser.add_argument("--wheels", type=Path, help="folder of wheels of rivals")
    parser.add_argument("--only", default="", help="comma-separated words of sections to run; all by default")
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


def sections_of(parts: list[str], only: str) -> list[str]:
    """Sections of these parts whose name holds a word of `only`; the copy, which all shares are of, always."""
    words = [word.strip() for word in only.split(",") if word.strip()]
    named = [name for part in parts for name in PARTS[part]]
    return ["copy", *(name for name in named if not words or any(word in name for word in words))]


class Run:
    """What is known so far, and the process that finds out more."""

    def __init__(self, arguments: argparse.Namespace, folder: str) -> None:
        """`folder`: for the worker's messages and the rivals."""
        self.arguments, self.folder = arguments, folder
        self.left = sections_of(arguments.part, arguments.only)
        self.budget = arguments.budget or BUDGET * len(arguments.part)
        self.deadline = time.monotonic() + self.budget
        wheels = unpack_wheels(arguments.wheels, f"{folder}/rivals") if arguments.wheels else []
        self.about: Row = {"wheels": wheels, "smoke": arguments.smoke, "notes": NOTES}
        self.rows: list[Row] = []
        self.running, self.since = "", time.monotonic()

    def go(self) -> None:
        """Start workers until all sections are done, or time is up; what is left then is a line each."""
        number, why = 0, {"skipped": f"no time left of {self.budget:.0f} s"}
        while self.left and time.monotonic() < self.deadline:
            number += 1
            before = len(self.left)
            self.work(number)
            if len(self.left) == before:
                # It did not come as far as a section: nor will the next.
                why = {"error": f"the process that measures did not start; see {self.errors(number).name}"}
                break
        for name in list(self.left):
            self.hear({"end": name, **why})

    def work(self, number: int) -> None:
        """One worker: follow it to its end, or put an end to it."""
        log = Path(self.folder) / f"worker-{number}.jsonl"
        log.touch()
        errors = self.errors(number)
        self.running, self.since, read, failure, told = "", time.monotonic(), 0, "", len(self.rows)
        with (
            errors.open("w", encoding="utf-8") as file,
            subprocess.Popen(
                self.command(log), stdout=subprocess.DEVNULL, stderr=file, env=self.environment()
            ) as worker,
        ):
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
                    abort(worker)
                    break
                time.sleep(0.1)
        if failure and worker.returncode != 0:
            # Until the device has the worker's memory back.
            time.sleep(2)
        if self.running:
            seconds = round(time.monotonic() - self.since, 2)
            self.hear({"end": self.running, "error": f"{failure}; see {errors.name}", "seconds": seconds})
        if worker.returncode == 0 and not any("error" in row for row in self.rows[told:]):
            errors.unlink()

    def errors(self, number: int) -> Path:
        """What a worker says besides."""
        out: Path = self.arguments.out
        return out.with_name(f"{out.stem}-worker-{number}.err")

    def command(self, log: Path) -> list[str]:
        """A worker of the sections that are left."""
        command = [sys.executable, __file__, "--worker", str(log), "--only", ",".join(self.left)]
        command += ["--deadline", str(self.deadline)]
        command += ["--smoke"] if self.arguments.smoke else []
        copies = [
            row["bytes_per_second"] for row in self.rows if row["section"] == "copy" and "bytes_per_second" in row
        ]
        return command + (["--copy", str(copies[0])] if copies else [])

    def environment(self) -> dict[str, str]:
        """The worker's, with the rivals on its path."""
        path = os.pathsep.join(part for part in (os.environ.get("PYTHONPATH"), f"{self.folder}/rivals") if part)
        return {**os.environ, **TELLS_WHERE, "PYTHONPATH": path}

    def hear(self, line: dict[str, Any]) -> None:
        """Note what a worker tells, and write it down."""
        if "machine" in line:
            self.about = line["machine"] | self.about
        elif "begin" in line:
            self.running, self.since = line["begin"], time.monotonic()
        elif "row" in line:
            self.rows.append({"section": line["section"], "row": line["row"], **line["value"]})
        else:
            name = line.pop("end")
            self.rows.append({"section": name, **line})
            self.left = [other for other in self.left if other != name]
            self.running = ""
            what = next((key for key in ("error", "skipped") if key in line), "done")
            print(f"[{line.get('seconds', 0):6.1f} s] {name}: {what}", file=sys.stderr, flush=True)
        write_rows(self.arguments.out, self.about, self.rows)


def print_table(about: Row, rows: list[Row]) -> None:
    print(" ".join(f"{about.get(name)}" for name in ("device", "date", "torch", "triton", "cuda")))
    print(f"{'':58} {'median':>10} {'p10':>10} {'p90':>10} {'TB/s':>7} {'% of copy':>9}")
    for row in rows:
        label = f"{row['section']}: {row['row']}" if "row" in row else row["section"]
        if "median_ms" in row:
            times = " ".join(f"{row[key]:10.3f}" for key in ("median_ms", "p10_ms", "p90_ms"))
            speed = f"{row['bytes_per_second'] / 1e12:7.3f}" if "bytes_per_second" in row else ""
            share = f"{100 * row['share_of_copy']:8.1f}%" if "share_of_copy" in row else ""
            print(f"{label:58} {times} {speed:>7} {share:>9}")
        elif "ok" in row:
            print(f"{label:58} {'ok' if row['ok'] else 'WRONG':>10}  {row.get('note', '')}")
        elif "ratio" in row:
            print(f"{label:58} {row['ratio']:10.3f}")
        elif "error" in row or "skipped" in row:
            told = "error" if "error" in row else "skipped"
            print(f"{label:58} {told}: {row[told].strip().splitlines()[-1][:120]}")
    print("\n".join(f"- {note}" for note in about["notes"]))


def is_right(rows: list[Row]) -> bool:
    """Whether every section ran, and every check found what it should."""
    checks = [row for row in rows if "correct" in row["section"] and "row" in row]
    broken = any("error" in row for row in rows if "row" not in row)
    return bool(rows) and not broken and all(row.get("ok", "skipped" in row) for row in checks)


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
    print_table(run.about, run.rows)
    return int(not is_right(run.rows))


if __name__ == "__main__":
    raise SystemExit(main())
