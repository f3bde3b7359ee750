"""Text in stores: what is read is what lies there, whatever happens on the way, and never less."""

from __future__ import annotations

import contextlib
import gzip
import importlib.util
import json
import logging
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from remote_kit import Request, Server, behaves, once, put, put_folder, s3_of_module
from test_pipeline_flow import recipe

from langadapt import (
    ConfigError,
    DataError,
    LangadaptError,
    _core,
    build_corpus,
    expand_inputs,
    measure_fertility,
    read_documents,
    tokenize_corpus,
    train_bpe,
)
from langadapt.artefacts import remote
from langadapt.artefacts.remote import expand, shown
from langadapt.artefacts.shards import Shard, find_parts
from langadapt.cli.fertility import named
from langadapt.cli.main import main
from langadapt.corpus import arriving
from langadapt.corpus.documents import files_of
from langadapt.corpus.parts import build_corpus_part, merge_corpus
from langadapt.pipeline.aligned import pairs_as_documents
from langadapt.tokenizer.counting import count_words

__all__ = ["behaves", "recipe", "s3_of_module"]  # fixtures

TEXTS = Path(__file__).parent / "texts"
URL = "s3://texts/in"
BUILD: dict[str, Any] = {"block_bytes": 60_000, "validation_bytes": 20_000, "validation_share": 0.2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, s3: Server) -> Path:
    """Real text in all formats, here and at `URL`; names whose order depends on how a path is compared."""
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    place = tmp_path_factory.mktemp("remote") / "in"
    for name in ("a", "a-b", ".hidden"):
        (place / name).mkdir(parents=True)
    texts = list(read_documents(TEXTS / "german.jsonl"))
    lines = [json.dumps({"text": text}) + "\n" for text in texts]
    for number in range(8):
        own = "".join([*lines[number * 5 : number * 5 + 20], "torn\n" if number == 4 else ""])
        (place / ("a" if number % 2 else "a-b") / f"{number}.jsonl").write_text(own, "utf-8")
    (place / "b.jsonl.gz").write_bytes(gzip.compress("".join(lines[40:70]).encode()))
    shutil.copy(build_zstd(tmp_path_factory.mktemp("zstd")), place / "c.jsonl.zst")
    rows = pyarrow.table({"text": texts[20:60]})
    parquet.write_table(rows, place / "d.parquet", row_group_size=7)
    (place / "e.txt").write_text("\n".join(text.replace("\n", " ") for text in texts[:20]), "utf-8")
    (place / "notes.json").write_text("{}")
    (place / ".hidden" / "f.txt").write_text("not read")
    (place / "empty.jsonl").write_text("")
    (place / "a" / "9[x]?.txt").write_text("a name like a pattern\n")
    put_folder(place, URL)
    return place


@pytest.fixture
def web() -> Iterator[Server]:
    pytest.importorskip("aiohttp", reason="`aiohttp` is not installed (the extra `langadapt[remote]`)")
    server = Server()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remote, "WAIT", 0.01)
        yield server
    server.close()


def build_zstd(place: Path) -> Path:
    build_corpus(TEXTS / "english.jsonl", place / "made")
    return place / "made" / "train.jsonl.zst"


def contents(folder: Path) -> dict[str, bytes]:
    """What was made, but for what it was made from."""
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir()) if not file.name.startswith((".", "man"))}


def lines_of_text(count: int) -> bytes:
    return b"".join(json.dumps({"text": f"document {number}"}).encode() + b"\n" for number in range(count))


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[str, int]:
    """The one line that a command says, and its exit code."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    said = capsys.readouterr().err.strip()
    assert "\n" not in said and "defect" not in said, said
    return said, int(stop.value.code or 0)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("options", [{}, {"exact_duplicates": True, "near_duplicates": True}])
def test_a_corpus_of_a_store_is_that_of_a_disk(
    folder: Path, tmp_path: Path, threads: int, options: dict[str, Any]
) -> None:
    here = build_corpus(folder, tmp_path / "here", **BUILD, **options)
    there = build_corpus(URL, tmp_path / "there", threads=threads, **BUILD, **options)
    assert contents(tmp_path / "here") == contents(tmp_path / "there")
    assert here.files == 14 and here.skipped["malformed_json"] == 1
    (problem,) = there.first_problems
    assert problem["path"] == f"{URL}/a-b/4.jsonl"
    assert {**here.to_dict(), "first_problems": []} == {**there.to_dict(), "first_problems": []}
    made_from = json.loads((tmp_path / "there" / "manifest.json").read_text())["inputs"]
    names = [file.relative_to(folder).as_posix() for file in files_of(folder) or {} for file in [Path(file)]]
    assert list(made_from) == [f"{URL}/{name}" for name in names] and names[0] == "a/1.jsonl"
    assert not list((tmp_path / "there").glob(".*"))


def test_files_patterns_and_disks_mix(folder: Path, s3: Server) -> None:
    here = list(read_documents([f"{folder}/a/*.jsonl", f"{folder}/d.parquet", str(TEXTS / "english.jsonl")]))
    there = [f"{URL}/a/*.jsonl", f"{URL}/d.parquet", str(TEXTS / "english.jsonl")]
    assert list(read_documents(there)) == here
    assert len([one for one in s3.requests if one.method == "GET" and one.range]) == 5


def test_all_who_read_text_read_it_there(folder: Path, tmp_path: Path) -> None:
    here, there = (train_bpe(place, 400, code_tokens=False) for place in (folder, URL))
    assert here.definition == there.definition
    assert (
        measure_fertility({"a": here}, {"x": folder}).to_dict() == measure_fertility({"a": here}, {"x": URL}).to_dict()
    )
    for name, place in (("here", folder), ("there", URL)):
        tokenize_corpus(place, here, tmp_path / name)
        count_words(place, tmp_path / f"{name}-counts")
    assert contents(tmp_path / "here") == contents(tmp_path / "there")
    assert contents(tmp_path / "here-counts") == contents(tmp_path / "there-counts")


def test_shards_of_a_store_merge_to_the_same(folder: Path, tmp_path: Path) -> None:
    build_corpus(folder, tmp_path / "whole", **BUILD, near_duplicates=True)
    for number in range(3):
        build_corpus_part(URL, tmp_path / "parts", Shard(number, 3), **BUILD, near_duplicates=True)
    merge_corpus(find_parts([tmp_path / "parts"]), tmp_path / "merged")
    assert contents(tmp_path / "whole") == contents(tmp_path / "merged")


def test_a_recipe_and_pairs(recipe: Any, s3: Server, tmp_path: Path) -> None:
    from langadapt.pipeline.job import open_job
    from langadapt.pipeline.text import corpus

    put("s3://texts/recipe/german.jsonl", (TEXTS / "german.jsonl").read_bytes())
    put("s3://texts/recipe/pairs/parallel.jsonl", (TEXTS / "parallel.jsonl").read_bytes())
    assert list(pairs_as_documents(["s3://texts/recipe/pairs"])) == list(
        pairs_as_documents([str(TEXTS / "parallel.jsonl")])
    )
    settings = {"target": ["s3://texts/recipe/german.jsonl"], "validation_share": 0.2, "source_share": 0.0}
    job = open_job(recipe(corpus=settings, out=str(tmp_path / "run")))
    part = corpus(job, job.recipe.corpus.texts[0])
    build_corpus(TEXTS / "german.jsonl", tmp_path / "here", **job.recipe.corpus.building(part.source))
    assert contents(part.train.parent) == contents(tmp_path / "here")
    read = len(s3.requests)
    corpus(job, job.recipe.corpus.texts[0])
    assert not [one for one in s3.requests[read:] if one.range]
    with pytest.raises(ConfigError, match="has a signature or password, and recipes are kept") as wrong:
        recipe(corpus={"target": ["https://somewhere/x.jsonl?X-Amz-Signature=SECRET"], "validation_share": 0.2})
    assert "SECRET" not in str(wrong.value)


def test_what_changed_in_a_store_is_read_anew(s3: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put("s3://texts/changing/a.jsonl", lines_of_text(50))
    command = ["corpus", "build", "s3://texts/changing", "--out", str(tmp_path / "out")]
    for text, said in ((50, ""), (50, "up to date"), (51, ""), (51, "up to date")):
        put("s3://texts/changing/a.jsonl", lines_of_text(text))
        with pytest.raises(SystemExit) as stop:
            main(command)
        shown = capsys.readouterr()
        assert not stop.value.code and (said or "train") in shown.err + shown.out
        if not said:
            assert "up to date" not in shown.err
    made = sum(len(list(read_documents(tmp_path / "out" / f"{part}.jsonl.zst"))) for part in ("train", "validation"))
    assert made == 51


def is_content(request: Request) -> bool:
    return request.method == "GET" and request.range is not None


@pytest.mark.parametrize("wrong", ["503", "500", "429", "cut", "reset"])
def test_what_passes_costs_nothing(folder: Path, s3: Server, wrong: str) -> None:
    s3.fault = once(wrong, is_content, times=4)
    assert list(read_documents(URL)) == list(read_documents(folder))
    assert len([one for one in s3.requests if is_content(one)]) == 13 + 4


@pytest.mark.parametrize("wrong", ["503", "reset"])
def test_listing_is_asked_again_too(folder: Path, s3: Server, wrong: str) -> None:
    s3.fault = once(wrong, lambda request: "list-type" in request.path or request.method == "HEAD", times=4)
    assert list(read_documents(f"{URL}/a")) == list(read_documents(folder / "a"))


def test_silence_ends_and_is_asked_again(folder: Path, s3: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PATIENCE", 0.5)
    s3.fault = once("slow", is_content, times=2)
    started = time.monotonic()
    assert list(read_documents(f"{URL}/a")) == list(read_documents(folder / "a"))
    assert time.monotonic() - started < 2 * s3.patience


def test_a_dropped_connection_goes_on_at_the_byte(s3: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    content = lines_of_text(2000)
    put("s3://texts/long/a.jsonl", content)
    monkeypatch.setattr(remote, "CHUNK", 10_000)
    s3.fault = once("cut", lambda request: is_content(request) and request.start >= 20_000, times=2)
    s3.requests.clear()
    assert len(list(read_documents("s3://texts/long/a.jsonl"))) == 2000
    starts = [request.start for request in s3.requests if is_content(request)]
    # Half of the range came the first time, and half of its rest the second time.
    assert sorted(starts) == sorted([*range(0, len(content), 10_000), 25_000, 27_500])


@pytest.mark.parametrize("wrong", ["503", "cut", "reset"])
def test_what_does_not_pass_is_one_line_of_the_first_file(
    folder: Path, s3: Server, tmp_path: Path, wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    s3.fault = lambda request: (
        wrong if is_content(request) and request.path.endswith(("3.jsonl", "d.parquet")) else None
    )
    said, code = refused(["corpus", "build", URL, "--out", str(tmp_path / "out"), "--threads", "4"], capsys)
    assert code == 1 and f"{URL}/a/3.jsonl: {remote.TRIES} tries were in vain" in said
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))
    asked = [request for request in s3.requests if is_content(request) and request.path.endswith("3.jsonl")]
    # `aiohttp` asks once more by itself where a connection that was in use is closed without a word.
    assert len(asked) in (remote.TRIES, 2 * remote.TRIES)


def test_no_rights_no_bucket_no_file(folder: Path, s3: Server, capsys: pytest.CaptureFixture[str]) -> None:
    for name, said in (
        ("s3://nowhere/x.jsonl", "s3://nowhere/x.jsonl: no such file, folder or bucket"),
        ("s3://nowhere", "s3://nowhere: no such file, folder or bucket"),
        (f"{URL}/none.jsonl", f"{URL}/none.jsonl: no such file, folder or bucket"),
        (f"{URL}/*.md", f"{URL}/*.md: no file matches this pattern"),
        ("ftp://host/x.jsonl", "ftp:// is no scheme that is read here; there are s3://"),
        ("gs://bucket/x.jsonl", "gs:// needs the package `gcsfs`; install `gcsfs`"),
    ):
        assert said in refused(["corpus", "build", name, "--out", "out"], capsys)[0]
    denied = lambda request: "403"  # noqa: E731
    for fault in (denied, lambda request: "403" if is_content(request) else None):
        s3.fault = fault
        said, code = refused(["corpus", "build", f"{URL}/e.txt", "--out", "out"], capsys)
        assert f"{URL}/e.txt: access denied" in said and "SECRET" not in said and code == 1


def test_credentials_come_from_the_machine_alone(
    folder: Path, s3: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import fsspec

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    stores = type(fsspec.filesystem("s3"))
    stores.clear_instance_cache()
    assert "no valid credentials" in refused(["corpus", "build", f"{URL}/e.txt", "--out", "out"], capsys)[0]
    stores.clear_instance_cache()


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "find_spec", lambda name: None)
    for name, extra in (("s3://b/x.txt", r"langadapt\[remote\]"), ("https://h/x.txt", r"langadapt\[remote\]")):
        with pytest.raises(ConfigError, match=f"install `{extra}`"):
            read_documents(name)


def test_a_signature_is_seen_by_nobody(
    web: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    path = "/text/a.jsonl?X-Amz-Credential=me&X-Amz-Signature=SECRET"
    web.files[path] = lines_of_text(60) + b"torn\n"
    caplog.set_level(logging.DEBUG)
    out = tmp_path / "out"
    for arguments in (
        ["--debug", "corpus", "build", web.url + path, "--out", str(out)],
        ["--debug", "corpus", "build", web.url + path, "--out", str(tmp_path / "parts"), "--shard", "0/1"],
        [
            "--debug",
            "tokenizer",
            "train",
            web.url + path,
            "--out",
            str(tmp_path / "tok"),
            "--vocab-size",
            "300",
            "--accept-fewer",
        ],
        ["--debug", "tokenizer", "count", web.url + path, "--out", str(tmp_path / "counts")],
    ):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert not stop.value.code
    web.fault = lambda request: "403"
    with pytest.raises(SystemExit):
        main(["--debug", "corpus", "build", web.url + path, "--out", str(tmp_path / "new")])
    web.fault = lambda request: "503" if request.method == "GET" else None
    with pytest.raises(SystemExit):
        main(["--debug", "corpus", "build", web.url + path, "--out", str(tmp_path / "new")])
    said = "".join([*capfd.readouterr(), caplog.text])
    written = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert f"{web.url}/text/a.jsonl: access denied" in said and "tries were in vain" in said
    assert b"/text/a.jsonl" in written
    for secret in ("SECRET", "X-Amz"):
        assert secret not in said and secret.encode() not in written
    with pytest.raises(ConfigError, match="is not on this machine") as wrong:
        expand_inputs([web.url + path])
    assert "SECRET" not in str(wrong.value)
    assert named("--corpus", ["https://host/x?sig=SECRET"]) == {"x": "https://host/x?sig=SECRET"}
    assert shown("https://me:SECRET@host/x?SECRET#SECRET") == "https://host/x"
    with pytest.raises(ConfigError, match="a password in a URL is seen by all") as wrong:
        read_documents("https://me:SECRET@host/x.txt")
    assert "SECRET" not in str(wrong.value)


def test_files_on_the_web(web: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "CHUNK", 5_000)
    names = ["a/1.jsonl", "b.jsonl.gz", "c.jsonl.zst", "d.parquet"]
    web.files = {f"/{name}": (folder / name).read_bytes() for name in names}
    web.fault = once("cut", is_content, times=5)
    web.requests.clear()
    here = list(read_documents([str(folder / name) for name in names]))
    assert list(read_documents([f"{web.url}/{name}" for name in names])) == here
    assert len([one for one in web.requests if is_content(one) and one.start % 5_000]) == 5
    # Nobody can tell whether a file without a version is what it was.
    web.headers = {"ETag": "", "Last-Modified": ""}
    assert files_of(f"{web.url}/d.parquet") is None


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("longer", "bytes long by one answer of its server"),
        ("shorter", "bytes long by one answer of its server"),
        ("no ranges", "its server gives no ranges"),
        ("no length", "does not say how long it is"),
        ("changing", "changed while it was read"),
        ("short answer", "tries were in vain"),
    ],
)
def test_a_wrong_length_is_no_shorter_corpus(web: Server, tmp_path: Path, case: str, said: str) -> None:
    content = lines_of_text(100)
    web.files = {"/a.jsonl": content}
    if case in ("longer", "shorter"):
        more = 10 if case == "longer" else -10
        web.fault = lambda request: web.headers.update({"Content-Length": str(len(content) + more)})
    elif case == "no ranges":
        web.ranges = False
    elif case == "no length":
        web.fault = lambda request: web.headers.update({"Content-Length": ""})
    elif case == "changing":
        web.fault = lambda request: web.files.update({"/a.jsonl": lines_of_text(90)}) if request.range else None
        web.files = {"/a.jsonl": lines_of_text(90).replace(b"document 1", b"Document 1")}
    else:
        web.fault = lambda request: (
            web.headers.update({"Content-Range": "bytes"})
            or (web.files.update({"/a.jsonl": content[:-7]}) if request.range else None)
        )
    with pytest.raises(LangadaptError, match=said) as wrong:
        build_corpus(f"{web.url}/a.jsonl", tmp_path / "out")
    assert f"{web.url}/a.jsonl: " in str(wrong.value) and "\n" not in str(wrong.value)
    assert not (tmp_path / "out").exists()


def test_the_folder_between_stays_small(
    folder: Path, s3: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []
    fetch = arriving.Spool.fetch

    def watched(self: arriving.Spool, number: int) -> None:
        fetch(self, number)
        there = []
        for file in self.folder.iterdir():
            # The reader deletes what it has read meanwhile.
            with contextlib.suppress(FileNotFoundError):
                if file.suffix == "" and file.name != "over":
                    there.append(file.stat().st_size)
        seen.append((len(there), sum(there)))

    monkeypatch.setattr(arriving.Spool, "fetch", watched)
    monkeypatch.setattr(arriving, "AHEAD_FILES", 3)
    monkeypatch.setattr(arriving, "AHEAD_BYTES", 60_000)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    documents = read_documents(URL)
    first = next(documents)
    (spool,) = tmp_path.iterdir()
    assert spool.stat().st_mode & 0o777 == 0o700
    assert [first, *documents] == list(read_documents(folder))
    largest = max(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    assert len(seen) == 14 and max(count for count, _ in seen) <= 3
    assert max(size for _, size in seen) <= max(60_000, largest)
    # Whoever stops reading leaves nothing behind.
    documents = read_documents(URL)
    next(documents)
    documents.close()
    assert not list(tmp_path.iterdir())


def test_no_room_is_said_with_figures(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=arriving.SPARE_BYTES + 100)
    monkeypatch.setattr(arriving.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DataError, match=rf"{URL}/a/1\.jsonl: no room in .*: 67\.\d MB are needed, 67\.1 MB free"):
        list(read_documents(URL))


def test_the_core_waits_for_files_and_takes_them_away(tmp_path: Path) -> None:
    names = [f"s3://b/{number}.jsonl" for number in range(4)]
    lines = [f"9\t{tmp_path / str(number)}\t{name}\n" for number, name in enumerate(names)]
    (tmp_path / "x.arriving").write_text("".join(lines))
    how = {"text_field": "text", "strict": False, "text_unit": "line"}
    reader = iter(_core.DocumentReader([str(tmp_path / "x.arriving")], how))
    (tmp_path / "1").write_text('{"text": "second"}\n')
    (tmp_path / "0").write_text('{"text": "first"}\n')
    assert [next(reader), next(reader)] == [["first"], ["second"]]
    (tmp_path / "over").touch()
    with pytest.raises(DataError, match=r"s3://b/2\.jsonl: was not fetched, because another file could not be"):
        next(reader)
    assert not (tmp_path / "0").exists() and not (tmp_path / "1").exists()
    (tmp_path / "y.arriving").write_text("x\n")
    with pytest.raises(DataError, match=r"y\.arriving:1: not a line of a list of files that are fetched"):
        _core.expand_inputs([str(tmp_path / "y.arriving")])


def test_ctrl_c_and_lost_names(s3: Server, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    s3.fault = lambda request: "slow" if is_content(request) else None

    def stop(*given: Any) -> None:
        raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        build_corpus(URL, tmp_path / "out", progress=stop)
    assert time.monotonic() - started < s3.patience and not list(tmp_path.iterdir())
    with pytest.raises(DataError, match="a name with characters that no line can hold"):
        remote.described("s3://b/a\nb.txt", {"size": 1})
    assert [file.name for file in expand(f"{URL}/a/*l")] == [f"{URL}/a/{number}.jsonl" for number in (1, 3, 5, 7)]
    assert [file.name for file in expand(f"{URL}/a/9[x]?.txt")] == [f"{URL}/a/9[x]?.txt"]


def test_hf_streams_are_told_from_files_on_the_hub() -> None:
    from langadapt.corpus.streams import is_stream

    assert is_stream("hf:name") and is_stream("hf:owner/name:config:split") and not is_stream("hf://datasets/o/n/x.txt")
    store, path = remote.open_store("hf://datasets/owner/name/a.jsonl")
    assert importlib.util.find_spec(remote.SCHEMES["hf"]) is not None and store.protocol == "hf"
    assert path == "datasets/owner/name/a.jsonl"
