"""Token vectors: training on a store, files, errors. The algorithm itself is tested in Rust."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors import SafetensorError
from sample_tokenizers import GERMAN, byte_level, metaspace, save

from langadapt import Tokenizer, tokenize_corpus
from langadapt.errors import DataError, MismatchError
from langadapt.tokenizer.vocabulary import read_vocabulary
from langadapt.vectors.cbow import check_place, load_vectors, save_vectors, token_surfaces, train_vectors


def store_of(tokenizer, lines: list[str], folder: Path) -> SimpleNamespace:
    """The parts of a token store that training reads."""
    encoded = [encoding.ids for encoding in tokenizer.encode_batch(lines)]
    tokenizer.save(str(folder / "tokenizer.json"))
    return SimpleNamespace(
        tokens=np.array([token for ids in encoded for token in ids], dtype=np.uint16),
        offsets=np.cumsum([0] + [len(ids) for ids in encoded]).astype(np.uint64),
        manifest={"summary": {"vocab_size": tokenizer.get_vocab_size()}},
        folder=folder,
    )


@pytest.fixture
def store(tmp_path):
    return store_of(metaspace(GERMAN, 420), GERMAN * 20, tmp_path)


def test_vectors_of_a_store(store) -> None:
    seen: list[tuple] = []
    vectors = train_vectors(store, dim=24, epochs=2, threads=1, progress=lambda *reading: seen.append(reading))
    counts = np.bincount(store.tokens, minlength=len(vectors))
    assert vectors.shape == (420, 24)
    assert vectors.dtype == np.float32
    assert np.array_equal(np.any(vectors != 0, axis=1), counts >= 10)
    assert np.array_equal(vectors, train_vectors(store, dim=24, epochs=2, threads=1))
    assert not np.array_equal(vectors, train_vectors(store, dim=24, epochs=2, threads=1, seed=1))


def test_surfaces_are_readable_and_specials_have_none(store) -> None:
    surfaces = token_surfaces(store)
    vocabulary = read_vocabulary(store.folder)
    assert surfaces[vocabulary.ids["▁der"]] == "▁der"
    assert surfaces[vocabulary.ids["</s>"]] == ""
    of_bytes = read_vocabulary(byte_level(GERMAN, 400))
    assert of_bytes.surface(of_bytes.ids["Ġder"]) == "▁der"


def test_a_file_keeps_the_vectors_and_knows_its_tokenizer(store, tmp_path) -> None:
    vectors = train_vectors(store, dim=8, epochs=1)
    path = tmp_path / "deep" / "vectors.safetensors"
    save_vectors(vectors, path, store=store)
    assert np.array_equal(load_vectors(path, tokenizer=store.folder), vectors)
    with pytest.raises(MismatchError, match="420 vectors of another tokenizer"):
        load_vectors(path, tokenizer=byte_level(GERMAN, 420))
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_bad_stores_and_files_are_named(store, tmp_path) -> None:
    with pytest.raises(ValueError, match="dim must be"):
        train_vectors(store, dim=0)
    with pytest.raises(ValueError, match="occur at least 100000 times"):
        train_vectors(store, min_count=100_000)
    (tmp_path / "small").mkdir()
    byte_level(["x"], 300).save(str(tmp_path / "small" / "tokenizer.json"))
    with pytest.raises(MismatchError, match="257 ids but the store was written with 420"):
        token_surfaces(SimpleNamespace(**{**vars(store), "folder": tmp_path / "small"}))
    (tmp_path / "bad.safetensors").write_bytes(b"no tensors")
    with pytest.raises(DataError, match="not a safetensors file"):
        load_vectors(tmp_path / "bad.safetensors")
    with pytest.raises(FileNotFoundError):
        load_vectors(tmp_path / "absent.safetensors")


def test_a_raising_callback_stops_the_training(store) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_vectors(store, dim=300, epochs=500, progress=stop)


def test_a_real_store_names_its_tokens(tmp_path) -> None:
    save(metaspace(GERMAN, 420), tmp_path / "tokenizer", eos_token="</s>")
    written = tokenize_corpus(iter(GERMAN * 20), Tokenizer.from_pretrained(tmp_path / "tokenizer"), tmp_path / "store")
    vectors = train_vectors(tmp_path / "store", dim=8, epochs=1, threads=1)
    assert np.array_equal(vectors, train_vectors(written, dim=8, epochs=1, threads=1, tokenizer=tmp_path / "tokenizer"))
    save_vectors(vectors, tmp_path / "v.safetensors", store=written)
    assert np.array_equal(load_vectors(tmp_path / "v.safetensors", tokenizer=tmp_path / "tokenizer"), vectors)


def test_a_folder_in_the_way_is_named_and_nothing_is_left(store, tmp_path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError, match="name a file"):
        save_vectors(np.zeros((420, 2), dtype=np.float32), tmp_path / "folder", store=store)
    assert not list(tmp_path.glob(".*"))


def test_a_place_is_tried_before_anything_is_trained(store, tmp_path, monkeypatch) -> None:
    vectors = np.zeros((420, 2), dtype=np.float32)
    room = shutil.disk_usage(tmp_path)._replace(free=vectors.nbytes - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: room)
    with pytest.raises(OSError, match=r"no room: 0\.0 MB are needed") as caught:
        check_place(tmp_path / "deep" / "v.safetensors", vectors.nbytes)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "deep" / "v.safetensors"))
    check_place(tmp_path / "v.safetensors", vectors.nbytes - 1)
    with pytest.raises(OSError, match="nothing can be written there"):
        check_place(Path("/proc/v.safetensors"), 1)
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.json"]


def test_a_disk_that_fills_up_while_vectors_are_written_is_named(store, tmp_path, monkeypatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("langadapt.vectors.cbow.save_file", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        save_vectors(np.zeros((420, 2), dtype=np.float32), tmp_path / "v.safetensors", store=store)
    assert caught.value.filename == str(tmp_path / "v.safetensors")
    assert not list(tmp_path.glob(".*"))
