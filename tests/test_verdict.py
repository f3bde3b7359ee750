"""The first line: one answer over all arms, and the same wherever it is shown."""

import json
from pathlib import Path
from typing import Any

import pytest
from report_run import earlier, make_run, measured, results
from rich.console import Console

from langadapt.report import results_table, words, write_report
from langadapt.report.outcome import Outcome
from langadapt.report.results import results_of
from langadapt.report.summary import summarize
from langadapt.report.verdict import Verdict, text_read, verdict

SOURCE, SWAPPED, FOCUS, KEEP, RANDOM = 0, 1, 2, 3, 5
"""Rows of the made-up run."""


def judged(found: dict[str, Any]) -> Verdict:
    known = results_of(found)
    return verdict(summarize(known), known)


def run_of(target: dict[int, float], documents: int = 140, source: dict[int, float] | None = None) -> dict[str, Any]:
    """The made-up run with other bits per byte of the target (and source) language in some rows."""
    found = results()
    for side, values in (("target", target), ("source", source or {})):
        for row, value in values.items():
            found["rows"][row]["bits_per_byte"][side] = value
    return measured(found, documents)


def text_of(found: Verdict) -> str:
    return " ".join([found.line, *found.remarks]).replace(words.GAP, " ")


def test_yes_with_interval_and_cost() -> None:
    found = judged(results())
    assert (found.answer, found.own, found.best, found.diverged) == ("yes", "focus, trained", "focus, trained", False)
    low, high = found.interval or (0.0, 0.0)
    assert low < found.change < high < 0 and found.change == pytest.approx(2.318 / 3.412 - 1, abs=1e-4)
    assert f"(95 % interval {-high * 100:.1f} % to {-low * 100:.1f} % fewer)" in text_of(found)
    assert "Cost: English 2.871 bits per byte, 36.5 % more than before; 819 k training tokens" in found.line.replace(
        words.GAP, " "
    )


@pytest.mark.parametrize(("row", "name"), [(RANDOM, "random"), (KEEP, "training without a swap")])
def test_the_winner_is_named_whoever_it_is(row: int, name: str) -> None:
    found = judged(run_of({row: 2.2}))
    assert found.answer == "no" and found.best == results()["rows"][row]["label"]
    assert found.line.startswith(f"No: {name} is better than focus, with 2.200 bits per byte of German: focus needs")
    assert "focus itself: 32.1 % fewer than the source model's 3.412" in text_of(found)


def test_an_arm_that_cannot_be_told_apart_is_named_too() -> None:
    found = judged(run_of({RANDOM: 2.312}))
    assert found.answer == "yes" and found.best == "random, trained"
    assert "; random cannot be told from it." in found.line


@pytest.mark.parametrize("bits", [3.395, 3.412, 3.425])
def test_too_close_to_call(bits: float) -> None:
    found = judged(run_of({FOCUS: bits, KEEP: 3.42, RANDOM: 3.43}))
    assert found.answer == "undecided" and found.line.startswith("Undecided: focus needs")
    assert "too close to call" in found.line


def test_a_difference_that_another_seed_may_make_is_none_however_narrow_its_interval() -> None:
    found = results()
    found["rows"][FOCUS]["document_bits"]["target"] = [
        0.998 * bits for bits in found["rows"][SOURCE]["document_bits"]["target"]
    ]
    found["rows"][FOCUS]["bits_per_byte"]["target"] = 0.998 * 3.412
    for row in (KEEP, RANDOM, SWAPPED):
        found["rows"][row]["bits_per_byte"]["target"] = 3.6
    known = judged(found)
    assert known.interval == pytest.approx((-0.002, -0.002)) and known.answer == "undecided"


def test_a_diverged_run_is_a_no_with_its_reason() -> None:
    found = judged(run_of({FOCUS: 36.9}))
    assert found.answer == "no" and found.diverged
    assert found.line.startswith(
        "No: training made the model worse than it was before. focus needs 36.900 bits per byte"
    )
    assert "the best of all measured is training without a swap" in found.line
    assert "10.8 times as many as the source model's 3.412" in text_of(found)


def test_a_run_that_was_stopped_in_time_has_diverged_whatever_is_kept() -> None:
    found = results()
    found["training"]["focus"]["diverged"] = "loss far above its lowest at step 90; halve `train.learning_rate`"
    known = judged(found)
    assert known.answer == "no" and known.diverged
    assert known.line.startswith("No: the training diverged. focus needs 2.318 bits per byte of German")
    assert known.remarks[0] == "Loss far above its lowest at step 90; halve `train.learning_rate`."


def test_what_a_swap_gained_is_no_gain_of_its_training() -> None:
    found = judged(run_of({SOURCE: 7.309, SWAPPED: 2.32, KEEP: 3.0, RANDOM: 3.1}))
    assert found.answer == "no" and not found.diverged
    assert found.line.startswith("No: training brought nothing. focus needs 2.318 bits per byte of German, 0.1")
    assert "than before it (95 % interval from" in text_of(found) and "68.3 % fewer than the source model's" in text_of(
        found
    )
    # A course that fell from a height that it climbed itself, back to where it began.
    again = run_of({SOURCE: 7.309, SWAPPED: 2.35, KEEP: 3.0, RANDOM: 3.1})
    assert judged(again).answer == "yes"
    again["training"]["focus"]["best_step"] = 0
    assert judged(again).line.startswith("No: training brought nothing.")


def test_a_swap_that_was_not_made_up_for_has_not_diverged() -> None:
    found = judged(run_of({FOCUS: 3.7}))
    assert found.answer == "no" and not found.diverged
    assert "Training has not made up for the swap" in found.line


def test_the_source_model_may_be_the_best() -> None:
    found = judged(run_of({FOCUS: 5.0, KEEP: 5.1, RANDOM: 5.2}))
    assert found.answer == "no" and found.best == "source model" and found.diverged
    assert "the best of all measured is the source model" in found.line


def test_without_a_swap() -> None:
    found = results() | {"method": "keep"}
    known = judged(found)
    assert (known.answer, known.own, known.best) == ("no", "trained without a swap", "focus, trained")
    assert known.line.startswith("No: focus is better than training without a swap")
    assert "With the new tokenizer" not in text_of(known)


def test_a_model_that_was_given_chat_is_told_of_and_wins_nothing() -> None:
    found = results()
    found["rows"].insert(3, {**found["rows"][FOCUS], "label": "focus, trained, with chat", "phase": "finished"})
    found["rows"][3]["bits_per_byte"] = {"target": 2.2, "source": 2.9}
    known = judged(measured(found))
    assert (known.answer, known.best) == ("yes", "focus, trained")
    assert "German, focus with chat: 2.200, 5.1 % fewer than focus (95 % interval" in text_of(known)


def test_few_documents_are_said() -> None:
    assert "Fewer than 50 documents make intervals that are too narrow." in text_of(judged(run_of({}, 30)))
    many = text_of(judged(run_of({}, 60)))
    assert "Fewer than 50" not in many
    assert "too few to keep apart the 40 (180 kB) that training was watched with: they are among them." in many


@pytest.mark.parametrize(("bits", "answer"), [(2.318, "yes"), (3.3, "undecided"), (3.7, "no")])
def test_earlier_runs_have_no_intervals(bits: float, answer: str) -> None:
    found = judged(earlier(run_of({FOCUS: bits, KEEP: 3.5, RANDOM: 3.6, SWAPPED: 4.0})))
    assert found.answer == answer and found.interval is None
    assert "kept no figures of single documents" in text_of(found)


def test_what_no_one_compared_is_said() -> None:
    found = results()
    del found["rows"][KEEP], found["training"]["keep"]
    assert "What the same training does without a swap was not measured (`compare: [keep]`)." in text_of(judged(found))
    assert "not measured" not in text_of(judged(results()))


@pytest.mark.parametrize(
    ("tokens", "passes", "seconds", "said"),
    [
        (819_200, 0.5, 84.0, "the same tokens and text (819 k, 16.9 MB)"),
        (819_200, 0.3, 84.0, "the same tokens (819 k, 10.1 MB of text against 16.9 MB)"),
        (1_400_000, 0.5, 150.0, "the same bytes of text (16.9 MB, 1.4 M tokens against 819 k)"),
        (400_000, 0.2, 88.4, "the same seconds (1 min 28 s, 6.74 MB of text against 16.9 MB)"),
        (400_000, 0.2, 40.0, "another budget (400 k tokens against 819 k)"),
    ],
)
def test_what_was_the_same_is_said(tokens: int, passes: float, seconds: float, said: str) -> None:
    found = results()
    found["training"]["keep"] |= {"tokens": tokens, "epochs": {"target": passes}, "seconds": seconds}
    assert f"German, training without a swap on {said}: 2.402;" in text_of(judged(found))


def test_text_that_was_read_counts_replay() -> None:
    found = results()
    found["training"]["focus"]["epochs"] = {"target": 2.0, "source": 0.5}
    assert text_read(results_of(found), "focus") == 2.5 * 33_722_001
    found["training"]["focus"]["epochs"] = {"other": 2.0}
    assert text_read(results_of(found), "focus") is None


def test_one_verdict_everywhere(tmp_path: Path) -> None:
    found = run_of({RANDOM: 2.2})
    folder = make_run(tmp_path, found)
    outcome = Outcome(found, folder)
    line = outcome.verdict.line
    page = write_report(folder).read_text(encoding="utf-8")
    assert f'<p class="answer no">{line.replace(chr(39), "&#39;")}</p>' in page
    assert f"**{line.replace(words.GAP, ' ')}**" in (folder / "report" / "MODEL_CARD.md").read_text(encoding="utf-8")
    console = Console(width=2000, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    with console.file:
        console.print(results_table(outcome))
        assert console.export_text().startswith(line)
    assert repr(outcome).startswith(line) and str(outcome.verdict) == line and line[:20] in outcome._repr_html_()
    assert outcome.model_path == tmp_path / "trained" / "focus" / "final" and outcome.report_path.is_file()
    assert "Go: " not in page and "No-go" not in page and "Prognosis" not in page
    again = json.loads(json.dumps(outcome.verdict.to_dict()))
    assert again["answer"] == "no" and again["best"] == "random, trained"
