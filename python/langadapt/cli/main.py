"""Puts the commands together and turns errors into one line and an exit code."""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from langadapt import __version__
from langadapt.artefacts.places import FULL
from langadapt.cli.commands import Program
from langadapt.cli.progress import console
from langadapt.errors import ConfigError, LangadaptError, TrainingStopped, is_panic, shorten
from langadapt.terminal import PlainLines, echo, visible

app = typer.Typer(
    name="langadapt",
    cls=Program,
    help="Adapt a pretrained language model to another language within a budget.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

DEBUG = {"on": False}
STORES = ("fsspec", "s3fs", "aiobotocore", "botocore", "boto3", "aiohttp", "gcsfs", "adlfs", "azure")
"""Whose logs tell of signatures."""
INTERRUPTED = "interrupted; run the same command again: what is whole is kept"
LONGEST = 1000
"""Characters of an error that is nobody's own."""
LONGEST_OWN = 5000
"""Characters of any error; a path may have 4096."""


def show_version(wanted: bool) -> None:
    """Print the version and leave."""
    if wanted:
        echo(f"langadapt {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and debug logs.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options of every command."""
    try:
        Path.cwd()
    except FileNotFoundError:
        raise ConfigError("the current folder is gone; change to one that is there (`cd`)") from None
    DEBUG["on"] = debug
    lines = logging.StreamHandler(sys.stderr)
    lines.setFormatter(PlainLines("%(message)s"))
    logging.basicConfig(level=logging.DEBUG if debug else logging.INFO, handlers=[lines], force=True)
    for noisy in ("transformers", "urllib3", "httpx", "filelock", "datasets", "matplotlib", "asyncio", *STORES):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # Tells of every attempt to reach a hub that is not there, twice; what came of it is said by whoever asked.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    # Warns that without Triton no Triton kernels can be counted; there are none then.
    logging.getLogger("torch.utils.flop_counter").setLevel(logging.ERROR)


def describe(error: BaseException) -> tuple[str, int]:
    """One line for a user and the exit code."""
    if isinstance(error, ConfigError):
        return str(error), 2
    if isinstance(error, OSError) and (error.filename is not None or error.errno in FULL):
        # Of a copy that fails the second name is the one that was being written.
        advice = FULL.get(error.errno or 0)
        place = (error.filename2 if advice else None) or error.filename or "a disk"
        hint = f"; {advice}, and run the same command again" if advice else ""
        return f"{place}: {error.strerror}{hint}", 1
    encoding = next((one for one in (error, error.__cause__) if isinstance(one, UnicodeEncodeError)), None)
    if encoding is not None:
        # A byte of an argument that is no UTF-8 reaches Python as half a character, which the core takes nowhere.
        return f"{shorten(repr(encoding.object))}: no text in UTF-8; give it in UTF-8", 2
    if isinstance(error, (LangadaptError, ValueError, OSError)):
        return str(error), 1
    if isinstance(error, MemoryError):
        return str(error) or "out of memory", 1
    if isinstance(error, RuntimeError) and "Symlink loop" in str(error):
        # So says Python before 3.13, for any path that is resolved.
        return f"{str(error).removeprefix('Symlink loop from ')}: a link that leads back to itself", 1
    # Compilers of kernels tell all that they were given, over pages.
    text = str(error)
    text = f"{text[:LONGEST]} ..." if len(text) > LONGEST else text
    if isinstance(error, OverflowError) or isinstance(error.__cause__, OverflowError):
        return f"a number is too large: {text}", 2
    if isinstance(error, RuntimeError) and ("can't allocate memory" in text or "out of memory" in text):
        return f"out of memory: {text}", 1
    return f"{type(error).__name__}: {text} (a defect of langadapt; --debug shows where)", 1


def report_error(error: BaseException) -> int:
    """Print ``error`` for a user and return the exit code."""
    # Usage errors of the parser; which package defines their class depends on typer's version.
    if hasattr(error, "show") and hasattr(error, "exit_code"):
        error.show()
        return int(error.exit_code)
    if DEBUG["on"]:
        traceback.print_exc()
    text, code = describe(error)
    # An argument or a name out of a file may be of any length, and a console takes quadratic time for it.
    text = f"{text[:LONGEST_OWN]} ..." if len(text) > LONGEST_OWN else text
    # Messages of exceptions may set their hint apart by an empty line; here one line says it all.
    text = re.sub(r"\.?\s*\n\s*\n\s*", ". ", text)
    # What other libraries say may be drawn over several lines.
    text = re.sub(r"\s*\n\s*", " ", text)
    console.print(Text.assemble(("error:", "bold red"), f" {visible(text)}"), highlight=False, soft_wrap=True)
    return code


def prepare() -> None:
    """Set up what every command needs of its process."""
    # OpenMP's threads spin while they wait for each other. On a machine with other work that turns a small model's
    # step from tenths of a second into seconds; a short spin brought it back to the speed of one thread.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # Closed by the caller (`>&-`): it takes the place that the next file would get, for texts to people to end
            # up in.
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        # A terminal that knows ASCII alone gets `?` for the frame of a table, not an error.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = send_again


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the ``langadapt`` command."""
    try:
        code = run(arguments)
    except KeyboardInterrupt:
        # A second one, while an error or the first one was told.
        code = interrupted()
    sys.exit(code)


def run(arguments: list[str] | None) -> int:
    """Run a command and tell what went wrong; returns the exit code."""
    try:
        prepare()
        check_out_named(sys.argv[1:] if arguments is None else arguments)
        code = app(args=arguments, standalone_mode=False)
        if code == 130:
            # Into which newer versions of typer turn Ctrl-C, without a word.
            raise KeyboardInterrupt
    except (KeyboardInterrupt, typer.Abort) as error:
        # typer takes the end of any file for one of somebody who types.
        cause = error.__cause__
        code = report_error(cause) if isinstance(cause, EOFError) else interrupted()
    except BrokenPipeError:
        # The reader of our output (`| head`) has gone; say nothing, and do not let Python flush into the void.
        sys.stdout = None
        code = 0
    except TrainingStopped as stopped:
        console.print(str(stopped), style="yellow", highlight=False, soft_wrap=True)
        code = 0
    except BaseException as error:
        # Panics of packages written in Rust are no `Exception`.
        if not isinstance(error, Exception) and not is_panic(error):
            raise
        if is_panic(error) and "KeyboardInterrupt" in str(error):
            # Ctrl-C while a package written in Rust was being set up.
            code = interrupted()
        else:
            code = report_error(error)
    return code if isinstance(code, int) else 0


def send_again(dropped: sys.UnraisableHookArgs) -> None:
    """Send a Ctrl-C again that came while an object was cleared away, out of which Python lets no exception."""
    if dropped.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(dropped)
        return
    again = threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGINT))
    again.daemon = True
    again.start()


def check_out_named(arguments: list[str]) -> None:
    """Raise ConfigError for an empty ``--out``, as a shell makes of a variable that is not set; a path of no letters is
    the current folder."""
    after = zip(["", *arguments], arguments, strict=False)
    if any(one == "--out=" or (before in ("--out", "-o") and not one) for before, one in after):
        raise ConfigError("--out: is empty; name a place, `.` for the current folder")


def interrupted() -> int:
    """Say that it was, which a second Ctrl-C does not cut short, and return the exit code."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    console.print(INTERRUPTED, style="yellow")
    signal.signal(signal.SIGINT, before)
    return 130
