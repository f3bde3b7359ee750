"""``langadapt evaluate`` and ``langadapt report``, as a user calls them."""

import json
from pathlib import Path

import pytest
import typer
from report_run import make_run
from tiny import byte_tokenizer, tiny_llama
from typer.testing import CliRunner, Result

from langadapt.errors import ConfigError
from langadapt.evaluation.bits_per_byte import measure_bits_per_byte

pytest.importorskip("langadapt.cli", exc_type=ImportError)

TEXTS = ["Grüße aus Köln", "مرحبا"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two model folders and a text."""
    folder = tmp_path_factory.mktemp("models")
    for name, vocabulary in (("a", 260), ("b", 300)):
        tiny_llama(vocab_size=vocabulary).save_pretrained(folder / name)
        byte_tokenizer(bos_token="<s>", eos_token="</s>").save_pretrained(folder / name)
    (folder / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    items = [{"question": "Zwei und zwei?", "choices": ["vier", "fünf"], "answer": 0}] * 3
    (folder / "fragen.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    return folder


def call(command: object, *arguments: str) -> Result:
    app = typer.Typer()
    app.command()(command)  # type: ignore[type-var]
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200", "NO_COLOR": "1"}, catch_exceptions=False)


def test_bits_per_byte_as_json(models: Path) -> None:
    from langadapt.cli.evaluate import command

    paths = [str(models / "a"), str(models / "b")]
    result = call(command, *paths, "--text", f"texte={models / 'text.jsonl'}", "--window", "16", "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert list(found) == paths
    expected = measure_bits_per_byte(tiny_llama(), byte_tokenizer(bos_token="<s>", eos_token="</s>"), TEXTS, window=16)
    assert found[paths[0]]["bits_per_byte"]["texte"]["bits_per_byte"] == pytest.approx(expected.bits_per_byte)
    assert found[paths[0]]["bits_per_byte"]["texte"]["bytes"] == sum(len(text.encode()) for text in TEXTS)
    assert found[paths[0]]["parameters"] < found[paths[1]]["parameters"]


def test_table_of_both(models: Path) -> None:
    pytest.importorskip("lm_eval")
    from langadapt.cli.evaluate import command

    suite = str(models / "fragen.jsonl")
    result = call(command, str(models / "a"), "--bytes", str(models / "text.jsonl"), "--suite", suite, "--limit", "2")
    assert result.exit_code == 0
    assert "`--bytes` is called `--text` now" in result.output
    assert "lower is better" in result.stdout
    assert "fragen, acc" in result.stdout


def test_nothing_to_measure(models: Path) -> None:
    from langadapt.cli.evaluate import command

    with pytest.raises(ConfigError, match="nothing to measure"):
        call(command, str(models / "a"))
    with pytest.raises(ConfigError, match="two corpora of one name"):
        call(command, str(models / "a"), "--text", "x=1", "--text", "x=2")


def test_report_prints_where_the_page_is(tmp_path: Path) -> None:
    from langadapt.cli.report import command

    result = call(command, str(make_run(tmp_path)))
    assert result.stdout.strip() == str(tmp_path / "report" / "index.html")
    assert (tmp_path / "report" / "index.html").is_file()
