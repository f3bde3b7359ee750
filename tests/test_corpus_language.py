"""Documents of another language left out: learnt from the corpus itself and some text of the other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from langadapt import ConfigError, build_corpus, read_documents
from langadapt.artefacts.shards import Shard, find_parts
from langadapt.cli.main import main
from langadapt.corpus import language
from langadapt.corpus.documents import Reading
from langadapt.corpus.language import learn
from langadapt.corpus.parts import build_corpus_part, merge_corpus
from langadapt.pipeline.dry_run import language_looks
from langadapt.recipe.recipe import Recipe

TEXTS = Path(__file__).parent / "texts"
PARALLEL = Path(__file__).parents[2] / "shared" / "data" / "parallel" / "ntrex"
GREEK = "Ο κόσμος αυτός ο μικρός, ο μέγας, που τον κρατά στα χέρια του ένα παιδί."


def texts_of(name: str) -> list[str]:
    return list(read_documents(TEXTS / f"{name}.jsonl"))


def write(path: Path, texts: list[str]) -> str:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    return str(path)


@pytest.fixture
def mixed(tmp_path: Path) -> tuple[list[str], str]:
    """Three files of German with every fifth document English and one of Greek, and other English text."""
    german, english = texts_of("german"), texts_of("english")
    half = len(english) // 2
    documents = [*german]
    for at in range(0, len(german), 5):
        documents.insert(at, english[at % half])
    documents.append(GREEK)
    files = [write(tmp_path / f"{number}.jsonl", documents[number::3]) for number in range(3)]
    return files, write(tmp_path / "foreign.jsonl", english[half:])


def left(folder: Path) -> set[str]:
    return {*read_documents(folder / "train.jsonl.zst"), *read_documents(folder / "validation.jsonl.zst")}


def test_what_is_not_in_the_language_goes(mixed: tuple[list[str], str], tmp_path: Path) -> None:
    files, foreign = mixed
    report = build_corpus(files, tmp_path / "out", foreign=[foreign])
    assert left(tmp_path / "out") == {*texts_of("german")}
    assert report.dropped["script"] == 1
    assert report.dropped["foreign"] == report.documents - 1 - len(texts_of("german"))
    everything = build_corpus(files, tmp_path / "all")
    assert not everything.dropped["foreign"] and not everything.dropped["script"]


def test_shards_leave_out_the_same(mixed: tuple[list[str], str], tmp_path: Path) -> None:
    files, foreign = mixed
    options = {"foreign": [foreign], "exact_duplicates": True, "block_bytes": 1}
    build_corpus(files, tmp_path / "one", **options)
    for number in range(3):
        build_corpus_part(files, tmp_path / "parts", Shard(number, 3), **options)
    merge_corpus(find_parts([tmp_path / "parts"]), tmp_path / "merged")
    for name in ("train.jsonl.zst", "validation.jsonl.zst"):
        assert (tmp_path / "merged" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


def test_a_look_comes_first(mixed: tuple[list[str], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files, foreign = mixed
    _, look = learn(Reading(files), [foreign])
    assert look.left_out["script"] == 1 and look.left_out["foreign"] == look.documents - 1 - len(texts_of("german"))
    assert len(look.examples) == language.SHOWN
    corpus = {"target": files, "source": [foreign], "foreign": [foreign]}
    recipe = Recipe.from_dict({"name": "run", "model": "m", "out": str(tmp_path / "run"), "corpus": corpus})
    (line,) = language_looks(recipe)
    assert line == f"corpus-target: {look}"

    for run in range(2):
        with pytest.raises(SystemExit) as done:
            main(["corpus", "build", *files, "--foreign", foreign, "--out", str(tmp_path / "out")])
        assert done.value.code == 0
        said = capsys.readouterr()
        # The second time nothing is made, so nothing is learnt.
        assert ("sampled documents would be left out" in said.err) == (run == 0)
        assert "left out: foreign" in said.out
    write(Path(foreign), texts_of("english")[:60])
    with pytest.raises(SystemExit):
        main(["corpus", "build", *files, "--foreign", foreign, "--out", str(tmp_path / "out")])
    assert "sampled documents would be left out" in capsys.readouterr().err


def test_a_source_keeps_its_own_language(mixed: tuple[list[str], str]) -> None:
    files, foreign = mixed
    corpus = {"target": files, "source": [foreign], "foreign": [foreign]}
    settings = Recipe.from_dict({"name": "run", "model": "m", "out": "o", "corpus": corpus}).corpus
    given = {source.name: settings.building(source)["foreign"] for source in settings.texts}
    assert given == {"target": [foreign], "source": []}


def test_what_cannot_be_told(mixed: tuple[list[str], str], tmp_path: Path) -> None:
    files, foreign = mixed
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match="cannot be told apart"):
        build_corpus(files, out, foreign=[write(tmp_path / "same.jsonl", texts_of("german"))])
    with pytest.raises(ConfigError, match="too little text"):
        build_corpus(files, out, foreign=[write(tmp_path / "short.jsonl", ["A word."])])
    with pytest.raises(ConfigError, match="read once"):
        build_corpus(iter(texts_of("german")), out, foreign=[foreign])
    with pytest.raises(ConfigError, match="a list of files"):
        build_corpus(files, out, foreign=foreign)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        build_corpus(files, out, foreign=[str(tmp_path / "nowhere.jsonl")])
    with pytest.raises(ConfigError, match="and 0 of the other"):
        build_corpus(files, out, foreign=[write(tmp_path / "empty.jsonl", [])])
    assert not out.exists()


@pytest.mark.skipif(not PARALLEL.is_dir(), reason="no parallel text beside the checkout")
@pytest.mark.parametrize("name", ["de", "sw", "ar", "hi", "zh", "ru", "fi"])
def test_languages_of_one_text_are_told_apart(name: str) -> None:
    """The same sentences in 27 languages, five to a document, learnt from 100 kB: nearly all of its own stay, and of
    the others hardly any, but for one that is much like it, as Hausa is like Swahili by its letters."""
    sides = {
        file.stem: [" ".join(lines[at : at + 5]) for at in range(0, len(lines) - 4, 5)]
        for file in sorted(PARALLEL.glob("??.txt"))
        if (lines := file.read_text("utf-8").splitlines())
    }
    half = len(sides[name]) // 2
    learnt = language.language_of(sides[name][:half], sides["en"][:half])
    kept = {
        other: learnt.judge(documents[half:]).count("own") / (len(documents) - half)
        for other, documents in sides.items()
    }
    assert kept.pop(name) > 0.95
    assert kept["en"] == 0 and sum(share > 0.1 for share in kept.values()) <= 2
    assert sum(kept.values()) / len(kept) < 0.05, sorted(kept.items(), key=lambda one: -one[1])[:3]
