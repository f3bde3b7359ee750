"""Vocabulary matching: canonical forms, the rule of choice, roles, pieces, the report."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sample_tokenizers import ENGLISH, GERMAN, byte_level, metaspace, save, wordpiece
from tokenizers import AddedToken
from tokenizers import Tokenizer as Package

from langadapt.errors import ConfigError, DataError, MismatchError
from langadapt.swap.matching import EXACT, FUZZY, NEW, ROLE, match_vocabularies
from langadapt.swap.overlap import overlap_report, script_of_text
from langadapt.swap.report import text_cost
from langadapt.tokenizer.vocabulary import read_vocabulary, readable

FAMILIES = {
    "byte_level": lambda text: byte_level(text, 400),
    "metaspace": lambda text: metaspace(text, 420),
    "wordpiece": lambda text: wordpiece([line.lower() for line in text], 200),
}


def test_one_form_for_all_families() -> None:
    spaced = {}
    for family, make in FAMILIES.items():
        vocabulary = read_vocabulary(make(ENGLISH))
        assert vocabulary.family == family
        spaced[family] = {
            text for text, kind in zip(vocabulary.texts, vocabulary.kinds, strict=True) if kind == "normal"
        }
    assert b" house" in spaced["byte_level"] & spaced["metaspace"] & spaced["wordpiece"]
    assert b"e" in spaced["byte_level"] & spaced["metaspace"] & spaced["wordpiece"]


def test_bytes_are_matched_across_families() -> None:
    match = match_vocabularies(byte_level(ENGLISH, 400), metaspace(GERMAN, 420))
    token = match.target.ids["<0xC3>"]
    assert match.how[token] == EXACT
    assert match.source.texts[match.source_ids[token]] == b"\xc3"
    assert match.source.kinds[match.source_ids[token]] == "byte"
    # A plain letter takes the plain letter, its byte token takes what there is.
    assert (
        match.source_ids[match.target.ids["e"]] == match.source.ids["e"] == match.source_ids[match.target.ids["<0x65>"]]
    )
    back = match_vocabularies(metaspace(GERMAN, 420), byte_level(ENGLISH, 400))
    assert back.source_ids[back.target.ids["e"]] == back.source.ids["e"]
    assert back.source_ids[back.target.ids["Ċ"]] == back.source.ids["<0x0A>"]


def test_matching_a_vocabulary_with_itself_is_the_identity() -> None:
    for make in FAMILIES.values():
        tokenizer = make(GERMAN)
        match = match_vocabularies(tokenizer, tokenizer)
        assert np.array_equal(match.source_ids, np.arange(match.target_size))
        assert match.keeps_ids()
        assert len(match.piece_ids) == 0


def test_roles_go_before_names_and_text(tmp_path) -> None:
    source = byte_level(ENGLISH, 400, ("<|endoftext|>", "</s>", "<|im_end|>"))
    save(source, tmp_path / "source", eos_token="<|endoftext|>", bos_token="<|endoftext|>")
    target = metaspace(GERMAN, 420, ("<unk>", "<s>", "</s>", "<pad>", "<|eot_id|>"))
    save(target, tmp_path / "target", bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>")
    match = match_vocabularies(tmp_path / "source", tmp_path / "target")
    ids, source_ids = match.target.ids, match.source.ids
    assert match.source_ids[ids["</s>"]] == source_ids["<|endoftext|>"]
    assert match.source_ids[ids["<s>"]] == source_ids["<|endoftext|>"]
    # The source has no padding and no unknown token: padding takes the end token, unknown takes nothing.
    assert match.source_ids[ids["<pad>"]] == source_ids["<|endoftext|>"]
    assert match.how[ids["<unk>"]] == NEW
    assert match.source_ids[ids["<|eot_id|>"]] == source_ids["<|im_end|>"]
    assert (match.how[[ids["</s>"], ids["<|eot_id|>"]]] == ROLE).all()
    assert match.target_of(source_ids["<|endoftext|>"]) == ids["<s>"]


def test_special_tokens_never_match_text() -> None:
    source = byte_level(ENGLISH, 400)
    source.add_tokens([AddedToken("[INST]", special=False)])
    target = byte_level(ENGLISH, 400, ("<|endoftext|>", "<|user|>"))
    match = match_vocabularies(source, target)
    assert match.how[match.target.ids["<|user|>"]] == NEW
    assert match.piece_starts[match.target.ids["<|user|>"]] == match.piece_starts[match.target.ids["<|user|>"] + 1]


def test_fuzzy_prefers_the_same_space_then_the_same_case() -> None:
    source, target = byte_level(["x"], 257), byte_level(["x"], 257)
    source.add_tokens([AddedToken(name, special=False) for name in (" haus", "haus", "HAUS", " Baum")])
    target.add_tokens([AddedToken(name, special=False) for name in ("Haus", " Haus", "baum")])
    strict = match_vocabularies(source, target)
    assert (strict.how[-3:] == NEW).all()
    loose = match_vocabularies(source, target, fuzzy=True)
    names = [loose.source.names[token] for token in loose.source_ids[-3:]]
    assert names == ["haus", " haus", " Baum"]
    assert (loose.how[-3:] == FUZZY).all()


@pytest.mark.parametrize("source", FAMILIES)
@pytest.mark.parametrize("target", FAMILIES)
def test_pieces_spell_the_token(source: str, target: str) -> None:
    match = match_vocabularies(FAMILIES[source](ENGLISH), FAMILIES[target](GERMAN))
    assert len(match.new_ids) > 20
    for token in match.new_ids:
        text = match.target.texts[token]
        pieces = match.piece_ids[match.piece_starts[token] : match.piece_starts[token + 1]]
        spelled = b"".join(match.source.texts[piece] for piece in pieces)
        if source == "wordpiece":
            # Lower case, no accents, no bytes: what is left of the text, in order.
            assert spelled.strip().isascii() or not spelled
        else:
            assert spelled == text or match.target.kinds[token] == "special"


def test_readable_names_spaces_and_broken_bytes() -> None:
    assert readable(" größe".encode()) == "▁größe"
    assert readable(b"\xc3\xa4\xc3") == "ä<0xC3>"
    assert readable(b"") == ""


def test_every_form_of_a_tokenizer_is_the_same(tmp_path) -> None:
    from transformers import AutoTokenizer

    tokenizer = metaspace(GERMAN, 420)
    folder = save(tokenizer, tmp_path / "t", bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    loaded = AutoTokenizer.from_pretrained(folder)
    forms = [
        folder,
        str(folder / "tokenizer.json"),
        loaded,
        tokenizer,
        Package.from_file(str(folder / "tokenizer.json")),
    ]
    vocabularies = [read_vocabulary(form) for form in forms]
    assert len({vocabulary.identity for vocabulary in vocabularies}) == 1
    assert all(vocabulary.roles["eos"] == vocabularies[0].roles["eos"] for vocabulary in vocabularies)


def test_bad_tokenizers_are_named(tmp_path) -> None:
    with pytest.raises(DataError, match=r"no tokenizer\.json"):
        read_vocabulary(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_vocabulary(tmp_path / "absent")
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(DataError, match=r"tokenizer\.json"):
        read_vocabulary(tmp_path)
    with pytest.raises(ConfigError, match="int; give a path"):
        read_vocabulary(3)


def test_overlap_report_counts_everything_once() -> None:
    match = match_vocabularies(byte_level(ENGLISH, 400), byte_level(GERMAN, 400))
    counts = np.arange(match.target_size)[::-1]
    report = overlap_report(match, counts)
    assert report["tokens"] == match.target_size
    assert report["matched"] == len(match.overlap_ids) == report["exact"] + report["by_role"]
    for table in ("kind", "script", "rank"):
        assert sum(cell["tokens"] for cell in report[table].values()) == match.target_size
        assert sum(cell["matched"] for cell in report[table].values()) == report["matched"]
    assert report["corpus_share"] == pytest.approx(counts[match.overlap_ids].sum() / counts.sum())
    json.dumps(report)
    with pytest.raises(MismatchError, match="7 tokens"):
        overlap_report(match, np.zeros(7, dtype=np.int64))


def test_scripts() -> None:
    assert [script_of_text(text) for text in ("größe", "книга", "كتاب", "書", "12!")] == [
        "LATIN",
        "CYRILLIC",
        "ARABIC",
        "CJK",
        "none",
    ]


def test_real_tokenizers(shared) -> None:
    """The figures of `match_vocabularies` on the paper's tokenizers against a Llama-2 vocabulary."""
    folder = shared / "tokenizers"
    german = match_vocabularies(folder / "phi-3-mini", folder / "paper-de")
    assert (german.how == EXACT).sum() > 8000
    assert (german.how == ROLE).sum() == 4
    assert (np.diff(german.piece_starts)[german.new_ids] > 0).all()
    arabic = overlap_report(match_vocabularies(folder / "phi-3-mini", folder / "paper-ar"))
    assert arabic["script"]["ARABIC"]["matched"] < 60 < 20_000 < arabic["script"]["ARABIC"]["tokens"]


def test_a_tokenizer_that_cuts_and_pads_counts_like_any_other(tmp_path) -> None:
    """Sentence encoders publish `tokenizer.json` files that cut every text to 128 tokens and pad it to as many."""
    plain = wordpiece(ENGLISH, 200)
    cutting = wordpiece(ENGLISH, 200)
    cutting.enable_truncation(8)
    cutting.enable_padding(length=8)
    for name, tokenizer in (("plain", plain), ("cutting", cutting)):
        tokenizer.save(str(tmp_path / f"{name}.json"))
    texts = ["The house.", " ".join(ENGLISH)]
    costs = [text_cost(texts, match_vocabularies(*[tmp_path / f"{name}.json"] * 2)) for name in ("plain", "cutting")]
    assert costs[0] == costs[1]
