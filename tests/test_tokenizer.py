"""The class Tokenizer: reading and writing folders, the other backend, real tokenizers on real text."""

from __future__ import annotations

import json
import logging
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer as Reference
from tokenizers import models, pre_tokenizers, trainers

from langadapt import Tokenizer, _core
from langadapt.errors import DataError

TEXT = ["Der alte Mann und das Meer.", "Zwölf Boxkämpfer jagen Viktor quer über den Sylter Deich, 1234 Mal!"]


@pytest.fixture(scope="module")
def reference() -> Reference:
    tokenizer = Reference(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.train_from_iterator(
        TEXT * 3,
        trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=["<s>", "</s>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return tokenizer


@pytest.fixture
def folder(reference: Reference, tmp_path: Path) -> Path:
    reference.save(str(tmp_path / "tokenizer.json"))
    config = {"bos_token": {"__type": "AddedToken", "content": "<s>"}, "eos_token": "</s>", "pad_token": None}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | {"tokenizer_class": "PreTrainedTokenizerFast"}))
    (tmp_path / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    (tmp_path / "model.safetensors").write_bytes(b"no part of the tokenizer")
    return tmp_path


def test_a_folder_and_its_copy(folder: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_pretrained(folder)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1)
    assert (tokenizer.pad_token_id, tokenizer.unk_token_id) == (None, None)
    assert tokenizer.special_token_ids == {0, 1}
    assert tokenizer.vocab_size == len(tokenizer) == 325
    copy = tmp_path / "copy" / "deep"
    tokenizer.save_pretrained(copy)
    assert sorted(path.name for path in copy.iterdir()) == [
        "chat_template.jinja",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    for file in copy.iterdir():
        assert file.read_bytes() == (folder / file.name).read_bytes()
    again = Tokenizer.from_file(copy / "tokenizer.json")
    assert again.fingerprint == tokenizer.fingerprint
    assert again.bos_token_id == 0
    unpickled = pickle.loads(pickle.dumps(again))  # noqa: S301
    assert unpickled.encode(TEXT[0]).tolist() == tokenizer.encode(TEXT[0]).tolist()


def test_transformers_agrees(folder: Path) -> None:
    tokenizer = Tokenizer.from_pretrained(folder)
    other = tokenizer.to_transformers()
    assert other is tokenizer.to_transformers()
    assert other.bos_token_id == 0
    assert other.chat_template is not None
    for text in TEXT:
        assert other(text, add_special_tokens=False)["input_ids"] == tokenizer.encode(text).tolist()


def test_a_file_alone_makes_a_folder_that_transformers_loads(reference: Reference, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    Tokenizer(reference.to_str().encode()).save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path)(TEXT[0])["input_ids"] == reference.encode(TEXT[0]).ids


@pytest.mark.parametrize(
    "make",
    [
        lambda: Reference(models.Unigram([("<unk>", 0.0), ("a", -1.0), ("ab", -1.5)], unk_id=0)),
        lambda: Reference(models.WordPiece({"[UNK]": 0, "a": 1, "##b": 2}, unk_token="[UNK]")),
        lambda: Reference(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")])),
        lambda: Reference(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")], dropout=0.5)),
    ],
)
def test_other_kinds_go_through_the_package(make: object, caplog: pytest.LogCaptureFixture) -> None:
    reference: Reference = make()  # type: ignore[operator]
    with caplog.at_level(logging.INFO):
        tokenizer = Tokenizer(reference.to_str().encode(), name="odd")
    assert tokenizer.backend == "tokenizers"
    assert tokenizer.native is None
    assert "odd: encoded by the `tokenizers` package" in caplog.text
    texts = ["ab", "", "aab b"]
    if "dropout" not in reference.to_str() or json.loads(reference.to_str())["model"].get("dropout") is None:
        ids, offsets = tokenizer.encode_batch(texts)
        assert ids.dtype == np.uint32
        assert offsets.dtype == np.uint64
        for text, start, end in zip(texts, offsets[:-1], offsets[1:], strict=True):
            expected = reference.encode(text)
            assert ids[int(start) : int(end)].tolist() == tokenizer.encode(text).tolist() == expected.ids
            assert tokenizer.decode(expected.ids) == reference.decode(expected.ids)
    for token, id in reference.get_vocab().items():
        assert tokenizer.token_to_id(token) == id
        assert tokenizer.id_to_token(id) == token
    assert tokenizer.encode_batch([])[1].tolist() == [0]


def test_bad_files_are_named(tmp_path: Path, reference: Reference) -> None:
    file = tmp_path / "tokenizer.json"
    with pytest.raises(FileNotFoundError):
        Tokenizer.from_file(file)
    with pytest.raises(FileNotFoundError, match=r"No such folder"):
        Tokenizer.from_pretrained(tmp_path / "absent")
    with pytest.raises(DataError, match=r"no tokenizer\.json"):
        Tokenizer.from_pretrained(tmp_path)
    plain = json.loads(reference.to_str())
    plain["model"]["merges"].append(["Der", "absent"])
    for content, message in [
        (b"", "not a tokenizer.json"),
        (b"{}", "missing field `model`"),
        (b'{"model": 3}', "tokenizer.json"),
        (b'{"model": {"type": "BPE", "vocab": [], "merges": []}}', "map of pieces to ids"),
        (b'{"model": {"type": "BPE", "vocab": {}, "merges": ["a"]}}', "`a` is no pair"),
        (b'{"model": {"type": "Odd"}}', "cannot read it"),
        (json.dumps(plain).encode(), "`absent` is not in the vocabulary"),
    ]:
        file.write_bytes(content)
        with pytest.raises(DataError, match=message) as caught:
            Tokenizer.from_file(file)
        assert str(file) in str(caught.value)
    with pytest.raises(TypeError, match=r"Tokenizer\.from_pretrained reads paths"):
        Tokenizer(str(file))  # type: ignore[arg-type]
    (tmp_path / "tokenizer.json").write_text(reference.to_str())
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(DataError, match="tokenizer_config"):
        Tokenizer.from_pretrained(tmp_path)


def test_an_unreachable_hub_is_one_line() -> None:
    with pytest.raises(DataError, match="nobody/nothing-of-this-name") as caught:
        Tokenizer.from_pretrained("nobody/nothing-of-this-name")
    assert "\n" not in str(caught.value)


def test_bad_arguments(reference: Reference) -> None:
    tokenizer = Tokenizer(reference.to_str().encode())
    with pytest.raises(ValueError, match="threads"):
        tokenizer.encode_batch(TEXT, threads=0)
    with pytest.raises(ValueError, match="ids to decode"):
        tokenizer.decode([-1])
    with pytest.raises(TypeError):
        tokenizer.encode_batch("a string is no list of strings")
    with pytest.raises(TypeError):
        tokenizer.encode_batch([b"bytes"])  # type: ignore[list-item]
    with pytest.raises(UnicodeEncodeError):
        tokenizer.encode("a lone surrogate \ud800")


def test_progress_is_reported_and_may_stop_the_work(reference: Reference) -> None:
    tokenizer = Tokenizer(reference.to_str().encode())
    # Words of ever new letters, never remembered: slow enough to be asked about.
    source = random.Random(2)
    texts = ["".join(source.choices("Dermanltuas", k=400_000))] * 60

    def stop(phase: str, done: int, total: int | None, unit: str) -> None:
        assert (phase, total, unit) == ("tokenize", sum(map(len, texts)), "characters")
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        tokenizer.encode_batch(texts, progress=stop, threads=2)


@pytest.mark.parametrize("bad", [0, 150, 299])
def test_a_text_that_is_not_unicode_ends_a_batch_and_leaves_nobody_waiting(reference: Reference, bad: int) -> None:
    tokenizer = Tokenizer(reference.to_str().encode())
    texts = [f"Übermut tut selten gut {at} " * 400 for at in range(300)]
    expected = [tokenizer.encode(text) for text in texts]
    ids, offsets = tokenizer.encode_batch(texts, threads=3)
    assert np.array_equal(ids, np.concatenate(expected))
    assert np.array_equal(np.diff(offsets), [len(one) for one in expected])
    texts[bad] = "\ud800"
    with pytest.raises(UnicodeEncodeError):
        tokenizer.encode_batch(texts, threads=3)


def corpus(shared: Path, name: str, count: int | None = None) -> list[str]:
    texts: list[str] = []
    for batch in _core.DocumentReader(
        [str(shared / "corpus" / f"{name}.jsonl.zst")], {"text_field": "text", "strict": True, "text_unit": "line"}
    ):
        texts += batch
        if count is not None and len(texts) >= count:
            return texts[:count]
    return texts


REAL = ["paper-de", "paper-ar", "phi-3-mini", "focus-de-bpe-50k", "phi-2", "roberta-base", "falcon"]


@pytest.mark.parametrize("language", ["zh", "sw", "ru"])
@pytest.mark.parametrize("name", REAL)
def test_real_tokenizers_on_real_text(shared: Path, name: str, language: str) -> None:
    # The reference is slow; whole corpora are the next test's.
    texts = corpus(shared, language, 12)
    same_ids(shared / "tokenizers" / name, [text[:20_000] for text in texts])


@pytest.mark.slow
@pytest.mark.parametrize("language", ["de", "ar", "en"])
@pytest.mark.parametrize("name", REAL)
def test_real_tokenizers_on_much_real_text(shared: Path, name: str, language: str) -> None:
    same_ids(shared / "tokenizers" / name, corpus(shared, language)[::12])


def same_ids(folder: Path, texts: list[str]) -> None:
    tokenizer = Tokenizer.from_pretrained(folder)
    reference = Reference.from_file(str(folder / "tokenizer.json"))
    ids, offsets = tokenizer.encode_batch(texts)
    for at, expected in enumerate(reference.encode_batch_fast(texts, add_special_tokens=False)):
        found = ids[int(offsets[at]) : int(offsets[at + 1])]
        assert found.tolist() == expected.ids, f"document {at}"
        assert tokenizer.decode(found[:500]) == reference.decode(expected.ids[:500], skip_special_tokens=False)


def test_which_real_tokenizers_are_native(shared: Path) -> None:
    backends = {name: Tokenizer.from_pretrained(shared / "tokenizers" / name).backend for name in REAL}
    assert backends == dict.fromkeys(REAL, "native")
    assert Tokenizer.from_pretrained(shared / "tokenizers" / "focus-de-unigram-50k").backend == "tokenizers"


def test_a_sentencepiece_model_alone_is_converted(shared: Path, tmp_path: Path) -> None:
    source = shared / "tokenizers" / "paper-de"
    for name in ("tokenizer.model", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    tokenizer = Tokenizer.from_pretrained(tmp_path)
    assert tokenizer.backend == "native"
    assert tokenizer.vocab_size == 32768
    assert tokenizer.decode(tokenizer.encode(TEXT[1])) == TEXT[1]


def test_texts_from_any_iterable_and_ids_of_any_integers(reference: Reference) -> None:
    tokenizer = Tokenizer(reference.to_str().encode())
    wanted = tokenizer.encode_batch(TEXT)
    for form in (iter(TEXT), tuple(TEXT), (text for text in TEXT), np.array(TEXT, dtype=object)):
        for found, array in zip(tokenizer.encode_batch(form), wanted, strict=True):
            assert np.array_equal(found, array)
    with pytest.raises(TypeError, match="one string"):
        tokenizer.encode_batch(TEXT[0])
    ids = tokenizer.encode(TEXT[0])
    assert tokenizer.decode(ids.astype(np.int16)) == tokenizer.decode(ids.tolist()) == tokenizer.decode(ids)
    for bad in ([1.5], "abc", None, [True]):
        with pytest.raises(TypeError, match="integers"):
            tokenizer.decode(bad)


@pytest.mark.parametrize("content", ["{", "[]", "5"])
def test_a_broken_configuration_is_named_with_its_tokenizer(folder: Path, content: str) -> None:
    (folder / "tokenizer_config.json").write_text(content)
    with pytest.raises(DataError, match=r"tokenizer_config\.json") as caught:
        Tokenizer.from_pretrained(folder)
    assert str(folder) in str(caught.value)
