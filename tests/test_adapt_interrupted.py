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


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_killed_chain_ends_at_the_same_bits(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(whole, 0)
    kills = int(run(killed, 1))
    assert kills >= 3
    for artefact in ARTEFACTS:
        assert (killed / artefact).read_bytes() == (whole / artefact).read_bytes(), artefact
    assert (killed / "run/report/index.html").stat().st_size > 10_000
    leftovers = [path for path in killed.rglob("*") if path.suffix in {".tmp", ".old"}]
    assert leftovers == []
