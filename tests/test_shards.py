"""Work in shards: whatever their number and order, the merge has the bytes that one machine writes."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from langadapt import Tokenizer, TokenStore, build_corpus, read_documents, tokenize_corpus, train_bpe
from langadapt.artefacts.engine import Engine
from langadapt.artefacts.folders import fingerprint, write_manifest
from langadapt.artefacts.shards import Shard, find_parts
from langadapt.cli.main import app, main
from langadapt.corpus.parts import build_corpus_part, merge_corpus
from langadapt.errors import ConfigError, DataError, MismatchError
from langadapt.store import STAGE, make_store, merge_stores
from langadapt.tokenizer.counting import count_words, make_counts
from langadapt.tokenizer.counts import merge_counts
from langadapt.training.data.batches import Windows

TEXTS = Path(__file__).parent / "texts"
SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "corpus" / "de.jsonl.zst"
LONG = 5900 if SHARED.is_file() else 1700
"""Characters that some of the texts have."""
BUILD: dict[str, Any] = {"block_bytes": 60_000, "validation_bytes": 20_000, "validation_share": 0.2}


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir()) if not file.name.startswith(".")}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven files of real text; files share documents, and hold some that differ by a few words."""
    folder = tmp_path_factory.mktemp("shards") / "in"
    folder.mkdir()
    source = SHARED if SHARED.is_file() else TEXTS / "german.jsonl"
    texts = [text[:6000] for text in islice(read_documents(source), 140)]
    draw = random.Random(5)
    for number in range(7):
        own = [*texts[number * 20 : number * 20 + 20], *draw.sample(texts, 6)]
        own += [text + " Nachtrag hierzu." for text in draw.sample(texts, 4)]
        draw.shuffle(own)
        lines = [json.dumps({"text": text}) + "\n" for text in own]
        (folder / f"{number}.jsonl").write_text("".join([*lines, "torn\n"] if number == 4 else lines), encoding="utf-8")
    (folder / "5empty.jsonl").write_text("")
    return folder


def build_in_shards(corpus: Path, place: Path, count: int, **options: Any) -> Path:
    shards = list(range(count))
    random.Random(count).shuffle(shards)
    for number in shards:
        build_corpus_part(corpus, place / "parts", Shard(number, count), threads=1 + number % 3, **options)
    merge_corpus(find_parts([place / "parts"]), place / "merged", threads=2)
    return place / "merged"


@pytest.mark.parametrize(
    "filters",
    [
        {},
        {"exact_duplicates": True},
        {"near_duplicates": True},
        {"exact_duplicates": True, "near_duplicates": True, "repetition": True, "min_chars": 300},
        {"validation_share": 1e-9},
        {"validation_share": 0.0, "exact_duplicates": True},
        {"min_chars": LONG, "validation_bytes": 30_000, "near_duplicates": True},
    ],
    ids=str,
)
def test_a_corpus_in_shards_is_that_of_one_machine(corpus: Path, tmp_path: Path, filters: dict[str, Any]) -> None:
    options = BUILD | filters
    report = build_corpus(corpus, tmp_path / "plain", **options)
    for count in (1, 2, 3, 5, 11):
        merged = build_in_shards(corpus, tmp_path / str(count), count, **options)
        assert contents(merged) == contents(tmp_path / "plain"), count
    duplicates = report.dropped["exact_duplicate"] + report.dropped["near_duplicate"]
    assert duplicates > 20 or not ("exact_duplicates" in options or "near_duplicates" in options)


def test_word_counts_and_what_is_learnt(corpus: Path, tmp_path: Path) -> None:
    for style in ("byte_level", "sentencepiece"):
        work = tmp_path / style
        count_words(str(corpus), work / "plain", style=style)
        for count in (1, 3, 9):
            for number in reversed(range(count)):
                count_words(str(corpus), work / str(count), shard=Shard(number, count), style=style, threads=2)
            merge_counts(find_parts([work / str(count)]), work / f"merged {count}")
            assert contents(work / f"merged {count}") == contents(work / "plain")
        options: dict[str, Any] = {"vocab_size": 600, "style": style, "code_tokens": True}
        plain, counted = train_bpe(str(corpus), **options), train_bpe(counts=work / "merged 3", **options)
        assert counted.definition == plain.definition
        mixed = train_bpe(counts=work / "plain", source_counts=work / "merged 9", source_share=0.3, **options)
        again = train_bpe(str(corpus), source=str(corpus), source_share=0.3, **options)
        assert mixed.definition == again.definition
    with pytest.raises(MismatchError, match=r"byte_level.*its words were cut with pre_tokenizer .* the same options"):
        train_bpe(counts=tmp_path / "byte_level" / "plain", vocab_size=600, pattern="gpt2")
    with pytest.raises(DataError, match="langadapt merge"):
        train_bpe(counts=tmp_path / "byte_level" / "3" / "00000-of-00003", vocab_size=600)
    with pytest.raises(ConfigError, match="give no inputs"):
        train_bpe(str(corpus), counts=tmp_path / "byte_level" / "plain", vocab_size=600)


@pytest.fixture(scope="module")
def tokenizer(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    train_bpe(str(corpus), vocab_size=400).save_pretrained(folder)
    return folder


def test_a_store_in_shards(corpus: Path, tokenizer: Path, tmp_path: Path) -> None:
    loaded = Tokenizer.from_pretrained(tokenizer)
    plain = tokenize_corpus(str(corpus), loaded, tmp_path / "plain")
    for count in (1, 3, 12):
        place = tmp_path / str(count)
        for number in reversed(range(count)):
            tokenize_corpus(str(corpus), loaded, place, shard=Shard(number, count))
        merge_stores(find_parts([place]), tmp_path / f"merged {count}")
        assert contents(tmp_path / f"merged {count}") == contents(tmp_path / "plain")
        merge_stores(find_parts([place]), None)
        joined = TokenStore.open(place)
        assert (joined.offsets == plain.offsets).all() and len(joined) == len(plain)
        assert (np.asarray(joined.tokens) == plain.tokens).all()
        for document in (0, 17, len(plain) - 1):
            assert (joined[document] == plain[document]).all()
        joined.check_tokenizer(loaded)
        seen = [Windows(store, "s", 64, start=None, end=0, seed=1) for store in (joined, plain)]
        rows = np.zeros((2, 3, 64), np.int64)
        for window in (0, len(seen[0]) // 2, len(seen[0]) - 1):
            documents = [windows.fill(window, *rows[at]) for at, windows in enumerate(seen)]
            assert documents[0] == documents[1] and (rows[0] == rows[1]).all()
    assert joined.tokens[5] == plain.tokens[5] and joined.tokens[-1] == plain.tokens[-1]
    across = slice(int(joined.tokens.starts[1]) - 3, int(joined.tokens.starts[1]) + 4)  # type: ignore[attr-defined]
    assert (joined.tokens[across] == plain.tokens[across]).all() and len(joined.tokens[3:3]) == 0
    with pytest.raises(IndexError):
        joined.tokens[len(plain.tokens)]


@dataclass(frozen=True)
class Here(Engine):
    """An engine whose tasks run at once, last shard first."""

    def run(self, work: Callable[..., Any], out: Path, arguments: Mapping[str, Any], **how: Any) -> list[Path]:
        for number in reversed(range(self.shards)):
            work(shard=Shard(number, self.shards), out=str(out), threads=1, **arguments)
        return find_parts([out])


def test_an_engine_makes_what_one_machine_makes(corpus: Path, tokenizer: Path, tmp_path: Path) -> None:
    made: list[str] = []
    for name, engine in (("plain", None), ("engine", Here(3))):
        tokenized = make_store(str(corpus), str(tokenizer), tmp_path / name, engine=engine)
        counted = make_counts(str(corpus), tmp_path / f"{name} counts", engine=engine, like=str(tokenizer))
        assert tokenized["tokens"] > 1000 and counted["words"] > 100
        assert make_store(str(corpus), str(tokenizer), tmp_path / name, engine=engine, log=made.append) == tokenized
    assert made == [f"{tmp_path / name}: up to date" for name in ("plain", "engine")]
    assert contents(tmp_path / "engine") == contents(tmp_path / "plain")
    assert contents(tmp_path / "engine counts") == contents(tmp_path / "plain counts")
    assert len(find_parts([tmp_path / "engine-parts"])) == len(find_parts([tmp_path / "engine counts-parts"])) == 3


def test_the_commands(corpus: Path, tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    runner, files = CliRunner(), str(corpus)

    def run(*arguments: str) -> str:
        result = runner.invoke(app, list(arguments), catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    for shard in ("0/2", "slurm/2"):
        run("corpus", "build", files, "--out", "corpus-parts", "--block-bytes", "60000", "--shard", shard)
        run("tokenizer", "count", files, "--out", "count-parts", "--shard", shard)
        run("tokenize", files, "--tokenizer", str(tokenizer), "--out", "store", "--shard", shard)
    made = fingerprint(tmp_path / "corpus-parts" / "00001-of-00002")
    stamps = [path.stat().st_mtime_ns for path in tmp_path.rglob("manifest.json")]
    run("corpus", "build", files, "--out", "corpus-parts", "--block-bytes", "60000", "--shard", "1/2")
    assert fingerprint(tmp_path / "corpus-parts" / "00001-of-00002") == made
    assert [path.stat().st_mtime_ns for path in tmp_path.rglob("manifest.json")] == stamps
    run("merge", "corpus-parts", "--out", "corpus")
    run("merge", "count-parts", "--out", "counts")
    run("merge", "store")
    run("tokenizer", "train", "--counts", "counts", "--vocab-size", "400", "--out", "tokenizer")
    for folder, command in {
        "corpus": ["corpus", "build", files, "--block-bytes", "60000"],
        "counts": ["tokenizer", "count", files],
        "tokenizer": ["tokenizer", "train", files, "--vocab-size", "400"],
    }.items():
        run(*command, "--out", f"plain {folder}")
        assert contents(tmp_path / folder) == contents(tmp_path / f"plain {folder}")
    assert len(TokenStore.open("store")) > 100


def test_parts_that_do_not_belong_together(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line each, which names the part."""
    place = tmp_path / "parts"
    for number in range(3):
        build_corpus_part(corpus, place, Shard(number, 3), **BUILD)

    def refused(place: Path) -> str:
        with pytest.raises(SystemExit) as stop:
            main(["merge", str(place), "--out", str(tmp_path / "out")])
        assert stop.value.code == 1 and not (tmp_path / "out").exists()
        said = capsys.readouterr().err.strip()
        assert "\n" not in said
        return said

    shutil.copytree(place / "00001-of-00003", place / "00007-of-00003")
    assert "00007-of-00003: part 1 of 3 is there twice, also in" in refused(place)
    shutil.rmtree(place / "00007-of-00003")
    build_corpus_part(corpus, place, Shard(2, 3), **BUILD | {"min_chars": 5})
    assert "00002-of-00003: made with min_chars = 5, not None as" in refused(place)
    build_corpus_part(corpus, place, Shard(1, 4), **BUILD)
    assert "00001-of-00004: made with number of shards = 4, not 3" in refused(place)
    shutil.rmtree(place / "00001-of-00004")
    more = tmp_path / "more"
    shutil.copytree(corpus, more)
    (more / "9.jsonl").write_text('{"text": "mehr"}\n')
    build_corpus_part(more, place, Shard(2, 3), **BUILD)
    assert "00002-of-00003: made with other files as" in refused(place)
    shutil.rmtree(place / "00002-of-00003")
    assert "1 of 3 parts missing: 2; make them with --shard" in refused(place)
    build_corpus_part(corpus, place, Shard(2, 3), **BUILD)
    (place / "00002-of-00003" / "aside.bin").write_bytes(b"")
    assert "aside.bin: altered or half-written" in refused(place)
    assert "no parts" in refused(corpus)


@pytest.mark.parametrize("text", ["3/3", "-1/3", "a/3", "1", "1/0", "slurm/4", ""])
def test_no_such_shard(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID", raising=False)
    with pytest.raises(ConfigError, match="--shard"):
        Shard.parse(text)
    with pytest.raises(ConfigError, match="only files"):
        Shard(0, 2).names(["-"])


def test_indices_beyond_32_bits_and_a_terabyte(tmp_path: Path) -> None:
    """A store of 2^39 + 5 ids, more than 2^40 bytes, in files with nothing in them but the last few ids."""
    sizes, place = [(1 << 32) + 3, (1 << 39) - (1 << 32) + 2], tmp_path / "store"
    for number, size in enumerate(sizes):
        part = place / f"{number:05}-of-00002"
        part.mkdir(parents=True)
        with (part / "tokens.bin").open("wb") as file:
            file.truncate(2 * size)
            file.seek(2 * size - 6)
            np.array([11, 12, 13 + number], dtype="<u2").tofile(file)
        np.array([0, size - 2, size], dtype="<u8").tofile(part / "offsets.bin")
        summary = {
            "documents": 2,
            "tokens": size,
            "bytes": size,
            "skipped_lines": 0,
            "vocab_size": 99,
            "dtype": "uint16",
        }
        shard = {"number": number, "count": 2, "files": "f"}
        files = {
            name: {"bytes": (part / name).stat().st_size, "xxh3_128": ""} for name in ("tokens.bin", "offsets.bin")
        }
        write_manifest(part, STAGE, {"shard": shard}, {}, summary=summary, files=files)
    merge_stores(find_parts([place]), None)
    store = TokenStore.open(place)
    assert len(store.tokens) == (1 << 39) + 5 and sum(sizes) * 2 > 1 << 40
    assert store[1].tolist() == [12, 13] and store[3].tolist() == [12, 14]
    assert store.tokens[sizes[0] - 3 : sizes[0] + 1].tolist() == [11, 12, 13, 0]
    assert store.tokens[-1] == 14 and int(store.offsets[-1]) == sum(sizes)
    # What training reads of the last document, whose place needs 40 bits.
    windows = Windows.__new__(Windows)
    windows.store, windows.name, windows.start, windows.end, windows.ids = store, "s", None, 7, 99
    windows.offsets = np.asarray(store.offsets).astype(np.int64)
    assert windows.sequence(3, 0, 3).tolist() == [12, 14, 7]


def test_slices_of_a_file_list_are_contiguous_and_whole(tmp_path: Path) -> None:
    sizes = [5, 0, 40, 1, 1, 1, 90, 2, 2, 30]
    files = []
    for number, size in enumerate(sizes):
        files.append(tmp_path / f"{number}.txt")
        files[-1].write_text("x" * size)
    for count in (1, 2, 3, 4, 20):
        taken = [Shard(number, count).names([str(tmp_path)], 10)[0] for number in range(count)]
        assert [file for part in taken for file in part] == [str(file) for file in files]
