"""The page of models says what the swap makes of every causal class."""

from __future__ import annotations

from pathlib import Path

import pytest
from models_zoo import PAGE, page, try_all


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_page_of_models_is_up_to_date(tmp_path: Path) -> None:
    rows = try_all(tmp_path)
    assert page(rows) == PAGE.read_text(encoding="utf-8"), "run `python tests/models_zoo.py` and look at what changed"
    assert sum(row.outcome == "swapped" for row in rows) >= 150
