"""Artefact folders are whole or absent, and a damaged one is named."""

import errno
import fcntl
import json
import os
from pathlib import Path

import pytest

from langadapt import _core
from langadapt.artefacts.folders import (
    fingerprint,
    hash_file,
    new_folder,
    read_manifest,
    remove_leftovers,
    scratch_folder,
    sync_file,
    verify,
    whole_file,
    write_atomically,
    write_manifest,
)
from langadapt.errors import ConfigError, DataError


def make(out: Path, text: str = "hello") -> None:
    with new_folder(out) as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "data.txt").write_text(text)
        write_manifest(folder, "stage", {"a": 1}, {"input": "x"}, summary={"n": 2})


def test_a_finished_folder_is_described(tmp_path: Path) -> None:
    make(tmp_path / "out")
    manifest = verify(tmp_path / "out")
    assert (manifest["stage"], manifest["settings"], manifest["inputs"]) == ("stage", {"a": 1}, {"input": "x"})
    assert manifest["summary"] == {"n": 2}


def test_a_failed_block_leaves_the_old_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    make(out, "old")
    with pytest.raises(RuntimeError), new_folder(out) as folder:
        (folder / "data.txt").write_text("half")
        raise RuntimeError
    assert (out / "inner" / "data.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_altered_and_missing_files_are_named(tmp_path: Path) -> None:
    out = tmp_path / "out"
    make(out)
    file = out / "inner" / "data.txt"
    file.write_text("HELLO")
    verify(out, hashes=False)
    with pytest.raises(DataError, match=r"data\.txt: altered"):
        verify(out)
    file.unlink()
    with pytest.raises(DataError, match=r"data\.txt: missing"):
        verify(out, hashes=False)


@pytest.mark.parametrize("text", ["{", "[]", '{"stage": "x"}', "\udcff"])
def test_broken_manifests(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=r"manifest\.json"):
        read_manifest(tmp_path)


def test_a_kill_between_the_two_renames_is_healed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    make(out)
    out.rename(tmp_path / f".out.{os.getpid()}.old")
    (tmp_path / ".out.1.tmp").mkdir()
    remove_leftovers(out)
    assert verify(out)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_atomic_text(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    write_atomically(file, json.dumps({"ä": 1}, ensure_ascii=False))
    assert json.loads(file.read_text(encoding="utf-8")) == {"ä": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_fingerprints_follow_content(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    for folder in (first, second):
        folder.mkdir()
        (folder / "x").write_text("same")
    assert fingerprint(first) == fingerprint(second)
    (second / "x").write_text("other")
    assert fingerprint(first) != fingerprint(second)


def test_a_file_that_cannot_be_written_is_named_and_leaves_the_old_one(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "some.json"
    write_atomically(path, "old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"some.json") as failed:
        write_atomically(path, "new")
    assert failed.value.errno == errno.ENOSPC and path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_langadapt_has_not_written_is_never_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, content in (("precious.txt", "mine"), ("manifest.json", '{"name": "an app"}')):
        out = tmp_path / name.partition(".")[0]
        out.mkdir()
        (out / name).write_text(content)
        with pytest.raises(FileExistsError, match="has not written"):
            make(out)
        assert (out / name).read_text() == content
    monkeypatch.chdir(tmp_path / "precious")
    with pytest.raises(FileExistsError, match="has not written"):
        make(Path())
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(FileExistsError, match="is a file"):
        make(file)
    assert file.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "manifest", "precious"]


def test_empty_folders_and_links_are_written_to(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    make(tmp_path / "empty")
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    make(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "empty" / "inner" / "data.txt").read_text() == "new"


def left_by_a_dead_process(out: Path, ending: str) -> Path:
    """What a killed writer of ``out`` leaves: no process holds it."""
    left = out.with_name(f".{out.name}.999999999.{ending}")
    left.mkdir()
    (left / "part").write_text("half")
    return left


def test_leftovers_go_and_nothing_else_does(tmp_path: Path) -> None:
    foreign = [".cache.tmp", ".draft.tmp", ".a.json.tmp", ".a.json.12.tmp.txt", ".other.12.tmp", ".b.a.json.12.tmp"]
    for name in foreign:
        (tmp_path / name).write_text("precious")
    left_by_a_dead_process(tmp_path / "a.json", "tmp")
    (tmp_path / ".a.json.7.tmp").write_text("half, as an older version wrote it")
    write_atomically(tmp_path / "a.json", "whole")
    assert {path.name for path in tmp_path.iterdir()} == {"a.json", *foreign}


def test_what_another_process_puts_between_the_two_renames_is_replaced(tmp_path: Path) -> None:
    out, rename, late = tmp_path / "out", Path.rename, [True]
    make(out, "old")

    def other_first(source: Path, target: Path) -> Path:
        if target == out and late.pop():
            late.append(False)
            (out / "inner").mkdir(parents=True)
        return rename(source, target)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Path, "rename", other_first)
        make(out, "new")
    assert verify(out) and (out / "inner" / "data.txt").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_scratch_of_a_dead_process_goes_with_the_next_one(tmp_path: Path) -> None:
    left = left_by_a_dead_process(tmp_path / "sweep", "tmp")
    with scratch_folder("sweep", tmp_path) as folder, scratch_folder("sweep", tmp_path) as other:
        assert not left.exists() and folder != other and folder.is_dir() and other.is_dir()
    assert not list(tmp_path.iterdir())


def test_what_another_process_is_writing_is_no_leftover(tmp_path: Path) -> None:
    left = left_by_a_dead_process(tmp_path / "a.json", "tmp")
    lock = os.open(left, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    write_atomically(tmp_path / "a.json", "whole")
    assert (left / "part").exists()
    os.close(lock)
    write_atomically(tmp_path / "a.json", "whole")
    assert not left.exists()


def test_a_file_has_the_rights_of_any_new_file(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with new_folder(tmp_path / "out") as folder:
            (folder / "private").touch(0o600)
        with whole_file(tmp_path / "file") as file:
            file.touch(0o600)
    finally:
        os.umask(before)
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "out" / "private", tmp_path / "file")] == [0o640] * 2


def test_nothing_replaces_what_it_is_made_from(tmp_path: Path) -> None:
    make(tmp_path / "out")
    with (
        pytest.raises(ConfigError, match=r"would replace .*data\.txt, which it is to be made from"),
        new_folder(tmp_path / "out", [tmp_path / "out" / "inner" / "data.txt"]),
    ):
        raise AssertionError
    assert verify(tmp_path / "out")


def test_a_file_is_read_once_and_again_after_any_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    monkeypatch.setattr(_core, "hash_file", lambda file: (read.append(file.name), file.read_text())[1])
    make(tmp_path / "out")
    # Renamed since: it is the same file.
    file = tmp_path / "out" / "inner" / "data.txt"
    assert [hash_file(file), hash_file(file)] == ["hello"] * 2 and read == ["data.txt"]
    file.write_text("HELLO")
    assert hash_file(file) == "HELLO" and read == ["data.txt"] * 2


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_somebody_puts_there_meanwhile_stays(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"

    def put() -> None:
        if kind == "folder":
            out.mkdir()
        {"file": out, "folder": out / "mine"}.get(kind, tmp_path / "other").write_text("mine")
        if kind == "link":
            out.symlink_to("gone")

    with pytest.raises(FileExistsError, match=r"what was made lies in .*out\.made-\d+"), new_folder(out) as folder:
        (folder / "work").write_text("hours")
        put()
    (kept,) = tmp_path.glob("out.made-*")
    assert (kept / "work").read_text() == "hours"
    assert (out / "mine" if kind == "folder" else tmp_path / "other" if kind == "link" else out).read_text() == "mine"
    assert kind != "link" or out.is_symlink()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_rights_that_a_folder_gives_beyond_the_umask_stay(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.touch()
    umask = os.umask(0o022)
    try:
        for given, kept in ((0o600, 0o644), (0o664, 0o664)):
            file.chmod(given)
            sync_file(file)
            assert file.stat().st_mode & 0o777 == kept
    finally:
        os.umask(umask)
