"""Compiled regexes cut text exactly as `tokenizers` cuts it with the same regex."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers

from langadapt import _core

PATTERNS = dict(_core.pretokenize_patterns())
ASSIGNED = [chr(code) for code in (*range(0x32400), *range(0xE0000, 0xE0200)) if not 0xD800 <= code < 0xE000]
# Planes without a letter, a number or a space are sampled, and so is the inside of the great blocks in all contexts
# but the first; with every code point in every context the reference takes minutes.
EVERYWHERE = [*ASSIGNED, *map(chr, range(0x32400, 0x110000, 501))]
SAMPLED = [*ASSIGNED[:0x3100], *ASSIGNED[0x3100::23], *ASSIGNED[-0x200:]]
# Each context ends a line, so that one cannot leak into the next.
CONTEXTS = [
    "A{}b\n",
    "a{}b\n",
    "\nA{}{} \n",
    "1{}2\n",
    " {}x\n",
    "'{}\n",
    "'{}e\n",
    "'r{}\n",
    "'{}l\n",
    "'l{}\n",
    "  {}\n",
    "!{}!\r",
]


def reference(name: str) -> pre_tokenizers.Split:
    return pre_tokenizers.Split(Regex(PATTERNS[name]), "isolated")


def expected(splitter: pre_tokenizers.PreTokenizer, text: str) -> list[str]:
    return [piece for piece, _ in splitter.pre_tokenize_str(text)]


@pytest.mark.parametrize("name", PATTERNS)
def test_every_code_point_in_every_context(name: str) -> None:
    splitter = reference(name)
    for context in CONTEXTS:
        characters = EVERYWHERE if context == CONTEXTS[0] else SAMPLED
        # One text for thousands of code points: the reference's cost per call is far above its cost per character.
        for first in range(0, len(characters), 20_000):
            text = "".join(context.replace("{}", char) for char in characters[first : first + 20_000])
            ours = _core.pretokenize(text, PATTERNS[name])
            assert ours == expected(splitter, text), (context, first)


ALPHABET = [
    *"aAbLlSsTtrEevmdD019 '\t\n\r.,/!-_",
    *("ä", "ß", "Ü", "λ", "ж", "中", "の", "\u0301", "\u0345", "²", "½", "٣", "\u017f", "\u212a", "ǅ", "ʰ", "ª"),
    *("\u00a0", "\u2028", "\u3000", "\u0085", "\u180e", "\u200b", "\u200d", "😀", "👍🏽", "\ufe0f", "\U000e0100"),
]


@pytest.mark.parametrize("name", PATTERNS)
def test_random_text(name: str) -> None:
    splitter, draw = reference(name), random.Random(7)
    for _ in range(4000):
        text = "".join(draw.choices(ALPHABET, k=draw.randint(1, 30)))
        assert _core.pretokenize(text, PATTERNS[name]) == expected(splitter, text), repr(text)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60), st.sampled_from(sorted(PATTERNS)))
def test_any_text(text: str, name: str) -> None:
    assert _core.pretokenize(text, PATTERNS[name]) == (expected(reference(name), text) if text else [])


def test_byte_level_with_its_own_regex() -> None:
    splitter, draw = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True), random.Random(8)
    for _ in range(2000):
        text = "".join(draw.choices(ALPHABET, k=draw.randint(1, 30)))
        ours = _core.pretokenize(text, PATTERNS["gpt2"])
        lengths = [len(piece) for piece, _ in splitter.pre_tokenize_str(text)]
        assert [len(piece.encode()) for piece in ours] == lengths, repr(text)


def test_long_runs_are_linear() -> None:
    # A megabyte of one thing: quadratic scanning would not end within the time limit.
    for name, regex in PATTERNS.items():
        for unit in ("a", " ", "\n", "\u00a0", "'", "1", "A", "\u0301", "中"):
            text = unit * (1_000_000 // len(unit.encode()))
            assert "".join(_core.pretokenize(text, regex)) == text, name


def test_an_unknown_regex_is_named() -> None:
    with pytest.raises(ValueError, match=r"looking behind at character 1"):
        _core.pretokenize("a b", r"(?<=a)b")
