"""Text on a terminal as it is: what comes from files, names and models is shown, never interpreted."""

from __future__ import annotations

import logging
import sys
from typing import Any

from rich.console import Console
from rich.text import Text

PICTURES = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"} | {0x7F: 0x2421}
"""Controls of ASCII, which move the cursor, colour or rename the window, as the pictures that Unicode has of them."""
HIDDEN = [*range(0x80, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
"""Controls beyond ASCII, and those that turn the order of what follows around."""
AS_TEXT = PICTURES | dict.fromkeys(HIDDEN, "\N{REPLACEMENT CHARACTER}")


def visible(text: str) -> str:
    """``text`` with controls as pictures, so that no terminal obeys them; ends of lines and tabs stay."""
    return text.translate(AS_TEXT)


def literal(text: str, **settings: Any) -> Text:
    """``text`` as any console takes it, without markup and controls; ``settings``: of :class:`rich.text.Text`."""
    return Text(visible(text), **settings)


class Terminal(Console):
    """A console that takes no text for markup or emoji and passes on no control character of it.

    Words in colour are :class:`rich.text.Text` with a style, or have a ``style`` beside them.
    """

    def __init__(self, **settings: Any) -> None:
        """``settings``: those of :class:`rich.console.Console`."""
        super().__init__(**settings, markup=False, emoji=False)
        if self.width == 0:
            # As `COLUMNS=0` says, which some shells export where there is no terminal; nothing would be shown.
            self.width = 80

    def on_broken_pipe(self) -> None:
        """The reader of results may leave when it has enough; the reader of progress leaves work undone."""
        if self.stderr:
            super().on_broken_pipe()
        raise BrokenPipeError

    def render_str(self, text: str, **settings: Any) -> Text:
        """What every string becomes that is printed, in cells of tables, too."""
        return super().render_str(visible(text), **settings)


class PlainLines(logging.Formatter):
    """Log records whose text no terminal obeys."""

    def format(self, record: logging.LogRecord) -> str:
        """The message, controls as pictures."""
        return visible(super().format(record))


def write_out(text: str) -> None:
    """Write to stdout: as it is for another program, controls as pictures for a terminal."""
    sys.stdout.write(visible(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def echo(line: object) -> None:
    """Write a line to stdout, as :func:`write_out` does."""
    write_out(f"{line}\n")
