"""Places of what is to be written, tried before the work for it is done."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from langadapt.errors import DataError

FULL = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space, or have your quota raised",
    errno.EFBIG: "have the limit of a file's size raised (`ulimit -f`), or name a place on another disk",
}
"""What to do where no more can be written."""


def check_file(out: Path, is_ours: Callable[[Path], bool]) -> None:
    """Refuse to write a file where something lies that may be somebody's work.

    Args:
        out: to be written; replaced where it is empty or ``is_ours``.
        is_ours: whether a file is of the kind that would replace it.

    Raises:
        OSError: a folder, a device, a pipe or another file is there, or nothing can be written.
    """
    if out.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder; name a file in it", str(out))
    check_kind(out)
    if out.exists() and out.stat().st_size and not is_ours(out):
        problem = "is there already, and nothing that langadapt would have written there; name another file"
        raise FileExistsError(errno.EEXIST, problem, str(out))
    check_space(out, 0)


def check_kind(out: Path) -> None:
    """Raise OSError for a device, a pipe, a socket or a link to nothing, which a renamed file would do away with, and
    for what can be no file for what lies above it."""
    check_above(out)
    if out.exists() and not out.is_file() and not out.is_dir():
        raise FileExistsError(errno.EEXIST, "is a device or a pipe; name a file", str(out))
    if out.is_symlink() and not out.exists():
        raise FileExistsError(errno.EEXIST, "is a link to what is not there; name a file", str(out))


def check_folder(out: Path) -> None:
    """Raise OSError where no folder can be."""
    check_above(out)
    if out.exists() and not out.is_dir():
        raise FileExistsError(errno.EEXIST, "is a file; name a folder", str(out))


def check_text(out: Path) -> None:
    """Raise UnicodeEncodeError for a place whose name is no UTF-8, which other packages and files cannot hold."""
    str(out.resolve()).encode()


def check_above(out: Path) -> None:
    """Raise OSError for a place below what is no folder, and for one that goes back out of a folder that is not there,
    which is made on the way and is another place afterwards."""
    there = next((folder for folder in out.parents if os.path.lexists(folder)), out.parent)
    if there.exists() and not there.is_dir():
        raise NotADirectoryError(
            errno.ENOTDIR, "is a file, below which nothing can lie; name another place", str(there)
        )
    if ".." in out.relative_to(there).parts:
        raise FileNotFoundError(errno.ENOENT, "goes back (`..`) out of a folder that is not there", str(out))


def begins(path: Path, start: bytes) -> bool:
    """Whether a file has ``start`` as its first bytes."""
    with path.open("rb") as file:
        return file.read(len(start)) == start


POINTER = b"version https://git-lfs.github.com/spec/"
"""How a file begins that Git keeps elsewhere."""


def check_fetched(files: Iterable[Path]) -> None:
    """Raise DataError for a file of a clone that was made without Git LFS: a few lines that name what is missing."""
    for file in files:
        if file.is_file() and begins(file, POINTER):
            problem = "a pointer of Git LFS and not the file itself; fetch that with `git lfs pull`"
            raise DataError(f"{file}: {problem}")


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


def renamed(error: OSError, temporary: Path, out: Path) -> OSError | None:
    """``error`` with a name that a user knows: of a file in ``temporary``, which is gone by now, the one that it would
    have had, or ``out``, where a write to a full disk names none; nothing for other errors."""
    named = [os.fsdecode(name) for name in (error.filename2, error.filename) if isinstance(name, str | bytes | Path)]
    for place in map(Path, named):
        if temporary in (place, *place.parents):
            file = place == temporary / out.name and not out.is_dir()
            return OSError(error.errno, error.strerror, str(out if file else out / place.relative_to(temporary)))
    if not named and error.errno in FULL:
        return OSError(error.errno, error.strerror, str(out))
    return None
