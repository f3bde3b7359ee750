"""The command line is a promise: names, options, exit codes, one line per error, and help without waiting."""

import importlib
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

COMMANDS = [
    ["demo"],
    ["doctor"],
    ["fetch-sample"],
    ["init"],
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
    ["finish"],
    ["export", "gguf"],
    ["export", "hub"],
    ["export", "vllm"],
    ["items"],
    ["sheet"],
    ["evaluate"],
    ["generate"],
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


def test_help_loses_nothing_in_80_columns() -> None:
    """Neither a name of an option nor a word about it, to frames, to markup or to the end of a line."""
    import typer
    from typer.testing import CliRunner

    from langadapt.cli.main import app

    def commands(command: Any, *path: str) -> Iterator[tuple[tuple[str, ...], Any]]:
        yield path, command
        for name, child in getattr(command, "commands", {}).items():
            yield from commands(child, *path, name)

    for path, command in commands(typer.main.get_command(app)):
        shown = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"}).output
        # Lines may end behind a hyphen.
        words = "".join(shown.split())
        told = [getattr(parameter, "help", None) or "" for parameter in command.params]
        told += [command.help, *(child.short_help for child in getattr(command, "commands", {}).values())]
        told += [name for parameter in command.params for name in parameter.opts + parameter.secondary_opts]
        hidden = {text for one in command.params if getattr(one, "hidden", False) for text in (one.help, *one.opts)}
        arguments = {one.name for one in command.params if one.param_type_name == "argument"}
        lost = [text for text in {*told} - hidden - arguments if text and "".join(text.split()) not in words]
        assert lost == [], path
        assert max(map(len, shown.splitlines())) <= 80, path


def test_help_does_not_wait_for_torch() -> None:
    heavy = "{'torch', 'transformers', 'numpy', 'jinja2', 'langadapt_kernels'}"
    # Of every command, too.
    code = "import sys; from langadapt.cli.commands import Commands; assert all(dict(Commands()).values()); "
    code += f"print(sorted({heavy} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    langadapt("--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # The promise is 0.3 s with compiled sources; processor time hardly grows on a busy machine. The import checks are
    # the guard.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0


def test_the_list_of_commands_needs_none_of_them() -> None:
    """And says of each what its own help begins with."""
    from langadapt.cli.commands import LINES, Commands

    names = sorted({f"langadapt.cli.{name.replace('-', '_')}" for name in LINES})
    code = (
        "import sys; sys.argv = ['langadapt', '--help']\nimport langadapt.cli\n"
        f"try: langadapt.cli.main()\nfinally: print(sorted(set({names}) & set(sys.modules)), file=sys.stderr)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stderr.strip() == "[]"
    for name, command in Commands().items():
        assert command.help.split("\n\n")[0] == LINES[name], name


def test_the_first_stage_does_not_wait_for_the_compiler() -> None:
    """Nor for sharded tensors: together they took as long to import as torch itself."""
    code = (
        "import resource, sys, langadapt.pipeline.run\n"
        "print(sorted({'torch._dynamo', 'torch._inductor', 'torch.distributed.tensor'} & set(sys.modules)))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_utime)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded, seconds = done.stdout.splitlines()
    assert loaded == "[]"
    # Processor time, which a busy machine stretches less; 3 seconds on such a one, with compiled sources.
    assert float(seconds) < 20


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["adapt", "absent.yaml"], 1, "absent.yaml: No such file or directory"),
        (["adapt"], 2, "Missing argument"),
        (["fly"], 2, "No such command"),
        (["demo", "--fast"], 2, "No such option"),
        (["corpus", "build", "/dev/null", "--out", "o", "--min-chars", str(2**64)], 2, "BuildOptions.min_chars"),
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


class PanicException(BaseException):
    """As packages written in Rust raise it."""


@pytest.mark.parametrize("error", [KeyboardInterrupt(), PanicException("no capsule: <class 'KeyboardInterrupt'>")])
def test_ctrl_c_says_that_it_was_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException
) -> None:
    from langadapt.cli.main import main

    (tmp_path / "r.yaml").write_text("name: a\nmodel: b\nout: c\ncorpus: {target: [d]}\n")

    def interrupted(*_: object) -> None:
        raise error

    monkeypatch.setattr("langadapt.recipe.Recipe.from_yaml", interrupted)
    with pytest.raises(SystemExit) as left:
        main(["plan", str(tmp_path / "r.yaml")])
    assert left.value.code == 130
    assert "interrupted; run the same command again: what is whole is kept" in capsys.readouterr().err


def test_a_second_ctrl_c_while_the_first_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = importlib.import_module("langadapt.cli.main")
    told = [module.interrupted]

    def interrupted(*_: object) -> int:
        if told:
            monkeypatch.setattr(module, "interrupted", told.pop())
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "interrupted", interrupted)
    monkeypatch.setattr("langadapt.recipe.Recipe.from_yaml", interrupted)
    (tmp_path / "r.yaml").write_text("")
    with pytest.raises(SystemExit) as left:
        module.main(["plan", str(tmp_path / "r.yaml")])
    assert left.value.code == 130 and "interrupted; run the same command" in capsys.readouterr().err


def test_ctrl_c_while_an_object_goes_is_not_lost(tmp_path: Path) -> None:
    """Python prints and drops what is raised there."""
    (tmp_path / "r.yaml").write_text("name: a\nmodel: b\nout: c\ncorpus: {target: [d]}\n")
    script = """if True:
        import sys, time
        from langadapt.cli import main
        from langadapt.recipe import Recipe

        class Going:
            def __del__(self):
                raise KeyboardInterrupt

        def read(*_, **__):
            Going()
            time.sleep(50)

        Recipe.from_yaml = read
        main(["plan", sys.argv[1]])
    """
    command = [sys.executable, "-c", script, str(tmp_path / "r.yaml")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=40)
    said = "interrupted; run the same command again: what is whole is kept\n"
    assert (result.returncode, result.stderr) == (130, said)


def test_errors_of_other_libraries_are_cut_short() -> None:
    from langadapt.cli.main import describe

    refused = describe(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."))
    assert refused == ("out of memory: DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.", 1)
    text, code = describe(RuntimeError("many words " * 10_000))
    assert code == 1 and len(text) < 1200 and text.endswith("... (a defect of langadapt; --debug shows where)")
