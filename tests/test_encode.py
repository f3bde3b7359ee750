"""Ids and text of the native encoder against the `tokenizers` package: small tokenizers of every make, wild text."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator

import numpy as np
import pytest
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Regex as Pattern
from tokenizers import Tokenizer as Reference

from langadapt import Tokenizer

COMMON = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|NUMBERS| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3 = COMMON.replace("NUMBERS", r"\p{N}{1,3}")
QWEN2 = COMMON.replace("NUMBERS", r"\p{N}")

CORPUS = [
    "Die Würde des Menschen ist unantastbar. Sie zu achten und zu schützen ist Verpflichtung aller Gewalt.",
    "Der Wald steht schwarz und schweiget, und aus den Wiesen steiget der weiße Nebel wunderbar.",
    "It's 10:45 and we've paid 1234,50 € for 2 tickets; they'll leave at 11:05, won't they?",
    "    if x == 10:\n        return  y\n\tfoo(x,  y)\r\n",
    "السلام عليكم ورحمة الله وبركاته، كيف حالك اليوم؟",
    "春眠不觉晓，处处闻啼鸟。夜来风雨声，花落知多少。",
    "die der und in zu den das nicht von sie ist des sich mit dem dass er es ein ich auf so eine auch als an nach",
] * 3

SPACES = [
    " ",
    "  ",
    "   ",
    "     ",
    "\n",
    "\n\n",
    "\r\n",
    "\t",
    "\t\t",
    "\u00a0",
    "\u2009",
    "\u3000",
    "\u2028",
    "\u0085",
]

WORDS = """
Die Würde des Menschen it's we'VE don't 'S the an der und unantastbar schweiget x 0 1 12 123 1234 12345 ½ ² ٣ Ⅷ 1,5
10:45 € $ % . , ; ... !? -- => <= == {} // # `` '' " « » „ “ ’ عليكم وَبَرَكَاتُه ـ 春眠 不觉晓 ， 。 こんにちは 한국어
हिन्दी ไทย ქართული Ελλάς ДОМ ẞß ﬁ Å Å ▁ ▁▁ ▁a a▁b Ġ Ġa Ċ âĢ <0x0A> <0xE2> <unk> <s> </s> <pad> <|x|> [M] cat cats
concat
"""

FRAGMENTS = [
    *SPACES,
    *WORDS.split(),
    "👩‍👩‍👧‍👦",
    "🏳️‍🌈",
    "🇩🇪",
    "e\u0301",
    "u\u0308\u0323",
    "\u0301",
    "\u200d",
    "\u200b",
    "\ufeff",
    "\u202e",
    "\ue000",
    "\U0010ffff",
    "\x00",
    "\x7f",
    "\ufffd",
    "𝔘𝔫𝔦",
    "aaaaaaaaaaaaaaaa",
    "ababababab",
    "=" * 40,
    " " * 33,
]


def texts(seed: int, count: int) -> Iterator[str]:
    """Wild text: fragments in a row, most of them without a space between."""
    source = random.Random(seed)
    for _ in range(count):
        pieces = source.choices(FRAGMENTS, k=source.choice([1, 2, 3, 5, 8, 13, 40]))
        yield source.choice(["", "", "", " "]).join(pieces)


EDGES = [
    "",
    " ",
    "  ",
    "\n",
    "▁",
    "▁ ",
    " ▁",
    "<s>",
    " <s>",
    "<s> ",
    "<s><s>",
    "a",
    " a",
    "a ",
    "  a",
    "cat",
    "[M]",
    " [M] a",
]

ADDED = [
    AddedToken("<s>", special=True, normalized=False),
    AddedToken("</s>", special=True, normalized=True),
    AddedToken("[M]", special=True, normalized=False, lstrip=True),
    AddedToken("<|x|>", special=False, normalized=False, rstrip=True),
    AddedToken("cat", special=False, normalized=True, single_word=True),
    AddedToken("<pad>", special=True, normalized=True, lstrip=True, rstrip=True),
    AddedToken("\t\t", special=False, normalized=True),
    AddedToken("     ", special=False, normalized=True),
]


def train(
    *,
    normalizer: normalizers.Normalizer | None = None,
    pre_tokenizer: pre_tokenizers.PreTokenizer | None = None,
    decoder: decoders.Decoder | None = None,
    added: list[AddedToken] | None = None,
    vocab_size: int = 420,
    byte_tokens: bool = False,
    byte_level: bool = False,
    **model: object,
) -> Reference:
    """A small tokenizer, trained by the reference itself."""
    tokenizer = Reference(models.BPE(**model))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    if pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pre_tokenizer
    specials = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256) if byte_tokens)]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet() if byte_level else [],
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    # The trainer keeps its special tokens as added ones; a Llama file has the bytes in the vocabulary only.
    plain = json.loads(tokenizer.to_str())
    plain["added_tokens"] = []
    tokenizer = Reference.from_str(json.dumps(plain))
    if decoder is not None:
        tokenizer.decoder = decoder
    tokenizer.add_tokens(added or [])
    return tokenizer


def metaspace(scheme: str, split: bool) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=scheme, split=split)


LLAMA_NORMALIZER = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
LLAMA_DECODER = [
    decoders.Replace("▁", " "),
    decoders.ByteFallback(),
    decoders.Fuse(),
    decoders.Strip(content=" ", left=1, right=0),
]


def sentencepiece_style(**changes: object) -> Reference:
    # Words must be split for training, or one merge would swallow whole sentences; they are not for encoding.
    settings = {"unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True, "byte_tokens": True, "vocab_size": 700}
    settings |= {"normalizer": normalizers.Sequence(LLAMA_NORMALIZER), "pre_tokenizer": metaspace("never", True)}
    settings |= {"decoder": decoders.Sequence(LLAMA_DECODER)}
    final = changes.pop("final_pre_tokenizer", None)
    final_normalizer = changes.pop("final_normalizer", "same")
    tokenizer = train(**(settings | changes))
    plain = json.loads(tokenizer.to_str())
    plain["pre_tokenizer"] = final
    if final_normalizer != "same":
        plain["normalizer"] = final_normalizer
    return Reference.from_str(json.dumps(plain))


def byte_level_style(*steps: pre_tokenizers.PreTokenizer, **changes: object) -> Reference:
    pre_tokenizer = steps[0] if len(steps) == 1 else pre_tokenizers.Sequence(list(steps))
    settings = {"pre_tokenizer": pre_tokenizer, "decoder": decoders.ByteLevel(), "byte_level": True}
    return train(**(settings | changes))


def split(regex: str, behavior: str = "isolated", invert: bool = False) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Split(Pattern(regex), behavior=behavior, invert=invert)


def byte_level(add_prefix_space: bool = False, use_regex: bool = True) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space, use_regex=use_regex)


REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
MAKES = {
    "llama": lambda: sentencepiece_style(),
    "llama-added": lambda: sentencepiece_style(added=ADDED),
    "llama-no-prefix": lambda: sentencepiece_style(final_normalizer=REPLACE, added=ADDED),
    "llama-unknowns": lambda: sentencepiece_style(byte_fallback=False, byte_tokens=False, added=ADDED[:3]),
    "llama-unknowns-unfused": lambda: sentencepiece_style(byte_fallback=False, byte_tokens=False, fuse_unk=False),
    "llama-nothing-for-unknowns": lambda: sentencepiece_style(byte_fallback=False, byte_tokens=False, unk_token=None),
    "llama-nfkc": lambda: sentencepiece_style(
        normalizer=normalizers.Sequence([normalizers.NFKC(), *LLAMA_NORMALIZER]), added=ADDED
    ),
    "llama-takes-whole-sections": lambda: sentencepiece_style(ignore_merges=True, added=ADDED[:3]),
    "gemma": lambda: sentencepiece_style(
        final_normalizer=REPLACE,
        final_pre_tokenizer={
            "type": "Split",
            "pattern": {"String": " "},
            "behavior": "MergedWithPrevious",
            "invert": False,
        },
    ),
    **{
        f"metaspace-{scheme}-{'split' if cut else 'whole'}": lambda scheme=scheme, cut=cut: sentencepiece_style(
            normalizer=None,
            pre_tokenizer=metaspace(scheme, True),
            final_pre_tokenizer=json.loads(metaspace(scheme, cut).__getstate__()),
            decoder=decoders.Metaspace(replacement="▁", prepend_scheme=scheme, split=cut),
            added=ADDED,
        )
        for scheme, cut in itertools.product(("always", "first", "never"), (True, False))
    },
    "metaspace-takes-whole-words": lambda: sentencepiece_style(
        normalizer=None, final_pre_tokenizer=json.loads(metaspace("always", True).__getstate__()), ignore_merges=True
    ),
    "gpt2": lambda: byte_level_style(byte_level()),
    "gpt2-prefix-added": lambda: byte_level_style(byte_level(add_prefix_space=True), added=ADDED),
    "starcoder": lambda: byte_level_style(pre_tokenizers.Digits(individual_digits=True), byte_level()),
    "digits-together": lambda: byte_level_style(pre_tokenizers.Digits(individual_digits=False), byte_level()),
    "llama3": lambda: byte_level_style(split(LLAMA3), byte_level(use_regex=False), ignore_merges=True, added=ADDED),
    "llama3-tiktoken": lambda: byte_level_style(split(LLAMA3, "removed", True), byte_level(use_regex=False)),
    "qwen2": lambda: byte_level_style(
        split(QWEN2), byte_level(use_regex=False), normalizer=normalizers.NFC(), added=ADDED
    ),
    "nfd-prefix": lambda: byte_level_style(
        split(QWEN2), byte_level(use_regex=False, add_prefix_space=True), normalizer=normalizers.NFD()
    ),
    "falcon": lambda: byte_level_style(
        pre_tokenizers.Punctuation("contiguous"),
        byte_level(),
        pre_tokenizers.Digits(individual_digits=False),
        split("[0-9][0-9][0-9]"),
        added=ADDED,
    ),
    "punctuation-and-bytes-like-digits": lambda: byte_level_style(
        pre_tokenizers.Punctuation("isolated"), byte_level(), pre_tokenizers.Digits(individual_digits=True)
    ),
    "no-split": lambda: byte_level_style(byte_level(use_regex=False), added=ADDED[:2]),
}


@pytest.fixture(scope="module", params=MAKES)
def pair(request: pytest.FixtureRequest) -> tuple[Tokenizer, Reference]:
    reference = MAKES[request.param]()
    tokenizer = Tokenizer(reference.to_str().encode(), name=request.param)
    assert tokenizer.backend == "native"
    return tokenizer, reference


def check(tokenizer: Tokenizer, reference: Reference, text: str) -> None:
    expected = reference.encode(text, add_special_tokens=False)
    ids = tokenizer.encode(text)
    assert ids.dtype == np.uint32
    assert ids.tolist() == expected.ids, f"{text!r}: {expected.tokens}"
    assert tokenizer.decode(ids) == reference.decode(expected.ids, skip_special_tokens=False)


def test_wild_text(pair: tuple[Tokenizer, Reference]) -> None:
    for text in itertools.chain(EDGES, FRAGMENTS, CORPUS, texts(7, 500)):
        check(*pair, text)


def test_any_ids_decode_alike(pair: tuple[Tokenizer, Reference]) -> None:
    tokenizer, reference = pair
    source = random.Random(3)
    for length in (0, 1, 2, 5, 30, 300):
        for _ in range(20):
            ids = [source.randrange(tokenizer.vocab_size + 3) for _ in range(length)]
            assert tokenizer.decode(ids) == reference.decode(ids, skip_special_tokens=False), ids


def test_vocabulary_both_ways(pair: tuple[Tokenizer, Reference]) -> None:
    tokenizer, reference = pair
    vocab = reference.get_vocab()
    assert tokenizer.vocab_size == max(vocab.values()) + 1
    for token, id in vocab.items():
        assert tokenizer.token_to_id(token) == id
        assert tokenizer.id_to_token(id) == token
    assert tokenizer.token_to_id("no such token") is None
    assert tokenizer.id_to_token(tokenizer.vocab_size) is None
    assert tokenizer.id_to_token(-1) is None


def test_batches_and_threads_agree(pair: tuple[Tokenizer, Reference]) -> None:
    tokenizer, _ = pair
    batch = [*EDGES, *texts(11, 60), "x" * 300_000, *texts(12, 20)]
    for threads in (1, 3):
        ids, offsets = tokenizer.encode_batch(batch, threads=threads)
        assert ids.dtype == np.uint32
        assert offsets.dtype == np.uint64
        assert offsets[0] == 0
        assert offsets[-1] == len(ids)
        for text, start, end in zip(batch, offsets[:-1], offsets[1:], strict=True):
            assert np.array_equal(ids[int(start) : int(end)], tokenizer.encode(text))


@pytest.mark.parametrize("make", ["llama", "metaspace-always-split", "gpt2", "llama3", "no-split"])
@pytest.mark.parametrize("unit", ["a", "ab", " ", "\n", "ü", "▁", "=", "und", "1", "春眠"])
def test_long_runs(make: str, unit: str) -> None:
    reference = MAKES[make]()
    tokenizer = Tokenizer(reference.to_str().encode())
    # Around the length where merging changes from scanning to a heap, around that of cached pieces, and long.
    for count in (15, 16, 17, 63, 64, 65, 129, 254, 256, 257, 20_000):
        check(tokenizer, reference, unit * count)
        check(tokenizer, reference, "x" + unit * count + " y")


def test_a_megabyte_without_a_space(pair: tuple[Tokenizer, Reference]) -> None:
    tokenizer, _ = pair
    source = random.Random(5)
    text = "".join(source.choices("abcdefghijklmnopqrstuvwxyzäöü", k=1_000_000))
    # Quadratic work would take minutes, and the test's time limit with it.
    ids = tokenizer.encode(text)
    assert 0 < len(ids) < 1_100_000


@pytest.mark.parametrize(
    ("processor", "prefix", "suffix"),
    [
        (processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 5), ("</s>", 6)]), [5], [6]),
        (processors.TemplateProcessing(single="$A", special_tokens=[]), [], []),
        (processors.RobertaProcessing(("</s>", 6), ("<s>", 5)), [5], [6]),
        (processors.BertProcessing(("</s>", 6), ("<s>", 5)), [5], [6]),
        (processors.ByteLevel(), [], []),
        (
            processors.Sequence(
                [
                    processors.ByteLevel(),
                    processors.TemplateProcessing(single="<s> <s> $A", special_tokens=[("<s>", 5)]),
                ]
            ),
            [5, 5],
            [],
        ),
    ],
)
def test_special_tokens_around_a_text(
    processor: processors.PostProcessor, prefix: list[int], suffix: list[int]
) -> None:
    reference = byte_level_style(byte_level())
    reference.post_processor = processor
    tokenizer = Tokenizer(reference.to_str().encode())
    for text in ("", "Die Würde"):
        bare = tokenizer.encode(text).tolist()
        assert tokenizer.encode(text, add_special_tokens=True).tolist() == prefix + bare + suffix
        assert reference.encode(text).ids == prefix + bare + suffix
        assert reference.encode(text, add_special_tokens=False).ids == bare
    ids, offsets = tokenizer.encode_batch(["a", ""], add_special_tokens=True)
    assert ids.tolist() == reference.encode("a").ids + prefix + suffix
    assert offsets[-1] - offsets[1] == len(prefix) + len(suffix)


def test_a_piece_across_the_cut_before_a_space() -> None:
    # Some vocabularies have pieces such as `>▁</`: the cut must give way exactly there.
    vocab = {token: id for id, token in enumerate(["<unk>", "▁", "a", "b", "c", "a▁", "a▁b", "▁b", "▁c", "b▁c"])}
    merges = [("a", "▁"), ("▁", "b"), ("a▁", "b"), ("▁", "c"), ("b", "▁c")]
    reference = Reference(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>"))
    reference.normalizer = normalizers.Replace(" ", "▁")
    tokenizer = Tokenizer(reference.to_str().encode())
    for letters in itertools.product("abc ▁", repeat=6):
        check(tokenizer, reference, "".join(letters))


def test_several_merges_of_one_piece() -> None:
    # Converted SentencePiece models have every way to make a piece, at different ranks.
    tokens = ["<unk>", "▁", "a", "b", "ab", "ba", "aba", "abab", "▁a", "▁ab", "▁aba"]
    vocab = {token: id for id, token in enumerate(tokens)}
    pairs = [(x, y) for x in tokens[1:] for y in tokens[1:] if x + y in vocab]
    source = random.Random(1)
    for _ in range(5):
        source.shuffle(pairs)
        reference = Reference(models.BPE(vocab=vocab, merges=pairs, unk_token="<unk>"))
        reference.normalizer = normalizers.Replace(" ", "▁")
        tokenizer = Tokenizer(reference.to_str().encode())
        for letters in itertools.product("ab ", repeat=7):
            check(tokenizer, reference, "".join(letters))


def test_skipping_special_tokens() -> None:
    reference = byte_level_style(byte_level(), added=ADDED)
    tokenizer = Tokenizer(reference.to_str().encode())
    ids = tokenizer.encode("a<s>b</s>c<|x|>d")
    assert tokenizer.decode(ids, skip_special_tokens=True) == "abc<|x|>d"
    assert reference.decode(ids.tolist(), skip_special_tokens=True) == "abc<|x|>d"


def test_skipping_special_tokens_that_a_normalizer_changes() -> None:
    # The reference keeps these, against what its option says: it looks for `▁</s>` among the special tokens.
    tokenizer = Tokenizer(MAKES["llama-added"]().to_str().encode())
    ids = tokenizer.encode("und </s>")
    assert tokenizer.token_to_id("</s>") in ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == "und"


def test_truncation_and_padding_in_the_file_are_ignored() -> None:
    for make in (MAKES["gpt2"], lambda: Reference(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))):
        reference = make()
        reference.enable_truncation(2)
        reference.enable_padding(length=5)
        tokenizer = Tokenizer(reference.to_str().encode())
        reference.no_truncation()
        reference.no_padding()
        assert tokenizer.encode("one two three").tolist() == reference.encode("one two three").ids
