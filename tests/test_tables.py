"""Tables for a terminal of 80 columns: none breaks a word or a number, and none is wider."""

import ast
import math
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import langadapt
from langadapt.cli import corpus, doctor, init, swap, tokenize
from langadapt.cli import plan as plan_command
from langadapt.cli.compare import choices_table
from langadapt.cli.comparison import comparison
from langadapt.cli.dial import table_of
from langadapt.cli.finish import sweep_table
from langadapt.cli.swap import ranking_table
from langadapt.corpus.build import CorpusReport
from langadapt.fertility import measure_fertility
from langadapt.models.known import KNOWN
from langadapt.planning.doctor import Finding
from langadapt.planning.first_recipe.vocabulary import Curve, Point
from langadapt.planning.pilot import Advice
from langadapt.planning.plan import plan
from langadapt.planning.rates import RateAdvice, Tried
from langadapt.swap.report import SwapReport, TextCost
from langadapt.tokenizer import check as tokenizer_check
from langadapt.tokenizer.training import train_bpe
from langadapt.training.settings import TrainSettings


def lines(*shown: Any) -> list[str]:
    """What a terminal of 80 columns shows."""
    with Path("/dev/null").open("w") as sink:
        console = Console(width=80, record=True, file=sink)
        for one in shown:
            console.print(one)
        return console.export_text().splitlines()


def check(shown: list[str], *wanted: str) -> None:
    """Nothing is wider than the terminal, nothing is cut, and all of ``wanted`` stands in one piece."""
    assert max(map(len, shown)) <= 80
    text = "\n".join(shown)
    assert "…" not in text
    for word in wanted:
        assert re.search(rf"(?<!\S){re.escape(word)}(?!\S)", text), f"{word} is broken:\n{text}"


def evaluated(bits: float, documents: int = 60) -> dict[str, Any]:
    each = [bits * (1000 + at) + at % 7 for at in range(documents)]
    measured = {"bits_per_byte": bits, "document_bits": each, "document_bytes": [1000 + at for at in range(documents)]}
    task = {"acc": 0.4312, "acc_stderr": 0.0123, "items": 400, "perplexity": 12.5}
    return {
        "parameters": 7_241_732_096,
        "bits_per_byte": {"validation": measured},
        "suites": {"belebele_deu_Latn": task},
    }


def test_models_side_by_side() -> None:
    names = ["mistralai/Mistral-7B-v0.1", "runs/german/trained/focus/final", "runs/german/trained/keep/final", "d"]
    results = {name: evaluated(1.0 + 0.1 * at) for at, name in enumerate(names)}
    shown = lines(comparison(results))
    check(shown, "7,241,732,096", "1.1000", "0.4312 ± 0.0123", "12.5000", "belebele_deu_Latn,", "perplexity")
    assert [line for line in shown if re.match("[A-D]: ", line)] == [
        f"{a}: {b}" for a, b in zip("ABCD", names, strict=True)
    ]
    text = " ".join(" ".join(shown).replace("\u00a0", " ").split())
    assert "validation: B needs 10.0 % more than A (95 % interval 10.0 % to 10.0 % more), over 60 documents." in text


def test_one_model_and_few_documents() -> None:
    shown = lines(comparison({"swapped": evaluated(1.0, 5)}))
    check(shown, "swapped", "1.0000")
    assert "interval" not in " ".join(shown)
    pair = lines(comparison({"a": evaluated(1.0, 5), "b": evaluated(2.0, 5)}))
    assert "fewer than 50 make intervals that are too narrow." in " ".join(" ".join(pair).split())


def test_ways_to_change_a_vocabulary() -> None:
    row = {"name": "my-extension", "kind": "extend", "vocabulary": 131_072, "parameters": 7_241_732_096}
    row |= {"bytes_per_token": 4.33, "target": 1.2345, "source": 1.5432}
    row |= {"tokens_per_second": 123_456.7, "bytes_per_second": 1_234_567.8}
    shown = lines(choices_table([row, {**row, "source": None}]))
    check(
        shown,
        "my-extension",
        "(extend)",
        "131,072",
        "7.24\u00a0B",
        "4.33",
        "1.2345",
        "123\u00a0k",
        "1.23\u00a0M",
        "vocabulary",
    )


def test_bake_offs_dials_and_scales() -> None:
    probe = {"target": 1.2345, "target_before": 3.4567, "source": 1.1111, "source_before": 2.2222}
    failed = {
        "method": "wechsel",
        "failed": "method `wechsel` needs word vectors of both languages and a dictionary of pairs",
    }
    check(
        lines(ranking_table([{"method": "subword_mean", **probe}, failed])),
        "subword_mean",
        "1.2345",
        "(3.4567)",
        "dictionary",
    )
    check(lines(table_of([{"amount": 0.125, "target": 1.2, "source": 1.1}])), "0.125", "1.2000")
    replies = {"stops": 0.5, "roles": 1.0, "markers": 0.25}
    bits = {"target": 1.25, "source": 1.5}
    check(
        lines(sweep_table([{"scale": 0.75, "bits_per_byte": bits, "replies": replies}], 0.75)),
        "0.75",
        "100%",
        "template",
    )


@pytest.mark.parametrize("count", [1, 3, 7])
def test_many_tokenizers(count: int) -> None:
    texts = ["Ein Satz, der sich wiederholt, wiederholt sich.", "Und noch einer."] * 20
    made = train_bpe(iter(texts), 280)
    names = [f"mistralai-Mistral-v{at}" for at in range(count)]
    report = measure_fertility(dict.fromkeys(names, made), {"german": iter(texts), "again": iter(texts[:3])})
    shown = lines(report)
    check(shown, *names, "tokens per word (UAX #29)", "Rényi efficiency", "Gini coefficient")
    assert sum("tokens per word (UAX" in line for line in shown) == 2 * math.ceil(count / 2)


def test_looks_at_a_machine_and_a_recipe() -> None:
    text = "https://a.hub.of.models does not answer (Name or service not known): give folders instead of names"
    findings = [Finding("torch and gpu", "problem", text), Finding("disk", "note", "4.0 GiB free at " + "/long" * 30)]
    found = lines(doctor.findings_table(findings))
    check(found[:2], "problem", "torch and gpu", "answer")
    points = [Point(131_072, 4.87, 0.951, 1.234e11), Point(2048, 3.2, 1.0, 1.1e11)]
    curve = Curve(points, points[0], 4.1, like=True, why="")
    check(lines(init.sizes_table(curve, "Kiswahili")), "131,072", "training FLOPs per byte", "1.2e+11", "95 %")
    made = plan(KNOWN["llama3:70b"].config(), TrainSettings(), gpus="32 x b200", hours=24.0)
    shown = lines(plan_command.layouts(made))
    check(shown, "pure bf16", "stochastic", "sharding", "recompute", "tokens/s", "MFU")
    rows = [{"share": 0.25, "target": 1.23456, "source": 0.98765}]
    advice = Advice(0.25, "", 123_456_789_012, rows, {}, (0.1, 0.3), 12.0)
    check(lines(plan_command.shares_table(advice)), "25 %", "1.2346", "share of source text")
    tried = [Tried(2e-4, 1.234e-3, 1.23456, 0.98765, 1_234_567), Tried(1e-3, 1e-2, math.inf, None, 0)]
    rates = RateAdvice(2e-4, 1.234e-3, 0.01, 40, tried)
    check(lines(plan_command.rates_table(rates)), "embedding_learning_rate", "0.00123", "1.2346", "inf", "1234567")


def test_texts_stores_and_swaps() -> None:
    skipped, dropped = {"not_valid_unicode": 1_234_567}, {"near_duplicate": 7}
    report = CorpusReport(
        files=1, documents=123_456_789, bytes=987_654_321_000, skipped=skipped, dropped=dropped,
        train={"documents": 123_000_000, "bytes": 987_000_000_000}, validation={"documents": 2, "bytes": 3},
        first_problems=[],
    )  # fmt: skip
    check(lines(corpus.table(report)), "123,456,789", "987,654.32", "MB of text", "no document: not valid unicode")
    summary = {"documents": 123_456_789, "tokens": 234_567_890_123, "bytes": 987_654_321_000, "dtype": "uint16"}
    check(lines(tokenize.store_table({**summary, "bytes_per_token": 4.21})), "234,567,890,123", "4.210", "uint16")
    finding = tokenizer_check.Finding("special tokens in text", "warning", "numbers of 2 digits are cut in 2 ways")
    check(lines(tokenizer_check.findings_table([finding])), "special tokens in text", "warning", "numbers")
    overlap = {"script": {"CANADIAN_ABORIGINAL": {"tokens": 131_072, "matched": 131_000}}}
    cost = TextCost(4_000_000, 900_000, 700_000)
    sizes = {"rows_before": 262_144, "rows_after": 131_072, "parameters_before": 7_241_732_096}
    swapped = SwapReport(
        method="subword_mean", output_method="focus", tied=False, width=4096, parameters_after=70_241_732_096,
        copied=1, combined=2, drawn=3, overlap=overlap, target_text=cost, source_text=cost, **sizes,
    )  # fmt: skip
    check(lines(swap.summary_table(swapped)), "7,241,732,096", "bytes per token, target language", "131,072")


def test_all_tables_are_tried() -> None:
    """Every function that makes a table is called above, or in the tests of the report."""
    makers = set()
    for file in Path(langadapt.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and re.search(r"= Table(\.grid)?\(", ast.unparse(node)):
                makers.add(node.name)
    here = Path(__file__).read_text(encoding="utf-8") + Path(__file__).with_name("test_report.py").read_text()
    # `tables` and `table` of the fertility and the results are reached through what prints them.
    reached = {"tables": "measure_fertility(", "table": "results_table("}
    assert [name for name in sorted(makers) if reached.get(name, f"{name}(") not in here] == []
