"""Fertility: every metric against a naive loop over the package `tokenizers`."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Package
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers
from typer.testing import CliRunner

from langadapt import ConfigError, DataError, MismatchError, Tokenizer, measure_fertility
from langadapt.fertility.counting import continued_words
from langadapt.fertility.metrics import gini

TEXTS = [
    "Die Würde des Menschen ist unantastbar. Sie zu achten und zu schützen ist Verpflichtung aller staatlichen Gewalt.",
    "Kurz.\n\nUnd noch   eine Zeile mit 1234 Ziffern – und “Zeichen” 😀 wie 中文, العربية und кириллица.",
    "",
    "The quick brown fox can't jump over 3,500 lazy dogs; it's true!\tTabs\r\nand lines.",
    "  führende und folgende Leerzeichen  ",
] * 3


def byte_level() -> Package:
    package = Package(models.BPE())
    package.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    package.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    package.train_from_iterator(TEXTS[:2], trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet))
    return package


def sentencepiece() -> Package:
    """In the manner of Llama-2: metaspace by a normalizer, byte fallback."""
    package = Package(models.BPE())
    package.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trainer = trainers.BpeTrainer(vocab_size=120, special_tokens=["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))])
    package.train_from_iterator([TEXTS[0], TEXTS[3]], trainer)
    model = json.loads(package.to_str())
    model["model"] |= {"byte_fallback": True, "unk_token": "<unk>", "fuse_unk": True}
    model["added_tokens"] = model["added_tokens"][:1]
    return Package.from_str(json.dumps(model))


def word_piece() -> Package:
    """A kind that is not native."""
    package = Package(models.WordPiece(unk_token="[UNK]"))
    package.normalizer = normalizers.NFKC()
    package.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=150, special_tokens=["[UNK]"], show_progress=False)
    package.train_from_iterator(TEXTS[:1], trainer)
    return package


PACKAGES: dict[str, Callable[[], Package]] = {
    "byte_level": byte_level,
    "sentencepiece": sentencepiece,
    "word_piece": word_piece,
}


def naive(package: Package, texts: list[str]) -> dict[str, float]:
    """The definitions, in plain Python."""
    tokens: Counter[int] = Counter()
    words = continued = 0
    for text in texts:
        encoding = package.encode(text, add_special_tokens=False)
        tokens.update(encoding.ids)
        for match in re.finditer(r"\S+", text):
            words += 1
            parts = [
                1 for start, end in encoding.offsets if start < match.end() and end > match.start() and end > start
            ]
            continued += len(parts) > 1
    total = sum(tokens.values())
    size = max(package.get_vocab().values()) + 1
    shares = [count / total for count in tokens.values()]
    characters, byte_count = sum(map(len, texts)), sum(len(text.encode()) for text in texts)
    renyi = math.log2(sum(share**2.5 for share in shares)) / -1.5
    return {
        "tokens": total,
        "tokens_per_word": total / sum(len(text.split()) for text in texts),
        "characters_per_token": characters / total,
        "bytes_per_token": byte_count / total,
        "continued_words": continued / words,
        "shannon_entropy": -sum(share * math.log2(share) for share in shares),
        "renyi_entropy": renyi,
        "renyi_efficiency": renyi / math.log2(size),
        "vocabulary_used": len(tokens),
        "vocabulary_share": len(tokens) / size,
        "rare_tokens": size - sum(count >= 3 for count in tokens.values()),
    }


def assert_matches(cell: dict[str, Any], expected: dict[str, float]) -> None:
    for metric, value in expected.items():
        assert cell[metric] == pytest.approx(value, rel=1e-12), metric


@pytest.mark.parametrize("kind", PACKAGES)
def test_metrics_equal_a_naive_loop(kind: str) -> None:
    package = PACKAGES[kind]()
    report = measure_fertility({kind: package}, {"text": iter(TEXTS)}, rare_below=3)
    assert report.tokenizers[kind].backend == ("tokenizers" if kind == "word_piece" else "native")
    assert_matches(report.to_dict()["tokenizers"][kind]["text"], naive(package, TEXTS))
    counts = report.corpora["text"]
    assert (counts.documents, counts.characters) == (len(TEXTS), sum(map(len, TEXTS)))
    assert counts.words == sum(len(text.split()) for text in TEXTS)


def test_native_and_package_side_by_side_and_any_threads(tmp_path: Path) -> None:
    packages = {kind: make() for kind, make in PACKAGES.items()}
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    native = {kind: package for kind, package in packages.items() if kind != "word_piece"}
    mixed = measure_fertility(packages, {"a": path, "b": [path, path]})
    alone = measure_fertility(native, {"a": path, "b": [path, path]}, threads=1)
    for kind in native:
        assert mixed.cells[kind] == alone.cells[kind]
    assert mixed.corpora == alone.corpora
    assert mixed == measure_fertility(packages, {"a": path, "b": [path, path]}, threads=3)
    for cells in mixed.cells.values():
        assert cells["b"].tokens == 2 * cells["a"].tokens
        assert cells["b"].tokens_per_word == cells["a"].tokens_per_word


def test_bytes_and_unknown_tokens() -> None:
    texts = ["中文", "des"]
    report = measure_fertility({kind: make() for kind, make in PACKAGES.items()}, {"text": iter(texts)})
    cells = {kind: corpora["text"] for kind, corpora in report.cells.items()}
    assert cells["sentencepiece"].byte_token_share is not None and cells["sentencepiece"].byte_token_share > 0.5
    pieces = [byte_level().decode([id]) for text in texts for id in byte_level().encode(text).ids]
    assert cells["byte_level"].byte_token_share == sum("\ufffd" in piece for piece in pieces) / len(pieces)
    assert cells["sentencepiece"].unknown_share == cells["byte_level"].unknown_share == 0
    unknown = measure_fertility(
        {"w": Tokenizer(word_piece().to_str().encode(), {"tokenizer_config.json": b'{"unk_token": "[UNK]"}'})},
        {"text": iter(texts)},
    ).cells["w"]["text"]
    assert unknown.unknown_share is not None and unknown.unknown_share > 0


def test_words_of_scripts_without_spaces() -> None:
    report = measure_fertility({"b": byte_level()}, {"zh": iter(["中文没有空格", "ไทย"])})
    assert report.corpora["zh"].words == 2
    assert report.corpora["zh"].unicode_words > 6


def test_parity_needs_aligned_text(tmp_path: Path) -> None:
    de, en = tmp_path / "de.txt", tmp_path / "en.txt"
    de.write_text("Die Würde\n\ndes Menschen\n")
    en.write_text("Dignity\n\nof man\n")
    tokenizers = {"b": byte_level(), "s": sentencepiece()}
    report = measure_fertility(tokenizers, {"de": de, "en": en}, reference="en")
    assert report.corpora["de"].documents == 3
    for cells in report.cells.values():
        assert cells["en"].parity == 1
        assert cells["de"].parity == cells["de"].tokens / cells["en"].tokens
    costs = [report.cells["b"][name].tokens / 3 for name in ("de", "en")]
    assert report.tokenizers["b"].gini == pytest.approx(gini(costs))
    en.write_text("Dignity\nof man\n")
    with pytest.raises(MismatchError, match="'de' has 3 documents, the reference 'en' has 2"):
        measure_fertility(tokenizers, {"de": de, "en": en}, reference="en")
    with pytest.raises(ConfigError, match="'fr' is no corpus"):
        measure_fertility(tokenizers, {"de": de, "en": en}, reference="fr")
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"text": "a"}\ntorn\n{"text": "b"}\n')
    with pytest.raises(DataError, match=r"broken\.jsonl:2"):
        measure_fertility(tokenizers, {"de": de, "broken": broken}, reference="de")


def test_edges(tmp_path: Path) -> None:
    tokenizer = byte_level()
    with pytest.raises(ConfigError, match="nothing to measure"):
        measure_fertility({}, {"a": iter(["a"])})
    with pytest.raises(ConfigError, match="give a path"):
        measure_fertility({"a": 3}, {"a": iter(["a"])})
    with pytest.raises(DataError, match="the input is empty"):
        measure_fertility({"a": tokenizer}, {"a": iter([])})
    with pytest.raises(DataError, match="the input is empty"):
        measure_fertility({"a": word_piece()}, {"a": iter([])})
    blank = measure_fertility({"a": tokenizer}, {"a": iter(["", " "])}).cells["a"]["a"]
    assert blank.tokens_per_word is None and blank.continued_words is None and blank.tokens == 1
    assert blank.shannon_entropy == 0 and blank.renyi_efficiency == 0
    nothing = measure_fertility({"a": tokenizer}, {"a": iter([""])}).cells["a"]["a"]
    assert nothing.bytes_per_token is None and nothing.shannon_entropy is None


def test_gini() -> None:
    assert gini([1, 1, 1]) == 0
    assert gini([0, 1]) == 0.5
    assert gini([0, 0, 0, 1]) == pytest.approx(0.75)
    assert gini([1, 2, 3]) == pytest.approx(2 / 9)


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="ab ß中\n", max_size=30), st.integers(1, 4))
def test_continued_words_by_offsets(text: str, step: int) -> None:
    offsets = [(start, min(start + step, len(text))) for start in range(0, len(text), step)]
    expected = sum(
        sum(start < match.end() and end > match.start() for start, end in offsets) > 1
        for match in re.finditer(r"\S+", text)
    )
    assert continued_words(text, np.array(offsets, dtype=np.int64).reshape(-1, 2)) == expected


def test_command(tmp_path: Path) -> None:
    command = pytest.importorskip("langadapt.cli.fertility", exc_type=ImportError).command
    folder = tmp_path / "tok"
    Tokenizer(byte_level().to_str().encode()).save_pretrained(folder)
    path = tmp_path / "de.txt"
    path.write_text(TEXTS[0])
    import typer

    app = typer.Typer()
    app.command()(command)
    arguments = [
        str(folder),
        f"other={folder}",
        "--corpus",
        f"de={path}",
        "--corpus",
        f"en={path}",
        "--reference",
        "en",
    ]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0, shown.output
    assert "tokens per word" in shown.stdout and "parity" in shown.stdout
    found = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert found["tokenizers"]["tok"]["de"]["parity"] == 1 and list(found["summary"]) == ["tok", "other"]
    clash = CliRunner().invoke(app, [str(folder), str(folder), "--corpus", f"de={path}"])
    assert isinstance(clash.exception, ConfigError)


@pytest.mark.slow
def test_real_text(shared: Path) -> None:
    """German text and the tokenizers of real models: the same numbers as the package gives."""
    from langadapt import read_documents

    texts = [text for _, text in zip(range(60), read_documents(shared / "corpus" / "de.jsonl.zst"), strict=False)]
    for folder in ("paper-de", "phi-2", "roberta-base", "focus-de-unigram-50k"):
        package = Package.from_file(str(shared / "tokenizers" / folder / "tokenizer.json"))
        package.no_truncation()
        package.no_padding()
        report = measure_fertility({folder: shared / "tokenizers" / folder}, {"de": iter(texts)}, rare_below=3)
        assert_matches(report.to_dict()["tokenizers"][folder]["de"], naive_fast(package, texts))


def naive_fast(package: Package, texts: list[str]) -> dict[str, float]:
    """As :func:`naive`, without its product of words and tokens."""
    tokens: Counter[int] = Counter()
    continued = 0
    for encoding, text in zip(package.encode_batch(texts, add_special_tokens=False), texts, strict=True):
        tokens.update(encoding.ids)
        # A space that the normalizer puts in front is laid beside the first character; it is no part of the word.
        inside = [span for token, span in zip(encoding.tokens, encoding.offsets, strict=True) if token != "▁"]
        continued += continued_words(text, np.array(inside, dtype=np.int64).reshape(-1, 2))
    total, words = sum(tokens.values()), sum(len(text.split()) for text in texts)
    return {
        "tokens": total,
        "tokens_per_word": total / words,
        "bytes_per_token": sum(len(text.encode()) for text in texts) / total,
        "continued_words": continued / words,
        "vocabulary_used": len(tokens),
    }
