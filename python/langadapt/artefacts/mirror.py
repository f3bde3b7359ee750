"""Folders that a run makes on its way, its checkpoints, into a store behind it: one at a time, the newest first.

Each is sent by a process of its own, so that it takes no time from the run, and ends even where the run is killed. A
folder there counts once it is whole; those that the run has deleted here go after that.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from langadapt.artefacts.names import UPLOAD_NAME
from langadapt.artefacts.remote import RemoteFile, content, open_store, patiently, read_record, shown
from langadapt.artefacts.upload import check_place, download_folder, list_below, send_folder
from langadapt.errors import DataError, LangadaptError

log = logging.getLogger(__name__)

TRIAL = ".langadapt-may-write"
"""Written and deleted again to see whether it can be."""


class Mirror:
    """Sends folders to ``url``."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.child: subprocess.Popen[bytes] | None = None
        self.said: Any = None
        self.sending: Path | None = None
        self.waiting: tuple[Path, list[str]] | None = None

    @property
    def busy(self) -> set[str]:
        """Names of the folders that are needed here until they are there."""
        waiting = None if self.waiting is None else self.waiting[0]
        return {folder.name for folder in (self.sending, waiting) if folder is not None}

    def send(self, folder: Path, kept: Iterable[str]) -> None:
        """Send ``folder`` once none is under way; one that waits already is passed over. Of the others there, those
        named in ``kept`` stay."""
        self.waiting = folder, [*kept]
        self.go_on()

    def go_on(self) -> None:
        """Begin with the folder that waits, if the last one has arrived."""
        if self.child is not None and self.child.poll() is not None:
            self.ended(self.child.returncode)
        if self.child is None and self.waiting is not None:
            (self.sending, kept), self.waiting = self.waiting, None
            self.said = tempfile.TemporaryFile()  # noqa: SIM115
            # In a session of its own: Ctrl-C is for the run, which waits for the folder that it then writes.
            command = [sys.executable, "-m", __name__, str(self.sending), self.url, *kept]
            self.child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=self.said, stderr=self.said, start_new_session=True
            )

    def ended(self, code: int) -> None:
        """Take note of a folder that has arrived, or has not."""
        with self.said:
            self.said.seek(0)
            lines = self.said.read().decode("utf-8", "replace").strip().splitlines()
        if code != 0:
            reason = lines[-1] if lines else f"exit code {code}"
            log.warning("%s was not sent: %s; the next one will be tried", self.sending, reason)
        self.child, self.sending = None, None

    def finish(self) -> None:
        """Wait until the newest folder is there; a Ctrl-C meanwhile ends its sending."""
        self.go_on()
        if self.child is not None:
            log.info("%s is being sent to %s; Ctrl-C leaves it", self.sending, shown(self.url))
        try:
            while self.child is not None or self.waiting is not None:
                self.go_on()
                if self.child is not None:
                    self.child.wait()
        except BaseException:
            if self.child is not None:
                self.child.kill()
                self.said.close()
            raise


def send(folder: Path, url: str, kept: Iterable[str]) -> None:
    """Send a folder to its place below ``url``, then delete those copies of others there that are not ``kept``."""
    send_folder(folder, f"{url}/{folder.name}")
    stays = {folder.name, *kept}
    store, path = open_store(url)
    for name, files in copies(url).items():
        if name in stays:
            continue
        # What says that it is whole goes first.
        for file in sorted(files, key=lambda file: file != UPLOAD_NAME):
            patiently(f"{url}/{name}/{file}", partial(store.rm_file, f"{path}/{name}/{file}"))


def copies(url: str) -> dict[str, dict[str, RemoteFile]]:
    """The files of all copies below ``url``, whole or not, by the name of the folder: nobody else's."""
    found: dict[str, dict[str, RemoteFile]] = {}
    for path, file in list_below(url).items():
        name, _, inner = path.partition("/")
        found.setdefault(name, {})[inner] = file
    return {name: files for name, files in found.items() if UPLOAD_NAME in files}


def newest_copy(url: str, described_by: str) -> tuple[str, dict[str, Any]] | None:
    """Name and description, the JSON file ``described_by``, of the newest copy that is whole; none where there is none.

    Raises:
        DataError: it cannot be read.
        ConfigError, PermissionError, LangadaptError: the store cannot be asked; says why.
    """
    for name, files in sorted(copies(url).items(), reverse=True):
        if described_by in files and read_record(files[UPLOAD_NAME])["whole"]:
            try:
                return name, dict(json.loads(content(files[described_by])))
            except (ValueError, TypeError, RecursionError):
                raise DataError(f"{files[described_by]}: damaged; delete this folder of the store") from None
    return None


def bring_copy(url: str, name: str, root: Path) -> None:
    """Fetch a copy into its place in ``root``, all or nothing."""
    download_folder(f"{url}/{name}", root / name)


def check_writable(url: str) -> None:
    """Make sure that folders can be sent to ``url``, by writing and deleting a small file there.

    Raises:
        ConfigError, PermissionError, FileNotFoundError, LangadaptError: they cannot; says why.
    """
    check_place(url)
    place = f"{url.rstrip('/')}/{TRIAL}"
    store, path = open_store(place)
    patiently(shown(place), partial(store.pipe_file, path, b""))
    patiently(shown(place), partial(store.rm_file, path))


def main(folder: str, url: str, *kept: str) -> None:
    """What the process that sends does."""
    try:
        send(Path(folder), url, kept)
    except (LangadaptError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(*sys.argv[1:])
