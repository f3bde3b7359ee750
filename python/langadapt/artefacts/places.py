"""Places of what is to be written, tried before the work for it is done."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def check_file(out: Path, is_ours: Callable[[Path], bool]) -> None:
    """Refuse to write a file where something lies that may be somebody's work.

    Args:
        out: to be written; replaced where it is empty or ``is_ours``.
        is_ours: whether a file is of the kind that would replace it.

    Raises:
        OSError: a folder, a device, a pipe or another file is there.
    """
    if out.is_dir():
        raise IsADirectoryError(errno.EISDIR, f"is a folder; name a file such as {out.name}/{out.name}", str(out))
    check_kind(out)
    if out.exists() and out.stat().st_size and not is_ours(out):
        problem = "is there already, and nothing that langadapt would have written there; name another file"
        raise FileExistsError(errno.EEXIST, problem, str(out))


def check_kind(out: Path) -> None:
    """Raise FileExistsError for a device, a pipe or a socket, which a renamed file would do away with."""
    if out.exists() and not out.is_file() and not out.is_dir():
        raise FileExistsError(errno.EEXIST, "is a device or a pipe; name a file", str(out))


def begins(path: Path, start: bytes) -> bool:
    """Whether a file has ``start`` as its first bytes."""
    with path.open("rb") as file:
        return file.read(len(start)) == start


def check_space(out: Path, size: int) -> None:
    """Try a place before hours of work for it are done: that ``size`` bytes can be written there.

    Raises:
        OSError: the disk is too full, or nothing may be written there.
    """
    parent = next(folder for folder in Path(out).resolve().parents if folder.is_dir())
    try:
        with tempfile.TemporaryFile(dir=parent):
            pass
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}: nothing can be written there", str(parent)) from None
    free = shutil.disk_usage(parent).free
    if free < size:
        problem = f"no room: {size / 1e6:,.1f} MB are needed, {free / 1e6:,.1f} MB free"
        raise OSError(errno.ENOSPC, problem, str(out))
