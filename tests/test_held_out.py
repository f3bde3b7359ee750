"""Held-out text: split in two, compressed, continued; bits of single documents."""

import json
import lzma
import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from tiny import byte_tokenizer, tiny_llama

from langadapt.artefacts.plain_json import to_json
from langadapt.corpus.samples import split_evenly
from langadapt.evaluation.bits_per_byte import measure_bits_per_byte
from langadapt.evaluation.compression import MOST_BYTES, xz_bits_per_byte
from langadapt.evaluation.continuations import PROMPT_CHARACTERS, continuations, prompts
from langadapt.evaluation.knowledge import measure_knowledge
from langadapt.pipeline.text import APART, Part
from langadapt.recipe.sources import SourceSettings
from langadapt.tokenizer.encoder import Tokenizer

TEXTS = ["Grüße aus Köln, wo der Rhein breit ist.", "", "Ein langer Text. " * 12, "مرحبا"]


def test_documents_add_up_and_are_those_of_single_measurements() -> None:
    model, tokenizer = tiny_llama(), byte_tokenizer(bos_token="<s>", eos_token="</s>")
    found = measure_bits_per_byte(model, tokenizer, TEXTS, window=16, stride=5)
    assert found.document_bytes == [len(text.encode()) for text in TEXTS]
    assert math.fsum(found.document_bits) == pytest.approx(found.bits, rel=1e-12)
    assert found.document_bits[1] == 0
    for text, bits in zip(TEXTS, found.document_bits, strict=True):
        if text:
            alone = measure_bits_per_byte(model, tokenizer, [text], window=16, stride=5)
            assert bits == pytest.approx(alone.bits, rel=1e-5)


def test_documents_keep_their_order_whatever_the_batch() -> None:
    model, tokenizer = tiny_llama(), byte_tokenizer(bos_token="<s>", eos_token="</s>")
    texts = [chr(97 + at % 26) * (1 + at % 37) for at in range(150)]
    small = measure_bits_per_byte(model, tokenizer, texts, window=16, batch_tokens=16)
    large = measure_bits_per_byte(model, tokenizer, texts, window=16, batch_tokens=4096)
    assert small.document_bits == pytest.approx(large.document_bits, rel=1e-4)


def corpus_of(folder: Any, texts: list[str]) -> Part:
    file = folder / "validation.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return Part(SourceSettings(name="target", paths=[str(file)]), file, file, {})


@pytest.mark.parametrize(("limit", "share"), [(1_000, 0.1), (2_500, 0.25), (9_000, 0.5)])
def test_watched_and_tested_documents_are_apart_and_evenly_spread(tmp_path: Any, limit: int, share: float) -> None:
    texts = [f"document {number:4d}".ljust(50) for number in range(200)]
    held_out = corpus_of(tmp_path, texts).held_out(limit)
    assert held_out.apart and sorted(held_out.watched + held_out.tested) == texts
    assert len(held_out.watched) == round(200 * share)
    places = [texts.index(text) for text in held_out.watched]
    steps = {second - first for first, second in pairwise(places)}
    assert steps == {round(1 / share)}


def test_few_documents_are_not_split(tmp_path: Any) -> None:
    texts = [f"document {number}" for number in range(APART - 1)]
    held_out = corpus_of(tmp_path, texts).held_out(100)
    assert not held_out.apart and held_out.tested == texts and held_out.watched == texts[: len(held_out.watched)]
    # One document to watch with, however little is asked for.
    assert len(corpus_of(tmp_path, texts * 2).held_out(1).watched) == 1
    assert split_evenly([], 10) == ([], [])


def test_xz_is_that_of_the_library() -> None:
    texts = ["Der Fluss tritt über die Ufer. " * 40, "Ein anderer Satz. " * 20]
    whole = "".join(text + "\n" for text in texts).encode()
    assert xz_bits_per_byte(texts) == 8 * len(lzma.compress(whole)) / len(whole)
    assert xz_bits_per_byte([]) is None
    long = xz_bits_per_byte(["ab" * MOST_BYTES])
    assert long == 8 * len(lzma.compress(b"ab" * (MOST_BYTES // 2))) / MOST_BYTES


def test_prompts_end_between_words_and_leave_text_to_come() -> None:
    texts = ["kurz", *(f"{number} " + "Wörter und noch mehr Wörter \n" * 20 for number in range(10)), "字" * 400]
    found = prompts(texts, 3)
    assert [one[0].split()[0] for one in found[:2]] == ["0", "3"]
    for beginning, rest in found:
        assert PROMPT_CHARACTERS // 2 <= len(beginning) <= PROMPT_CHARACTERS and len(rest) >= PROMPT_CHARACTERS
    assert found[0][1].startswith(" ") and "\n" not in found[0][0]
    assert prompts(["字" * 400], 2) == [("字" * 60, "字" * 200)]
    assert prompts(["kurz"], 2) == []


def native(tmp_path: Any) -> Tokenizer:
    byte_tokenizer(bos_token="<s>", eos_token="</s>").save_pretrained(tmp_path)
    return Tokenizer.from_pretrained(tmp_path)


def test_continuations_are_the_likeliest_tokens(tmp_path: Any) -> None:
    model, tokenizer = tiny_llama().eval(), native(tmp_path)
    own = model.generation_config
    own.do_sample, own.temperature, own.repetition_penalty = True, 3.0, 1.7
    found = continuations(model, tokenizer, ["Hallo", "Welt"], tokens=8)
    assert model.generation_config is own and found == continuations(model, tokenizer, ["Hallo", "Welt"], tokens=8)
    ids = [int(tokenizer.bos_token_id or 0), *map(int, tokenizer.encode("Hallo"))]
    for _ in range(8):
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == tokenizer.eos_token_id:
            break
    assert found[0] == tokenizer.decode(ids[6:], skip_special_tokens=True)


def test_continuations_end_when_time_is_up(tmp_path: Any) -> None:
    model, tokenizer = tiny_llama(), native(tmp_path)
    model.train()
    assert continuations(model, tokenizer, [], tokens=8) == []
    short = continuations(model, tokenizer, ["Hallo"], tokens=60, seconds=0.0)
    whole = continuations(model, tokenizer, ["Hallo"], tokens=60)
    assert len(short[0]) <= len(whole[0]) and whole[0].startswith(short[0].rstrip("\ufffd"))
    assert model.training


def test_knowledge_is_bits_by_those_of_xz(tmp_path: Any) -> None:
    model = tiny_llama()
    model.save_pretrained(tmp_path)
    tokenizer = native(tmp_path)
    texts = ["Ein Satz, den niemand kennt. " * 30]
    found = measure_knowledge(tmp_path, tokenizer, {"target": texts, "source": ["a" * 2000]})
    wanted = measure_bits_per_byte(model, tokenizer, texts).bits_per_byte / (xz_bits_per_byte(texts) or 0)
    assert found["target"] == pytest.approx(wanted, rel=1e-4) and found["source"] > found["target"]


def test_json_of_results_reads_back_and_keeps_numbers_on_a_line() -> None:
    value = {"a": [1, 2.5, None], "b": {"ü": [], "": {}}, "c": [{"d": [[1], [2]]}, "x"], "e": (1, 2), "f": float("inf")}
    text = to_json(value)
    assert json.loads(text) == {**value, "e": [1, 2]}
    assert '"a": [1, 2.5, null]' in text and "ü" in text
    assert json.loads(to_json({3: None, True: [1]})) == json.loads(json.dumps({3: None, True: [1]}))
    assert to_json([]) == "[]" and to_json({}) == "{}"
