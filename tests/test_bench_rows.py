"""Raw rows of the benches: one form for all that are committed, and experiments that go on from theirs."""

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
COMMITTED = sorted([*(ROOT / "benches" / "reports").iterdir(), *(ROOT / "docs" / "runs").iterdir()])


@pytest.fixture
def row_files(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benches"))
    return importlib.import_module("row_files")


@pytest.mark.parametrize("file", [file for file in COMMITTED if file.suffix == ".jsonl"], ids=lambda file: file.stem)
def test_committed_rows_come_back_byte_for_byte(row_files, file, tmp_path):
    about, rows = row_files.read_rows(file)
    assert rows and "about" not in rows[0]
    row_files.write_rows(tmp_path / "copy.jsonl", about, rows)
    assert (tmp_path / "copy.jsonl").read_bytes() == file.read_bytes()


def test_no_rows_in_another_form():
    assert {file.suffix for file in COMMITTED} == {".jsonl", ".md"}


def test_an_experiment_goes_on_from_its_rows(row_files, tmp_path):
    path = tmp_path / "new folder" / "rows.jsonl"
    row_files.RowFile(path, {"steps": 1, "device": "CPU"}).add({"arm": "ü"})
    again = row_files.RowFile(path, {"steps": 2})
    assert again.rows == [{"arm": "ü"}]
    again.add({"arm": "b"})
    assert row_files.read_rows(path) == ({"steps": 2, "device": "CPU"}, [{"arm": "ü"}, {"arm": "b"}])
    assert len(path.read_text(encoding="utf-8").splitlines()) == 3
    row_files.write_rows(path, {}, again.rows)
    assert row_files.read_rows(path) == ({}, again.rows)


@pytest.mark.parametrize(
    ("runner", "report"),
    [
        ("bpe_encoding", "bpe_encoding_2cores_202611"),
        ("bpe_training", "bpe_training_de_2cores_202611"),
        ("bpe_training", "bpe_training_ar_2cores_202611"),
        ("corpus", "corpus_2cores_202611"),
        ("evaluation", "evaluation_1thread_202611"),
        ("items", "items_cpu_202611"),
        ("threads", "threads_2cores_202611"),
        ("training_cpu", "training_cpu_2cores_202611"),
    ],
)
def test_a_report_says_what_its_rows_say(row_files, runner, report):
    file = ROOT / "benches" / "reports" / f"{report}.jsonl"
    table = importlib.import_module(runner).table(row_files.read_rows(file)[1])
    assert table in file.with_suffix(".md").read_text(encoding="utf-8")


@pytest.mark.parametrize("experiment", ["initialisers", "precision", "embeddings_first", "adapter"])
def test_the_page_of_an_experiment_says_what_its_rows_say(row_files, experiment):
    file = ROOT / "docs" / "runs" / f"{experiment}.jsonl"
    table = importlib.import_module(experiment).table(file)
    assert table in file.with_suffix(".md").read_text(encoding="utf-8")
