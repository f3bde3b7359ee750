"""A few kills and other failures of quick commands, others each time; `make kills` does it 200 times with all."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("kills.py")
COMMANDS = ["corpus build", "tokenizer train", "tokenizer trim", "tokenize", "merge", "vectors train", "swap", "dial"]
COMMANDS += ["items", "init"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_was_killed_ends_at_the_same_files() -> None:
    # In a process of its own: it forks, and must have computed nothing.
    chosen = random.SystemRandom().sample(COMMANDS, 3)
    command = [sys.executable, str(SCRIPT), "--kills", "4", "--others", "1", *chosen]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
