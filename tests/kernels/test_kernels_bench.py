"""The GPU bench itself runs: every section, at tiny sizes, through the interpreter."""

import json
import os
import subprocess
import sys
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
    assert "copy bandwidth" in run.stdout
