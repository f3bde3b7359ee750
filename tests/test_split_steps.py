"""Pre-tokenizers and normalizers as published tokenizers combine them: ids as the `tokenizers` package gives them."""

from __future__ import annotations

import importlib.util
import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as Package

from langadapt.errors import ConfigError
from langadapt.tokenizer.check import check_tokenizer
from langadapt.tokenizer.encoder import Tokenizer
from langadapt.tokenizer.training import train_bpe

spec = importlib.util.spec_from_file_location(
    "split_patterns", Path(__file__).resolve().parent.parent / "benches" / "split_patterns.py"
)
assert spec is not None and spec.loader is not None
bench = importlib.util.module_from_spec(spec)
spec.loader.exec_module(bench)

TEXTS = [
    "It's 12345 o'clock, they'LL say; x²=٤٢ (½)!!  \n\n  a\tb\r\n end ",
    "हिन्दी में लिखा हुआ, தமிழ் மொழி; বাংলা ভাষা। Yorùbá e\u0301",
    "camelCase HTTPServer iPhone15 foo_bar/baz.qux //// #tag\n",
    "中文没有空格。日本語のテキスト、한국어 ไม่มีช่องว่าง",
    "   leading  and   trailing   ",
    "😀👩‍👩‍👧 ﬁ Ⅷ \u00a0\u2003x\u2028y\ufeff",
    "",
] * 3
ALPHABET = [
    *"aAbLlsStT'12 \t\n\r.,/-_(&",
    "ä",
    "ß",
    "λ",
    "中",
    "の",
    "\u0301",
    "²",
    "٣",
    "ǅ",
    "\u00a0",
    "ि",
    "क",
    "😀",
    "。",
]
PLAIN = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


def trained(steps: list[dict[str, Any]], normalizer: Any = None) -> tuple[Tokenizer, Package]:
    source = json.loads(bench.like(steps).definition) | {"normalizer": normalizer}
    tokenizer = train_bpe(iter(TEXTS), 330, like=Tokenizer(json.dumps(source).encode()), accept_fewer=True)
    return tokenizer, Package.from_str(tokenizer.definition.decode())


def assert_same(tokenizer: Tokenizer, package: Package, seed: int) -> None:
    assert tokenizer.backend == "native"
    draw = random.Random(seed)
    probes = TEXTS + ["".join(draw.choices(ALPHABET, k=draw.randint(1, 25))) for _ in range(400)]
    for probe in probes:
        assert package.encode(probe, add_special_tokens=False).ids == tokenizer.encode(probe).tolist(), repr(probe)


@pytest.mark.parametrize("name", bench.pre_tokenizers())
def test_published_pre_tokenizers(name: str) -> None:
    tokenizer, package = trained(bench.pre_tokenizers()[name])
    assert_same(tokenizer, package, 1)
    expected = bench.like(bench.pre_tokenizers()[name])
    by_package = Package.from_str(expected.definition.decode())
    # Trained on the same words: what the package cuts is what was counted.
    words = {word for text in TEXTS for word, _ in by_package.pre_tokenizer.pre_tokenize_str(text)}
    learnt = json.loads(tokenizer.definition)["model"]["merges"]
    assert all(any("".join(pair) in word for word in words) for pair in learnt)


BEHAVIORS = ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]


@pytest.mark.parametrize(("behavior", "invert"), [*itertools.product(BEHAVIORS, [False, True])])
def test_behaviors(behavior: str, invert: bool) -> None:
    for number, regex in enumerate([r"\s+", r"\p{N}", "[aA1 ]", r"\p{L}+|\p{N}{1,2}"]):
        by_regex = bench.split(regex, behavior, invert=invert)
        assert_same(*trained([by_regex, PLAIN]), number)
        by_text = {**by_regex, "pattern": {"String": "a"}}
        assert_same(*trained([by_text, {**PLAIN, "use_regex": True}]), number)
        assert_same(*trained([{"type": "Punctuation", "behavior": behavior}, by_regex, PLAIN]), number)
        # Behind ByteLevel a step sees the characters that stand for bytes.
        if regex != r"\s+":
            assert_same(*trained([{**PLAIN, "use_regex": True}, by_regex]), number)


@pytest.mark.parametrize("individual", [False, True])
def test_a_space_in_front_of_every_part(individual: bool) -> None:
    digits = {"type": "Digits", "individual_digits": individual}
    assert_same(*trained([digits, {**PLAIN, "add_prefix_space": True, "use_regex": True}]), 5)


def test_replacing_normalizers() -> None:
    def replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
        return {"type": "Replace", "pattern": pattern, "content": content}

    steps = [
        replace({"Regex": r"\s+"}, " "),
        {"type": "NFC"},
        replace({"String": "a"}, "bb"),
        replace({"Regex": r"\p{N}{2}"}, ""),
    ]
    assert_same(*trained([{**PLAIN, "use_regex": True}], {"type": "Sequence", "normalizers": steps}), 6)


def test_what_is_outside_is_said(caplog: pytest.LogCaptureFixture) -> None:
    regex = r"\p{N}{1,3}(?=(?:\p{N}{3})*\b)|\p{L}+|[^\p{L}\p{N}]"
    tokenizer = train_bpe(iter(TEXTS), 300, pattern=regex, accept_fewer=True)
    assert r"the anchor `\b` at character 27" in caplog.text and "times slower" in caplog.text
    assert tokenizer.backend == "tokenizers"
    speed = next(finding for finding in check_tokenizer(tokenizer) if finding.check == "speed")
    assert speed.status == "warning" and r"the anchor `\b` at character 27" in speed.detail


def test_unknown_names_of_patterns() -> None:
    with pytest.raises(ConfigError, match="did you mean 'qwen35'"):
        train_bpe(iter(TEXTS), 300, pattern="qwen3.5")
    with pytest.raises(ConfigError, match="'llama' is none of auto, gpt2"):
        train_bpe(iter(TEXTS), 300, pattern="llama")


def test_the_default_follows_the_text() -> None:
    def regex(texts: list[str]) -> str:
        return str(json.loads(train_bpe(iter(texts), 300, accept_fewer=True).definition)["pre_tokenizer"])

    assert r"\\p{M}" in regex(TEXTS) and r"\\p{M}" not in regex(["Größe und Maß", "中文 123"])
    plain = train_bpe(iter(["Größe und Maß 123, it's"] * 9), 280, accept_fewer=True)
    assert (
        plain.definition
        == train_bpe(iter(["Größe und Maß 123, it's"] * 9), 280, pattern="llama3", accept_fewer=True).definition
    )
