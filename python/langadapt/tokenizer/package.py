"""The ``tokenizers`` package, whose errors and panics become a ``DataError`` of one line."""

from __future__ import annotations

import logging
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tokenizers import Tokenizer as Package

from langadapt.errors import DataError, is_panic, shorten

logger = logging.getLogger(__name__)


CANNOT_ENCODE = "the `tokenizers` package cannot encode this text"


class PanicsAside:
    """Keeps what a panic prints off the terminal.

    Before a panic of a package written in Rust becomes an exception, its thread prints where it was, often with a whole
    backtrace, to the process' stderr, past Python. While this is entered that descriptor leads to a file; what was said
    there is printed when the last thread leaves, unless there was a panic.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.inside = 0
        self.panicked = False
        self.stderr: int | None = None
        self.file: Any = None

    def enter(self) -> None:
        """Lead the descriptor elsewhere; where the system refuses that, everything stays as it is."""
        with self.lock:
            self.inside += 1
            if self.inside > 1:
                return
            try:
                self.file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
                self.stderr = os.dup(2)
                os.dup2(self.file.fileno(), 2)
            except OSError:
                self.stderr = None

    def leave(self, panicked: bool) -> None:
        """Put the descriptor back where no other thread is inside."""
        with self.lock:
            self.inside -= 1
            self.panicked |= panicked
            if self.inside or self.stderr is None:
                return
            os.dup2(self.stderr, 2)
            os.close(self.stderr)
            self.file.seek(0)
            said, panicked = self.file.read(), self.panicked
            self.file.close()
            self.stderr, self.panicked = None, False
        if panicked:
            logger.debug("%s", said.decode("utf-8", "replace"))
        elif said:
            os.write(2, said)


_aside = PanicsAside()


@contextmanager
def package_errors(what: str) -> Iterator[None]:
    """A ``DataError`` that begins with ``what`` for errors of the ``tokenizers`` package, its panics included.

    Nothing that is to be seen at once may be printed inside.
    """
    _aside.enter()
    panicked = False
    try:
        yield
    except BaseException as error:
        # The package raises bare `Exception`; its panics are not even that.
        panicked = is_panic(error)
        if type(error) not in (Exception, UnicodeDecodeError) and not panicked:
            raise
        raise DataError(f"{what}: {shorten(str(error))}") from None
    finally:
        _aside.leave(panicked)


def load_package(definition: bytes, name: str) -> Any:
    """The ``tokenizers.Tokenizer`` of a ``tokenizer.json``, which neither cuts nor fills up a text, and draws nothing.

    Files of sentence encoders do both, which would falsify all counts and cut a corpus; with dropout a text would have
    other ids each time.

    Raises:
        DataError: the package cannot read it.
    """
    with package_errors(f"{name}: the `tokenizers` package cannot read it"):
        package = Package.from_str(definition.decode("utf-8"))
    package.no_truncation()
    package.no_padding()
    if getattr(package.model, "dropout", None):
        package.model.dropout = None
    return package
