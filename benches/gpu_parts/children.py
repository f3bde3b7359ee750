"""Processes that measure: what they leave behind when they do not end well."""

from __future__ import annotations

import signal
import subprocess
from typing import Any

TELLS_WHERE = {"PYTHONFAULTHANDLER": "1"}
"""Environment of a process that, aborted, writes where each of its threads stood to its stderr."""


def abort(child: subprocess.Popen[Any], seconds: float = 5.0) -> None:
    """End a process that is stuck, if it can so that it tells where."""
    child.send_signal(signal.SIGABRT)
    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
