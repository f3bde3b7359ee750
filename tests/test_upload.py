"""Folders into a store and back: whole or not at all, and no more sent than is missing."""

from __future__ import annotations

import fcntl
import json
import re
import shlex
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from remote_kit import Request, Server, behaves, once, put, s3_of_module, url
from typer.testing import CliRunner

from langadapt import (
    ConfigError,
    DataError,
    LangadaptError,
    TokenStore,
    build_corpus,
    download_folder,
    read_documents,
    tokenize_corpus,
    train_bpe,
    upload_folder,
)
from langadapt.artefacts import remote, upload
from langadapt.artefacts.folders import verify
from langadapt.artefacts.names import MANIFEST_NAME, UPLOAD_NAME
from langadapt.artefacts.remote import open_store
from langadapt.cli.main import app, main

__all__ = ["behaves", "s3_of_module", "url"]  # fixtures

ROOT = Path(__file__).resolve().parent.parent
TEXTS = ROOT / "tests" / "texts"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    build_corpus(TEXTS / "german.jsonl", tmp_path / "corpus")
    return tmp_path / "corpus"


def contents(folder: Path) -> dict[str, bytes]:
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and not file.name.startswith(".")
    }


def sent(server: Server) -> list[str]:
    """Names of the files that were sent, in order, without the record."""
    names = [request.path.rpartition("/")[2] for request in server.requests if request.method == "PUT"]
    return [name for name in names if name != UPLOAD_NAME]


def test_there_and_back(corpus: Path, url: str, tmp_path: Path, s3: Server) -> None:
    seen: list[tuple[str, int, int | None, str]] = []
    s3.requests.clear()
    assert upload_folder(corpus, url, progress=lambda *given: seen.append(given)) == 3
    assert sorted(sent(s3)) == sorted(contents(corpus)) and sent(s3)[-1] == MANIFEST_NAME
    puts = [request.path for request in s3.requests if request.method == "PUT"]
    assert puts[0].endswith(UPLOAD_NAME) and puts[-1].endswith(UPLOAD_NAME)
    whole = sum(map(len, contents(corpus).values()))
    assert seen[-1] == ("upload", whole, whole, "bytes")
    assert download_folder(url, tmp_path / "back") == 3
    assert contents(tmp_path / "back") == contents(corpus)
    verify(tmp_path / "back")
    assert list(read_documents(url)) == list(read_documents(corpus))


def test_what_lies_there_is_not_sent_again(corpus: Path, url: str, s3: Server) -> None:
    upload_folder(corpus, url)
    s3.requests.clear()
    assert upload_folder(corpus, url) == 0 and sent(s3) == []
    # Another corpus, of which one file is the same: what is gone from it goes there, too.
    put(f"{url}/train.jsonl.zst", b"somebody's")
    assert upload_folder(corpus, url) == 1
    build_corpus(TEXTS / "german.jsonl", corpus, validation_share=0.0)
    (corpus / "validation.jsonl.zst").unlink()
    manifest = json.loads((corpus / MANIFEST_NAME).read_text())
    del manifest["files"]["validation.jsonl.zst"]
    (corpus / MANIFEST_NAME).write_text(json.dumps(manifest))
    assert upload_folder(corpus, url) == 2
    store, path = open_store(url)
    assert {name.rpartition("/")[2] for name in store.find(path)} == {"train.jsonl.zst", MANIFEST_NAME, UPLOAD_NAME}


@pytest.mark.parametrize("wrong", ["train", "validation", "manifest"])
def test_half_of_it_is_never_taken_for_whole(
    corpus: Path, url: str, tmp_path: Path, s3: Server, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "RECORD_SECONDS", -1.0)
    monkeypatch.setattr(upload, "CONNECTIONS", 1)
    s3.fault = lambda request: "403" if request.method == "PUT" and f"/{wrong}." in request.path else None
    with pytest.raises(PermissionError, match="access denied"):
        upload_folder(corpus, url)
    s3.reset()
    for refuse in (read_documents, lambda url: download_folder(url, tmp_path / "back")):
        with pytest.raises(DataError, match=r"a half upload.*`langadapt upload`") as half:
            refuse(url)
        assert "\n" not in str(half.value)
    assert not (tmp_path / "back").exists()
    s3.requests.clear()
    upload_folder(corpus, url)
    left = {"train": 3, "validation": 2, "manifest": 1}[wrong]
    assert len(sent(s3)) == left
    download_folder(url, tmp_path / "back")
    assert contents(tmp_path / "back") == contents(corpus)


def test_what_passes_costs_nothing_and_a_lost_file_is_missed(
    corpus: Path, url: str, tmp_path: Path, s3: Server
) -> None:
    for wrong in ("503", "reset", "500"):
        s3.fault = once(wrong, lambda request: request.method in ("PUT", "HEAD"), times=3)
        upload_folder(corpus, f"{url}/{wrong}")
        s3.fault = once(wrong, lambda request: request.method == "GET" and request.range is not None, times=3)
        download_folder(f"{url}/{wrong}", tmp_path / wrong)
        assert contents(tmp_path / wrong) == contents(corpus)
    store, path = open_store(f"{url}/503/train.jsonl.zst")
    # As long, but something else; then nothing.
    put(f"{url}/503/train.jsonl.zst", b"x" * store.info(path)["size"])
    with pytest.raises(DataError, match=r"train\.jsonl\.zst: not what was uploaded"):
        download_folder(f"{url}/503", tmp_path / "new")
    store.rm_file(path)
    with pytest.raises(DataError, match=r"train\.jsonl\.zst: missing, or not as long as it was"):
        download_folder(f"{url}/503", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_other_peoples_folders_are_left_alone(corpus: Path, url: str, tmp_path: Path) -> None:
    put(f"{url}/mine.txt", b"mine")
    with pytest.raises(DataError, match="holds files that langadapt has not put there"):
        upload_folder(corpus, url)
    with pytest.raises(DataError, match=r"no langadapt-upload\.json, so it is no whole upload"):
        download_folder(url, tmp_path / "back")
    with pytest.raises(DataError, match="nothing is there"):
        download_folder(f"{url}/none", tmp_path / "back")
    put(f"{url}/bad/{UPLOAD_NAME}", b"[]")
    with pytest.raises(DataError, match=r"langadapt-upload\.json: damaged"):
        upload_folder(corpus, f"{url}/bad")
    outside = {"whole": True, "files": {"../out.txt": {"bytes": 4, "xxh3_128": "0"}}}
    put(f"{url}/outside/{UPLOAD_NAME}", json.dumps(outside).encode())
    with pytest.raises(DataError, match=r"names '\.\./out\.txt', a place outside"):
        download_folder(f"{url}/outside", tmp_path / "back")
    # A copy that other tools cut short has no record at all.
    for name in ("train.jsonl.zst", "validation.jsonl.zst"):
        put(f"{url}/copy/{name}", (corpus / name).read_bytes())
    with pytest.raises(DataError, match=r"a half upload, without its manifest\.json"):
        read_documents(f"{url}/copy")


def test_what_is_not_finished_is_not_sent(corpus: Path, url: str, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "file").write_text("x")
    for folder, said in ((tmp_path / "home", "langadapt has not made it"), (tmp_path / "none", "no such folder")):
        with pytest.raises(ConfigError, match=said):
            upload_folder(folder, url)
    for place in ("https://host/x", "hf://models/a"):
        with pytest.raises(ConfigError, match="folders go to s3://, gs:// or az://"):
            upload_folder(corpus, place)
    run = tmp_path / "run"
    (run / "stages").mkdir(parents=True)
    (run / "stages" / "corpus.json").write_text("{}")
    with (run / "stages" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(LangadaptError, match="a langadapt process is running here"):
            upload_folder(run, url)
    assert upload_folder(run, url) == 1
    (corpus / "train.jsonl.zst").write_bytes(b"altered")
    with pytest.raises(DataError, match="altered or half-written"):
        upload_folder(corpus, url)


def test_a_file_that_changes_on_the_way_is_told(
    corpus: Path, url: str, s3: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(request: Request) -> str | None:
        if request.method == "PUT" and request.path.endswith("train.jsonl.zst"):
            (corpus / "train.jsonl.zst").write_bytes(b"changed")
        return None

    s3.fault = change
    with pytest.raises(DataError, match="changed while it was sent"):
        upload_folder(corpus, url)


def test_the_commands(corpus: Path, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], s3: Server) -> None:
    def say(*arguments: str) -> tuple[str, int]:
        with pytest.raises(SystemExit) as stop:
            main([*arguments])
        return capsys.readouterr().err, int(stop.value.code or 0)

    tokenizer = train_bpe(corpus, 400, code_tokens=False)
    tokenize_corpus(corpus, tokenizer, tmp_path / "store")
    back = tmp_path / "back"
    assert "4 files sent" in say("upload", str(tmp_path / "store"), url)[0]
    assert "up to date" in say("upload", str(tmp_path / "store"), url)[0]
    assert say("download", url, "--out", str(back)) == (f"{back}: 4 files\n", 0)
    assert "up to date" in say("download", url, "--out", str(back))[0]
    assert len(TokenStore.open(back)) == len(TokenStore.open(tmp_path / "store"))
    # Somebody puts another store there: it is fetched anew.
    shutil.rmtree(tmp_path / "store")
    tokenize_corpus(TEXTS / "english.jsonl", tokenizer, tmp_path / "store")
    say("upload", str(tmp_path / "store"), url)
    assert "up to date" not in say("download", url, "--out", str(back))[0]
    assert contents(back) == contents(tmp_path / "store")
    said, code = say("upload", str(corpus), "s3://nowhere/x")
    assert said.strip().count("\n") == 0 and "s3://nowhere/x" in said and "no such" in said and code == 1
    s3.fault = lambda request: "403"
    said, code = say("download", url, "--out", str(tmp_path / "denied"))
    assert said.strip().count("\n") == 0 and "access denied" in said and "SECRET" not in said and code == 1
    assert remote.TRIES > 1


def commands_of(page: str) -> list[list[str]]:
    """Those of the block of a page that this file runs."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    (block,) = re.findall(r"<!-- not run: tests/test_upload\.py runs it.*?-->\n```sh\n(.*?)```", text, re.DOTALL)
    return [shlex.split(line)[1:] for line in block.splitlines()]


def test_the_commands_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, s3: Server) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(2):
        put(f"s3://texts/german/{number}.jsonl", (TEXTS / "german.jsonl").read_bytes())
    commands = commands_of("scale.md")
    assert {command[0] for command in commands} >= {
        "corpus",
        "tokenizer",
        "fertility",
        "tokenize",
        "upload",
        "download",
    }
    for command in commands:
        small = ["600" if word == "32768" else word for word in command]
        done = CliRunner().invoke(app, small)
        assert done.exit_code == 0, f"{command}\n{done.output}\n{done.exception!r}"
    assert contents(tmp_path / "store-here") == contents(tmp_path / "store")


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_whoever_is_killed_is_taken_up(corpus: Path, url: str, tmp_path: Path, s3: Server) -> None:
    s3.patience = 20.0
    seen = threading.Event()

    def hold(request: Request) -> str | None:
        if request.path.endswith("train.jsonl.zst") and (request.method == "PUT" or request.range):
            seen.set()
            return "slow"
        return None

    def killed(*arguments: str) -> None:
        s3.fault = hold
        seen.clear()
        process = subprocess.Popen([sys.executable, "-m", "langadapt", *arguments], stderr=subprocess.DEVNULL)
        assert seen.wait(60)
        process.kill()
        process.wait()
        s3.reset()

    killed("upload", str(corpus), url)
    with pytest.raises(DataError, match="a half upload"):
        read_documents(url)
    assert upload_folder(corpus, url) >= 2
    back = tmp_path / "places" / "back"
    killed("download", url, "--out", str(back))
    assert not back.exists() and len(list(back.parent.iterdir())) == 1
    assert download_folder(url, back) == 3
    assert contents(back) == contents(corpus) and list(back.parent.iterdir()) == [back]
    spool = tmp_path / "spool"
    spool.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(spool))
        killed("tokenizer", "train", url, "--vocab-size", "600", "--out", str(tmp_path / "tokenizer"))
        assert len(list(spool.iterdir())) == 1
        patch.setattr("tempfile.tempdir", None)
        assert list(read_documents(url)) == list(read_documents(corpus)) and not list(spool.iterdir())
