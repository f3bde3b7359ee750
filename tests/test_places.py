"""Where results are written: somebody's files, devices and pipes stay as they are."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from langadapt.artefacts.folders import whole_file
from langadapt.artefacts.places import begins, check_file
from langadapt.cli.main import describe
from langadapt.evaluation.sheet import Pair, check_sheet, write_sheet
from langadapt.vectors import save_vectors
from langadapt.vectors.cbow import check_place

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
