"""Reading documents from Python: formats, iterables, errors, Ctrl-C."""

from __future__ import annotations

import base64
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langadapt import ConfigError, DataError, build_corpus, read_documents
from langadapt.corpus.documents import Reading, expand_inputs

TEXTS = [f"Zeile {n}: „Grüße“\n\t\\ {n * 7919}" for n in range(300)]


def write_lines(path: Path, texts: list[str], **extra: object) -> Path:
    path.write_text("".join(json.dumps({"id": 1, "text": text, **extra}) + "\n" for text in texts), encoding="utf-8")
    return path


def test_lines_of_json(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", TEXTS)
    assert list(read_documents(path)) == TEXTS
    packed = tmp_path / "a.jsonl.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert list(read_documents([packed, str(path)])) == TEXTS + TEXTS
    assert list(read_documents(str(tmp_path / "*.jsonl*"))) == TEXTS + TEXTS
    assert expand_inputs(tmp_path) == [path, packed]


@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "zstd", "lz4"])
def test_parquet(tmp_path: Path, compression: str) -> None:
    rows = [None if n % 50 == 7 else text for n, text in enumerate(TEXTS * 5)]
    table = pa.table({"id": list(range(len(rows))), "text": rows, "meta": [{"inner": text} for text in rows]})
    path = tmp_path / "a.parquet"
    pq.write_table(table, path, row_group_size=97, compression=compression, use_dictionary=compression == "zstd")
    expected = [text for text in rows if text is not None]
    assert list(read_documents(path)) == expected
    assert list(read_documents(path, text_field="meta.inner")) == expected
    with pytest.raises(DataError, match=r"a\.parquet:8: the text is null"):
        list(read_documents(path, strict=True))
    with pytest.raises(DataError, match=r"no column `content` \(columns: `id`, `text`, `meta\.inner`\)"):
        list(read_documents(path, text_field="content"))
    with pytest.raises(DataError, match="no plain strings"):
        list(read_documents(path, text_field="id"))


def test_parquet_of_large_and_required_strings(tmp_path: Path) -> None:
    schema = pa.schema([pa.field("text", pa.large_string(), nullable=False)])
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": TEXTS}, schema=schema), path, row_group_size=1000, data_page_version="2.0")
    assert list(read_documents(path)) == TEXTS
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="damaged or truncated Parquet"):
        list(read_documents(path))


def test_an_encrypted_column_is_not_only_called_damaged(tmp_path: Path) -> None:
    encryption = pytest.importorskip("pyarrow.parquet.encryption")

    class Keys(encryption.KmsClient):
        def wrap_key(self, key: bytes, _: str) -> bytes:
            return base64.b64encode(key)

    wanted = encryption.EncryptionConfiguration("footer", column_keys={"key": ["text"]}, plaintext_footer=True)
    factory = encryption.CryptoFactory(lambda _: Keys())
    properties = factory.file_encryption_properties(encryption.KmsConnectionConfig(), wanted)
    table = pa.table({"text": ["Guten Tag"] * 50})
    file = tmp_path / "column.parquet"
    with pq.ParquetWriter(file, table.schema, encryption_properties=properties) as writer:
        writer.write_table(table)
    with pytest.raises(DataError, match=r"or one with an encrypted column .* write it without encryption"):
        list(read_documents(file))


def test_iterables_pass_through() -> None:
    assert list(read_documents(iter(TEXTS))) == TEXTS
    assert list(read_documents({"text": text} for text in TEXTS)) == TEXTS
    assert list(read_documents([{"content": text} for text in TEXTS], text_field="content")) == TEXTS
    with pytest.raises(DataError, match=r"document 1: no field `text` \(fields: `content`\)"):
        list(read_documents([{"content": "a"}]))
    with pytest.raises(DataError, match="document 2"):
        list(read_documents([{"text": "a"}, {"text": None}], strict=True))
    with pytest.raises(TypeError):
        read_documents(3)  # type: ignore[arg-type]


def test_skipped_lines_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_lines(tmp_path / "a.jsonl", TEXTS)
    with path.open("a") as file:
        file.write('{"text": "torn\n')
    with caplog.at_level("WARNING", logger="langadapt.corpus"):
        assert list(read_documents(path)) == TEXTS
    assert "skipped 1 lines" in caplog.text
    assert "a.jsonl:301: malformed JSON" in caplog.text


def test_missing_names_are_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        read_documents(tmp_path / "none.jsonl")
    assert Path(caught.value.filename) == tmp_path / "none.jsonl"
    with pytest.raises(FileNotFoundError, match="for texts pass"):
        read_documents("Das ist ein Text und kein Dateiname.")
    with pytest.raises(FileNotFoundError):
        read_documents(["none"])
    with pytest.raises(FileNotFoundError):
        read_documents(["no such folder"])
    with pytest.raises(DataError, match="unknown ending"):
        read_documents(Path(__file__))


def test_a_dropped_iterator_stops_reading(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", TEXTS * 200)
    for _ in range(20):
        assert next(read_documents(path)) == TEXTS[0]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(), min_size=1))
def test_any_text_survives(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    path = write_lines(tmp_path_factory.mktemp("corpus") / "a.jsonl", texts, other="\ud800")
    assert list(read_documents(path)) == texts


def interrupt(code: str) -> float:
    """Run ``code``, press Ctrl-C some time after it has printed a line, and return the seconds until it ended."""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.3)
        started = time.perf_counter()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        assert "KeyboardInterrupt" in errors
    return time.perf_counter() - started


@pytest.mark.parametrize("call", ["next(read_documents(pipe))", "build_corpus(pipe, pipe + '.out')"])
def test_ctrl_c_while_nothing_arrives(tmp_path: Path, call: str) -> None:
    """A pipe that stays silent: the thread that waits for it must not keep the process alive."""
    code = f"""
import os
pipe = {str(tmp_path / "pipe")!r}
os.mkfifo(pipe)
writer = os.open(pipe, os.O_RDWR)
from langadapt import build_corpus, read_documents
print("ready", flush=True)
{call}
"""
    assert interrupt(code) < 1.0


@pytest.mark.parametrize("packed", [False, True])
def test_standard_input(tmp_path: Path, packed: bool) -> None:
    code = "from langadapt import read_documents; import json; print(json.dumps(list(read_documents('-'))))"
    lines = write_lines(tmp_path / "a.jsonl", TEXTS).read_bytes()
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        data = gzip.compress(lines) if packed else lines
        for part in (data[:3], data[3:500], data[500:]):
            process.stdin.write(part)
            process.stdin.flush()
            time.sleep(0.2)
        process.stdin.close()
        assert json.loads(process.stdout.read()) == TEXTS


def test_strings_name_files_and_texts_are_passed_as_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["Ein Satz.", "", "两个句子", "a\0b", "x" * 5000]
    assert list(read_documents(iter(texts))) == texts
    for form in (texts, tuple(texts), iter(texts), [{"text": text} for text in texts]):
        assert list(Reading(texts=form).documents()) == texts
    monkeypatch.chdir(tmp_path)
    Path("alte Texte.txt").write_text("Hallo")
    assert list(read_documents(["alte Texte.txt"])) == list(read_documents(("alte *.txt",))) == ["Hallo"]
    for mistyped in (["Ein Satz."], ["my german corpus"], ["两个", "句子"], ["两" * 300], ["alte Texte.txt", "no"]):
        with pytest.raises(FileNotFoundError):
            read_documents(mistyped)
    for empty in ("", ["alte Texte.txt", ""]):
        with pytest.raises(ConfigError, match="an empty name"):
            read_documents(empty)
    for wrong in ({}, {"inputs": "a", "texts": ["b"]}):
        with pytest.raises(ConfigError, match="either `inputs`, names of files, or `texts`"):
            Reading(**wrong)
    with pytest.raises(TypeError, match="a single string"):
        Reading(texts="Ein Satz.")


def test_a_name_that_is_not_utf8_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / os.fsdecode(b"n\xff.jsonl")).write_text('{"text": "a b"}\n')
    with pytest.raises(DataError, match=r"n\\udcff\.jsonl.*not UTF-8; rename"):
        build_corpus(tmp_path / "c", tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == [tmp_path / "c"]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "iso2022_jp"])
def test_text_without_spaces_in_another_encoding_is_refused(tmp_path: Path, encoding: str) -> None:
    """Thai in UTF-16 has no zero bytes but at line ends, Japanese in seven bits is ASCII: both pass for UTF-8."""
    text = "こんにちは世界\n" if encoding == "iso2022_jp" else "สวัสดีครับยินดีที่ได้รู้จัก" * 9 + "\n"
    (tmp_path / "a.txt").write_bytes(text.encode(encoding) * 9)
    with pytest.raises(DataError, match=r"a\.txt:1: not UTF-8 but what looks like (UTF-16|ISO-2022-JP)"):
        list(read_documents([str(tmp_path / "a.txt")]))


def test_a_link_to_nothing_is_not_left_out_of_a_pattern(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", TEXTS)
    (tmp_path / "b.jsonl").symlink_to("gone")
    for names in (tmp_path, str(tmp_path / "*.jsonl"), tmp_path / "b.jsonl"):
        with pytest.raises(FileNotFoundError, match=r"b\.jsonl"):
            read_documents(names)
