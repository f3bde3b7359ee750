"""The GPU bench itself runs: every section, at tiny sizes, through the interpreter."""

import importlib
import json
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "benches" / "gpu.py"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_smoke_mode_runs_every_section_and_finds_everything_right(tmp_path):
    out = tmp_path / "gpu.json"
    command = [sys.executable, str(BENCH), "--smoke", "--out", str(out), "--budget", "500"]
    run = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "TRITON_INTERPRET": "1"})
    assert run.returncode == 0, run.stderr[-3000:]
    report = json.loads(out.read_text(encoding="utf-8"))
    assert not [name for name, section in report["sections"].items() if "error" in section or "skipped" in section]
    for name, section in report["sections"].items():
        for label, row in section["results"].items():
            if isinstance(row, dict) and "rivals" not in name and "scaled" not in label:
                assert "error" not in row, (name, label, row)
            if name.startswith("correct"):
                assert row.get("ok", True), (name, label, row)
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
            sys.exit(7)
        if name == "correct optimizer":
            time.sleep(60)
        tell(end=name, seconds=0.0)
"""


def test_a_section_that_crashes_or_hangs_costs_only_itself(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH.parent))
    bench = importlib.import_module("gpu")
    worker = importlib.import_module("gpu_parts.worker")
    script = tmp_path / "python"
    script.write_text(f"#!{sys.executable}\nimport sys\ndel sys.argv[1]\n{WORKER}", encoding="utf-8")
    script.chmod(0o755)
    monkeypatch.setattr(bench.sys, "executable", str(script))
    monkeypatch.setattr(worker, "SECTIONS", {**worker.SECTIONS, "correct optimizer": 1})
    arguments = Namespace(out=tmp_path / "out.json", budget=60.0, wheels=None, only="correct", smoke=False)
    run = bench.Run(arguments, str(tmp_path))
    run.go()
    sections = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["sections"]
    assert list(sections) == [name for name in worker.SECTIONS if name == "copy" or "correct" in name]
    assert "exit code 7" in sections["correct adamw"]["error"] and "no end" in sections["correct optimizer"]["error"]
    assert [name for name, section in sections.items() if "error" in section] == ["correct adamw", "correct optimizer"]
    # Rows that came before the end are kept, and the bandwidth is handed on.
    assert all("one" in section["results"] for section in sections.values())
    assert not bench.is_right(run.report)
