"""The learnt merges, ids, pieces and scores are those of the reference trainers."""

from __future__ import annotations

import io
import json
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from langadapt import _core

PATTERNS = dict(_core.pretokenize_patterns())
PAPER = {"character_coverage": 0.9995, "byte_fallback": True, "split_digits": True}


def hugging_face(texts: list[str], regex: str, **options: Any) -> tuple[dict[str, int], list[list[str]]]:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(regex), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(show_progress=False, **options)
    tokenizer.train_from_iterator(texts, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], model["merges"]


def byte_level(
    texts: list[str],
    regex: str,
    vocab_size: int,
    min_frequency: int = 0,
    special_tokens: list[str] | None = None,
    max_token_length: int | None = None,
    full_alphabet: bool = True,
    threads: int = 2,
) -> tuple[dict[str, int], list[list[str]]]:
    split = {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
    mapping = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    steps = json.dumps({"type": "Sequence", "pretokenizers": [split, mapping]})
    counter = _core.WordCounter.byte_level("null", steps, None, threads)
    counter.count_texts(texts, None)
    settings = {
        "vocab_size": vocab_size,
        "min_frequency": min_frequency,
        "special_tokens": special_tokens or [],
        "given_tokens": [],
        "max_token_length": max_token_length,
        "full_alphabet": full_alphabet,
        "accept_fewer": True,
    }
    trained = counter.learn_byte_level(settings, None)
    tokens = trained.tokens()
    return {token: id for id, token in enumerate(tokens)}, [[tokens[a], tokens[b]] for a, b in trained.merges()]


def assert_like_hugging_face(texts: list[str], regex: str, vocab_size: int, **options: Any) -> None:
    alphabet = pre_tokenizers.ByteLevel.alphabet() if options.get("full_alphabet", True) else []
    reference = {key: value for key, value in options.items() if key not in ("full_alphabet", "threads")}
    vocab, merges = hugging_face(texts, regex, vocab_size=vocab_size, initial_alphabet=alphabet, **reference)
    our_vocab, our_merges = byte_level(texts, regex, vocab_size, **options)
    assert our_merges == merges
    assert our_vocab == vocab


def sentencepiece_reference(lines: list[str], vocab_size: int, **options: Any) -> list[tuple[str, float]]:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        model_type="bpe",
        vocab_size=vocab_size,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        max_sentence_length=8192,
        pad_id=3,
        minloglevel=2,
        **{"hard_vocab_limit": False, **PAPER, **options},
    )
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    return [(processor.id_to_piece(id), processor.get_score(id)) for id in range(processor.get_piece_size())]


def sentencepieces(
    texts: list[str],
    vocab_size: int,
    character_coverage: float = 0.9995,
    *,
    required_chars: str = "",
    min_frequency: int = 0,
    threads: int = 2,
) -> list[tuple[str, float]]:
    special = ["<unk>", "<s>", "</s>", "<pad>"]
    reserved = special + [f"<0x{byte:02X}>" for byte in range(256)]
    counter = _core.WordCounter.sentencepiece(reserved, [], True, 8192, None, threads)
    counter.count_texts(texts, None)
    settings = {
        "vocab_size": vocab_size,
        "min_frequency": min_frequency,
        "special_tokens": special,
        "required_chars": required_chars,
        "given_tokens": [],
        "character_coverage": character_coverage,
        "byte_fallback": True,
        "max_piece_length": 16,
        "accept_fewer": True,
    }
    trained = counter.learn_sentencepiece(settings, None)
    return list(zip(trained.tokens(), trained.scores(), strict=True))


SMALL = {
    "two letters": "ab",
    "letters and spaces": "ab  ",
    "multi-byte": "aä中😀 ",
    "signs": "ab-.,'\n 12",
    "scripts": "aжλ漢カ\u0301\u3099 5",
}


@pytest.mark.parametrize("alphabet", SMALL.values(), ids=SMALL)
@pytest.mark.parametrize("name", ["gpt2", "llama3"])
def test_byte_level_on_tiny_alphabets(alphabet: str, name: str) -> None:
    draw = random.Random(alphabet)
    for _ in range(60):
        lengths = draw.randint(1, 12), draw.randint(1, 60)
        texts = ["".join(draw.choices(alphabet, k=draw.randint(1, lengths[1]))) for _ in range(lengths[0])]
        assert_like_hugging_face(
            texts,
            PATTERNS[name],
            vocab_size=259 + draw.randint(0, 80),
            min_frequency=draw.randint(0, 3),
            max_token_length=draw.choice([None, None, 2, 3, 5, 8]),
            special_tokens=draw.choice([[], ["<s>", "a"], ["ab", "<s>", "ba", "ab"]]),
            full_alphabet=draw.random() < 0.7,
            threads=draw.randint(1, 4),
        )


@pytest.mark.parametrize("alphabet", SMALL.values(), ids=SMALL)
def test_sentencepiece_on_tiny_alphabets(alphabet: str) -> None:
    draw = random.Random(alphabet)
    for _ in range(60):
        size = draw.randint(1, 60)
        lines = ["".join(draw.choices(alphabet, k=draw.randint(1, size))) for _ in range(draw.randint(1, 12))]
        lines = [part for line in lines for part in line.split("\n") if part] or ["a"]
        coverage = draw.choice([0.98, 0.9995, 1.0])
        vocab_size = 300 + draw.randint(0, 60)
        required = draw.choice(["", "#Q", "ab~", "0123456789"])
        expected = sentencepiece_reference(lines, vocab_size, character_coverage=coverage, required_chars=required)
        ours = sentencepieces(
            ["\n".join(lines)], vocab_size, coverage, required_chars=required, threads=draw.randint(1, 4)
        )
        assert ours == expected, lines


def corpus(shared: Path, name: str, megabytes: float) -> list[str]:
    packed = shared / "corpus" / f"{name}.jsonl.zst"
    raw = subprocess.run(["zstd", "-dcq", packed], check=True, capture_output=True).stdout
    texts, size = [], 0
    for line in raw.splitlines():
        texts.append(json.loads(line)["text"])
        size += len(texts[-1].encode())
        if size > megabytes * 1e6:
            break
    return texts


@pytest.mark.parametrize("language", ["de", "en", "fr", "ru", "ar", "sw", "zh"])
@pytest.mark.slow
def test_byte_level_on_real_text(shared: Path, language: str) -> None:
    texts = corpus(shared, language, 1.5)
    name = {"zh": "qwen2", "fr": "gpt2", "en": "o200k"}.get(language, "llama3")
    specials = ["<|begin_of_text|>", "<|end_of_text|>"]
    assert_like_hugging_face(texts, PATTERNS[name], 6000, min_frequency=2, special_tokens=specials)


@pytest.mark.parametrize("language", ["de", "en", "fr", "ru", "ar", "sw", "zh"])
@pytest.mark.slow
def test_sentencepiece_on_real_text(shared: Path, language: str) -> None:
    texts = corpus(shared, language, 1.5)
    lines = [line for text in texts for line in text.split("\n") if line]
    assert sentencepieces(texts, 6000) == sentencepiece_reference(lines, 6000)
