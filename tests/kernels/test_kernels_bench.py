"""The GPU bench itself runs: every section, at tiny sizes, through the interpreter."""

import importlib
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "benches" / "gpu.py"


@pytest.fixture(autouse=True)
def beside_the_benches(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH.parent))


def read_rows(path):
    return importlib.import_module("row_files").read_rows(path)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_smoke_mode_runs_every_section_and_finds_everything_right(tmp_path):
    out = tmp_path / "gpu.jsonl"
    command = [sys.executable, str(BENCH), "--smoke", "--out", str(out), "--budget", "500"]
    run = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "TRITON_INTERPRET": "1"})
    assert run.returncode == 0, run.stderr[-3000:]
    about, rows = read_rows(out)
    assert about["smoke"] and about["torch"] and about["notes"]
    ends = {row["section"]: row for row in rows if "row" not in row}
    assert set(ends) == set(importlib.import_module("gpu_parts.worker").SECTIONS)
    assert not [name for name, end in ends.items() if "error" in end or "skipped" in end]
    for row in rows:
        if "row" in row and "rivals" not in row["section"]:
            assert "error" not in row, row
            assert "ok" in row or "skipped" in row or not row["section"].startswith("correct"), row
            assert row.get("ok", True), row
    assert {"section": "adamw rivals 7B", "row": "optimi, no kahan", "skipped": "not installed: optimi"} in rows
    assert not list(tmp_path.glob("*.err"))
    assert "% of copy" in run.stdout


# A worker that loses the device in its second section, hangs in its third, and is well the next time.
WORKER = """
import json, sys, time
from pathlib import Path
arguments = dict(zip(sys.argv[1::2], sys.argv[2::2]))
log, names = Path(arguments["--worker"]), arguments["--only"].split(",")
first = log.name == "worker-1.jsonl"
with log.open("a") as file:
    def tell(**line):
        print(json.dumps(line), file=file, flush=True)
    tell(machine={"device": "none"})
    for name in names:
        tell(begin=name)
        tell(section=name, row="one", value={"bytes_per_second": 2.0, "ok": True, "copy": arguments.get("--copy")})
        if first and name == names[1]:
            print("going down", file=sys.stderr)
            sys.exit(7)
        if name == "correct optimizer":
            time.sleep(60)
        tell(end=name, seconds=0.0)
"""


def test_a_section_that_crashes_or_hangs_costs_only_itself(tmp_path, monkeypatch):
    bench = importlib.import_module("gpu")
    worker = importlib.import_module("gpu_parts.worker")
    script = tmp_path / "python"
    script.write_text(f"#!{sys.executable}\nimport sys\ndel sys.argv[1]\n{WORKER}", encoding="utf-8")
    script.chmod(0o755)
    monkeypatch.setattr(bench.sys, "executable", str(script))
    monkeypatch.setitem(worker.SECTIONS, "correct optimizer", 1)
    out = tmp_path / "out.jsonl"
    arguments = Namespace(out=out, part=["correct"], budget=60.0, wheels=None, only="", smoke=False)
    run = bench.Run(arguments, str(tmp_path))
    run.go()
    about, rows = read_rows(out)
    assert about["device"] == "none"
    ends = {row["section"]: row for row in rows if "row" not in row}
    assert list(ends) == ["copy", *worker.PARTS["correct"]]
    assert "exit code 7; see out-worker-1.err" in ends["correct adamw"]["error"]
    assert "no end" in ends["correct optimizer"]["error"]
    assert [name for name, end in ends.items() if "error" in end] == ["correct adamw", "correct optimizer"]
    # Rows that came before the end are kept, and the bandwidth is handed on.
    assert [row["section"] for row in rows if row.get("row") == "one"] == list(ends)
    assert all(row["copy"] == "2.0" for row in rows[4:] if "row" in row)
    assert not bench.is_right(run.rows)
    # What a failed process said stays; where the one stood that was stuck is in it.
    assert "going down" in (tmp_path / "out-worker-1.err").read_text()
    assert "Current thread" in (tmp_path / "out-worker-2.err").read_text()
    assert not (tmp_path / "out-worker-3.err").exists()


def test_sections_without_time_have_a_line(tmp_path):
    bench = importlib.import_module("gpu")
    arguments = Namespace(
        out=tmp_path / "out.jsonl", part=["ours"], budget=0.01, wheels=None, only="focus,clip", smoke=True
    )
    run = bench.Run(arguments, str(tmp_path))
    run.deadline = 0.0
    run.go()
    assert [row["section"] for row in run.rows] == ["copy", "focus", "adamw clip"]
    assert all("no time left" in row["skipped"] for row in run.rows)


def test_no_device_is_no_success(tmp_path):
    command = [sys.executable, str(BENCH), "--only", "focus", "--out", str(tmp_path / "out.jsonl"), "--budget", "60"]
    run = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})
    assert run.returncode == 1, run.stderr
    assert "did not start; see out-worker-1.err" in run.stdout
    assert "no CUDA device" in (tmp_path / "out-worker-1.err").read_text()


def test_limits_of_a_part_stay_below_its_budget():
    worker = importlib.import_module("gpu_parts.worker")
    assert set(worker.measures()) == set(worker.SECTIONS)
    for part, sections in worker.PARTS.items():
        assert worker.SECTIONS["copy"] + sum(sections.values()) < worker.BUDGET, part
