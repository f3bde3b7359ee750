"""`train_bpe`: a complete tokenizer that transformers loads without a word, whatever it was modelled on."""

from __future__ import annotations

import itertools
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import langadapt
from langadapt import build_corpus, extend_tokenizer, measure_fertility, tokenize_corpus, trim_tokenizer
from langadapt.errors import ConfigError, DataError
from langadapt.tokenizer.encoder import Tokenizer
from langadapt.tokenizer.training import train_bpe

GERMAN = Path(__file__).parent / "texts" / "german.jsonl"
TEXTS = [json.loads(line)["text"] for line in GERMAN.read_text(encoding="utf-8").splitlines()[:20]]
TEXTS += ["\n\n  eingerückt,\tTab\r\n 中文 😀 12 a-b"]
PROBES = [
    "Hallo  Welt!\n\tx = 12345\r\n",
    "  zwei Leerzeichen",
    "ﬁ ² Ⅷ 😀👩‍👩‍👧 中文 \u0301 ",
    "a\u00a0b\u2028c\u0000d",
    " ",
    "\n\n",
    "",
]


def load(folder: Path, caplog: pytest.LogCaptureFixture) -> Any:
    from transformers import AutoTokenizer

    caplog.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokenizer = AutoTokenizer.from_pretrained(folder)
    assert not [record for record in caplog.records if record.name.startswith("transformers")]
    return tokenizer


@pytest.mark.parametrize("options", [{}, {"pattern": "gpt2"}, {"pattern": "o200k"}, {"style": "sentencepiece"}])
def test_transformers_loads_it_and_text_survives(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, options: dict[str, str]
) -> None:
    ours = train_bpe(iter(TEXTS), 1000, **options)
    assert ours.backend == "native" and ours.vocab_size == 1000
    ours.save_pretrained(tmp_path)
    theirs = load(tmp_path, caplog)
    assert len(theirs) == 1000
    for probe in PROBES + TEXTS[:5]:
        assert ours.decode(ours.encode(probe)) == probe
        plain = theirs(probe, add_special_tokens=False)["input_ids"]
        assert plain == ours.encode(probe).tolist() and theirs.decode(plain) == probe
        assert (
            theirs(probe)["input_ids"]
            == ours.encode(probe, add_special_tokens=True).tolist()
            == [ours.bos_token_id, *plain]
        )
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (
        (ours.bos_token_id, ours.eos_token_id, ours.pad_token_id)
    )


def test_nfkc_is_an_option() -> None:
    for style in ("byte_level", "sentencepiece"):
        tokenizer = train_bpe(iter(TEXTS), 1000, style=style, normalization="NFKC")
        assert tokenizer.decode(tokenizer.encode("ﬁ ²")) == "fi 2"


def test_the_result_depends_on_the_documents_alone(tmp_path: Path) -> None:
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    lines = [json.dumps({"text": text}) + "\n" for text in TEXTS]
    first.write_text("".join(lines[:20]))
    second.write_text("".join(lines[20:]))
    for style in ("byte_level", "sentencepiece"):
        whole = train_bpe(iter(TEXTS), 1000, style=style, threads=1)
        assert train_bpe(reversed(TEXTS), 1000, style=style, threads=3).definition == whole.definition
        assert train_bpe([second, first], 1000, style=style, threads=2).definition == whole.definition


def test_special_tokens_and_their_roles() -> None:
    default = train_bpe(iter(TEXTS), 500)
    assert [default.id_to_token(id) for id in range(3)] == ["<|begin_of_text|>", "<|end_of_text|>", "<|pad|>"]
    named = train_bpe(
        iter(TEXTS), 1000, style="sentencepiece", special_tokens={"eos_token": "<end>", "bos_token": "<go>"}
    )
    assert (named.unk_token_id, named.eos_token_id, named.bos_token_id) == (0, 1, 2)
    guessed = train_bpe(iter(TEXTS), 500, special_tokens=["</s>", "<x>"])
    assert guessed.eos_token_id == 0 and guessed.special_token_ids == {0, 1} and guessed.bos_token_id is None


def test_more_than_the_corpus_supports_is_an_error() -> None:
    for style in ("byte_level", "sentencepiece"):
        with pytest.raises(ValueError, match=r"vocab_size: 50000; this corpus supports at most (\d+) entries") as error:
            train_bpe(iter(TEXTS), 50_000, style=style)
        most = int(str(error.value).split("at most ")[1].split()[0])
        assert train_bpe(iter(TEXTS), most, style=style).vocab_size == most
        assert train_bpe(iter(TEXTS), 50_000, style=style, accept_fewer=True).vocab_size == most
    with pytest.raises(ValueError, match="special tokens and bytes alone take 259"):
        train_bpe(iter(TEXTS), 100)
    with pytest.raises(ValueError, match="lower character_coverage"):
        train_bpe(iter(TEXTS), 270, style="sentencepiece")


def test_bad_options_are_named() -> None:
    for options, message in [
        ({"style": "wordpiece"}, "style: 'wordpiece'"),
        ({"normalization": "nfkc"}, "normalization: 'nfkc'"),
        ({"style": "sentencepiece", "pattern": "gpt2"}, "only the byte_level style"),
        ({"special_tokens": "<s>"}, "special_tokens: '<s>'"),
        ({"like": 5}, "like: int"),
        ({"pattern": "(("}, "cannot read the normalizer or pre-tokenizer"),
    ]:
        with pytest.raises(ConfigError, match=None) as error:
            train_bpe(iter(TEXTS), 500, **options)
        assert message in str(error.value)
    with pytest.raises(DataError):
        train_bpe(iter([]), 500)
    with pytest.raises(ValueError, match="no text to learn from"):
        train_bpe(iter([""]), 500)


def test_a_regex_without_a_scanner_goes_through_the_package(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = train_bpe(iter(TEXTS), 500, pattern=r"\p{L}+|\P{L}(?<=\P{L})")
    assert "times slower: looking behind at character 13" in caplog.text
    assert tokenizer.decode(tokenizer.encode(TEXTS[0])) == TEXTS[0]


def test_progress_and_stop() -> None:
    phases: list[str] = []
    train_bpe(iter(TEXTS * 20), 1000, progress=lambda phase, *_: phases.append(phase))
    assert phases[0] == "count words"

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_bpe(itertools.cycle(TEXTS), 1000, progress=stop)


def test_bounded_words() -> None:
    tokenizer = train_bpe(iter(TEXTS), 500, max_words=200, threads=1)
    assert tokenizer.vocab_size == 500


LIKE = ["paper-de", "phi-3-mini", "phi-2", "roberta-base", "falcon", "focus-de-bpe-50k"]


@pytest.mark.parametrize("name", LIKE)
def test_like_an_existing_tokenizer(shared: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str) -> None:
    source = Tokenizer.from_pretrained(shared / "tokenizers" / name)
    tokenizer = train_bpe(iter(TEXTS), 1000, like=source, keep_reserved=True)
    tokenizer.save_pretrained(tmp_path)
    theirs = load(tmp_path, caplog)
    before, after = json.loads(source.definition), json.loads(tokenizer.definition)
    for part in ("normalizer", "pre_tokenizer", "decoder"):
        assert after[part] == before[part]
    assert [token["content"] for token in after["added_tokens"]] == [
        token["content"] for token in sorted(before["added_tokens"], key=lambda token: token["id"])
    ]
    for role in ("bos_token", "eos_token", "unk_token", "pad_token"):
        if source.special_token(role) is not None:
            assert tokenizer.special_token(role) == source.special_token(role)
    assert tokenizer.companion("chat_template.jinja") == source.companion("chat_template.jinja")
    for probe in PROBES + TEXTS[:3]:
        assert theirs(probe)["input_ids"] == tokenizer.encode(probe, add_special_tokens=True).tolist()
        old, new = source.encode(probe, add_special_tokens=True), tokenizer.encode(probe, add_special_tokens=True)
        special = [source.id_to_token(id) for id in old if id in source.special_token_ids]
        assert [tokenizer.id_to_token(id) for id in new if id in tokenizer.special_token_ids] == special
        assert tokenizer.decode(new) == source.decode(old)


def test_like_keeps_templates_and_adds_tokens() -> None:
    source = train_bpe(iter(TEXTS), 500, style="byte_level")
    config = json.loads(source.companion("tokenizer_config.json") or b"")
    config |= {
        "chat_template": "{{ messages }}",
        "added_tokens_decoder": {"0": {}},
        "tokenizer_class": "LlamaTokenizer",
    }
    source = Tokenizer(source.definition, {"tokenizer_config.json": json.dumps(config).encode()})
    tokenizer = train_bpe(iter(TEXTS), 520, like=source, special_tokens={"mask_token": "<mask>"})
    after = json.loads(tokenizer.companion("tokenizer_config.json") or b"")
    assert after["chat_template"] == "{{ messages }}" and after["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert "added_tokens_decoder" not in after
    assert tokenizer.token_to_id("<mask>") == 3 and tokenizer.special_token("mask_token") == "<mask>"
    assert tokenizer.to_transformers().apply_chat_template([{"role": "user", "content": "x"}], tokenize=False)


def test_like_rejects_other_kinds(shared: Path) -> None:
    with pytest.raises(ConfigError, match="Unigram tokenizer; only BPE can be trained"):
        train_bpe(iter(TEXTS), 500, like=shared / "tokenizers" / "focus-de-unigram-50k")
    with pytest.raises(ConfigError, match="leave them out"):
        train_bpe(iter(TEXTS), 500, like=shared / "tokenizers" / "phi-2", pattern="gpt2")


def test_command_line(tmp_path: Path) -> None:
    from langadapt.cli.tokenizer import app

    text = tmp_path / "text.jsonl"
    text.write_text("".join(json.dumps({"text": line}) + "\n" for line in TEXTS))
    out = tmp_path / "tokenizer"
    special = ["--special-token", "bos_token=<s>", "--special-token", "eos_token=</s>"]
    result = CliRunner().invoke(app, ["train", str(text), "--vocab-size", "500", "--out", str(out), "--json", *special])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["vocab_size"] == 500
    assert Tokenizer.from_pretrained(out).eos_token_id == 1
    assert langadapt.train_bpe is train_bpe

    more = tmp_path / "more"
    result = CliRunner().invoke(app, ["extend", str(out), str(text), "--new-tokens", "20", "--out", str(more)])
    assert result.exit_code == 0, result.output
    assert Tokenizer.from_pretrained(more).vocab_size == 520
    less = tmp_path / "less"
    result = CliRunner().invoke(
        app, ["trim", str(more), str(text), "--vocab-size", "400", "--out", str(less), "--json"]
    )
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["after"] <= 400
    id_map = json.loads((less / "id_map.json").read_text())
    assert len(id_map) == 520 and max(id_map) == Tokenizer.from_pretrained(less).vocab_size - 1


@pytest.mark.parametrize(
    "options",
    [
        {"min_frequency": -1},
        {"max_token_length": 0},
        {"max_sentence_length": 0},
        {"max_words": 0},
        {"character_coverage": 2.0},
        {"character_coverage": 0.0},
        {"character_coverage": float("nan")},
    ],
    ids=str,
)
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        train_bpe(iter(TEXTS), 300, style="sentencepiece", **options)


def test_texts_are_taken_by_every_door(tmp_path: Path) -> None:
    trained = train_bpe(texts=TEXTS, vocab_size=400)
    assert trained.definition == train_bpe(iter(TEXTS), 400).definition
    extended = extend_tokenizer(trained, texts=TEXTS, new_tokens=5)
    assert extended.definition == extend_tokenizer(trained, iter(TEXTS), 5).definition
    trimmed = trim_tokenizer(trained, texts=TEXTS).tokenizer
    assert trimmed.definition == trim_tokenizer(trained, iter(TEXTS)).tokenizer.definition
    for name, source in (("list", lambda: {"texts": TEXTS}), ("iterator", lambda: {"inputs": iter(TEXTS)})):
        tokenize_corpus(**source(), tokenizer=trained, out=tmp_path / f"store-{name}")
        build_corpus(**source(), out=tmp_path / f"corpus-{name}")
    for file in ("store-{}/tokens.bin", "corpus-{}/train.jsonl.zst"):
        assert (tmp_path / file.format("list")).read_bytes() == (tmp_path / file.format("iterator")).read_bytes()
    cells = measure_fertility({"t": trained}, {"a": iter(TEXTS)}, texts={"b": TEXTS}).cells["t"]
    assert cells["a"] == cells["b"]
    with pytest.raises(FileNotFoundError):
        train_bpe(TEXTS, 400)


def test_special_tokens_of_a_converted_model_are_special(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    definition = json.loads(train_bpe(iter(TEXTS), 400, style="sentencepiece").definition)
    for token in definition["added_tokens"]:
        token["normalized"] = True
    model = Tokenizer(json.dumps(definition).encode(), {"tokenizer_config.json": b'{"bos_token": "<s>"}'})
    train_bpe(iter(TEXTS), 400, like=model).save_pretrained(tmp_path)
    made = load(tmp_path, caplog)
    ids = made("Hallo")["input_ids"]
    assert made.decode(ids, skip_special_tokens=True) == "Hallo"
    assert made.convert_ids_to_tokens(ids)[0] == "<s>"
    assert made("a<s>b", add_special_tokens=False)["input_ids"].count(made.bos_token_id) == 1
