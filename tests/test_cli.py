"""The command line is a promise: names, options, exit codes, one line per error, and help without waiting."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMMANDS = [
    ["demo"],
    ["adapt"],
    ["plan"],
    ["corpus", "build"],
    ["tokenizer", "train"],
    ["tokenizer", "extend"],
    ["tokenizer", "trim"],
    ["tokenizer", "check"],
    ["fertility"],
    ["tokenize"],
    ["vectors", "train"],
    ["swap"],
    ["train"],
    ["evaluate"],
    ["report"],
]


def langadapt(*arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200", "TERM": "dumb"}
    command = [sys.executable, "-c", "from langadapt.cli import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, timeout=60)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_helps(command: list[str]) -> None:
    result = langadapt(*command, "--help")
    assert result.returncode == 0, result.stderr
    assert "Usage" in result.stdout


def test_help_does_not_wait_for_torch() -> None:
    code = "import sys, langadapt.cli.main; print(sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"
    started = time.perf_counter()
    langadapt("--help")
    # The promise is 0.5 s on an idle machine; a shared one gets some slack here, the import check above is the guard.
    assert time.perf_counter() - started < 2.0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["adapt", "absent.yaml"], 1, "absent.yaml: No such file or directory"),
        (["adapt"], 2, "Missing argument"),
        (["fly"], 2, "No such command"),
        (["demo", "--fast"], 2, "No such option"),
    ],
)
def test_errors_are_short(tmp_path: Path, arguments: list[str], code: int, message: str) -> None:
    result = langadapt(*arguments, folder=tmp_path)
    assert result.returncode == code
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_unknown_recipe_keys_are_usage_errors(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("name: a\nmodel: m\nout: o\ncorpus: {target: [x], validation_bites: 3}\n")
    result = langadapt("adapt", "r.yaml", folder=tmp_path)
    assert result.returncode == 2
    assert "did you mean `corpus.validation_bytes`?" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_version() -> None:
    assert langadapt("--version").stdout.startswith("langadapt 0.")


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    assert "Traceback" in langadapt("--debug", "adapt", "absent.yaml", folder=tmp_path).stderr


def test_an_error_is_one_line_whatever_a_library_says(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    result = langadapt("corpus", "build", "a.txt", "--keep-pattern", "(", "--out", "o", folder=tmp_path)
    assert result.returncode == 1
    assert "unclosed group" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["corpus", "build", "a.txt", "--min-chars", "-1", "--out", "o"], "min_chars: -1"),
        (["tokenizer", "train", "a.txt", "--vocab-size", "300", "--max-words", "-1", "--out", "o"], "max_words: -1"),
        (["tokenizer", "train", "old texts", "--vocab-size", "300", "--out", "o"], "old texts: No such file"),
        (["fertility", "t", "--corpus", "de="], "'de=' names nothing"),
    ],
)
def test_arguments_out_of_range(tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "a.txt").write_text("text")
    result = langadapt(*arguments, folder=tmp_path)
    assert result.returncode in (1, 2)
    assert message in result.stderr
    assert "defect" not in result.stderr
    assert not (tmp_path / "o").exists()


def test_a_terminal_that_knows_ascii_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    (tmp_path / "ä.txt").write_text("text")
    result = langadapt("corpus", "build", "ä.txt", "--validation-share", "0", "--out", "o", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "train" in result.stdout


def test_ctrl_c_says_that_it_was_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from langadapt.cli.main import main

    (tmp_path / "r.yaml").write_text("name: a\nmodel: b\nout: c\ncorpus: {target: [d]}\n")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("langadapt.recipe.Recipe.from_yaml", interrupted)
    with pytest.raises(SystemExit) as left:
        main(["plan", str(tmp_path / "r.yaml")])
    assert left.value.code == 130
    assert "interrupted; run the same command again: what is whole is kept" in capsys.readouterr().err


def test_errors_of_other_libraries_are_cut_short() -> None:
    from langadapt.cli.main import describe

    text, code = describe(RuntimeError("many words " * 10_000))
    assert code == 1 and len(text) < 1200 and text.endswith("... (a defect of langadapt; --debug shows where)")
