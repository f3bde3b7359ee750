"""The training bench for GPUs: every case runs, tiny and on a CPU, and a failing one costs its own line."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHES = Path(__file__).resolve().parent.parent / "benches"


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHES))
    return importlib.import_module("gpu_train")


def test_smoke_mode_runs_every_case(bench, tmp_path):
    pytest.importorskip("accelerate", reason="the Hugging Face Trainer needs accelerate")
    environment = {**os.environ, "OUT": str(tmp_path), "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, str(BENCHES / "gpu_train.py"), "--smoke"]
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    lines = [json.loads(line) for line in (tmp_path / "gpu_train.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["case"] for line in lines] == [f"{case[0]} (smoke)" for case in bench.CASES]
    assert all(line["tokens_per_second"] > 0 for line in lines)
    assert all(line["planned_gib"] > line["planned_tensors_gib"] for line in lines if line["kind"] == "ours")


def test_a_case_that_fails_or_hangs_is_a_line(bench, capsys):
    assert bench.run_here(["no such case"], smoke=True) == 1
    assert json.loads(capsys.readouterr().out)["case"] == "no such case"
    found = bench.run_apart(["pure 1b (smoke)"], smoke=True, allowed=0.05)
    assert found == [{"case": "pure 1b (smoke)", "failed": "no answer within 0 s"}]


def test_utilisation_of_a_known_device(bench):
    found = bench.utilisation("NVIDIA H100 80GB HBM3", bench.SHAPES["7b"], 4096, 10_000.0)
    assert 0 < found["mfu_causal"] < found["mfu"] < 1
    assert bench.utilisation("abacus", bench.SHAPES["7b"], 4096, 1.0) == {}
