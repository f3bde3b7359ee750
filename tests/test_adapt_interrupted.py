"""The whole chain, killed at any moment of any stage, ends at the very same models and tokenizer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

KIT = Path(__file__).with_name("chain_kit.py")
ARTEFACTS = [
    "source/trained/final/model.safetensors",
    "run/tokenizer/tokenizer.json",
    "run/stores/target-new/tokens.bin",
    "run/vectors.safetensors",
    "run/swapped/focus/model.safetensors",
    "run/trained/focus/final/model.safetensors",
]


def run(folder: Path, seed: int) -> str:
    command = [sys.executable, str(KIT), str(folder), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    run(folder, 0)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [1, 2])
def test_killed_chain_ends_at_the_same_bits(whole: Path, tmp_path: Path, seed: int) -> None:
    kills = int(run(tmp_path, seed))
    assert kills >= 3
    for artefact in ARTEFACTS:
        assert (tmp_path / artefact).read_bytes() == (whole / artefact).read_bytes(), artefact
    assert (tmp_path / "run/report/index.html").stat().st_size > 10_000
    leftovers = [path for path in tmp_path.rglob("*") if path.suffix in {".tmp", ".old"}]
    assert leftovers == []
