"""Where results are written: somebody's files, devices and pipes stay as they are."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import typer
import yaml
from sample_tokenizers import byte_level

from langadapt.artefacts.folders import new_folder, whole_file
from langadapt.artefacts.places import begins, check_file, check_folder
from langadapt.artefacts.stages import Run
from langadapt.cli.main import describe
from langadapt.evaluation.sheet import Pair, check_sheet, write_sheet
from langadapt.planning.first_recipe.writing import in_comment, wrapped
from langadapt.vectors import save_vectors
from langadapt.vectors.cbow import check_place

main_module = import_module("langadapt.cli.main")

PAIRS = [Pair("a", "b", "c")]


def test_vectors_replace_vectors_alone(tmp_path: Path) -> None:
    out = tmp_path / "v.safetensors"
    for _ in range(2):
        save_vectors(np.ones((3, 2), np.float32), out)
    for content in (b"precious", b'{"text": "mine"}\n', b"\x08" + bytes(7) + b"{}      "):
        out.write_bytes(content)
        with pytest.raises(FileExistsError, match="nothing that langadapt would have written"):
            check_place(out, 1)
        with pytest.raises(FileExistsError):
            save_vectors(np.ones((3, 2), np.float32), out)
        assert out.read_bytes() == content


def test_sheets_replace_sheets_alone(tmp_path: Path) -> None:
    out = tmp_path / "s.html"
    key = write_sheet(PAIRS, ("one", "two"), out, title="t")
    assert write_sheet(PAIRS, ("one", "two"), out, title="t") == key
    for file, content in ((out, "<!doctype html>\n<p>mine</p>"), (key, '{"mine": 1}')):
        whole = file.read_bytes()
        file.write_text(content)
        with pytest.raises(FileExistsError, match=file.name):
            check_sheet(out)
        with pytest.raises(FileExistsError):
            write_sheet(PAIRS, ("one", "two"), out, title="t")
        assert file.read_text() == content
        file.write_bytes(whole)


def test_what_is_no_file_stays(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for place in (pipe, Path("/dev/null")):
        for write in (lambda there: check_file(there, lambda _: True), lambda there: whole_file(there).__enter__()):
            with pytest.raises(FileExistsError, match="device or a pipe"):
                write(place)
        assert place.exists() and not place.is_file()
    with pytest.raises(IsADirectoryError, match="is a folder; name a file"):
        check_file(tmp_path, lambda _: True)
    (tmp_path / "empty").touch()
    check_file(tmp_path / "empty", lambda there: begins(there, b"GGUF"))
    check_file(tmp_path / "absent", lambda there: False)


def test_links_that_lead_back_are_one_line(tmp_path: Path) -> None:
    told = describe(RuntimeError(f"Symlink loop from '{tmp_path}/a'"))
    assert told == (f"'{tmp_path}/a': a link that leads back to itself", 1)


def test_what_is_no_text_is_named() -> None:
    error = TypeError("failed to extract field Reading.text_field")
    error.__cause__ = UnicodeEncodeError("utf-8", "a\udcff", 1, 2, "surrogates not allowed")
    assert describe(error) == (r"'a\udcff': no text in UTF-8; give it in UTF-8", 2)


def test_nothing_lies_below_a_file_or_behind_a_missing_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "nothing").symlink_to("gone")
    with pytest.raises(NotADirectoryError, match=r"a file, below which.*: '.*/file'"):
        check_folder(tmp_path / "file" / "a" / "b")
    with pytest.raises(NotADirectoryError, match=r"a file, below which.*: '.*/file'"):
        Run(tmp_path / "file", print)
    with pytest.raises(FileNotFoundError, match="out of a folder that is not there"):
        check_folder(tmp_path / "missing" / ".." / "out")
    with pytest.raises(FileExistsError, match="is a file; name a folder"):
        check_folder(tmp_path / "file")
    check_folder(tmp_path / "a" / "b")
    check_folder(tmp_path / "nothing")
    for write in (lambda there: check_file(there, lambda _: True), lambda there: whole_file(there).__enter__()):
        with pytest.raises(FileExistsError, match="a link to what is not there"):
            write(tmp_path / "nothing")
    assert (tmp_path / "nothing").is_symlink()


def run(*arguments: str, shell: str = "", folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command, ``shell`` behind it."""
    line = f'"$0" -m langadapt "$@" {shell}'
    command = ["bash", "-o", "pipefail", "-c", line, sys.executable, *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, cwd=folder, env={**os.environ, **environment}
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.txt").write_text("".join(f"Das ist Zeile {n}.\n" for n in range(200)))
    byte_level(["Das ist eine Zeile."], 300).save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def test_what_another_stage_made_stays(folder: Path) -> None:
    assert run("tokenize", "a.txt", "--tokenizer", "tokenizer.json", "--out", "store", folder=folder).returncode == 0
    assert run("tokenizer", "train", "a.txt", "--vocab-size", "300", "--out", "tok", folder=folder).returncode == 0
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    for out, made in (("store", "tokenize"), ("tok", "tokenizer")):
        done = run("corpus", "build", "a.txt", "--out", out, folder=folder)
        assert (done.returncode, done.stderr) == (2, f"error: {out}: holds what `{made}` made; name another folder\n")
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before
    # An own result is replaced, and so are its stamps.
    for size in ("290", "300"):
        again = run("tokenizer", "train", "a.txt", "--vocab-size", size, "--out", "tok", folder=folder)
        assert again.returncode == 0, again.stderr


@pytest.mark.parametrize("out", [["--out", ""], ["--out="], ["-o", ""]])
def test_an_empty_place_is_not_the_current_folder(folder: Path, out: list[str]) -> None:
    before = sorted(folder.iterdir())
    done = run("tokenizer", "train", "a.txt", "--vocab-size", "300", *out, folder=folder)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "--out: is empty" in done.stderr
    assert sorted(folder.iterdir()) == before


def test_streams_that_are_closed(folder: Path) -> None:
    build = ["corpus", "build", "a.txt", "--out", "corpus"]
    usual = run(*build, folder=folder)
    assert usual.returncode == 0
    made = (folder / "corpus" / "train.jsonl.zst").read_bytes()
    for shell in (">&-", "<&- >&- 2>&-", "| true"):
        shutil.rmtree(folder / "corpus")
        done = run(*build, shell=shell, folder=folder)
        assert (done.returncode, done.stderr) in [(0, ""), (0, usual.stderr)], shell
        assert (folder / "corpus" / "train.jsonl.zst").read_bytes() == made
    counted = run("fertility", "tokenizer.json", "--corpus", "a.txt", "--json", shell=">&-", folder=folder)
    assert (counted.returncode, counted.stderr) == (0, "")
    nothing = run("corpus", "build", "-", "--out", "other", shell="<&-", folder=folder)
    assert (nothing.returncode, nothing.stderr) == (1, "error: -: no document: the input is empty\n")


def test_a_current_folder_that_is_gone(tmp_path: Path) -> None:
    line = 'cd "$1" && rmdir "$1" && "$0" -m langadapt corpus build a.txt --out out'
    gone = tmp_path / "gone"
    gone.mkdir()
    command = ["bash", "-c", line, sys.executable, str(gone)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("error: the current folder is gone")


def test_no_columns_are_no_reason_to_say_nothing(folder: Path) -> None:
    wide = [
        run("fertility", "tokenizer.json", "--corpus", "a.txt", folder=folder, COLUMNS=n).stdout for n in ("80", "0")
    ]
    assert wide[0] == wide[1] != ""
    assert run("corpus", "build", "none", "--out", "o", folder=folder, COLUMNS="0").stderr.startswith("error: none: ")


def test_the_end_of_a_file_is_no_ctrl_c(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def read() -> None:
        raise EOFError("data too short")

    monkeypatch.setattr(main_module, "app", typer.Typer(pretty_exceptions_enable=False))
    main_module.app.command()(read)
    with pytest.raises(SystemExit) as left:
        main_module.main([])
    assert left.value.code == 1
    assert "EOFError: data too short" in capfd.readouterr().err


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_called_by_the_name_of_the_result(tmp_path: Path, code: int) -> None:
    out = tmp_path.resolve() / "out"

    def failing(write: Callable[[Path], None], *, file: bool = False) -> str:
        with pytest.raises(OSError) as failure, whole_file(out) if file else new_folder(out) as place:
            write(place)
        text, exit_code = describe(failure.value)
        assert exit_code == 1
        assert text.endswith(", and run the same command again")
        return text.split(": ")[0]

    def naming(*names: str) -> Callable[[Path], None]:
        def write(place: Path) -> None:
            raise OSError(code, os.strerror(code), *names[:1], None, *names[1:])

        return write

    def inside(place: Path) -> None:
        naming(str(place / "a.bin"))(place)

    def copying(place: Path) -> None:
        naming("/input/a.bin", str(place / "a.bin"))(place)

    assert failing(naming()) == failing(naming(), file=True) == str(out)
    assert failing(inside) == failing(copying) == str(out / "a.bin")
    assert failing(lambda place: naming(str(place))(place), file=True) == str(out)
    assert failing(naming("/elsewhere/a")) == "/elsewhere/a"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a folder in which nobody may write")
def test_places_that_cannot_be_written_are_told_before_the_work(folder: Path) -> None:
    for command in (["train", "a.txt", "--vocab-size", "300"], ["count", "a.txt"]):
        done = run("tokenizer", *command, "--out", "/proc/out", folder=folder)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert done.stderr.startswith("error: /proc: ") and "nothing can be written there" in done.stderr
    with pytest.raises(OSError, match="nothing can be written there"):
        check_file(Path("/proc/out"), lambda _: True)


def test_names_in_the_comments_of_a_recipe() -> None:
    name = "a\nout: evil\x1b[31m\udcff\u2028b"
    assert yaml.safe_load(f"# {in_comment(name)}\nx: 1\n") == {"x": 1}
    assert wrapped(name, 0) == ["a out: evil\ufffd[31m\ufffd\ufffdb"]
