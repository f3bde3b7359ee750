"""Suites through lm-eval: multiple choice from files, and lm-eval's own tasks without a network."""

import builtins
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import byte_tokenizer, tiny_llama
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from langadapt.errors import ConfigError, DataError, LangadaptError
from langadapt.evaluation.suites import (
    SUITES,
    evaluate_suites,
    measure_suites,
    plain_metrics,
    question,
    read_list,
    read_questions,
    tasks_of,
)

pytest.importorskip("lm_eval")


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    return tiny_llama(max_position_embeddings=512)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return byte_tokenizer(bos_token="<s>", eos_token="</s>")


def write(file: Path, *items: Any) -> Path:
    file.write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    return file


QUESTIONS = [
    {"question": "Zwei und zwei?", "choices": ["vier", "fünf", "sechs"], "answer": 0},
    {"context": "Es regnet.", "question": "Ist es trocken?", "choices": ["ja", "nein"], "answer": 1},
    {"premise": "Das Glas fiel.", "question": "Was geschah dann?", "choices": ["Es brach.", "Es sang."], "answer": 0},
    {
        "premise": "Sie kam, weil es spät war.",
        "question": "Sie kam,",
        "choices": ["weil es spät war.", "nie."],
        "answer": 0,
    },
]


@torch.no_grad()
def naive_accuracy(model: Any, tokenizer: Any, items: list[dict[str, Any]]) -> tuple[float, float]:
    """``acc`` and ``acc_norm``, one choice at a time."""
    right = normed = 0
    for item in items:
        prompt = [0, *tokenizer(item["prompt"])["input_ids"]]
        sums = []
        for choice in item["choices"]:
            ids = tokenizer(" " + choice)["input_ids"]
            logits = model(torch.tensor([[*prompt, *ids]])).logits[0].log_softmax(-1)
            sums.append(sum(float(logits[len(prompt) - 1 + at, one]) for at, one in enumerate(ids)))
        right += sums.index(max(sums)) == item["answer"]
        per_character = [total / len(choice) for total, choice in zip(sums, item["choices"], strict=True)]
        normed += per_character.index(max(per_character)) == item["answer"]
    return right / len(items), normed / len(items)


def test_equals_naive_accuracy(tmp_path: Path, model: Any, tokenizer: Any) -> None:
    file = write(tmp_path / "klein.jsonl", *QUESTIONS)
    model.train()
    before = torch.random.get_rng_state()
    told: list[Any] = []
    found = evaluate_suites(model, tokenizer, [file], batch_size=2, progress=lambda *values: told.append(values))
    assert {(phase, unit) for phase, _, _, unit in told} == {("tasks", "tokens")} and told[-1][1] == told[-1][2]
    assert model.training
    assert torch.equal(before, torch.random.get_rng_state())
    model.eval()
    acc, acc_norm = naive_accuracy(model, tokenizer, read_questions(file))
    assert found.keys() == {"klein"}
    assert (found["klein"]["acc"], found["klein"]["acc_norm"]) == pytest.approx((acc, acc_norm))
    assert found["klein"]["items"] == len(QUESTIONS)
    assert {"acc_stderr", "acc_norm_stderr"} <= found["klein"].keys()
    sizes = [len(one["choices"]) for one in read_questions(file)]
    assert found["klein"]["chance"] == pytest.approx(sum(1 / size for size in sizes) / len(sizes))
    items = measure_suites(model, tokenizer, [file]).items["klein"]
    assert len(items["acc"]) == len(QUESTIONS) and sum(items["acc"]) / len(QUESTIONS) == pytest.approx(acc)


def test_folders_of_a_model_and_of_files(tmp_path: Path, model: Any, tokenizer: Any) -> None:
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "suite").mkdir()
    for name in ("b", "a"):
        write(tmp_path / "suite" / f"{name}.jsonl", *QUESTIONS)
    found = evaluate_suites(str(tmp_path / "model"), tmp_path / "model", [tmp_path / "suite"], limit=2)
    assert list(found) == ["a", "b"]
    assert found["a"] == found["b"]
    assert found["a"]["items"] == 2


def test_real_questions(shared: Path, model: Any, tokenizer: Any) -> None:
    names = ("belebele_de", "xwinograd_fr", "exams_ar")
    found = evaluate_suites(model, tokenizer, [shared / "eval" / f"{name}.jsonl" for name in names], limit=3)
    assert tuple(found) == names
    for values in found.values():
        assert 0 <= values["acc"] <= 1
        assert values["items"] == 3


def test_every_shared_file_can_be_read(shared: Path) -> None:
    for file in sorted((shared / "eval").glob("*.jsonl")):
        assert all(item["prompt"] for item in read_questions(file))


def test_prompt() -> None:
    assert question(QUESTIONS[1])["prompt"] == "Es regnet.\nIst es trocken?"
    assert question(QUESTIONS[2])["prompt"] == "Das Glas fiel.\nWas geschah dann?"
    assert question(QUESTIONS[3])["prompt"] == "Sie kam,"


def test_a_language_is_a_file(tmp_path: Path) -> None:
    assert {"arabic", "german"} <= SUITES.keys()
    assert ("german", "arc_de", None) in tasks_of("german")
    own = tmp_path / "own.yaml"
    own.write_text("- arc_fr\n- hellaswag_fr\n")
    assert [task for _, task, _ in tasks_of(own)] == ["arc_fr", "hellaswag_fr"]
    for content in ("a: b", "- 3", "- own.yaml", "- german", "- [", ""):
        own.write_text(content)
        with pytest.raises(DataError, match=r"own\.yaml"):
            tasks_of(own)


@pytest.mark.slow
def test_named_suites_exist_in_lm_eval() -> None:
    from langadapt.evaluation.harness import task_manager

    known = set(task_manager(True).all_tasks)
    for file in SUITES.values():
        assert set(read_list(file)) <= known


@pytest.mark.slow
def test_misspelt_task(model: Any, tokenizer: Any) -> None:
    with pytest.raises(ConfigError, match=r"no task of that name; near ones: .*hellaswag"):
        evaluate_suites(model, tokenizer, ["helaswag"])


@pytest.mark.slow
def test_lm_evals_own_tasks_need_the_hub(model: Any, tokenizer: Any) -> None:
    with pytest.raises(DataError, match="suite german: no data for lm-eval's task 'arc_de'") as caught:
        evaluate_suites(model, tokenizer, ["german"], limit=1)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_languages_tasks_without_data_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    from langadapt.evaluation.harness import load_tasks

    class Manager:
        """Has data of one task."""

        all_tasks = ("xcopa_sw", "belebele_swh_Latn")

        def load(self, names: list[str]) -> dict[str, Any]:
            if names != ["xcopa_sw"]:
                raise ConnectionError("no network\nat all")
            return {"groups": {}, "tasks": {"xcopa_sw": "a task"}}

    manager: Any = Manager()
    wanted = [("auto:sw", name, None) for name in Manager.all_tasks]
    assert load_tasks(wanted, manager) == (["a task"], ["xcopa_sw"])
    assert "no data for lm-eval's task 'belebele_swh_Latn' (no network)" in caplog.text
    for refused in (wanted[1:], [*wanted, ("belebele_swh_Latn", "belebele_swh_Latn", None)]):
        with pytest.raises(DataError, match="no data for lm-eval's task 'belebele_swh_Latn'"):
            load_tasks(refused, manager)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", ":2: not a multiple-choice question: "),
        ("[]", "a JSON object"),
        ('{"question": "a", "choices": ["b", "c"]}', "no field `answer`"),
        ('{"question": "a", "choices": ["b"], "answer": 0}', "two or more"),
        ('{"question": "a", "choices": ["b", ""], "answer": 0}', "not empty"),
        ('{"question": "a", "choices": ["b", "c"], "answer": 2}', "from 0 to 1"),
        ('{"question": "a", "choices": ["b", "c"], "answer": "b"}', "from 0 to 1"),
        ('{"question": 1, "choices": ["b", "c"], "answer": 1}', "`question` is not a text"),
        ("\udcff", "not a multiple-choice question"),
    ],
)
def test_broken_lines_are_named(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "x.jsonl"
    file.write_bytes(json.dumps(QUESTIONS[0]).encode() + b"\n" + line.encode(errors="surrogateescape") + b"\n")
    with pytest.raises(DataError, match=message.replace("[", r"\[")) as caught:
        read_questions(file)
    assert f"{file}:2: " in str(caught.value)


def test_bad_suites(tmp_path: Path, model: Any, tokenizer: Any) -> None:
    with pytest.raises(ConfigError, match="no such file or folder"):
        evaluate_suites(model, tokenizer, [tmp_path / "none.jsonl"])
    with pytest.raises(DataError, match=r"no \.jsonl file"):
        evaluate_suites(model, tokenizer, [tmp_path])
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(DataError, match="no question"):
        evaluate_suites(model, tokenizer, [tmp_path])
    with pytest.raises(ConfigError, match="limit: 0"):
        evaluate_suites(model, tokenizer, ["german"], limit=0)
    file = write(tmp_path / "twice.jsonl", *QUESTIONS)
    with pytest.raises(ConfigError, match="'twice' is asked for twice"):
        evaluate_suites(model, tokenizer, [file, str(file)])
    assert evaluate_suites(model, tokenizer, []) == {}


def test_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Any, tokenizer: Any) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **options: Any) -> Any:
        if name.split(".")[0] == "lm_eval":
            raise ModuleNotFoundError("No module named 'lm_eval'")
        return real(name, *rest, **options)

    monkeypatch.delitem(__import__("sys").modules, "langadapt.evaluation.harness", raising=False)
    monkeypatch.delattr("langadapt.evaluation.harness", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(LangadaptError, match=r"pip install 'langadapt\[evaluate\]'"):
        evaluate_suites(model, tokenizer, [write(tmp_path / "x.jsonl", *QUESTIONS)])


def test_plain_metrics() -> None:
    raw = {"alias": "x", "acc,none": 0.5, "acc_stderr,none": "N/A", "em,strict": 0.1, "em,loose": 0.2, "items": None}
    raw["sample_len"] = 7
    assert plain_metrics(raw) == {"acc": 0.5, "em": 0.1}
