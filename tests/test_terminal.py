"""What comes from files, names and models is shown on a terminal, never interpreted."""

from __future__ import annotations

import io
import logging
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, Group
from rich.table import Table

from langadapt import terminal
from langadapt.cli.comparison import comparison
from langadapt.cli.main import main
from langadapt.cli.progress import bar_callback
from langadapt.fertility.report import tables
from langadapt.tokenizer.check import Finding, findings_table

HOSTILE = {
    "[red]x[/red]": "[red]x[/red]",
    "[/]": "[/]",
    "a\\[red]b": "a\\[red]b",
    ":smile:": ":smile:",
    "\x1b[31mx": "␛[31mx",
    "\x1b]0;title\x07": "␛]0;title␇",
    "\x9b31m": "\ufffd31m",
    "a\rb\x08c": "a␍b␈c",
    "\u202egpj.exe": "\ufffdgpj.exe",
}
SOURCES = Path(__file__).parent.parent / "python" / "langadapt"


@pytest.mark.parametrize("text", HOSTILE)
def test_a_terminal_shows_text_as_it_is(text: str) -> None:
    out = io.StringIO()
    shown = terminal.Terminal(file=out, force_terminal=True, color_system=None, width=200)
    table = Table(text, title=f"title {text}")
    table.add_row(f"cell {text}")
    shown.print(f"line {text}", table)
    for place in ("line ", "title ", "cell "):
        assert place + HOSTILE[text] in out.getvalue()
    assert not set(out.getvalue()) & set("\x07\x08\r\x1b\x9b\u202e")


@pytest.mark.parametrize("text", [one for one in HOSTILE if not set(one) & set("[]?*")])
def test_errors_show_names_as_they_are(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["items", text, "--out", str(tmp_path / "out")])
    assert (left.value.code, capsys.readouterr().err) == (1, f"error: {HOSTILE[text]}: No such file or directory\n")


def report_of(name: str) -> Any:
    return Group(*tables([name], [("tokens", ["7"])], 200))


def evaluation_of(name: str) -> Any:
    return comparison({name: {"parameters": 7, "bits_per_byte": {}, "suites": {}}})


def finding_of(name: str) -> Table:
    return findings_table([Finding("check", "ok", name)])


@pytest.mark.parametrize("made", [report_of, evaluation_of, finding_of], ids=lambda made: made.__name__)
@pytest.mark.parametrize("text", HOSTILE)
def test_tables_are_shown_as_they_are_by_any_console(text: str, made: Any) -> None:
    out = io.StringIO()
    Console(file=out, width=200, color_system=None).print(made(text))
    assert f" {HOSTILE[text]} " in out.getvalue()


@pytest.mark.parametrize("text", HOSTILE)
def test_bars_and_logs_show_text_as_it_is(text: str) -> None:
    added: list[str] = []

    class Bars:
        task_ids: tuple[int, ...] = (0,)

        def add_task(self, name: str, **_: object) -> int:
            added.append(name)
            return 0

        def update(self, *_: object, **__: object) -> None: ...

    bar_callback(Bars(), text)("", 0, 1, "texts")  # type: ignore[arg-type]
    assert added == [HOSTILE[text]]
    record = logging.LogRecord("langadapt", logging.INFO, "", 0, "%s", (text,), None)
    assert terminal.PlainLines("%(message)s").format(record) == HOSTILE[text]


@pytest.mark.parametrize("watched", [True, False])
def test_data_are_changed_for_terminals_alone(watched: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(out, "isatty", lambda: watched)
    monkeypatch.setattr("sys.stdout", out)
    terminal.echo("a\x1b[31mb")
    assert out.getvalue() == ("a␛[31mb\n" if watched else "a\x1b[31mb\n")


def test_nothing_is_printed_past_the_terminal() -> None:
    """Every console is a :class:`Terminal`, every bar takes its text as it is, nothing else prints."""
    for source in SOURCES.rglob("*.py"):
        if source.name != "terminal.py" or source.parent != SOURCES:
            past = re.findall(r"\bConsole\(|typer\.echo\(|click\.echo\(|(?<![.\w])print\(", source.read_text("utf-8"))
            assert not past, f"{source}: {past}"
        for column in re.findall(r"TextColumn\((.*)\)", source.read_text("utf-8")):
            assert not re.search("fields|description", column) or "markup=False" in column, source
