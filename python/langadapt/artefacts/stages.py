"""Stages of a run: each makes one artefact, is stamped when done, and is not run again while its stamp holds.

A stamp (``RUN/stages/NAME.json``) keeps the settings, the fingerprints of all inputs, and sizes and hashes of what the
stage made. A stage runs again when settings or inputs differ. When they agree but the artefact does not, that is an
error that names the file: nobody should train on a damaged store, and nobody should lose an edited one without a word.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from langadapt import __version__, _core
from langadapt.artefacts.folders import check_files, describe_files, fingerprint, remove_leftovers, write_atomically
from langadapt.errors import LangadaptError

Log = Callable[[str], None]


def is_running(folder: Path) -> bool:
    """Whether a process is at work in a run's folder."""
    try:
        with (folder / "stages" / ".lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


class Run:
    """A folder in which stages leave their artefacts.

    Args:
        folder: created when missing.
        log: gets one line per stage.
    """

    def __init__(self, folder: Path, log: Log) -> None:
        self.folder = Path(folder)
        self.log = log
        self.seconds: dict[str, float] = {}
        (self.folder / "stages").mkdir(parents=True, exist_ok=True)
        self._known_hashes = self.folder / "stages" / ".hashes.json"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep a second process out of this folder.

        Raises:
            LangadaptError: another process is at work here.
        """
        with (self.folder / "stages" / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise LangadaptError(f"{self.folder}: another langadapt process is running here") from None
            for folder in (self.folder, self.folder / "stages"):
                for left in folder.glob(".*.tmp"):
                    left.unlink() if left.is_file() else shutil.rmtree(left, ignore_errors=True)
            yield

    def stage(
        self,
        name: str,
        output: Path,
        make: Callable[[], Mapping[str, Any]],
        *,
        settings: Mapping[str, Any],
        inputs: Mapping[str, Path],
    ) -> dict[str, Any]:
        """Make ``output`` unless its stamp holds, and return the stage's summary.

        ``make`` writes ``output`` (a file or folder) and returns plain values for the report. ``settings`` are plain
        values too.
        """
        wanted = json.loads(
            json.dumps(
                {
                    "stage": name,
                    "langadapt": __version__,
                    "settings": dict(settings),
                    "inputs": {key: self.fingerprint_of(path) for key, path in inputs.items()},
                }
            )
        )
        stamp_file = self.folder / "stages" / f"{name}.json"
        stamp = read_stamp(stamp_file)
        # Whoever deletes an artefact, as the errors advise, wants it made again.
        if stamp is not None and output.exists() and {key: stamp.get(key) for key in wanted} == wanted:
            check_files(output, stamp["files"])
            self.seconds[name] = stamp["seconds"]
            self.log(f"{name}: up to date")
            return dict(stamp["summary"])
        stamp_file.unlink(missing_ok=True)
        remove_leftovers(output)
        self.log(f"{name}: started")
        started = time.monotonic()
        summary = dict(make())
        seconds = time.monotonic() - started
        stamp = {**wanted, "summary": summary, "seconds": round(seconds, 3), "files": describe_files(output)}
        write_atomically(stamp_file, json.dumps(stamp, indent=2, ensure_ascii=False) + "\n")
        self.seconds[name] = seconds
        self.log(f"{name}: done in {seconds:.1f} s")
        return summary

    def fingerprint_of(self, path: Path) -> str:
        """Hash of an input; files outside the run are hashed once per (size, time of change)."""
        path = Path(path).resolve()
        if not path.exists():
            raise FileNotFoundError(2, "No such file or directory", str(path))
        if path.is_dir():
            parts = [f"{p.relative_to(path)} {self._hash_once(p)}" for p in sorted(path.rglob("*")) if counts(p, path)]
            return str(_core.hash_bytes("\n".join(parts).encode()))
        return self._hash_once(path)

    def _hash_once(self, file: Path) -> str:
        known: dict[str, Any] = read_stamp(self._known_hashes) or {}
        status = file.stat()
        state = [status.st_size, status.st_mtime_ns]
        entry = known.get(str(file))
        if entry is None or entry[:2] != state:
            entry = [*state, fingerprint(file)]
            known[str(file)] = entry
            write_atomically(self._known_hashes, json.dumps(known))
        return str(entry[2])


def counts(path: Path, root: Path) -> bool:
    """Whether a path below ``root`` is a file of an artefact: hidden ones are notes and leftovers.

    A model's README is written after everything was measured; it makes no other model of it.
    """
    hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
    return path.is_file() and not hidden and path.name != "README.md"


def read_stamp(file: Path) -> dict[str, Any] | None:
    """The JSON mapping in ``file``; none where there is no whole one: a lost stamp costs a stage run again, no more."""
    try:
        stamp = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
        return None
    return stamp if isinstance(stamp, dict) else None
