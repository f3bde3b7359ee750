"""The training bench for GPUs: every case runs, tiny and on a CPU; a failing or skipped one costs its own line."""

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


@pytest.fixture
def training(bench):
    return importlib.import_module("gpu_parts.training")


@pytest.mark.slow
def test_smoke_mode_runs_every_case(bench, tmp_path):
    pytest.importorskip("accelerate", reason="the Hugging Face Trainer needs accelerate")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, str(BENCHES / "gpu_train.py"), "--smoke", "--out", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    _, lines = importlib.import_module("row_files").read_rows(tmp_path / "gpu_train.jsonl")
    assert [line["case"] for line in lines] == [
        f"{case.name} (smoke)" for part in bench.PARTS.values() for case in part
    ]
    assert all(line["tokens_per_second"] > 0 for line in lines)
    assert all(line["planned_gib"] > line["planned_tensors_gib"] for line in lines if line["kind"] == "ours")
    documents = {line["case"]: line["document"] for line in lines if line["kind"] == "ours"}
    assert documents["pure 1b (smoke)"] == 128 and documents["pure 1b, documents of 64 (smoke)"] == 8
    assert not list(tmp_path.glob("*.err")) and "MFU, causal" in run.stdout


def test_limits_of_a_part_stay_below_its_budget(bench):
    names = [case.name for part in bench.PARTS.values() for case in part]
    assert len(set(names)) == len(names)
    for part, cases in bench.PARTS.items():
        assert sum(case.seconds for case in cases) < bench.BUDGET, part


def test_a_case_that_fails_is_a_line_and_leaves_its_traceback(bench, tmp_path):
    found = bench.run_apart(["no such case"], smoke=True, allowed=120, folder=tmp_path)
    assert found == [{"case": "no such case", "failed": "KeyError: 'no such case'", "stderr": "no-such-case.err"}]
    assert "Traceback" in (tmp_path / "no-such-case.err").read_text()


def test_a_case_that_hangs_is_a_line_and_says_where(bench, tmp_path, monkeypatch):
    stuck = tmp_path / "stuck.py"
    stuck.write_text("import time\n\ndef wait_for_ever():\n    time.sleep(600)\n\nwait_for_ever()\n")
    monkeypatch.setattr(bench, "__file__", str(stuck))
    found = bench.run_apart(["pure 1b, sdpa"], smoke=False, allowed=2, folder=tmp_path)
    assert found == [{"case": "pure 1b, sdpa", "failed": "no answer within 2 s", "stderr": "pure-1b-sdpa.err"}]
    assert "wait_for_ever" in (tmp_path / "pure-1b-sdpa.err").read_text()


def test_a_case_without_time_is_a_line(bench, tmp_path, capsys):
    found = bench.RowFile(tmp_path / "gpu_train.jsonl", {})
    bench.run_all(bench.chosen(["1b"], smoke=False), False, 30.0, found)
    assert [row["case"] for row in found.rows] == [case.name for case in bench.PARTS["1b"]]
    assert found.rows[0]["skipped"] == "may take 85 s, 30 s of 30 s are left"
    assert "skipped" in bench.table(found.rows)


def test_a_case_without_its_package_is_a_line(bench, monkeypatch, capsys):
    cases = importlib.import_module("gpu_parts.cases")
    monkeypatch.setattr(bench, "chosen", lambda *_: [cases.Case("needy", "tiny", 1, {}, needs=("no_such_package",))])
    assert bench.run_here(["needy"], smoke=True) == 0
    assert json.loads(capsys.readouterr().out) == {"case": "needy", "skipped": "not installed: no_such_package"}


def test_a_case_without_memory_is_skipped_by_the_plan(bench, training, monkeypatch):
    import torch

    from langadapt.training import TrainSettings, parallel

    processes = parallel.ProcessGroup()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    h100 = type("Device", (), {"total_memory": int(79.1 * 2**30)})
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: h100)
    shape = importlib.import_module("gpu_parts.cases").SHAPES["7b"]
    settings = {case.name: TrainSettings(steps=1, sequence_length=4096, **case.settings) for case in bench.PARTS["7b"]}
    training.check_room(shape, settings["pure 7b"], processes)
    with pytest.raises(training.Skipped, match=r"tensors of 1\d\d\.\d+ GiB by the plan, the device has 79.1"):
        training.check_room(shape, settings["mixed 7b, full recompute"], processes)


def test_mfu_is_that_of_the_training_log(training):
    from langadapt.costs.flops import Shape

    shape = importlib.import_module("gpu_parts.cases").SHAPES["7b"]
    found = training.utilisation("NVIDIA H100 80GB HBM3", shape, 4096, 10_000.0)
    assert found["mfu"] == round(Shape.of(shape).mfu(10_000.0, 4096, found["peak_flops"]), 4)
    # Attention counted whole: 7 % more of this shape.
    assert found["mfu_whole_attention"] / found["mfu"] == pytest.approx(1.07, abs=0.005)
    assert "HALF" in found["mfu_counts"]
    assert training.utilisation("abacus", shape, 4096, 1.0) == {}
