"""The same text in three doors: however a text is packed, encoded and cut into lines, every reader gives what Python's
own tools give, or refuses the file in one line that names it."""

import bz2
import gzip
import io
import itertools
import json
import lzma
import random
import shutil
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from sample_tokenizers import byte_level

from langadapt import Tokenizer, build_corpus, read_documents, tokenize_corpus
from langadapt.errors import DataError

GERMAN = ["Die Straße führt über die Brücke.", "plain words only", "größer, schöner", "zwei  Wörter\t", "Ärger"]
TEXTS = [*GERMAN, "中文 und 😀"]
Log = pytest.LogCaptureFixture

ENDS = {"lf": "\n", "crlf": "\r\n", "cr": "\r"}
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16-le", "utf-16-be"]
MARKS = {"utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff"}


def members(data: bytes, pack: Callable[[bytes], bytes]) -> bytes:
    """In three pieces that end anywhere."""
    size = len(data) // 3 + 1
    return b"".join(pack(data[at : at + size]) for at in range(0, len(data), size))


def zst(data: bytes) -> bytes:
    return pyarrow.compress(data, codec="zstd", asbytes=True)


def skippable(number: int) -> bytes:
    return struct.pack("<II", 0x184D2A50 + number, 9) + b"skip this"


def long_window(data: bytes, log: int = 27) -> bytes:
    """One frame of raw blocks that names a window of ``2**log`` bytes, as ``zstd --long`` does."""
    parts = [data[at : at + (1 << 17)] for at in range(0, len(data), 1 << 17)] or [b""]
    blocks = [(len(part) << 3).to_bytes(3, "little") + part for part in parts]
    blocks[-1] = bytes([blocks[-1][0] | 1]) + blocks[-1][1:]
    return struct.pack("<IBB", 0xFD2FB528, 0, (log - 10) << 3) + b"".join(blocks)


PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".members.gz": lambda data: members(data, gzip.compress),
    ".padded.gz": lambda data: gzip.compress(data) + bytes(1000),
    ".between.gz": lambda data: members(data, lambda part: gzip.compress(part) + bytes(3)),
    ".zst": zst,
    ".frames.zst": lambda data: members(data, zst),
    ".skip.zst": lambda data: skippable(0) + members(data, lambda part: zst(part) + skippable(15)),
    ".long.zst": long_window,
}


def file_name(form: str, packing: str) -> str:
    """The packing's own words come before the ending of the form."""
    *words, ending = packing.split(".") if packing else [""]
    return "a" + "".join(words) + f".{form}" + (f".{ending}" if ending else "")


def lines_of(texts: list[str], form: str) -> list[str]:
    return texts if form == "txt" else [json.dumps({"id": 1, "text": text}, ensure_ascii=False) for text in texts]


def joined(lines: list[str], end: str) -> str:
    if end == "mixed":
        return "".join(line + ending for line, ending in zip(lines, itertools.cycle(ENDS.values())))
    return "".join(line + ENDS[end] for line in lines)


def as_python_reads(text: str, form: str) -> list[str]:
    lines = [line.removesuffix("\n") for line in io.StringIO(text, newline=None) if line.strip()]
    return lines if form == "txt" else [json.loads(line)["text"] for line in lines]


def put(folder: Path, form: str, packing: str, data: bytes) -> Path:
    path = folder / file_name(form, packing)
    path.write_bytes(PACKINGS[packing](data))
    return path


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("packing", PACKINGS)
def test_what_is_certain_is_read(tmp_path: Path, packing: str, encoding: str) -> None:
    for form, end, longer in itertools.product(("jsonl", "txt"), [*ENDS, "mixed"], (1, 600)):
        text = joined(lines_of(TEXTS * longer, form), end)
        path = put(tmp_path, form, packing, MARKS.get(encoding, b"") + text.encode(encoding))
        assert list(read_documents(path)) == as_python_reads(text, form), (form, end)


@pytest.mark.parametrize("packing", PACKINGS)
def test_what_is_not_is_refused_by_name_and_place(tmp_path: Path, packing: str) -> None:
    encodings = ("latin-1", "cp1252", "utf-16-le", "utf-16-be", "utf-32")
    for form, encoding in itertools.product(("jsonl", "txt"), encodings):
        data = joined(lines_of(GERMAN, form), "lf").encode(encoding)
        path = put(tmp_path, form, packing, data)
        with pytest.raises(DataError, match=r":1: not UTF-8") as refusal:
            list(read_documents(path))
        message = str(refusal.value)
        assert path.name in message and "iconv" in message and "\n" not in message


def test_one_broken_line_is_skipped_and_named(tmp_path: Path, caplog: Log) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("Grüße\n".encode() + b"sch\xf6n\n" + "Wörter\n".encode())
    assert list(read_documents(path)) == ["Grüße", "Wörter"]
    assert "a.txt:2: not UTF-8" in caplog.text


def test_utf16_that_ends_amid_a_character(tmp_path: Path, caplog: Log) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xff\xfe" + "whole\nbroken".encode("utf-16-le")[:-1])
    assert list(read_documents(path)) == ["whole"]
    assert "a.txt:2: not UTF-8" in caplog.text


def test_zero_bytes_are_what_python_makes_of_them(tmp_path: Path, caplog: Log) -> None:
    texts = ["ab\0c", "Grüße", "\0"]
    path = tmp_path / "a.txt"
    path.write_text("\n".join(texts), encoding="utf-8")
    assert list(read_documents(path)) == texts
    escaped = tmp_path / "a.jsonl"
    escaped.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    assert list(read_documents(escaped)) == texts
    raw = tmp_path / "b.jsonl"
    raw.write_bytes(b'{"text": "a\0b"}\n{"text": "good"}\n')
    assert list(read_documents(raw)) == ["good"]
    assert "control character" in caplog.text


@pytest.mark.parametrize("codec", ["none", "snappy", "gzip", "brotli", "lz4", "lz4_raw", "zstd"])
def test_parquet_codecs(tmp_path: Path, codec: str) -> None:
    texts = [*TEXTS, "ab\0c", "two\r\nlines"] * 50
    path = tmp_path / "a.parquet"
    table = pyarrow.table({"n": list(range(len(texts))), "text": texts})
    for options in ({}, {"use_dictionary": False, "data_page_version": "2.0"}, {"row_group_size": 7}):
        pyarrow.parquet.write_table(table, path, compression=codec, **options)
        assert list(read_documents(path)) == texts


def check_doors(path: Path, expected: list[str], tokenizer: Tokenizer) -> None:
    """`read_documents`, `corpus build` and `tokenize` of one file give the same documents."""
    assert list(read_documents(path)) == expected
    corpus, store = path.with_name("corpus"), path.with_name("store")
    assert build_corpus(path, corpus, validation_share=0).documents == len(expected)
    assert list(read_documents(corpus)) == expected
    ids = tokenize_corpus(path, tokenizer, store)
    assert [ids[n].tolist() for n in range(len(ids))] == [tokenizer.encode(one).tolist() for one in expected]
    for made in (corpus, store):
        shutil.rmtree(made)


@pytest.mark.parametrize("packing", PACKINGS)
def test_three_doors(tmp_path: Path, packing: str) -> None:
    tokenizer = Tokenizer(byte_level(TEXTS, 300).to_str().encode())
    texts = [*TEXTS, "ab\0c", "noch eine Zeile"]
    for form, encoding, end in itertools.product(("jsonl", "txt"), ENCODINGS, [*ENDS, "mixed"]):
        text = joined(lines_of(texts, form), end)
        path = put(tmp_path, form, packing, MARKS.get(encoding, b"") + text.encode(encoding))
        check_doors(path, as_python_reads(text, form), tokenizer)


@pytest.mark.parametrize("codec", ["none", "snappy", "gzip", "brotli", "lz4", "zstd"])
def test_three_doors_of_parquet(tmp_path: Path, codec: str) -> None:
    texts = [*TEXTS, "ab\0c", "two\r\nlines", "two\rlines\n"]
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), path, compression=codec, row_group_size=3)
    check_doors(path, texts, Tokenizer(byte_level(TEXTS, 300).to_str().encode()))


def test_the_largest_window(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.zst"
    path.write_bytes(long_window(b"one\ntwo\n", 31))
    assert list(read_documents(path)) == ["one", "two"]
    path.write_bytes(long_window(b"one\ntwo\n", 32))
    with pytest.raises(DataError, match="a window of more than 2"):
        list(read_documents(path))


def test_not_a_number_costs_nothing_where_nobody_asks(tmp_path: Path, caplog: Log) -> None:
    rows = [{"text": "a", "score": float("nan")}, {"score": [-float("inf"), float("inf")], "text": "b"}]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert list(read_documents(path, strict=True)) == ["a", "b"]
    path.write_text('{"text": NaN}\n{"text": "c"}\n')
    assert list(read_documents(path)) == ["c"]
    assert "is a number, not a string" in caplog.text


def test_an_array_gets_a_hint(tmp_path: Path) -> None:
    rows = [{"text": "a"}, {"text": "b"}]
    path = tmp_path / "a.json"
    for text in (json.dumps(rows), json.dumps(rows, indent=1), "[" + ",\n".join(map(json.dumps, rows)) + "]"):
        path.write_text(text)
        with pytest.raises(DataError, match=r"a\.json:1: a JSON array.*jq"):
            list(read_documents(path))


def test_an_object_over_several_lines_gets_a_hint(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": text}, indent=1) + "\n" for text in "ab"))
    with pytest.raises(DataError, match=r"a\.jsonl:1: a JSON object over several lines.*jq -c \."):
        list(read_documents(path))
    # A torn line before others is one bad line.
    path.write_text('{\n{"text": "a"}\n')
    assert list(read_documents(path)) == ["a"]


def test_a_line_has_a_limit(tmp_path: Path, caplog: Log) -> None:
    path = tmp_path / "a.txt"
    path.write_text("short\n" + "x" * 300_000 + "\nlast\n")
    assert list(read_documents(path, max_line_bytes=1000)) == ["short", "last"]
    assert "a.txt:2: longer than 1000 bytes" in caplog.text
    report = build_corpus(path, tmp_path / "corpus", max_line_bytes=1000, validation_share=0)
    assert (report.documents, report.skipped["too_long"]) == (2, 1)


def test_a_file_that_shrinks_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("a line of text\n" * 1_000_000)
    documents = read_documents(path)
    next(documents)
    with path.open("r+b") as file:
        file.truncate(15 * 900_000)
    with pytest.raises(DataError, match="became shorter"):
        list(documents)


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl.gz", "a.jsonl.zst", "a.parquet"])
def test_a_file_that_is_written_to_while_it_is_read_is_an_error(tmp_path: Path, name: str) -> None:
    """Parts of two states are no text that anybody has; a file that is replaced or removed is read as it was."""
    draw = random.Random(0)
    # More than is read ahead, packed or not.
    texts = [f"{n} {draw.randbytes(100).hex()}" for n in range(100_000)]
    path, other = tmp_path / name, tmp_path / "other"
    if name.endswith("parquet"):
        pyarrow.parquet.write_table(pyarrow.table({"text": texts}), path, row_group_size=10_000)
    else:
        lines = joined(lines_of(texts, name.split(".")[1]), "lf").encode()
        path.write_bytes({"gz": gzip.compress, "zst": zst}.get(name.split(".")[-1], bytes)(lines))
    whole = path.read_bytes()

    def begun() -> Iterator[str]:
        path.write_bytes(whole)
        documents = read_documents(path)
        assert next(documents) == texts[0]
        return documents

    appended = begun()
    with path.open("ab") as file:
        file.write(whole)
    with pytest.raises(DataError, match=rf"{name}: changed while it was read"):
        list(appended)
    rewritten = begun()
    with path.open("r+b") as file:
        file.write(whole)
    with pytest.raises(DataError, match=rf"{name}: changed while it was read"):
        list(rewritten)
    if not name.endswith("parquet"):
        replaced = begun()
        other.write_bytes(b"other")
        other.rename(path)
        assert list(replaced) == texts[1:]


def tar(data: bytes) -> bytes:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        about = tarfile.TarInfo("a.jsonl")
        about.size = len(data)
        archive.addfile(about, io.BytesIO(data))
    return whole.getvalue()


def zipped(data: bytes) -> bytes:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("a.jsonl", data)
    return whole.getvalue()


def parquet(data: bytes) -> bytes:
    whole = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"text": data.decode().splitlines()}), whole)
    return whole.getvalue()


OTHERS: dict[str, Callable[[bytes], bytes]] = {
    "Git LFS": lambda _: b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 12345\n",
    "Parquet": parquet,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
    "ZIP": zipped,
    "tar": tar,
    "PDF": lambda _: b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n",
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_files_are_called_what_they_are(tmp_path: Path, kind: str) -> None:
    """Never a text in Latin-1, nor documents, whatever they are called and packed in."""
    data = OTHERS[kind]("".join(joined(lines_of(GERMAN * 9, "jsonl"), "lf")).encode())
    for name, pack in (("a.txt", bytes), ("a.jsonl", bytes), ("a.jsonl.gz", gzip.compress), ("a.txt.zst", zst)):
        path = tmp_path / name
        path.write_bytes(pack(data))
        with pytest.raises(DataError, match=rf"{name}:1: no text but .*{kind}.*; "):
            list(read_documents(path))


def test_pointers_and_data_of_another_name(tmp_path: Path) -> None:
    for name, said in (("a.parquet", "no Parquet data"), ("a.jsonl.gz", "no gzip data"), ("a.txt.zst", "no zstd data")):
        path = tmp_path / name
        path.write_bytes(OTHERS["Git LFS"](b""))
        with pytest.raises(DataError, match=rf"{name}: {said} but a pointer of Git LFS .*git lfs pull"):
            list(read_documents(path))
    path.write_bytes(gzip.compress(b"a"))
    with pytest.raises(DataError, match="no zstd data although its name ends"):
        list(read_documents(path))
    twice = tmp_path / "b.txt.gz"
    twice.write_bytes(gzip.compress(gzip.compress(b"a")))
    with pytest.raises(DataError, match="no text but gzip data; unpack it"):
        list(read_documents(twice))


ENCODED = ["PLAIN", "DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY"]
KINDS = [pyarrow.string(), pyarrow.large_string(), pyarrow.string_view(), pyarrow.binary(), pyarrow.binary_view()]


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_parquet_encodings_and_types(tmp_path: Path, version: str) -> None:
    rows = [None if n % 5 == 2 else text for n, text in enumerate([*TEXTS, "", "ab\0c", "x" * 3000] * 20)]
    expected = [text for text in rows if text is not None]
    path = tmp_path / "a.parquet"
    pages = {"data_page_version": version, "data_page_size": 200, "row_group_size": 23}
    for encoding in ENCODED:
        table, how = pyarrow.table({"text": rows}), {"use_dictionary": False, "column_encoding": encoding}
        pyarrow.parquet.write_table(table, path, **how, **pages)
        assert list(read_documents(path)) == expected, encoding
    arrays = [pyarrow.array(rows, pyarrow.string()).cast(kind) for kind in KINDS]
    for array in (*arrays, pyarrow.array(rows).dictionary_encode()):
        pyarrow.parquet.write_table(pyarrow.table({"text": array}), path, write_page_index=True, **pages)
        assert list(read_documents(path)) == expected, array.type


def test_parquet_columns_of_one_name(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    flat, deep = pyarrow.array(["flat"]), pyarrow.array([{"text": "deep"}])
    pyarrow.parquet.write_table(pyarrow.table([flat, flat], names=["text", "text"]), path)
    with pytest.raises(DataError, match="several columns are called `text`"):
        list(read_documents(path))
    pyarrow.parquet.write_table(pyarrow.table([flat, deep], names=["a.text", "a"]), path)
    with pytest.raises(DataError, match=r"several columns are called `a\.text`"):
        list(read_documents(path, text_field="a.text"))
    pyarrow.parquet.write_table(pyarrow.table([flat, deep], names=["a b", "a"]), path)
    assert list(read_documents(path, text_field="a b")) == ["flat"]
    assert list(read_documents(path, text_field="a.text")) == ["deep"]


def bytes_read() -> int:
    return int(Path("/proc/self/io").read_text().split("rchar: ")[1].split("\n")[0])


def test_a_footer_is_not_read_for_each_row_group(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    texts = [f"Zeile {n}" for n in range(2000)]
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), path, row_group_size=1)
    before = bytes_read()
    assert list(read_documents(path)) == texts
    # Pages are read through buffers; the footer has some 200,000 bytes.
    assert bytes_read() - before < 50_000 * len(texts)
