"""What is said of a folder before vLLM is asked to serve it, and the command line of exports."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_export_gguf import SMALL, model_folder, trained
from typer.testing import CliRunner

from langadapt.cli.main import app
from langadapt.export import check_vllm
from langadapt.export.vllm import Finding


def found(folder: Path, check: str, gpus: int = 1) -> Finding:
    return next(finding for finding in check_vllm(folder, gpus=gpus)[0] if finding.check == check)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder("llama", trained("byte_level"), tmp_path_factory.mktemp("model") / "my model")


def changed(folder: Path, out: Path, **config: object) -> Path:
    out.mkdir()
    for file in folder.iterdir():
        (out / file.name).write_bytes(file.read_bytes())
    content = json.loads((out / "config.json").read_text()) | config
    (out / "config.json").write_text(json.dumps(content))
    return out


def test_a_folder_of_ours_is_ready(folder: Path) -> None:
    findings, line = check_vllm(folder)
    # A base model has no template; that is said with the line.
    assert {finding.status for finding in findings} <= {"ok", "skipped"}, findings
    assert line == (
        f"vllm serve '{folder}' --served-model-name 'my model' --dtype bfloat16 --max-model-len 256"
        "  # no chat template: completions only"
    )
    assert "--tensor-parallel-size 2" in check_vllm(folder, gpus=2)[1]


def test_what_would_fail_there_is_named(folder: Path, tmp_path: Path) -> None:
    assert found(folder, "heads", gpus=3).detail == f"{SMALL['num_attention_heads']} heads cannot be shared by 3 GPUs"
    assert found(folder, "vocabulary", gpus=4).status == "warning"
    wrong = changed(folder, tmp_path / "wrong", vocab_size=500, architectures=["MyForCausalLM"], dtype="float8_e4m3fn")
    assert "vocab_size is 500, the weights have 448 rows" in found(wrong, "vocabulary").detail
    assert found(wrong, "architecture").status == "warning"
    assert found(wrong, "dtype").status == "failed"
    (wrong / "adapter.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    assert "adapter.safetensors: would be read as weights, too" in found(wrong, "weights").detail
    (wrong / "generation_config.json").write_text('{"eos_token_id": 7}')
    assert found(wrong, "end of replies").status == "failed"
    (wrong / "tokenizer_config.json").write_text('{"auto_map": {}}')
    assert "code of its own" in found(wrong, "tokenizer files").detail


def test_commands(folder: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke
    result = run(app, ["export", "vllm", str(folder)])
    assert result.exit_code == 0, result.output
    assert "vllm serve" in result.output
    broken = changed(folder, tmp_path / "broken", vocab_size=7)
    assert run(app, ["export", "vllm", str(broken), "--json"]).exit_code == 1
    pytest.importorskip("gguf", reason="the extra `gguf` is not installed")
    file = tmp_path / "m.gguf"
    result = run(app, ["export", "gguf", str(folder), "--out", str(file), "--no-proof", "--type", "q8_0"])
    assert result.exit_code == 0, result.output
    assert "as q8_0; llama.cpp: yes" in result.output
    assert file.stat().st_size > 100_000
