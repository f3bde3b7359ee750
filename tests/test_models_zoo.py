"""The page of models says what langadapt makes of every causal class."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from models_zoo import KINDS, PAGE, line, page, try_all

SAMPLE = ["llama", "gemma3_text", "deepseek_v3", "mamba", "qwen3_next", "ctrl"]
"""Classes that are tried, one of each kind of attention, and one that changes its embeddings in place; all with
`ZOO=all`, which takes minutes."""


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_the_page_of_models_is_up_to_date(tmp_path: Path) -> None:
    written = PAGE.read_text(encoding="utf-8")
    again = "run `python tests/models_zoo.py` and look at what changed"
    if os.environ.get("ZOO") == "all":
        assert page(try_all(tmp_path)) == written, again
        return
    for row in try_all(tmp_path, SAMPLE):
        assert line(row) in written.splitlines(), again


def test_the_page_lists_every_class_and_no_defect() -> None:
    rows = [text.split(" | ") for text in PAGE.read_text(encoding="utf-8").splitlines() if text.startswith("| `")]
    assert [row[0].strip("|` ") for row in rows] == KINDS
    assert not [row for row in rows if row[2] not in ("swapped", "refused")]
    assert sum(row[2] == "swapped" and row[3] in ("packed", "rows") for row in rows) >= 170
