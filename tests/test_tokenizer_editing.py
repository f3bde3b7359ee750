"""Extending keeps old ids and makes reachable tokens; trimming keeps the encoding of the corpus."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from langadapt import _core
from langadapt.errors import ConfigError
from langadapt.tokenizer.editing import BpeModel, extend_tokenizer, trim_tokenizer
from langadapt.tokenizer.encoder import Tokenizer
from langadapt.tokenizer.training import train_bpe

FOLDER = Path(__file__).parent / "texts"


def texts(name: str) -> list[str]:
    lines = (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]


@pytest.fixture(scope="module", params=["byte_level", "sentencepiece"])
def english(request: pytest.FixtureRequest) -> Tokenizer:
    return train_bpe(iter(texts("english")), 900, style=request.param)


SHARED_NAMES = ["paper-de", "phi-3-mini", "phi-2", "roberta-base", "falcon"]


def assert_reached(tokenizer: Tokenizer, ids: list[int]) -> None:
    vocabulary = BpeModel(tokenizer)
    for id, parts in zip(ids, _core.token_derivations(vocabulary.tokens, vocabulary.merges, ids), strict=True):
        token = vocabulary.tokens[id]
        # A letter is there at once.
        assert parts[-1] == id and (len(parts) > 1 or len(token) == 1), token


def assert_like_transformers(tokenizer: Tokenizer, probes: list[str]) -> None:
    theirs = tokenizer.to_transformers()
    assert len(theirs) == tokenizer.vocab_size
    for probe in probes:
        assert theirs(probe)["input_ids"] == tokenizer.encode(probe, add_special_tokens=True).tolist()


def check_extension(source: Tokenizer, count: int) -> None:
    german = texts("german")
    extended = extend_tokenizer(source, iter(german), count)
    assert extended.vocab_size == source.vocab_size + count
    assert all(extended.id_to_token(id) == source.id_to_token(id) for id in range(source.vocab_size))
    assert extended.special_token_ids == source.special_token_ids
    new = list(range(source.vocab_size, extended.vocab_size))
    assert_reached(extended, new)
    before, after = source.encode_batch(german)[0], extended.encode_batch(german)[0]
    assert len(after) < len(before)
    # The last token was learnt last: nothing that came later can hide it.
    assert new[-1] in after
    assert_like_transformers(extended, [*german[:3], "  Über\n\tSätze 123 <s></s> !"])
    assert extended.decode(extended.encode(german[0])) == source.decode(source.encode(german[0]))


def test_extend(english: Tokenizer) -> None:
    check_extension(english, 300)


def test_extending_brings_the_letters_of_another_script() -> None:
    source = train_bpe(iter(texts("english")), 900, style="sentencepiece")
    armenian = ["Բոլոր մարդիկ ծնվում են ազատ ու հավասար", "մարդիկ ծնվում են հավասար", "ազատ ու ազատ մարդիկ"] * 20
    letters = set("".join(armenian)) - {" "}
    assert all(source.token_to_id(letter) is None for letter in letters)
    extended = extend_tokenizer(source, iter(armenian), len(letters) + 25)
    assert extended.vocab_size == source.vocab_size + len(letters) + 25
    assert all(extended.token_to_id(letter) is not None for letter in letters)
    new = list(range(source.vocab_size, extended.vocab_size))
    assert_reached(extended, new)
    before, after = source.encode(armenian[0]), extended.encode(armenian[0])
    assert len(after) < len(before) / 4
    assert max(len(extended.id_to_token(id) or "") for id in after) > 3
    assert_like_transformers(extended, [*armenian[:3], "Բ\tŐ 12 English մարդիկ"])
    assert extended.decode(after) == armenian[0]
    # Letters first, most frequent first, where there is room for nothing else.
    few = extend_tokenizer(source, iter(armenian), 2)
    assert [few.id_to_token(id) for id in new[:2]] == [extended.id_to_token(id) for id in new[:2]]
    assert all(len(few.id_to_token(id) or "") == 1 for id in new[:2])


@pytest.mark.parametrize("name", SHARED_NAMES)
def test_extend_existing(shared: Path, name: str) -> None:
    check_extension(Tokenizer.from_pretrained(shared / "tokenizers" / name), 100)


def test_extending_goes_on_where_learning_ended() -> None:
    # Learning 900 + 200 on one text is learning 1100, as long as no text is made twice.
    german = texts("german")
    short = train_bpe(iter(german), 700, style="sentencepiece", special_tokens=["<unk>"])
    extended = extend_tokenizer(short, iter(german), 150)
    ids = {extended.id_to_token(id) for id in range(700, 850)}
    whole = train_bpe(iter(german), 850, style="sentencepiece", special_tokens=["<unk>"])
    old = {short.id_to_token(id) for id in range(700)}
    assert ids == {whole.id_to_token(id) for id in range(850)} - old


def test_more_than_the_corpus_supports() -> None:
    source = train_bpe(iter(texts("english")), 600)
    with pytest.raises(ValueError, match="this corpus supports at most"):
        extend_tokenizer(source, iter(["kurz kurz"]), 100)
    assert extend_tokenizer(source, iter(["kurz kurz"]), 100, accept_fewer=True).vocab_size < 610
    with pytest.raises(ConfigError, match="new_tokens: 0"):
        extend_tokenizer(source, iter(["kurz"]), 0)


def check_trimming(source: Tokenizer, probes: list[str]) -> None:
    result = trim_tokenizer(source, iter(probes))
    trimmed = result.tokenizer
    assert trimmed.vocab_size == (result.id_map >= 0).sum() < source.vocab_size
    old, _ = source.encode_batch(probes)
    new, _ = trimmed.encode_batch(probes)
    assert np.array_equal(result.id_map[old], new)
    for id in np.flatnonzero(result.id_map >= 0):
        assert trimmed.id_to_token(int(result.id_map[id])) == source.id_to_token(int(id))
    vocabulary = BpeModel(source)
    made = [
        id
        for id, parts in enumerate(
            _core.token_derivations(vocabulary.tokens, vocabulary.merges, list(range(len(vocabulary.tokens))))
        )
        if len(parts) > 1
    ]
    assert_reached(trimmed, [int(result.id_map[id]) for id in made if result.id_map[id] >= 0])
    assert_like_transformers(trimmed, [*probes[:3], "Straße 12 <s> \n\t 中文"])
    for role in ("bos_token", "eos_token", "unk_token"):
        assert source.special_token(role) in (None, trimmed.special_token(role))


def test_trim(english: Tokenizer) -> None:
    check_trimming(english, texts("english")[:5])


@pytest.mark.parametrize("name", SHARED_NAMES)
def test_trim_existing(shared: Path, name: str) -> None:
    check_trimming(Tokenizer.from_pretrained(shared / "tokenizers" / name), texts("german")[:20])


def test_trim_to_a_size(english: Tokenizer) -> None:
    result = trim_tokenizer(english, iter(texts("german")), vocab_size=600)
    assert result.tokenizer.vocab_size <= 600
    assert result.tokenizer.decode(result.tokenizer.encode("Grüße, 中文!")) == "Grüße, 中文!"
    with pytest.raises(ValueError, match="added tokens and bytes alone take"):
        trim_tokenizer(english, iter(texts("german")), vocab_size=100)
    with pytest.raises(ConfigError, match="min_count: 0"):
        trim_tokenizer(english, iter(texts("german")), min_count=0)
