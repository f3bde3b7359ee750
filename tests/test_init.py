"""`langadapt init`: what it measures and decides, and that its recipe plans and runs as it stands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from langadapt.costs.flops import Shape
from langadapt.errors import ConfigError
from langadapt.models.known import KNOWN
from langadapt.planning.first_recipe import Wish, first_recipe
from langadapt.planning.first_recipe.decisions import rate_of, settings_of
from langadapt.planning.first_recipe.survey import HELD_OUT, survey
from langadapt.planning.first_recipe.vocabulary import ALIKE, OFTEN, SHARE, Point, choose, curve
from langadapt.planning.first_recipe.writing import write_new
from langadapt.recipe.recipe import Recipe

WORDS = ["river", "stone", "house", "walks", "under", "green", "bridge", "seven", "slowly", "morning", "letter", "song"]


def prose(documents: int) -> list[str]:
    """Texts with words of falling frequency, all different."""
    return [
        " ".join(
            WORDS[(at * at + 7 * word) % (2 + (word + at) % 11)] + ("" if word % 5 else str(at)) for word in range(80)
        )
        for at in range(documents)
    ]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with text of two languages and an untrained model with a tokenizer of its own."""
    from langadapt import train_bpe
    from langadapt.demo.scratch import make_untrained_model

    folder = tmp_path_factory.mktemp("init")
    for name, shift in (("target", "ö"), ("source", "")):
        lines = [json.dumps({"text": text.replace("o", "o" + shift)}) for text in prose(300)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    train_bpe([str(folder / "source.jsonl")], 400).save_pretrained(folder / "tokenizer")
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    make_untrained_model(
        folder / "tokenizer", folder / "tiny", {"seed": 1, "shape": {**shape, "max_position_embeddings": 64}}
    )
    return folder


def langadapt(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "120", "TERM": "dumb", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "langadapt", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, timeout=250)


INIT = ("init", "--model", "tiny", "--text", "target.jsonl", "--source-text", "source.jsonl", "--language", "sw")


@pytest.mark.slow
def test_the_recipe_plans_and_runs_as_it_stands(place: Path) -> None:
    made = langadapt(place, *INIT, "--hours", "0.01", "--out", "run.yaml")
    assert made.returncode == 0, made.stderr
    assert made.stderr.splitlines()[-1] == "Next: langadapt plan run.yaml"
    planned = langadapt(place, "plan", "run.yaml")
    assert planned.returncode == 0, planned.stderr
    assert "the model's own: target " in planned.stdout and "50%: target " in planned.stdout
    dry = langadapt(place, "adapt", "run.yaml", "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert not (place / "runs").exists()
    assert "Prognosis " in dry.stdout and "times the bits of xz for the target language as it is" in dry.stdout
    foreseen = [line.split(":")[0] for line in dry.stdout.splitlines() if line.endswith(": to do")]
    assert len(foreseen) > 10 and ": made already" not in dry.stdout

    run = langadapt(place, "adapt", "run.yaml")
    assert run.returncode == 0, run.stderr
    out = place / Recipe.from_yaml(place / "run.yaml").out
    assert (out / "report" / "index.html").is_file()
    stamps = sorted((out / "stages").glob("[a-z]*.json"), key=lambda file: file.stat().st_mtime_ns)
    assert sorted(foreseen) == sorted(file.stem for file in stamps)
    again = langadapt(place, "adapt", "run.yaml", "--dry-run")
    assert ": to do" not in again.stdout and again.stdout.count(": made already") == len(foreseen)


def test_init_replaces_nothing_and_names_what_is_missing(place: Path, tmp_path: Path) -> None:
    (place / "mine.yaml").write_text("mine")
    refused = langadapt(place, *INIT, "--out", "mine.yaml")
    assert refused.returncode == 1
    assert "mine.yaml: is there already, and init replaces nothing" in refused.stderr
    assert (place / "mine.yaml").read_text() == "mine"
    for arguments, message in (
        (("--model", "tiny", "--text", "absent.jsonl", "--language", "sw"), "absent.jsonl: No such file"),
        (("--model", "./absent", "--text", "target.jsonl", "--language", "sw"), "./absent: no such folder"),
        (("--model", "tiny", "--text", "target.jsonl", "--language", "sw", "--gpu", "rtx4091"), "did you mean"),
        (
            ("--model", "tiny", "--text", "target.jsonl", "--language", "sw", "--hours", "0"),
            "--hours: 0 is not positive",
        ),
    ):
        failed = langadapt(place, "init", *arguments, "--out", str(tmp_path / "r.yaml"))
        assert failed.returncode in (1, 2) and message in failed.stderr
        assert len(failed.stderr.strip().splitlines()) == 1
        assert not (tmp_path / "r.yaml").exists()


def test_a_recipe_is_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("langadapt.planning.first_recipe.writing.sync_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_new(tmp_path / "r.yaml", "name: x\n")
    assert not list(tmp_path.iterdir())


def test_every_setting_stands_below_a_reason(place: Path) -> None:
    made = first_recipe(Wish("llama3.2:1b", [str(place / "target.jsonl")], "fi", gpus="24gb"))
    lines = made.text.splitlines()
    settings = [at for at, line in enumerate(lines) if line.startswith("  ") and not line.strip().startswith("#")]
    assert len(settings) > 8
    assert all(lines[at - 1].strip().startswith("#") for at in settings)
    assert max(map(len, lines)) <= 120
    assert made.recipe.model == "meta-llama/Llama-3.2-1B"
    assert made.recipe.target_language == "Finnish"
    assert made.recipe.budget.gpus == "1 x 24gb"
    assert made.recipe.train.epochs == 4 and made.recipe.train.limit_hours == 24
    assert any("was not looked at" in note for note in made.found.notes)


def test_what_fits_decides_the_window_and_what_does_not_is_said(place: Path) -> None:
    text = [str(place / "target.jsonl")]
    with pytest.raises(ConfigError, match=r"nothing fits: .* the largest known model that does is `"):
        first_recipe(Wish("mistral:7b", text, "sw", gpus="rtx4090"))


def test_a_survey_counts_what_it_reads_and_estimates_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = prose(200)
    for part in range(4):
        (tmp_path / f"{part}.txt").write_text("\n".join(texts[part * 50 : part * 50 + 50]) + "\n")
    whole = survey([str(tmp_path)])
    size = sum(len(text.encode()) for text in texts)
    assert (whole.files, whole.documents, whole.bytes, whole.counted) == (4, 200, size, True)
    assert sorted(whole.sample + whole.held_out) == sorted(texts)
    assert len(whole.held_out) == 200 // HELD_OUT + 1
    assert whole.scripts == {"LATIN": 1.0}
    monkeypatch.setattr("langadapt.planning.first_recipe.survey.READ_BYTES", size // 3)
    part = survey([str(tmp_path)])
    assert not part.counted and "about" in part.describe()
    assert part.bytes == pytest.approx(size, rel=0.02)
    assert part.documents == pytest.approx(200, rel=0.02)


def test_a_survey_needs_something_to_measure_on(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one line\n")
    with pytest.raises(ConfigError, match="at least two are needed"):
        survey([str(tmp_path / "a.txt")])
    with pytest.raises(ConfigError, match="corpus build hf:"):
        survey(["hf:name"])


def test_the_curve_is_that_of_tokenizers_of_these_sizes(place: Path) -> None:
    from langadapt import train_bpe

    text = survey([str(place / "target.jsonl")])
    shape = Shape.of(KNOWN["smollm2:135m"].config())
    found = curve(text, shape, 64, tokenizer=str(place / "tiny"))
    assert found.like
    point = found.points[0]
    made = train_bpe(texts=text.sample, vocab_size=point.size, like=str(place / "tiny"))
    sizes = [len(one.encode()) for one in text.held_out]
    assert point.bytes_per_token == pytest.approx(sum(sizes) / sum(len(made.encode(one)) for one in text.held_out))
    own = sum(len(train_bpe([str(place / "source.jsonl")], 400).encode(one)) for one in text.held_out)
    assert found.own == pytest.approx(sum(sizes) / own)
    flops = Shape(**{**vars(shape), "vocabulary": point.size}).flops_per_token(32)
    assert point.flops_per_byte == pytest.approx(flops / point.bytes_per_token)


def test_the_cheapest_size_with_learnable_rows_is_taken() -> None:
    def points(*rows: tuple[int, float, float]) -> list[Point]:
        return [Point(size, 4.0, learnable, flops) for size, learnable, flops in rows]

    best, why = choose(points((10, 1.0, 5.0), (20, 1.0, 4.0), (40, 1.0, 4.5)))
    assert best.size == 20 and "least arithmetic" in why
    best, _ = choose(points((10, 1.0, 4.0 * ALIKE), (20, 1.0, 4.0)))
    assert best.size == 10
    best, why = choose(points((10, 1.0, 5.0), (20, SHARE - 0.01, 4.0)))
    assert best.size == 10 and f"{OFTEN} times" in why
    best, why = choose(points((10, 0.5, 5.0), (20, 0.4, 4.0)))
    assert best.size == 10 and "too short" in why


def test_rates_and_batches() -> None:
    assert rate_of(7_000_000_000) == pytest.approx(4e-5, rel=0.03)
    assert rate_of(270_000_000) > rate_of(1_000_000_000)
    assert settings_of(1e-4, 2048, 1, tokens=5e6, epochs=4.0).tokens_per_step <= 5e6 / 500
    large = settings_of(1e-4, 4096, 4, tokens=8e9, hours=9.0)
    assert large.sequences_per_step % 4 == 0 and large.warmup == 0.01
    assert 0.5 < large.tokens_per_step / (0.58 * 8e9**0.571) < 2
