"""Text in stores for a reader of files: fetched ahead, a few files at a time, into a folder that empties as it is read.

Parquet is read from its end and zstd by several threads, so files come whole; the core waits for each
(``corpus/arriving.rs``) and deletes it once read. They are begun in document order, so that whichever is read first is
on its way, and the disk holds :data:`AHEAD_FILES` and :data:`AHEAD_BYTES` at most, or one file that is larger.
"""

from __future__ import annotations

import errno
import logging
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from langadapt import _core
from langadapt.artefacts.folders import scratch_folder
from langadapt.artefacts.remote import RemoteFile, expand, is_remote
from langadapt.errors import DataError, shorten

logger = logging.getLogger(__name__)

AHEAD_FILES, AHEAD_BYTES = 16, 2 << 30
"""What may lie in the folder, being fetched, waiting or being read."""
CONNECTIONS = 4
"""Files that are fetched at a time."""
SPARE_BYTES = 64 << 20
"""Of the disk, left free."""
NAP = 0.01
"""Seconds between two looks at whether there is room."""


class Spool:
    """Fetches ``files``, in order, into ``folder``, on threads of its own."""

    def __init__(self, files: Sequence[RemoteFile], folder: Path) -> None:
        self.files, self.folder = files, folder
        self.stop = threading.Event()
        self.lock = threading.Lock()
        self.next = 0
        self.failed = False
        self.held: dict[int, int] = {}
        """Bytes of those that are fetched or not read yet, by number."""
        self.arrived = [False] * len(files)
        self.working = min(CONNECTIONS, len(files))
        # Daemons: one that waits for a silent store keeps nobody from leaving.
        numbers = range(self.working)
        self.threads = [threading.Thread(target=self.work, name=f"fetch {one}", daemon=True) for one in numbers]

    def place(self, number: int) -> Path:
        """Where a file lies once it is whole."""
        return self.folder / str(number)

    def work(self) -> None:
        """Fetch whatever comes next, until all is there or something failed; the last to end tells the reader."""
        try:
            while (number := self.take()) is not None:
                self.fetch(number)
        except OSError as error:
            # Whoever stopped has taken the folder away; else the disk is gone.
            self.fail(min(self.next, len(self.files) - 1), error)
        finally:
            with self.lock, suppress(FileNotFoundError):
                self.working -= 1
                if self.working == 0 and not self.stop.is_set():
                    (self.folder / "over").touch()

    def fetch(self, number: int) -> None:
        """Bring one file, or say why it does not come."""
        part = self.folder / f"{number}.part"
        try:
            self.files[number].fetch(part, self.stop)
            if not self.stop.is_set():
                part.rename(self.place(number))
                self.arrived[number] = True
        except Exception as error:
            self.fail(number, error)

    def take(self) -> int | None:
        """The number of the next file once there is room for it; none when there is no more to do."""
        with self.lock:
            number = self.next
            while number < len(self.files) and not self.failed and not self.stop.is_set():
                for gone in [one for one in self.held if self.arrived[one] and not self.place(one).exists()]:
                    del self.held[gone]
                size, free = self.files[number].size, shutil.disk_usage(self.folder).free
                fits = not self.held or sum(self.held.values()) + size <= AHEAD_BYTES
                if fits and len(self.held) < AHEAD_FILES and size + SPARE_BYTES <= free:
                    self.held[number], self.next = size, number + 1
                    return number
                if not self.held and size + SPARE_BYTES > free:
                    needed, there = (size + SPARE_BYTES) / 1e6, free / 1e6
                    problem = f"no room in {self.folder.parent}: {needed:,.1f} MB are needed, {there:,.1f} MB free"
                    self.fail(number, OSError(errno.ENOSPC, problem))
                    return None
                self.stop.wait(NAP)
            return None

    def fail(self, number: int, error: Exception) -> None:
        """Tell the reader, who asks in document order, why a file will not come; none behind it is begun."""
        if self.stop.is_set():
            return
        logger.debug("%s: %s", self.files[number].name, type(error).__name__)
        said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        reason = shorten(said.removeprefix(f"{self.files[number].name}: "), 500)
        note = self.folder / f"{number}.note"
        self.failed = True
        with suppress(FileNotFoundError):
            note.write_text(reason, encoding="utf-8")
            note.rename(self.folder / f"{number}.failed")


def files_behind(name: str) -> list[Path] | list[RemoteFile]:
    """The files that a name stands for, here or in a store.

    Raises:
        DataError: a name that is not UTF-8, which no manifest can hold; else as :func:`arriving`.
    """
    if is_remote(name):
        return expand(name)
    files = _core.expand_inputs([name])
    for file in files:
        try:
            str(file).encode()
        except UnicodeEncodeError:
            raise DataError(f"{str(file)!a}: a file name that is not UTF-8; rename the file") from None
    return files


def bytes_of(file: Path | RemoteFile) -> int:
    """How long a file is; 0 of what is none, such as a pipe."""
    if isinstance(file, RemoteFile):
        return file.size
    return file.stat().st_size if file.is_file() else 0


@contextmanager
def arriving(names: Sequence[str], beside: Path | None = None) -> Iterator[list[str]]:
    """``names`` as the core reads them, each URL in place of a list of files, which arrive while the block lasts.

    Args:
        names: files, folders, patterns and URLs.
        beside: folder for what is fetched; where temporary files go by default.

    Raises:
        ConfigError, DataError, FileNotFoundError, PermissionError: as :func:`langadapt.artefacts.remote.expand`.
    """
    if not any(map(is_remote, names)):
        yield [*names]
        return
    with scratch_folder("langadapt-text", beside) as folder:
        local: list[str] = []
        files: list[RemoteFile] = []
        for name in names:
            if is_remote(name):
                more = expand(name)
                local.append(str(write_list(folder / f"{len(local)}.arriving", folder, more, len(files))))
                files += more
            else:
                local.append(name)
        spool = Spool(files, folder)
        for thread in spool.threads:
            thread.start()
        try:
            yield local
        finally:
            spool.stop.set()
            for thread in spool.threads:
                thread.join(NAP)


def write_list(file: Path, folder: Path, files: Sequence[RemoteFile], first: int) -> Path:
    """The list that the core reads, see ``corpus/arriving.rs``; ``first``: number of the first file."""
    lines = (f"{one.size}\t{folder / str(number)}\t{one.name}\n" for number, one in enumerate(files, first))
    file.write_text("".join(lines), encoding="utf-8")
    return file
