"""The whole chain on Gemma 3 270M: 262,144 tied rows, 6,242 unused tokens, sliding windows.

`benches/real_models/fetch_gemma.py` makes the folder; `LANGADAPT_REAL_MODEL` names it where it lies elsewhere.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml
from test_swap_cli import run

from langadapt import Tokenizer

PLACE = Path(os.environ.get("LANGADAPT_REAL_MODEL", Path.home() / ".cache" / "langadapt" / "gemma-3-270m"))
TEXTS = Path(__file__).parent / "texts"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(
        not (PLACE / "config.json").exists(),
        reason=f"no real model in {PLACE}: python benches/real_models/fetch_gemma.py, or set LANGADAPT_REAL_MODEL",
    ),
]


def test_the_whole_chain_on_a_real_model(tmp_path: Path) -> None:
    for name in ("german", "english"):
        lines = (TEXTS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        (tmp_path / f"{name}.jsonl").write_text("".join(lines[:40]), encoding="utf-8")
    recipe = {
        "name": "real",
        "model": str(PLACE),
        "out": str(tmp_path / "run"),
        "corpus": {
            "target": [str(tmp_path / "german.jsonl")],
            "source": [str(tmp_path / "english.jsonl")],
            "source_share": 0.25,
            "validation_bytes": 4000,
        },
        "tokenizer": {"like": "source", "vocab_size": 1200},
        "swap": {"method": "subword_mean"},
        "train": {"steps": 2, "sequence_length": 128, "batch_sequences": 2, "learning_rate": 1e-5, "keep": "last"},
        "evaluate": {"bytes_while_training": 2000},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    assert run("adapt", tmp_path / "recipe.yaml") == 0
    found = json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8"))
    source, swapped, trained = found["rows"]
    # The model speaks German, and a swap without training costs most of that.
    assert source["bits_per_byte"]["target"] < 1.6 < swapped["bits_per_byte"]["target"]
    assert source["parameters"] == 268_098_176
    assert trained["parameters"] == swapped["parameters"] < 0.4 * source["parameters"]
    made = Tokenizer.from_pretrained(tmp_path / "run" / "tokenizer")
    assert made.vocab_size == 1200
    assert not any("unused" in (made.id_to_token(at) or "") for at in range(made.vocab_size))
