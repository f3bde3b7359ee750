"""Finished folders into a store and back: data first, what says that it is whole last.

A folder in a store has a record of its files, :data:`UPLOAD_NAME`, which is written before anything else and says
``whole`` only when everything, the manifest at the end, lies there. It keeps the sizes and hashes of what was
sent and the versions that the store gave it, so that a second call sends what is missing or has changed and no more.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from langadapt.artefacts.folders import hash_file, is_described, is_ours, new_folder, verify
from langadapt.artefacts.names import MANIFEST_NAME, UPLOAD_NAME
from langadapt.artefacts.remote import (
    WEB,
    RemoteFile,
    listed,
    looked_up,
    open_store,
    patiently,
    read_record,
    scheme_of,
    shown,
)
from langadapt.artefacts.stages import is_running
from langadapt.errors import ConfigError, DataError, LangadaptError
from langadapt.progress import Progress

CONNECTIONS = 4
"""Files that are sent or fetched at a time."""
RECORD_SECONDS = 5.0
"""Between two notes of what has arrived: what an interruption sends again, at most."""
PART_TRIES = 5
"""For each part of a large file, which else would be sent again as a whole."""


def upload_folder(folder: str | Path, url: str, *, progress: Progress | None = None) -> int:
    """Copy a finished folder (corpus, counts, token store, model, run) to ``url``; returns how many files were sent.

    Files that lie there already, of the same size and hash, are not sent again. Hidden files stay here.

    Args:
        folder: made by langadapt, and not being worked on.
        url: of a folder in a store, ``s3://``, ``gs://`` or ``az://``; empty, or a copy of this folder's kind that is
            replaced. It counts as whole once the last file is there.
        progress: called as ``("upload", done, total, "bytes")``.

    Raises:
        ConfigError: no such folder, or not one of langadapt's; a URL that cannot be written to.
        DataError: the folder is damaged, or changes meanwhile; what lies at ``url`` was not put there by this.
        PermissionError, LangadaptError: the store does not take it; says why.
    """
    folder, url = Path(folder), url.rstrip("/")
    check_place(url)
    check_finished(folder)
    return send_folder(folder, url, progress)


def check_place(url: str) -> None:
    """Raise ConfigError for a URL to which no folder can go."""
    if scheme_of(url) in (*WEB, "hf"):
        raise ConfigError(f"{shown(url)}: folders go to s3://, gs:// or az://; `langadapt export hub` knows the hub")
    open_store(url)


def send_folder(folder: Path, url: str, progress: Progress | None = None) -> int:
    """Copy what is missing or differs; see :func:`upload_folder`."""
    files = files_of(folder)
    there = list_below(url)
    record = read_record(there[UPLOAD_NAME]) if UPLOAD_NAME in there else None
    if record is None and there:
        raise DataError(f"{shown(url)}: holds files that langadapt has not put there; name another folder")
    known = dict(record["files"]) if record is not None else {}
    arrived = {name: one for name, one in known.items() if is_there(one, files.get(name), there.get(name))}
    if record is not None and record["whole"] and arrived.keys() == known.keys() == files.keys():
        return 0
    job = Upload(folder, url, files, arrived=arrived, progress=progress)
    # What is there of other files is known as ours until it is gone.
    job.stale = {name: one for name, one in known.items() if name not in files}
    missing = [name for name in files if name not in arrived]
    job.send(missing)
    for name in job.stale.keys() & there.keys():
        store, path = open_store(f"{url}/{name}")
        patiently(f"{url}/{name}", partial(store.rm_file, path))
    job.stale = {}
    job.note(whole=True)
    return len(missing)


def check_finished(folder: Path) -> None:
    """Raise where a folder is none of ours, damaged, or being worked on."""
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; name one that langadapt has made")
    if is_described(folder):
        verify(folder)
    elif (folder / "stages").is_dir():
        if is_running(folder):
            raise LangadaptError(f"{folder}: a langadapt process is running here; upload it when that has ended")
    elif not is_ours(folder):
        raise ConfigError(f"{folder}: langadapt has not made it, or not finished; name a corpus, store, model or run")


def files_of(folder: Path) -> dict[str, dict[str, Any]]:
    """Sizes and hashes of all files but hidden ones, by relative name; its manifest comes last."""
    found = (file for file in folder.rglob("*") if file.is_file())
    names = {file.relative_to(folder).as_posix(): file for file in found}
    seen = sorted(name for name in names if not any(part.startswith(".") for part in name.split("/")))
    order = sorted((name for name in seen if name != UPLOAD_NAME), key=lambda name: name == MANIFEST_NAME)
    return {name: {"bytes": names[name].stat().st_size, "xxh3_128": hash_file(names[name])} for name in order}


def list_below(url: str) -> dict[str, RemoteFile]:
    """Files below a URL, by relative name; none where there is nothing."""
    store, path = open_store(url)
    try:
        found = listed(url, partial(store.find, path, detail=True))
    except FileNotFoundError:
        # The bucket may be missing: writing there will say so.
        return {}
    return {name[len(path) + 1 :]: file for name, file in found.items()}


def is_there(noted: Mapping[str, Any], ours: Mapping[str, Any] | None, theirs: RemoteFile | None) -> bool:
    """Whether what was sent is what is to be sent, and still lies there."""
    if ours is None or theirs is None:
        return False
    same = all(noted.get(key) == ours[key] for key in ours) and theirs.size == ours["bytes"]
    return same and bool(theirs.version) and theirs.version == noted.get("version")


class Upload:
    """One call's work: ``files`` of ``folder`` to ``url``, of which some have ``arrived``."""

    def __init__(
        self,
        folder: Path,
        url: str,
        files: Mapping[str, Mapping[str, Any]],
        *,
        arrived: dict[str, Any],
        progress: Progress | None,
    ) -> None:
        self.folder, self.url, self.files, self.arrived, self.progress = folder, url, files, arrived, progress
        self.stale: dict[str, Any] = {}
        self.lock, self.stop = threading.Lock(), threading.Event()
        self.noted = 0.0

    def send(self, names: Sequence[str]) -> None:
        """Send files, a manifest after all others, noting now and then which have arrived."""
        self.note(whole=False)
        last = [name for name in names if name == MANIFEST_NAME]
        for some in ([name for name in names if name not in last], last):
            for name, noted in together(self.send_one, some, self.stop):
                self.arrived[name] = noted
                if self.progress is not None:
                    done = sum(self.files[one]["bytes"] for one in self.arrived)
                    self.progress("upload", done, sum(one["bytes"] for one in self.files.values()), "bytes")
                if time.monotonic() - self.noted > RECORD_SECONDS:
                    self.note(whole=False)

    def send_one(self, name: str) -> tuple[str, dict[str, Any]]:
        """Send one file; returns its name and what the record says of it."""
        file, url, ours = self.folder / name, f"{self.url}/{name}", self.files[name]
        store, path = open_store(url, tries=PART_TRIES)
        patiently(url, partial(store.put_file, str(file), path), stop=self.stop)
        if file.stat().st_size != ours["bytes"] or hash_file(file) != ours["xxh3_128"]:
            raise DataError(f"{file}: changed while it was sent; upload it again when nothing writes there")
        theirs = looked_up(url, stop=self.stop)
        if theirs.size != ours["bytes"]:
            raise DataError(f"{url}: {theirs.size:,} bytes arrived of {ours['bytes']:,}; run the same command again")
        return name, {**ours, "version": theirs.version}

    def note(self, *, whole: bool) -> None:
        """Write the record."""
        url = f"{self.url}/{UPLOAD_NAME}"
        store, path = open_store(url)
        record = {"whole": whole, "files": dict(sorted({**self.stale, **self.arrived}.items()))}
        content = json.dumps(record, indent=1, ensure_ascii=False).encode()
        patiently(url, partial(store.pipe_file, path, content))
        self.noted = time.monotonic()


def together(
    work: Callable[[str], tuple[str, Any]], names: Sequence[str], stop: threading.Event
) -> Iterator[tuple[str, Any]]:
    """``work`` on all names, some at a time, in their order; the first failure ends the others."""
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        waiting = [pool.submit(work, name) for name in names]
        try:
            for one in waiting:
                yield one.result()
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def whole_upload(url: str) -> tuple[RemoteFile, dict[str, Any], dict[str, RemoteFile]]:
    """The record of an upload, what it says of each file, and the files that lie there.

    Raises:
        DataError: there is no upload, it is half of one, or a file is missing or of another length; names it.
    """
    there = list_below(url)
    if not there:
        raise DataError(f"{shown(url)}: nothing is there")
    if UPLOAD_NAME not in there:
        raise DataError(f"{shown(url)}: no {UPLOAD_NAME}, so it is no whole upload; `langadapt upload` makes one")
    record = read_record(there[UPLOAD_NAME])
    if not record["whole"]:
        raise DataError(f"{shown(url)}: a half upload; end it with `langadapt upload`")
    for name, noted in record["files"].items():
        if name.startswith("/") or ".." in name.split("/"):
            raise DataError(f"{shown(url)}: its record names {name!r}, a place outside; upload the folder again")
        if name not in there or there[name].size != noted.get("bytes"):
            raise DataError(f"{shown(url)}/{name}: missing, or not as long as it was; upload the folder again")
    return there[UPLOAD_NAME], record["files"], there


def download_folder(url: str, out: str | Path, *, progress: Progress | None = None) -> int:
    """Copy what :func:`upload_folder` put at ``url`` into the folder ``out``, all or nothing; returns how many files.

    Args:
        url: of the folder in the store.
        out: folder to write; an older one of langadapt is replaced once all is here.
        progress: called as ``("download", done, total, "bytes")``.

    Raises:
        DataError: nothing whole lies there, or a file is not what was uploaded; names it.
        ConfigError, FileExistsError, PermissionError, LangadaptError: as :func:`upload_folder`.
    """
    url = url.rstrip("/")
    _, files, there = whole_upload(url)
    stop, done, total = threading.Event(), 0, sum(noted["bytes"] for noted in files.values())
    with new_folder(Path(out)) as folder:

        def fetch(name: str) -> tuple[str, None]:
            place = folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            there[name].fetch(place, stop)
            if not stop.is_set() and hash_file(place) != files[name].get("xxh3_128"):
                raise DataError(f"{there[name].name}: not what was uploaded; upload the folder again")
            return name, None

        for name, _ in together(fetch, list(files), stop):
            done += files[name]["bytes"]
            if progress is not None:
                progress("download", done, total, "bytes")
    return len(files)
