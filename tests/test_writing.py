"""Rates of what models write: other languages, repeats, broken characters, texts without an end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from langadapt import read_documents
from langadapt.evaluation.continuations import continuations
from langadapt.evaluation.writing import BEGINNING, TEXTS, judge_of, measure_writing, rates, repeats

HERE = Path(__file__).parent / "texts"
LINE = "Die Kinder liefen am Morgen den schmalen Weg zum Fluss hinunter."


class Letters:
    """A tokenizer of characters: 0 ends a text, 1 is half of a character."""

    eos_token_id = 0
    bos_token_id = None

    def encode(self, text: str) -> np.ndarray:
        return np.array([2 + ord(one) for one in text], np.uint32)

    def decode(self, ids: np.ndarray, *, skip_special_tokens: bool) -> str:
        assert skip_special_tokens
        return "".join("\ufffd" if one == 1 else chr(int(one) - 2) for one in ids if one)


class Echo(torch.nn.Module):
    """Writes what it is told to, whatever stands before, and remembers what that was."""

    def __init__(self, rows: list[str]) -> None:
        super().__init__()
        self.rows, self.asked = rows, []
        self.generation_config: Any = "its own"
        self.embedding = torch.nn.Embedding(1, 1)

    def get_input_embeddings(self) -> torch.nn.Module:
        return self.embedding

    def generate(self, given: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        assert given.shape == attention_mask.shape and bool(attention_mask.all())
        self.asked.append((given, self.generation_config))
        length = self.generation_config.max_new_tokens
        rows = [[*Letters().encode(row), *[0] * length][:length] for row in self.rows]
        return torch.cat([given, torch.tensor(np.array(rows), dtype=torch.int64)], 1)


def both() -> dict[str, list[str]]:
    return {
        "target": list(read_documents(HERE / "german.jsonl")),
        "source": list(read_documents(HERE / "english.jsonl")),
    }


def padded(*texts: str) -> np.ndarray:
    rows = [Letters().encode(text) for text in texts]
    return np.array([[*row, *[0] * (max(map(len, rows)) - len(row))] for row in rows], np.uint32)


def test_repeats() -> None:
    assert repeats("abcdefghijklmnopqrst") == 0
    assert repeats("kurz") == repeats("") == 0
    # Of 109 pieces of a text with a period of 12 characters, 12 are new.
    assert repeats("abcdefghijkl" * 10) == 1 - 12 / 109
    assert repeats("ab" * 60) > repeats(LINE + " " + LINE) > 0.3


def test_rates_are_those_of_the_texts() -> None:
    texts = both()
    judge = judge_of(texts, "target")
    english = "It was late in the evening when the children came back from the river with wet shoes."
    greek = "Ο κόσμος αυτός ο μικρός, ο μέγας, που τον κρατά στα χέρια του ένα παιδί."
    written = padded(LINE, english, greek, "Ja.")
    written = np.concatenate([written, np.full((4, 1), 0, np.uint32)], 1)
    found = rates(written, Letters(), judge)
    assert (found.texts, found.judged, found.foreign) == (4, 3, 2 / 3)
    assert (found.repeated, found.broken, found.unended) == (0, 0, 0)
    assert rates(written, Letters(), None).foreign is None
    assert rates(padded("Ja."), Letters(), judge).foreign is None


def test_a_cut_character_is_not_a_broken_one() -> None:
    half = np.array([[70, 71, 72, 1, 1], [70, 71, 1, 72, 73], [70, 1, 0, 5, 5], [70, 71, 72, 0, 0]], np.uint32)
    found = rates(half, Letters(), None)
    assert (found.broken, found.unended) == (0.5, 0.5)


def test_where_languages_cannot_be_told() -> None:
    texts = both()
    assert judge_of({"target": texts["target"]}, "target") is None
    assert judge_of(texts | {"source": texts["target"]}, "target") is None
    assert judge_of(texts | {"source": texts["source"][:1]}, "target") is None


def test_beginnings_are_as_long_and_evenly_spread() -> None:
    documents = [f"{number:03} {LINE} {LINE}" for number in range(40)] + ["kurz"]
    model = Echo([LINE] * TEXTS)
    found = measure_writing(model, Letters(), documents, None, tokens=70)
    assert found is not None and found.texts == TEXTS and found.unended == 0
    ((given, config),) = model.asked
    assert given.shape == (TEXTS, 1 + BEGINNING) and set(given[:, 0].tolist()) == {0}
    starts = [Letters().decode(row[1:4].numpy(), skip_special_tokens=True) for row in given]
    assert starts == [f"{40 * at // TEXTS:03}" for at in range(TEXTS)]
    assert not config.do_sample and model.generation_config == "its own"
    assert measure_writing(model, Letters(), ["kurz"], None) is None


@pytest.mark.parametrize("seed", [None, 3])
def test_a_model_writes_the_same_again(seed: int | None) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=300, **sizes)).eval()

    def write(one: int | None) -> list[str]:
        return continuations(model, Letters(), [LINE, "Welt"], seed=one, tokens=12)

    state = torch.random.get_rng_state()
    first = write(seed)
    assert first == write(seed) and (seed is None or first != write(None) != write(seed + 1))
    assert torch.equal(state, torch.random.get_rng_state())
    documents = [text.encode("latin-1", "replace").decode("latin-1") for text in both()["target"]]
    found = measure_writing(model, Letters(), documents, judge_of(both(), "target"), seed=seed)
    assert found is not None and found.texts == TEXTS
    assert found == measure_writing(model, Letters(), documents, judge_of(both(), "target"), seed=seed)
    assert (found.repeated > 0.1) == (seed is None)
