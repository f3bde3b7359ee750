"""Training throughput on one GPU: Llama shapes of 1B and 7B, pure bf16 beside mixed, and the Hugging Face Trainer.

Needs only torch, triton and transformers, and this checkout on PYTHONPATH (the extension module too). Each case runs in
a process of its own with a time limit, so that a case that fails costs its own line and nothing else. Every case has a
line, also one that fails or is left out, with the reason; lines are printed as they come, one JSON object each, and
written to gpu_train.jsonl in the folder of `--out`. There, too, is the whole stderr of every case that failed, as
NAME.err; a case that is stuck leaves there where it stood.

    PYTHONPATH=python:kernels/src python benches/gpu_train.py --out FOLDER            # on a GPU, all parts
    PYTHONPATH=python:kernels/src python benches/gpu_train.py --part 1b --out FOLDER  # nine minutes at the most
    PYTHONPATH=python:kernels/src python benches/gpu_train.py --smoke                 # every case, tiny, on a CPU

Inside the timer: forward, backward, update of whole steps, with a sync before and after; the first two steps, which
compile, are not counted. Documents are random tokens, as long as a window where the case's name says nothing, so that
attention is causal over all of it. `mfu` is what the training log calls so, with attention counted causally;
`mfu_whole_attention` counts the whole window; every line says both in words.

Asymmetries: the Trainer makes all logits at once, where micro-batches of eight hardly fit, compiles the model as a
whole, and sums gradients in bf16. At 1B both precisions are bound by the same matrix products; what pure bf16 saves is
memory, which shows at 7B, where mixed precision must compute activations again.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE)]

from gpu_parts.cases import BUDGET, PARTS, Case, chosen  # noqa: E402
from gpu_parts.children import TELLS_WHERE, abort  # noqa: E402
from row_files import RowFile  # noqa: E402

GOALS = (("pure 7b", "mixed 7b, full recompute", 1.39), ("pure 1b", "trainer 1b", 1.2), ("pure 1b", "mixed 1b", None))
"""How many times as fast the first should be, where that is a goal."""


def run_here(names: list[str], smoke: bool) -> int:
    """Cases in this process; one that fails or is skipped is a line like any other. Returns the exit code."""
    from gpu_parts.training import Skipped, measure

    known, failed = {case.name: case for case in chosen(list(PARTS), smoke)}, False
    for name in names:
        try:
            line = {"case": name, **measure(known[name], smoke)}
        except Skipped as reason:
            line = {"case": name, "skipped": str(reason)}
        except Exception as error:
            traceback.print_exc()
            line, failed = {"case": name, "failed": f"{type(error).__name__}: {error}"[-400:]}, True
        print(json.dumps(line), flush=True)
    return int(failed)


def run_apart(names: list[str], smoke: bool, allowed: float, folder: Path) -> list[dict[str, Any]]:
    """Lines of cases in a process of their own, which is ended after ``allowed`` seconds.

    Its stderr is kept in ``folder``, under the first case's name, if anything failed.
    """
    command = [sys.executable, __file__, *(["--smoke"] if smoke else []), "--case", *names]
    environment = {**os.environ, **TELLS_WHERE, "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}
    errors, reason = folder / f"{re.sub('[^0-9A-Za-z]+', '-', names[0]).strip('-')}.err", ""
    with errors.open("w", encoding="utf-8") as file:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=file, text=True, env=environment)
        try:
            output, _ = child.communicate(timeout=allowed)
        except subprocess.TimeoutExpired:
            reason = f"no answer within {allowed:g} s"
            abort(child)
            output, _ = child.communicate()
    lines = [json.loads(line) for line in output.splitlines() if line.startswith('{"case"')]
    told = {line["case"] for line in lines}
    last = (errors.read_text(encoding="utf-8", errors="replace").strip().splitlines() or [""])[-1]
    reason = reason or f"exit code {child.returncode}: {last}"[:400]
    lines += [{"case": name, "failed": reason} for name in names if name not in told]
    if any("failed" in line for line in lines):
        return [line | {"stderr": errors.name} if "failed" in line else line for line in lines]
    errors.unlink()
    return lines


def run_all(cases: list[Case], smoke: bool, budget: float, found: RowFile) -> None:
    """A line of every case, as they come."""
    deadline = time.monotonic() + budget
    # Tiny cases share a process: they would spend their time on imports.
    groups = [cases] if smoke else [[case] for case in cases]
    for group in groups:
        allowed, left = sum(case.seconds for case in group), deadline - time.monotonic()
        if left < allowed / 2:
            reason = f"may take {allowed} s, {max(left, 0):.0f} s of {budget:.0f} s are left"
            lines: list[dict[str, Any]] = [{"case": case.name, "skipped": reason} for case in group]
        else:
            lines = run_apart([case.name for case in group], smoke, min(allowed, left), found.path.parent)
        for line in lines:
            print(json.dumps(line), flush=True)
            found.add(line)


def table(rows: list[dict[str, Any]]) -> str:
    """What counts of all lines, and the ratios that have a goal."""
    lines = [
        f"{'case':28} {'tokens/s':>9} {'MFU, causal':>11} {'whole window':>12} {'peak GiB':>9} {'plan over used':>14}"
    ]
    for row in rows:
        if "tokens_per_second" not in row:
            told = "skipped" if "skipped" in row else "failed"
            lines.append(f"{row['case']:28} {told}: {row[told]}")
            continue
        shares = [f"{100 * row[key]:.1f} %" if key in row else "-" for key in ("mfu", "mfu_whole_attention")]
        plan = "-"
        if "planned_gib" in row and "used_gib" in row:
            plan = f"{100 * (row['planned_gib'] / row['used_gib'] - 1):+.1f} %"
        cells = f"{shares[0]:>11} {shares[1]:>12} {row.get('peak_gib', '-'):>9} {plan:>14}"
        lines.append(f"{row['case']:28} {row['tokens_per_second']:9.0f} {cells}")
    speeds = {row["case"]: row["tokens_per_second"] for row in rows if "tokens_per_second" in row}
    for one, other, goal in GOALS:
        if one in speeds and other in speeds:
            wanted = f" (goal {goal})" if goal else ""
            lines.append(f"{one} over {other}: {speeds[one] / speeds[other]:.2f} x{wanted}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS), help="which cases; all by default")
    parser.add_argument("--budget", type=float, help=f"seconds; {BUDGET} for each part by default")
    parser.add_argument("--out", type=Path, default=os.environ.get("OUT"), help="folder; that of OUT by default")
    parser.add_argument("--smoke", action="store_true", help="every case at a tiny shape, on a CPU, in one process")
    parser.add_argument("--case", nargs="+", help="run these cases in this process, and write nothing")
    arguments = parser.parse_args()
    if arguments.smoke:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if arguments.case:
        return run_here(arguments.case, arguments.smoke)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(arguments.out or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        found = RowFile(folder / "gpu_train.jsonl", {"bench": "gpu_train", "date": time.strftime("%Y-%m-%d")})
        before, budget = len(found.rows), arguments.budget or BUDGET * len(arguments.part)
        run_all(chosen(arguments.part, arguments.smoke), arguments.smoke, budget, found)
        mine = found.rows[before:]
    print(table(mine))
    return int(any("failed" in row for row in mine))


if __name__ == "__main__":
    raise SystemExit(main())
