"""Token stores: what is in them, that threads do not matter, and how damage shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer as Reference
from tokenizers import models, pre_tokenizers, trainers
from typer.testing import CliRunner

from langadapt import Tokenizer, TokenStore, build_corpus, tokenize_corpus
from langadapt.errors import ConfigError, DataError, MismatchError

TEXTS = [f"Dokument Nummer {n}: " + "Wörter und noch mehr Wörter. " * (n % 7) for n in range(400)] + ["", "\n", "x"]


def byte_level(vocab_size: int = 300) -> Tokenizer:
    tokenizer = Reference(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    return Tokenizer(tokenizer.to_str().encode())


def word_level(size: int = 10) -> Tokenizer:
    tokenizer = Reference(models.WordLevel({"x": 0, "Wörter": 1} | {f"w{n}": n for n in range(2, size)}, unk_token="x"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return Tokenizer(tokenizer.to_str().encode())


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return byte_level()


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    file = tmp_path / "corpus.jsonl"
    file.write_text("".join(json.dumps({"text": text, "id": at}) + "\n" for at, text in enumerate(TEXTS)))
    return file


def check_contents(store: TokenStore, tokenizer: Tokenizer) -> None:
    assert len(store) == len(TEXTS)
    for found, text in zip(store, TEXTS, strict=True):
        assert found.tolist() == tokenizer.encode(text).tolist()
    assert store.offsets.dtype == np.uint64
    assert store.offsets[-1] == len(store.tokens)
    summary = store.manifest["summary"]
    assert summary["documents"] == len(TEXTS)
    assert summary["tokens"] == len(store.tokens)
    assert summary["bytes"] == sum(len(text.encode()) for text in TEXTS)
    assert summary["vocab_size"] == store.vocab_size == tokenizer.vocab_size
    assert store.manifest["inputs"]["tokenizer"] == tokenizer.fingerprint


def test_files_and_threads(tokenizer: Tokenizer, corpus: Path, tmp_path: Path) -> None:
    stores = [tokenize_corpus([str(corpus)], tokenizer, tmp_path / f"{n}", threads=n) for n in (1, 2, 5)]
    check_contents(stores[0], tokenizer)
    assert stores[0].tokens.dtype == np.uint16
    for name in ("tokens.bin", "offsets.bin"):
        assert len({(store.folder / name).read_bytes() for store in stores}) == 1
    store = stores[0]
    assert isinstance(store.tokens, np.memmap)
    assert store[-1].tolist() == store[len(TEXTS) - 1].tolist() == tokenizer.encode("x").tolist()
    for wrong in (len(TEXTS), -len(TEXTS) - 1):
        with pytest.raises(IndexError):
            store[wrong]


def test_an_iterable_and_the_other_backend(corpus: Path, tmp_path: Path) -> None:
    for tokenizer in (byte_level(), word_level(), word_level(70_000)):
        from_iterable = tokenize_corpus(iter(TEXTS), tokenizer, tmp_path / "iterable")
        from_file = tokenize_corpus(corpus, tokenizer, tmp_path / "file")
        for store in (from_iterable, from_file):
            check_contents(store, tokenizer)
            assert store.tokens.dtype == (np.uint16 if tokenizer.vocab_size <= 65536 else np.uint32)
        assert (from_iterable.folder / "tokens.bin").read_bytes() == (from_file.folder / "tokens.bin").read_bytes()


def test_nothing_to_tokenize(tokenizer: Tokenizer, tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    with pytest.raises(DataError):
        tokenize_corpus(empty, tokenizer, tmp_path / "store")
    with pytest.raises(DataError):
        tokenize_corpus(iter([]), tokenizer, tmp_path / "store")
    with pytest.raises(DataError, match="empty"):
        tokenize_corpus(iter(["", ""]), tokenizer, tmp_path / "store")
    with pytest.raises(FileNotFoundError):
        tokenize_corpus(tmp_path / "absent.jsonl", tokenizer, tmp_path / "store")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.jsonl"]


def test_an_old_store_stays_until_the_new_one_is_whole(tokenizer: Tokenizer, corpus: Path, tmp_path: Path) -> None:
    store = tokenize_corpus(corpus, tokenizer, tmp_path / "store")

    def breaks() -> object:
        yield "text"
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="broke"):
        tokenize_corpus(breaks(), tokenizer, tmp_path / "store")  # type: ignore[arg-type]
    check_contents(TokenStore.open(store.folder), tokenizer)


def test_damage_is_named(tokenizer: Tokenizer, corpus: Path, tmp_path: Path) -> None:
    folder = tokenize_corpus(corpus, tokenizer, tmp_path / "store").folder
    with pytest.raises(DataError, match="manifest"):
        TokenStore.open(tmp_path)
    tokens = (folder / "tokens.bin").read_bytes()
    (folder / "tokens.bin").write_bytes(tokens[:-2])
    with pytest.raises(DataError, match=r"tokens\.bin"):
        TokenStore.open(folder)
    (folder / "tokens.bin").unlink()
    with pytest.raises(DataError, match=r"tokens\.bin"):
        TokenStore.open(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"stage": "vectors"}))
    with pytest.raises(DataError, match="not a token store"):
        TokenStore.open(folder)


def test_a_store_knows_its_tokenizer(tokenizer: Tokenizer, corpus: Path, tmp_path: Path) -> None:
    store = tokenize_corpus(corpus, tokenizer, tmp_path / "store")
    store.check_tokenizer(tokenizer)
    with pytest.raises(MismatchError, match="tokenize the corpus again"):
        store.check_tokenizer(byte_level(310))


def test_command(tokenizer: Tokenizer, corpus: Path, tmp_path: Path) -> None:
    import typer

    from langadapt.cli.tokenize import command

    app = typer.Typer()
    app.command()(command)
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    arguments = [str(corpus), "--tokenizer", str(tmp_path / "tokenizer"), "--out", str(tmp_path / "store"), "--json"]
    for _ in range(2):
        outcome = CliRunner().invoke(app, arguments)
        assert outcome.exit_code == 0, outcome.output
        assert json.loads(outcome.stdout)["documents"] == len(TEXTS)
    check_contents(TokenStore.open(tmp_path / "store"), tokenizer)


def test_slices_and_odd_numbers(tokenizer: Tokenizer, tmp_path: Path) -> None:
    store = tokenize_corpus(iter(TEXTS), tokenizer, tmp_path / "store")
    assert [ids.tolist() for ids in store[2:5]] == [tokenizer.encode(text).tolist() for text in TEXTS[2:5]]
    assert [ids.tolist() for ids in store[::-100]] == [tokenizer.encode(text).tolist() for text in TEXTS[::-100]]
    assert store[len(TEXTS) :] == []
    assert store[np.int64(-1)].tolist() == tokenizer.encode(TEXTS[-1]).tolist()
    for bad in ("0", 1.0, None):
        with pytest.raises(TypeError, match="integer"):
            store[bad]  # type: ignore[call-overload]


def test_a_tokenizer_may_come_in_any_form(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    forms = [tmp_path / "tokenizer", str(tmp_path / "tokenizer"), tokenizer.to_transformers()]
    wanted = tokenize_corpus(iter(TEXTS), tokenizer, tmp_path / "wanted")
    for number, form in enumerate([*forms, Reference.from_str(tokenizer.definition.decode())]):
        store = tokenize_corpus(iter(TEXTS), form, tmp_path / str(number))
        assert np.array_equal(store.tokens, wanted.tokens)
        assert "/tmp/tmp" not in store.manifest["summary"]["tokenizer"]
    with pytest.raises(ConfigError, match="int"):
        tokenize_corpus(iter(TEXTS), 5, tmp_path / "none")


@pytest.mark.parametrize(
    "change",
    [
        {"summary": None},
        {"summary": {"dtype": "float99", "vocab_size": 300}},
        {"summary": {"dtype": "uint16", "vocab_size": "many"}},
        {"files": []},
        {"files": {"tokens.bin": 5}},
        {"stage": 5},
    ],
    ids=str,
)
def test_a_manifest_of_something_else_is_no_store(tokenizer: Tokenizer, tmp_path: Path, change: dict[str, Any]) -> None:
    store = tokenize_corpus(iter(TEXTS), tokenizer, tmp_path / "store")
    (store.folder / "manifest.json").write_text(json.dumps({**store.manifest, **change}))
    with pytest.raises(DataError, match="store"):
        TokenStore.open(store.folder)


def test_another_stages_folder_stays(tmp_path: Path, corpus: Path, tokenizer: Tokenizer) -> None:
    tokenize_corpus(corpus, tokenizer, tmp_path / "store")
    build_corpus(corpus, tmp_path / "corpus")
    for call, made in (
        (lambda: build_corpus(corpus, tmp_path / "store"), "tokenize"),
        (lambda: tokenize_corpus(corpus, tokenizer, tmp_path / "corpus"), "corpus"),
    ):
        with pytest.raises(ConfigError, match=f"holds what `{made}` made"):
            call()
    assert len(TokenStore.open(tmp_path / "store")) == len(TEXTS)
