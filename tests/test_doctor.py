"""`langadapt doctor`: what it finds, what it says when something is missing, and its exit code."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from typer.testing import CliRunner

from langadapt.cli.main import app
from langadapt.costs import devices
from langadapt.costs.devices import GIB
from langadapt.planning import doctor


def by_name(findings: Any) -> dict[str, doctor.Finding]:
    return {finding.name: finding for finding in findings}


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no route")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


def test_this_machine_is_usable_and_every_finding_is_a_line() -> None:
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0
    names = [line.split()[1] for line in result.stdout.splitlines() if line.split()[0] in ("ok", "note", "problem")]
    assert {"versions", "core", "processor", "memory", "gpu", "triton", "attention", "disk", "hub", "use"} <= {*names}
    as_json = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).stdout)
    assert as_json["usable"]
    assert {finding["state"] for finding in as_json["findings"]} <= {"ok", "note"}


def test_a_gpu_that_torch_does_not_see_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "gpu_names", lambda: ["NVIDIA H100 80GB HBM3"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = by_name(doctor.gpus())
    assert found["gpu"].text == "1 x NVIDIA H100 80GB HBM3, driver unknown"
    assert found["torch and gpu"].state == "problem"
    assert "torch sees no GPU" in found["torch and gpu"].text
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 1
    assert "problem  torch and gpu" in result.stdout


def test_gpus_are_named_as_plans_name_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "gpu_names", lambda: ["NVIDIA H100 80GB HBM3", "Tesla T4"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda number: (78 * GIB if number == 0 else 2 * GIB, 79 * GIB))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda number: ((9, 0), (7, 5))[number])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: devices.gpu_names()[number])
    found = by_name(doctor.gpus())
    assert found["gpu 0"] == doctor.Finding("gpu 0", "ok", "sm_90, 78.0 of 79.0 GiB free; planned as h100-80gb")
    assert found["gpu 1"].state == "note"
    assert "something else takes the rest; not in the table: plans need `budget.gpus`" in found["gpu 1"].text
    assert "no bf16" in found["gpu 1 bf16"].text
    assert "torchrun --nproc-per-node 2" in doctor.use().text


def test_the_hub_is_asked_once_and_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert "does not answer (no route): give folders instead of names" in doctor.hub().text
    waited = []

    class Answer:
        def __enter__(self) -> None: ...
        def __exit__(self, *_: object) -> None: ...

    def answer(request: Any, timeout: float) -> Answer:
        waited.append(timeout)
        return Answer()

    monkeypatch.setattr(urllib.request, "urlopen", answer)
    assert doctor.hub().state == "ok"
    assert waited == [doctor.HUB_SECONDS]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in doctor.hub().text
    assert len(waited) == 1


def test_little_room_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert str(tmp_path) in doctor.disk(tmp_path / "not" / "there").text
    monkeypatch.setattr(doctor, "LITTLE_DISK", 1 << 62)
    assert doctor.disk(tmp_path).state == "note"
    monkeypatch.setattr(doctor, "LITTLE_MEMORY", 1 << 62)
    assert by_name(doctor.hardware())["memory"].state == "note"
