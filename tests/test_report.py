"""The report of a made-up run: what the page says, that it needs nothing else, and that it bears with gaps."""

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from report_run import earlier, log_lines, make_run, results
from rich.console import Console

from langadapt.artefacts.folders import fingerprint
from langadapt.errors import DataError
from langadapt.report import results_table, words, write_report
from langadapt.report.charts import (
    COLOURS,
    STROKES,
    stroke,
)
from langadapt.report.curves import bits_charts
from langadapt.report.page import code
from langadapt.report.results import Cost, results_of
from langadapt.report.run import read_run
from langadapt.report.sections import times
from langadapt.report.summary import summarize

VOID = {"meta", "link", "br", "hr", "img", "input"}
"""Elements without an end."""


class Nesting(HTMLParser):
    """Checks that every element is closed, and collects text and attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def parsed(file: Path) -> Nesting:
    parser = Nesting()
    parser.feed(file.read_text(encoding="utf-8"))
    assert parser.open == []
    return parser


def page_text(file: Path) -> str:
    return " ".join(" ".join(parsed(file).text).replace("\u00a0", " ").split())


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path)


def rewrite(run: Path, found: Any) -> Path:
    (run / "results.json").write_text(json.dumps(found))
    return run


def test_page_says_it_all(run: Path) -> None:
    file = write_report(run)
    assert file == run / "report" / "index.html"
    text = page_text(file)
    for wanted in (
        "demo: English → German",
        "Yes: focus needs 2.318 bits per byte of German, 32.1 % fewer than the source model's 3.412 (95 % interval",
        "English: 2.871 bits per byte, 36.5 % more than the source model (95 % interval",
        "German, training without a swap on the same tokens and text (819 k, 16.9 MB): 2.402; focus needs 3.5 %",
        "German text has 29.9 % fewer tokens than before, and English text has 44.2 % more tokens than before.",
        "Cost: English 2.871 bits per byte, 36.5 % more than before; 819 k training tokens; 1 min 28 s of",
        "German was tested on 140 held-out documents (648 kB), none of them among the 40 (180 kB) that training was",
        "All stages and comparisons together took 4 min 46 s.",
        "xz, a compressor 2.710",
        "Am Morgen nach dem Regen",
        "focus, trained <schreibt> weiter.",
        "Bits per byte of the text that training was watched with",
        "Thin lines: the text of the training batches.",
        "What it gained and what it cost",
        "belebele_de",
        "Learning rate",
        "Aligned sentences",
        # Metrics have the names and the shape that `langadapt fertility` gives them.
        "Unknown tokens 0.000% 0.000% 0.000% 0.000%",
        "without a source 135",
        "Validation, documents",
        "train-focus",
        "rounding: stochastic",
        "torch 2.13.0",
    ):
        assert wanted in text


def test_page_needs_nothing_else(run: Path) -> None:
    file = write_report(run)
    text = file.read_text(encoding="utf-8")
    assert "<script" not in text
    assert "@import" not in text
    assert "url(" not in text
    assert "http" not in text
    parser = parsed(file)
    assert not {name for _, name, _ in parser.attributes} & {"src", "href", "srcset", "action", "onload", "onclick"}
    assert all(value and not re.search(r"nan|inf", value, re.I) for tag, name, value in parser.attributes if tag != "i")


def test_best_values_are_marked_once_per_column(run: Path) -> None:
    text = write_report(run).read_text(encoding="utf-8")
    first_table = text[text.index("What it gained") : text.index(">Tasks<")]
    best = re.findall(r'<td class="best">([\d.]+)', first_table)
    assert sorted(best) == ["2.104", "2.318"]


def test_strange_names_are_escaped(run: Path) -> None:
    found = results()
    found["name"] = "<script>alert(1)</script>"
    found["rows"][2]["label"] = "a|b [bold]<i>"
    found["languages"]["target"] = "\"><img src=x onerror='1'>"
    write_report(rewrite(run, found))
    page = (run / "report" / "index.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "<img" not in page
    parsed(run / "report" / "index.html")
    card = (run / "report" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "a\\|b \\[bold\\]\\<i\\>" in card
    assert "a|b [bold]<i>" in printed(found)


@pytest.mark.parametrize(
    ("missing", "message"),
    [(name, f"`{name}` is missing") for name in ("languages", "fertility", "swap", "bake_off", "rows", "cost")]
    + [("focus", "the run's own training, or fertility, is missing")],
)
def test_results_of_another_version_are_one_line(run: Path, missing: str, message: str) -> None:
    found = results()
    del (found["training"] if missing == "focus" else found)[missing]
    with pytest.raises(DataError, match=rf"results\.json: {re.escape(message)}; run `langadapt adapt` again"):
        write_report(rewrite(run, found))
    with pytest.raises(DataError, match=re.escape(message)):
        results_table(found)


def test_values_of_broken_runs(run: Path) -> None:
    found = results()
    found["rows"][3]["suites"] = {"belebele_de": {"acc": None}}
    found["fertility"]["text"]["tokenizers"]["new"]["German"]["tokens_per_word"] = None
    found["cost"] |= {"gpu_hours": 1.5, "price": 3.0}
    log = run / "trained" / "focus" / "log.jsonl"
    lines = [{"step": 1, "loss": None}, {"step": 2, "loss": float("nan")}, {"step": 3, "loss": 3.5}]
    more = {"tokens": 192, "learning_rate": {"norms": 1e-3}, "grad_norm": None}
    log.write_text("".join(json.dumps(line | more) + "\n" for line in lines) + "\ufffd\n")
    text = page_text(write_report(rewrite(run, found)))
    assert "1.5 GPU-hours (price: 3.00)" in text


def test_tasks_say_what_was_gained_and_what_they_cannot_tell(run: Path) -> None:
    found = results()
    for one in found["rows"]:
        one["suites"] |= {"easy": {"acc": 0.26, "acc_stderr": 0.02, "chance": 0.25}}
        right = 90 if one["method"] == found["method"] and one["phase"] == "trained" else 60
        one["suite_items"] = {"belebele_de": {"acc": [1.0] * right + [0.0] * (120 - right)}}
    text = page_text(write_report(rewrite(run, found)))
    assert "+0.250 [+0.1" in text
    assert "tells 0.1" in text and "all models are at chance: it cannot tell them apart" in text
    assert (
        "gained" not in page_text(write_report(rewrite(run, results()))).partition("Tasks")[2].partition("Samples")[0]
    )


def test_layouts_stand_beside_the_time(run: Path) -> None:
    found = results()
    layout = {"micro_batch": 8, "activation_checkpointing": "full", "sharding": "grad-op", "processes": 4}
    found["training"]["focus"]["layout"] = layout
    found["training"]["keep"]["layout"] = {**layout, "processes": 1}
    found["training"]["random"]["layout"] = {}
    text = page_text(write_report(rewrite(run, found)))
    time = text[text.index("Time") :]
    line = "Trained in pure-bf16, rounding stochastic, micro-batch 8 of 2,048 tokens each, "
    line += "activation checkpointing full, "
    assert f"{line}4 processes, sharding grad-op (focus)." in time
    assert f"{line}one process (without a swap)." in time and "random)" not in time


def test_run_without_source_text_or_logs(run: Path) -> None:
    found = results()
    for row in found["rows"]:
        del row["bits_per_byte"]["source"]
    for name in ("focus", "keep", "random"):
        (run / "trained" / name / "log.jsonl").unlink()
    text = page_text(write_report(rewrite(run, found)))
    assert "forgotten" not in text
    assert "Learning rate" not in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "results.json: missing"),
        ("{", "results.json: not valid JSON"),
        ("[]", "results.json: a JSON object"),
        ("{}", "results.json: `name` is missing"),
        ('{"more": 1}', "results.json: unknown key `more`"),
    ],
)
def test_broken_results_are_named(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    with pytest.raises(DataError, match=re.escape(message)):
        write_report(tmp_path)
    assert not (tmp_path / "report").exists()


def test_a_file_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="a run's folder is expected"):
        write_report(tmp_path / "file")
    with pytest.raises(DataError, match="missing"):
        write_report(tmp_path / "nowhere")


def test_model_card(run: Path) -> None:
    write_report(run)
    card = (run / "report" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert (run / "trained" / "focus" / "final" / "README.md").read_text(encoding="utf-8") == card
    assert not (run / "trained" / "keep" / "final" / "README.md").exists()
    front = yaml.safe_load(card.split("---")[1])
    assert front["language"] == ["de", "en"]
    assert front["library_name"] == "transformers"
    assert {"langadapt", "tokenizer-swap", "focus"} <= set(front["tags"])
    # A folder of this machine means nothing elsewhere.
    assert "base_model" not in front
    assert "runs/demo" not in card
    assert "| focus, trained | new, 2,048 |" in card
    assert "**2.318**" in card
    assert "Share of English in training: 10.0 %" in card
    assert "precision: pure-bf16" in card


def test_a_model_that_chats_has_a_card_that_says_so(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    (run / "finished").mkdir()
    write_report(run)
    assert not (run / "finished" / "README.md").exists()
    made = {"instruct": "/home/me/Some-Instruct", "method": "residual", "scale": 0.75}
    (run / "finished" / "finish.json").write_text(json.dumps(made))
    write_report(run)
    card = (run / "finished" / "README.md").read_text(encoding="utf-8")
    told = "- It chats: what the instruct model Some-Instruct learnt was added to the trained weights (residual, scale"
    assert f"{told} 0.75)" in card and "/home/me" not in card
    plain = (run / "trained" / "focus" / "final" / "README.md").read_text(encoding="utf-8")
    assert [line for line in card.splitlines() if "It chats" not in line] == plain.splitlines()


def test_model_card_names_a_model_of_the_hub(run: Path) -> None:
    recipe = run / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("runs/demo/source-model/trained/final", "mistralai/Mistral-7B-v0.1"))
    write_report(run)
    card = (run / "report" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert yaml.safe_load(card.split("---")[1])["base_model"] == "mistralai/Mistral-7B-v0.1"
    assert "mistralai/Mistral-7B-v0.1, adapted from English to German" in card


def test_model_card_of_a_run_without_a_swap(run: Path) -> None:
    found = results() | {"method": "keep"}
    write_report(rewrite(run, found))
    card = (run / "trained" / "keep" / "final" / "README.md").read_text(encoding="utf-8")
    assert "under its own tokenizer" in card
    assert "tokenizer-swap" not in card


def test_card_makes_no_other_model_of_it(run: Path) -> None:
    before = fingerprint(run / "trained" / "focus" / "final")
    write_report(run)
    assert fingerprint(run / "trained" / "focus" / "final") == before


def test_twice_is_the_same(run: Path) -> None:
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first


def printed(found: dict[str, Any], width: int = 200) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    with console.file:
        console.print(results_table(found))
        return console.export_text()


def test_table_for_the_terminal() -> None:
    text = printed(results())
    assert text.startswith("Yes: focus needs 2.318 bits per byte of German")
    assert "German: 2.13 tokens per word before, 1.50 with the new tokenizer" in text
    assert re.search(r"focus, trained +│ +2\.318 │ +−32\.1.% │ +2\.871 │ +\+36\.5.% │", text)
    assert re.search(r"xz, a compressor +│ +2\.710 │", text)
    assert "held-out documents" not in text
    few = results()
    few["held_out"]["target"]["document_bytes"] = [4600] * 6
    said = "German: 6 held-out documents; fewer than 50 make intervals that are too narrow"
    assert said in " ".join(printed(few).split())


def test_what_models_write_stands_side_by_side(run: Path) -> None:
    samples = page_text(write_report(run)).partition("Samples")[2].partition("Training")[0]
    assert "source model, drawn" in samples and "focus, trained würfelt." in samples
    # Before its training a model writes nothing worth a reader's time; how it fares stands in the table.
    assert "focus, before training <schreibt>" not in samples
    table = samples.partition("in another language")[2]
    assert re.search(r"source model, likeliest 34 % 70 % 0 % 100 % source model, drawn – 70 %", table)
    assert "focus, before training, likeliest" in table


def test_no_table_breaks_a_word_at_80_columns() -> None:
    found = results()
    found["rows"][2]["label"] = "subword_mean, before training"
    text = printed(found, 80)
    assert "subword_mean, before training" in text
    assert all(len(line) <= 80 for line in text.splitlines())
    table = [line for line in text.splitlines() if line.startswith("│")]
    assert len(table) == len(found["rows"]) + 1 and "…" not in text


def test_earlier_runs_are_reported_and_told_what_they_lack(run: Path) -> None:
    text = page_text(write_report(rewrite(run, earlier(results()))))
    assert "32.1 % fewer than the source model's 3.412, and no other arm is better. Cost:" in text
    assert "This run is of an earlier version, which kept no figures of single documents" in text
    assert "interval" in text and "95 % interval" not in text
    assert "Go: " not in text and "Samples" not in text


def test_backticks_are_code_and_nothing_else(run: Path) -> None:
    page = write_report(run).read_text(encoding="utf-8")
    assert "train them first: <code>train.embeddings_first_steps</code>" in page
    assert "`" not in page.split("</style>")[1]
    assert code("a <b> `<i>` `c") == "a &lt;b&gt; <code>&lt;i&gt;</code> `c"


def test_stages_too_short_to_be_seen_share_a_bar() -> None:
    taken = Cost({"a": 100.0, "b": 50.0, **{f"s{number}": 0.1 for number in range(14)}}, None, None)
    assert [(bar.name, round(bar.share, 1)) for bar in times(taken)] == [
        ("a", 100),
        ("b", 50),
        ("14 other stages", 1.4),
    ]
    assert [bar.name for bar in times(Cost({"a": 100.0, "b": 0.1}, None, None))] == ["a", "b"]


def test_arms_differ_in_colour_or_stroke() -> None:
    looks = {(slot % COLOURS, stroke(slot)) for slot in range(COLOURS * STROKES)}
    assert len(looks) == COLOURS * STROKES
    assert all(stroke(slot) != stroke(slot + 1) for slot in range(COLOURS - 1))


def test_curves_over_tokens_bytes_and_seconds(run: Path) -> None:
    found = results()
    found["held_out"]["source"]["watched_xz_bits_per_byte"] = 9.25
    data = read_run(rewrite(run, found))
    german, english = bits_charts(data, summarize(data.results))
    assert list(german.svgs) == list(english.svgs) == ["tokens", "bytes", "seconds"]
    assert ">250\u00a0k<" in german.svgs["tokens"] and ">1\u00a0M<" in german.svgs["bytes"]
    assert ">75<" in german.svgs["seconds"]
    assert german.svg.count('class="ring') == 3 and german.svg.count("faint") == 3
    assert "Off the chart: xz, a compressor, 9.250." in english.note and "xz, a compressor" in german.svg
    log = data.logs["focus"]
    read, seconds = log.places("bytes", [0, 100, 200]), log.places("seconds", [0, 100, 200])
    assert read is not None and seconds == pytest.approx([0, 44, 88])
    assert read == pytest.approx([0, 819_200 / 2 * 36 / 9.3, 819_200 * 36 / 9.3], rel=0.01)
    bits = dict(log.training_bits("target"))
    loss = next(line["loss"] for line in log.steps if line["step"] == 200)
    assert bits[200] == pytest.approx(loss / math.log(2) * 7_002_505 / 33_000_000)
    assert log.training_bits("source") == []
    log.steps[-1]["bits_per_byte"] = {"target": 1.5, "source": 1.25}
    assert (log.training_bits("target"), log.training_bits("source")) == ([(200, 1.5)], [(200, 1.25)])


def test_bits_charts_share_one_kind_of_axis(run: Path) -> None:
    for high in (2.4, 9.0):
        log = run / "trained" / "focus" / "log.jsonl"
        values = [(0, high, 2.2), (100, 2.2, 2.1), (200, 2.1, 2.1)]
        for name in ("keep", "random"):
            (run / "trained" / name / "log.jsonl").unlink(missing_ok=True)
        lines = [
            {"step": step, "validation": {"bits_per_byte_target": target, "bits_per_byte_source": source}}
            for step, target, source in values
        ]
        log.write_text("".join(json.dumps(line) + "\n" for line in lines))
        data = read_run(run)
        charts = bits_charts(data, summarize(data.results))
        assert ["Logarithmic" in chart.note for chart in charts] == [high > 3] * 2


def test_a_training_that_got_worse_says_so(run: Path) -> None:
    log = run / "trained" / "focus" / "log.jsonl"
    lines = [json.dumps(line) for line in log_lines("focus")]
    lines[-1] = json.dumps({"step": 200, "validation": {"bits_per_byte_target": 2.9}})
    log.write_text("\n".join(lines[:-2] + lines[-1:]))
    text = page_text(write_report(run))
    assert "Training of focus was best at step 175 of 200" in text and "2.900 at the end. The model of the end" in text
    found = results()
    found["training"]["focus"] |= {"kept_step": 175, "best_step": 175}
    assert "2.900 at the end. The model of step 175 is kept." in page_text(write_report(rewrite(run, found)))


def test_fertility_of_languages_without_spaces() -> None:
    found = results()
    for tokenizer in found["fertility"]["text"]["tokenizers"].values():
        for cell in tokenizer.values():
            cell["tokens_per_word"] = None
    assert summarize(results_of(found)).rows[0].fertility == {"target": 3.318, "source": 4.21}


def test_what_a_model_wrote_may_hold_anything(run: Path) -> None:
    found = results()
    found["rows"][0]["samples"] = {"target": ["a\0b \x1b[31m \ufffd"]}
    assert results_of(found).rows[0].samples == found["rows"][0]["samples"]
    assert "\0" not in write_report(rewrite(run, found)).read_text("utf-8")


def test_words() -> None:
    plain = [
        words.short_count(999_960),
        words.short_count(7_240_000_000),
        words.size(34_722_910),
        words.size(12),
        words.duration(4.22),
        words.duration(130),
        words.duration(11_100),
        words.duration(400_000),
        words.change(1, 2),
        words.change(2, 2),
        words.change(1, None),
        words.decimals(None),
    ]
    assert [text.replace(words.GAP, " ") for text in plain] == [
        "1 M",
        "7.24 B",
        "34.7 MB",
        "12 B",
        "4.2 s",
        "2 min 10 s",
        "3 h 05 min",
        "4.6 days",
        "−50.0 %",
        "±0 %",
        "",
        "–",
    ]
