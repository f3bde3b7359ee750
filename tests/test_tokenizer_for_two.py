"""What a new vocabulary carries over, gives code and shares between languages; how an old pattern is widened."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from typer.testing import CliRunner

from langadapt import Tokenizer, extend_tokenizer, measure_fertility
from langadapt.cli.tokenizer import app
from langadapt.errors import ConfigError
from langadapt.tokenizer.training import PRINTABLE, train_bpe
from langadapt.tokenizer.widening import lines_kept, widened

DEMO = Path(__file__).parent / "texts"
GERMAN, ENGLISH = (
    [json.loads(line)["text"] for line in (DEMO / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()[:30]]
    for name in ("german", "english")
)
HINDI = ["हिन्दी में लिखा हुआ वाक्य और हिन्दी की किताब", "तमिल भाषा में लिखी हुई किताब", "किताब में हिन्दी वाक्य लिखा"] * 5
RUNS = [" " * length for length in range(2, 17)] + ["\t" * length for length in range(2, 9)] + ["\n\n", "\n" * 4]


def source_with(added: list[str], *, style: str = "byte_level", template: str = "") -> Tokenizer:
    """A tokenizer with these added tokens in front."""
    plain = train_bpe(iter(ENGLISH), 800, style=style, special_tokens=["<unk>", "<s>", "</s>", *added])
    config = json.loads(plain.companions["tokenizer_config.json"]) | {"bos_token": "<s>", "chat_template": template}
    return Tokenizer(plain.definition, {"tokenizer_config.json": json.dumps(config).encode()}, "source")


RESERVED = ["<unused7>", "<|reserved_special_token_3|>", "<SPECIAL_20>", "<|reserved_200000|>", "<|extra_9|>"]


@pytest.mark.parametrize("style", ["byte_level", "sentencepiece"])
def test_reserved_tokens_stay_behind(style: str, caplog: pytest.LogCaptureFixture) -> None:
    source = source_with([*RESERVED, "<|im_start|>", "<tool>"], style=style, template="<|im_start|><unused7>")
    with caplog.at_level("INFO"):
        new = train_bpe(iter(GERMAN), 700, like=source)
    # One that the chat template writes is none that means nothing.
    assert [token for _, token, *_ in new.added_tokens()][3:] == ["<unused7>", "<|im_start|>", "<tool>"]
    assert "4 reserved left out" in caplog.text and "2 of the chat template" in caplog.text
    assert new.vocab_size == 700 and new.special_token("bos_token") == "<s>"
    kept = train_bpe(iter(GERMAN), 700, like=source, keep_reserved=True)
    assert {*RESERVED} <= {token for _, token, *_ in kept.added_tokens()} and kept.vocab_size == 700


@pytest.mark.parametrize("style", ["byte_level", "sentencepiece"])
def test_code_has_its_tokens(style: str, tmp_path: Path) -> None:
    tokenizer = train_bpe(iter(GERMAN), 900, style=style, code_tokens=True)
    assert all(tokenizer.token_to_id(character) is not None for character in PRINTABLE)
    for run in RUNS:
        # A pattern leaves the last of the run to the word behind it.
        assert len(tokenizer.encode(run if style == "byte_level" else f"a{run}b")) == (
            1 if style == "byte_level" else 3
        ), repr(run)
        assert tokenizer.decode(tokenizer.encode(f"a{run}b")) == f"a{run}b"
    tokenizer.save_pretrained(tmp_path)
    theirs = tokenizer.to_transformers()
    for probe in [*GERMAN[:5], *(f"x{run}= 1{run}" for run in RUNS), "def f(x):\n        return {x}\n\n\n"]:
        assert theirs(probe, add_special_tokens=False)["input_ids"] == tokenizer.encode(probe).tolist(), repr(probe)
    assert len(tokenizer.native.unreachable()) == 0
    plain = train_bpe(iter(GERMAN), 900, style=style)
    assert len(plain.encode("a        b")) > len(tokenizer.encode("a        b"))


def test_the_runs_are_those_of_the_source() -> None:
    runs = ["    x\n" * 30, "\t\ty\n" * 30]
    source = train_bpe(iter([*ENGLISH, *runs]), 800)
    there = {length: source.token_to_id("Ġ" * length) is not None for length in range(2, 9)}
    new = train_bpe(iter(GERMAN), 700, like=source, code_tokens=True)
    assert any(there.values()) and all(
        (new.token_to_id("Ġ" * length) is not None) == known for length, known in there.items()
    )


def tokens_per_word(tokenizer: Tokenizer) -> dict[str, float]:
    cells = measure_fertility({"t": tokenizer}, texts={"german": GERMAN, "english": ENGLISH}).cells["t"]
    return {name: cell.tokens_per_word or 0.0 for name, cell in cells.items()}


@pytest.mark.parametrize("style", ["byte_level", "sentencepiece"])
def test_a_share_of_the_source(style: str) -> None:
    alone = train_bpe(iter(GERMAN), 1200, style=style)
    mixed = train_bpe(iter(GERMAN), 1200, style=style, source_texts=iter(ENGLISH), source_share=0.5)
    assert tokens_per_word(mixed)["english"] < tokens_per_word(alone)["english"]
    assert tokens_per_word(mixed)["german"] > tokens_per_word(alone)["german"]
    assert train_bpe(iter(GERMAN), 1200, style=style, also=[(iter(ENGLISH), 0.5)]).definition == mixed.definition
    three = train_bpe(iter(GERMAN), 1200, style=style, also=[(iter(ENGLISH[::2]), 0.25), (iter(ENGLISH[1::2]), 0.25)])
    assert tokens_per_word(three)["english"] == pytest.approx(tokens_per_word(mixed)["english"], rel=0.02)
    # Equal text twice over is the text alone, whatever the weights.
    same = train_bpe(iter(GERMAN), 1200, style=style, source_texts=iter(GERMAN), source_share=0.5, min_frequency=2)
    assert same.definition == train_bpe(iter(GERMAN), 1200, style=style, min_frequency=1).definition


def test_parity() -> None:
    parity = train_bpe(iter(GERMAN), 1200, source_texts=iter(ENGLISH[:10]), parity=True)
    mixed = train_bpe(iter(GERMAN), 1200, source_texts=iter(ENGLISH[:10]), source_share=0.1)

    def gap(tokenizer: Tokenizer) -> float:
        rates = [
            sum(len(tokenizer.encode(text)) for text in texts) / sum(map(len, texts))
            for texts in (GERMAN, ENGLISH[:10])
        ]
        return abs(rates[0] - rates[1])

    assert gap(parity) < gap(mixed)
    theirs = parity.to_transformers()
    for text in (*GERMAN[:5], *ENGLISH[:5]):
        assert theirs(text, add_special_tokens=False)["input_ids"] == parity.encode(text).tolist()
    with pytest.raises(ConfigError, match="need text of the source language"):
        train_bpe(iter(GERMAN), 1200, parity=True)
    with pytest.raises(ConfigError, match="only the byte_level style"):
        train_bpe(iter(GERMAN), 1200, style="sentencepiece", source_texts=iter(ENGLISH), parity=True)


@pytest.mark.parametrize("pattern", ["gpt2", "llama3", "qwen2", "gpt4"])
def test_widening(pattern: str) -> None:
    source = train_bpe(iter(ENGLISH), 800, pattern=pattern, special_tokens=["<s>"])
    plain, wide = (extend_tokenizer(source, iter(HINDI), 60, widen=widen, accept_fewer=True) for widen in (False, True))
    per_word = [sum(len(one.encode(text)) for text in HINDI) for one in (plain, wide)]
    assert per_word[1] < 0.8 * per_word[0]
    kept = lines_kept(source, wide, ENGLISH)
    assert kept["source_lines_kept"] == 1 and kept["source_tokens_before"] == kept["source_tokens_after"]
    theirs = wide.to_transformers()
    draw = random.Random(3)
    for text in [*HINDI[:3], *ENGLISH[:3], "".join(draw.choices("aि क्12'.\n e\u0301", k=60))]:
        assert theirs(text, add_special_tokens=False)["input_ids"] == wide.encode(text).tolist()
    with pytest.raises(ConfigError, match="nothing to widen"):
        widened(wide)


def test_widening_on_the_command_line(tmp_path: Path) -> None:
    train_bpe(iter(ENGLISH), 800, pattern="llama3").save_pretrained(tmp_path / "old")
    for name, texts in (("hi", HINDI), ("en", ENGLISH)):
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        (tmp_path / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    command = ["extend", str(tmp_path / "old"), str(tmp_path / "hi.jsonl"), "--new-tokens", "50", "--widen"]
    command += ["--source", str(tmp_path / "en.jsonl"), "--out", str(tmp_path / "new"), "--json"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["source_lines_kept"] == 1


def test_words_cut_inside_a_grapheme() -> None:
    narrow, wide = (train_bpe(iter(HINDI), 420, pattern=pattern, accept_fewer=True) for pattern in ("llama3", "auto"))
    cells = measure_fertility({"narrow": narrow, "wide": wide}, texts={"hi": HINDI}).cells
    assert (cells["narrow"]["hi"].torn_words or 0) > 0.5 > (cells["wide"]["hi"].torn_words or 0)
    assert (cells["wide"]["hi"].tokens_per_grapheme or 0) < (cells["narrow"]["hi"].tokens_per_grapheme or 0)


@pytest.mark.parametrize("unit", ["ภาษาไทยไม่มีช่องว่าง", "中文没有空格所以很长"])
def test_long_lines_without_a_space(unit: str) -> None:
    line = unit * (100_000 // len(unit.encode()))
    for style in ("byte_level", "sentencepiece"):
        how = {"accept_fewer": True, "max_sentence_length": 1 << 20, "code_tokens": True}
        tokenizer = train_bpe(iter([line]), 420, style=style, **how)
        assert tokenizer.decode(tokenizer.encode(line)) == line
        cell = measure_fertility({"t": tokenizer}, texts={"long": [line]}).cells["t"]["long"]
        assert cell.tokens_per_grapheme is not None and cell.tokens_per_grapheme < 1.5
