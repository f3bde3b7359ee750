"""Building a corpus: filters, duplicates, the split, and that threads change nothing."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from langadapt import ConfigError, DataError, build_corpus, read_documents
from langadapt.artefacts.folders import fingerprint, read_manifest, verify

WORDS = [
    "der",
    "die",
    "das",
    "ein",
    "Haus",
    "Baum",
    "Fluss",
    "Berg",
    "Wind",
    "Regen",
    "Sonne",
    "Nacht",
    "Weg",
    "Stein",
    "Wald",
]
PIECES = ["ab", "cd", "efg", "hi", "jkl", "mn", "o", "pqr", "stu", "vw"]


def prose(number: int, words: int = 60) -> str:
    state = number * 2654435761 % 2**32
    chosen = []
    for _ in range(words):
        state = (state * 1664525 + 1013904223) % 2**32
        chosen.append(WORDS[(state >> 8) % len(WORDS)] + str(state >> 24))
    return " ".join(chosen)


TEXTS = [prose(n) for n in range(400)]


def write(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def split_of(folder: Path) -> tuple[list[str], list[str]]:
    parts = [folder / "train.jsonl.zst", folder / "validation.jsonl.zst"]
    return list(read_documents(parts[0])), list(read_documents(parts[1])) if parts[1].stat().st_size > 20 else []


def test_nothing_is_lost_and_the_split_follows_the_text(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", TEXTS)
    report = build_corpus(path, tmp_path / "out", validation_share=0.2)
    train, validation = split_of(tmp_path / "out")
    assert sorted(train + validation) == sorted(TEXTS)
    assert [text for text in TEXTS if text in set(train)] == train
    assert 50 < len(validation) < 110
    assert report.documents == 400 and report.files == 1 and not any(report.dropped.values())
    assert report.validation == {"documents": len(validation), "bytes": sum(map(len, validation))}
    # Another order, other neighbours, the same side for each text.
    build_corpus(iter(TEXTS[250:] + TEXTS[:100]), tmp_path / "other", validation_share=0.2)
    others = split_of(tmp_path / "other")
    assert set(others[0]) <= set(train) and set(others[1]) <= set(validation)
    # A smaller share takes a part of the same documents.
    build_corpus(path, tmp_path / "smaller", validation_share=0.1)
    assert set(split_of(tmp_path / "smaller")[1]) < set(validation)


def test_limits_take_the_smallest_hashes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", TEXTS)
    folders = {}
    for name, limits in {
        "all": {},
        "ten": {"validation_documents": 10},
        "five": {"validation_documents": 5},
        "bytes": {"validation_bytes": 3000},
    }.items():
        build_corpus(path, tmp_path / name, validation_share=0.5, **limits)  # type: ignore[arg-type]
        folders[name] = set(split_of(tmp_path / name)[1])
        train, validation = split_of(tmp_path / name)
        assert sorted(train + validation) == sorted(TEXTS)
    assert len(folders["ten"]) == 10 and len(folders["five"]) == 5
    assert folders["five"] < folders["ten"] < folders["all"]
    assert 2000 < sum(map(len, folders["bytes"])) <= 3000
    build_corpus(path, tmp_path / "none", validation_share=0)
    assert split_of(tmp_path / "none")[1] == []


def test_threads_change_no_byte(tmp_path: Path) -> None:
    # The large part fills several of zstd's jobs, the small one has something for every filter to find.
    base = prose(7, 3000)
    write(tmp_path / "0.jsonl", [base[k : k + 16_000] for k in range(1000)])
    small = [text for n in range(30) for text in [*(prose(n * 400 + k, 40) for k in range(20)), *TEXTS[n : n + 9]]]
    for part in (1, 2):
        write(tmp_path / f"{part}.jsonl", small[part::2])
    for filters in ({}, {"exact_duplicates": True, "near_duplicates": True, "repetition": True}):
        made = []
        for threads in (1, 2, 5):
            out = tmp_path / "out"
            report = build_corpus(str(tmp_path / "*.jsonl"), out, threads=threads, **filters)  # type: ignore[arg-type]
            made.append((report, [file.read_bytes() for file in sorted(out.iterdir())]))
        assert made[0] == made[1] == made[2]


def test_filters_count_what_they_drop(tmp_path: Path) -> None:
    texts = [
        *TEXTS[:100],
        "kurz",
        prose(1000, 2000),
        TEXTS[3],
        TEXTS[4] + " und",
        f"Impressum {TEXTS[200]}",
        "kaufen Sie jetzt " * 40,
    ]
    report = build_corpus(
        iter(texts),
        tmp_path / "out",
        min_chars=20,
        max_chars=2000,
        drop_pattern="^Impressum",
        repetition=True,
        exact_duplicates=True,
        near_duplicates=True,
        validation_share=0,
    )
    assert report.dropped == {
        "too_short": 1,
        "too_long": 1,
        "pattern": 1,
        "foreign": 0,
        "script": 0,
        "repetition": 1,
        "exact_duplicate": 1,
        "near_duplicate": 1,
    }
    assert split_of(tmp_path / "out")[0] == TEXTS[:100]
    kept = build_corpus(iter(texts), tmp_path / "kept", keep_pattern="kaufen|Impressum", validation_share=0)
    assert kept.train["documents"] == 2
    with pytest.raises(ValueError, match=r"no document left: the filters dropped all 106 \(too_short 106\)"):
        build_corpus(iter(texts), tmp_path / "nothing", min_chars=10**6)
    assert not (tmp_path / "nothing").exists()


def test_manifest_and_bad_arguments(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", TEXTS)
    with path.open("a") as file:
        file.write("torn\n")
    out = tmp_path / "out"
    report = build_corpus(path, out)
    assert report.skipped["malformed_json"] == 1 and report.first_problems[0]["line"] == 401
    manifest = verify(out)
    assert manifest["stage"] == "corpus" and manifest["summary"] == report.to_dict()
    assert manifest["inputs"] == {str(path): fingerprint(path)}
    assert read_manifest(out)["settings"]["validation_share"] == 0.02
    before = (out / "train.jsonl.zst").read_bytes()
    with pytest.raises(DataError, match=r"a\.jsonl:401: malformed JSON"):
        build_corpus(path, out, strict=True)
    with pytest.raises(ValueError, match="validation_share"):
        build_corpus(path, out, validation_share=1.5)
    with pytest.raises(ValueError, match="pattern"):
        build_corpus(path, out, keep_pattern="(")
    with pytest.raises(ConfigError, match="cannot be mixed"):
        build_corpus(["hf:wikipedia", str(path)], out)
    assert (out / "train.jsonl.zst").read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")] == []


def test_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    dataset = datasets.Dataset.from_dict({"content": [*TEXTS, None]})
    report = build_corpus(dataset, tmp_path / "out", text_field="content", validation_share=0)
    assert split_of(tmp_path / "out")[0] == TEXTS
    assert report.skipped["missing_text"] == 1 and report.first_problems[0]["line"] == 401

    calls: list[Any] = []

    def load(*args: Any, **kwargs: Any) -> Any:
        calls.append((args, kwargs))
        return dataset

    monkeypatch.setattr(datasets, "load_dataset", load)
    build_corpus("hf:user/name:de:test", tmp_path / "hf", text_field="content", validation_share=0)
    assert calls == [(("user/name", "de"), {"split": "test", "streaming": True})]
    assert split_of(tmp_path / "hf")[0] == TEXTS


def test_an_error_inside_an_iterable_is_raised_and_nothing_is_left(tmp_path: Path) -> None:
    def documents() -> Any:
        yield from TEXTS * 50
        raise RuntimeError("the network went away")

    with pytest.raises(RuntimeError, match="network"):
        build_corpus(documents(), tmp_path / "out")
    with pytest.raises(DataError, match="the input is empty"):
        build_corpus(iter([]), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_one_document_is_not_split_into_something_and_nothing(tmp_path: Path) -> None:
    for text in TEXTS[:20]:
        with pytest.raises(ConfigError, match="one document alone"):
            build_corpus(iter([text]), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    build_corpus(iter(TEXTS[:1]), tmp_path / "out", validation_share=0)
    assert split_of(tmp_path / "out")[0] == TEXTS[:1]


def naive_is_repetitive(text: str) -> bool:
    """Gopher's rules for repeated lines and n-grams, in plain Python."""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    words = re.findall(r"\w+", text.lower())
    total = sum(map(len, words))
    repeats = [line for n, line in enumerate(lines) if line in lines[:n]]
    if lines and (len(repeats) / len(lines) > 0.3 or sum(map(len, repeats)) / len(text) > 0.2):
        return True
    if len(words) < 20:
        return False
    for n, limit in zip((2, 3, 4), (0.20, 0.18, 0.16), strict=True):
        grams = [tuple(words[k : k + n]) for k in range(len(words) - n + 1)]
        if any(grams.count(gram) > 1 and grams.count(gram) * len("".join(gram)) > limit * total for gram in grams):
            return True
    for n, limit in zip(range(5, 11), (0.15, 0.14, 0.13, 0.12, 0.11, 0.10), strict=True):
        seen, at, repeated = set(), 0, 0
        while at + n <= len(words):
            gram = tuple(words[at : at + n])
            repeated += len("".join(gram)) if gram in seen else 0
            at += n if gram in seen else 1
            seen.add(gram)
        if repeated > limit * total:
            return True
    return False


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.sampled_from(PIECES), min_size=1), min_size=1))
def test_repetition_equals_the_naive_rules(tmp_path: Path, lines: list[list[str]]) -> None:
    text = "\n".join(" ".join(line) for line in lines)
    report = build_corpus(iter(["Anker", text]), tmp_path / "out", repetition=True, validation_share=0)
    assert report.dropped["repetition"] == naive_is_repetitive(text)


def test_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [prose(n, 3000) for n in range(50)])
    code = f"""
from langadapt import build_corpus
told = []
def progress(*reading):
    if not told:
        told.append(print("ready", flush=True))
build_corpus([{str(path)!r}] * 400, {str(tmp_path / "out")!r}, near_duplicates=True, repetition=True, progress=progress)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert "KeyboardInterrupt" in process.stderr.read()
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.jsonl"]


@pytest.mark.parametrize(
    "options",
    [{"min_chars": -1}, {"validation_bytes": -1}, {"threads": 0}, {"min_chars": 9, "max_chars": 8}],
    ids=str,
)
def test_numbers_out_of_range_are_named(tmp_path: Path, options: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=list(options)[-1]):
        build_corpus(iter(["text"]), tmp_path / "out", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()
