"""Was this made already? Stages make one artefact each, are stamped when done, and not run again while the stamp holds.

A stamp keeps the settings, the fingerprints of all inputs, and sizes and hashes of what the stage made. A stage runs
again when settings or inputs differ. When they agree but the artefact does not, that is an error that names the file:
nobody should train on a damaged store, and nobody should lose an edited one without a word. The stages of a recipe
(:class:`Run`) have their stamps together in ``RUN/stages``; a single command's (:func:`make_once`) lies in the folder
that it made, or beside the file.
"""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from langadapt import __version__
from langadapt.artefacts.folders import (
    STAMP_NAME,
    check_files,
    describe_files,
    files_below,
    fingerprints,
    hash_file,
    is_described,
    read_manifest,
    recall_hash,
    remove_leftovers,
    write_atomically,
)
from langadapt.artefacts.places import check_above, check_space
from langadapt.artefacts.remote import RemoteFile, all_shown
from langadapt.errors import ConfigError, LangadaptError

Log = Callable[[str], None]
Make = Callable[[], Mapping[str, Any]]
"""Writes an artefact and returns plain values about it."""


def make_once(
    stage: str,
    output: Path,
    make: Make,
    *,
    settings: Mapping[str, Any],
    inputs: Mapping[str, Path | RemoteFile] | None,
    log: Log,
    again: bool = False,
) -> dict[str, Any]:
    """Make ``output``, a file or folder, unless its stamp holds; returns the summary that ``make`` returned then.

    Args:
        stage: name of what makes it.
        output: not there yet, or made by this before.
        make: see :data:`Make`.
        settings: plain values that decide the result.
        inputs: name to file or folder; none = what cannot be read twice, such as standard input: made each time.
        log: told where nothing is made.
        again: make it whatever the stamp says.

    Raises:
        ConfigError: ``output`` is a file of its own inputs, or what another stage made.
        DataError: the stamp holds but the artefact is damaged; names the file.
    """
    check_above(output)
    check_stage(output, stage)
    remove_leftovers(output)
    remove_leftovers(stamp_of(output))
    for path in (one for one in (inputs or {}).values() if isinstance(one, Path)):
        if output.is_file() and path.resolve() in (output.resolve(), *output.resolve().parents):
            raise ConfigError(f"{output}: is, or belongs to, what it is to be made from; name another file")
    wanted = describe_stage(stage, settings, inputs or {})
    stamp = read_stamp(stamp_of(output)) if inputs is not None and not again else None
    if stamp is not None and holds(stamp, output, wanted):
        log(f"{output}: up to date")
        return dict(stamp["summary"])
    check_space(stamp_of(output), 0)
    stamp_of(output).unlink(missing_ok=True)
    others = {file: file.stat().st_mtime_ns for file in files_below(output)} if output.is_dir() else {}
    summary = dict(make())
    if inputs is not None:
        write_stamp(stamp_of(output), output, wanted, summary, others=others)
    return summary


def check_stage(output: Path, stage: str) -> None:
    """Raise ConfigError where a folder is what another stage made: that may have taken days, and nobody means it."""
    if not output.is_dir():
        return
    made = (read_stamp(output / STAMP_NAME) or {}).get("stage")
    if made is None and is_described(output):
        made = read_manifest(output)["stage"]
    if made is not None and kind_of(made) != kind_of(stage):
        raise ConfigError(f"{output}: holds what `{made}` made; name another folder")


def kind_of(stage: str) -> str:
    """Of what a stage makes: parts, and what is merged of them, are of one kind, and all tokenizers are."""
    return str(stage).removeprefix("merge ").removesuffix(" part").split(" ")[-1]


def stamp_of(output: Path) -> Path:
    """Where a single command's stamp lies."""
    return output / STAMP_NAME if output.is_dir() else output.with_name(f".{output.name}{STAMP_NAME}")


def describe_stage(stage: str, settings: Mapping[str, Any], inputs: Mapping[str, Path | RemoteFile]) -> dict[str, Any]:
    """What decides the result of a stage, as a stamp keeps it."""
    described = {
        "stage": stage,
        "langadapt": __version__,
        "settings": all_shown(dict(settings)),
        "inputs": fingerprints(inputs),
    }
    plain: dict[str, Any] = json.loads(json.dumps(described))
    return plain


def holds(stamp: Mapping[str, Any], output: Path, wanted: Mapping[str, Any]) -> bool:
    """Whether ``output`` is what the stage would make.

    Raises:
        DataError: it was, and is damaged.
    """
    # Whoever deletes an artefact, as the errors advise, wants it made again.
    if not output.exists() or {key: stamp.get(key) for key in wanted} != wanted:
        return False
    check_files(output, stamp["files"])
    return True


def write_stamp(
    file: Path,
    output: Path,
    wanted: Mapping[str, Any],
    summary: Mapping[str, Any],
    *,
    seconds: float = 0.0,
    others: Mapping[Path, int] | None = None,
) -> None:
    """Describe what a stage has just made; ``others`` lay there before, see :func:`describe_files`."""
    files = describe_files(output, others)
    stamp = {**wanted, "summary": summary, "seconds": round(seconds, 3), "files": files}
    write_atomically(file, json.dumps(stamp, indent=2, ensure_ascii=False) + "\n")


def read_stamp(file: Path) -> dict[str, Any] | None:
    """The JSON mapping in ``file``; none where there is no whole one: a lost stamp costs a stage run again, no more."""
    try:
        stamp = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return stamp if isinstance(stamp, dict) else None


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
        log: gets a line for each stage that works, and one for those between that have nothing to do.
    """

    def __init__(self, folder: Path, log: Log) -> None:
        self.folder = Path(folder)
        self.log = log
        self.seconds: dict[str, float] = {}
        """By stage."""
        self._kept: list[str] = []
        check_above(self.folder / "stages")
        (self.folder / "stages").mkdir(parents=True, exist_ok=True)
        # Texts and models from elsewhere are hashed once, not once per process: they are large, and nobody's here.
        self._hashes_file = self.folder / "stages" / ".hashes.json"
        self._hashes = read_stamp(self._hashes_file) or {}
        for file, (size, changed, known) in self._hashes.items():
            recall_hash(Path(file), size, changed, known)

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
            try:
                yield
            finally:
                self.tell_kept()

    def tell_kept(self) -> None:
        """Log in one line which stages in a row had nothing to do."""
        if self._kept:
            self.log(f"up to date: {', '.join(self._kept)}")
            self._kept.clear()

    def stage(
        self,
        name: str,
        output: Path,
        make: Make,
        *,
        settings: Mapping[str, Any],
        inputs: Mapping[str, Path | RemoteFile],
    ) -> dict[str, Any]:
        """Make ``output``, a file or folder, unless its stamp holds, and return the stage's summary.

        ``settings`` are plain values.

        Raises:
            DataError: the stamp holds but the artefact is damaged; names the file.
        """
        stamp_file = self.folder / "stages" / f"{name}.json"
        for place in (output, stamp_file, self._hashes_file):
            remove_leftovers(place)
        wanted = describe_stage(name, settings, inputs)
        self.keep_hashes(inputs.values())
        stamp = read_stamp(stamp_file)
        if stamp is not None and holds(stamp, output, wanted):
            self.seconds[name] = stamp["seconds"]
            self._kept.append(name)
            return dict(stamp["summary"])
        self.tell_kept()
        stamp_file.unlink(missing_ok=True)
        self.log(f"{name}: started")
        started = time.monotonic()
        summary = dict(make())
        self.seconds[name] = time.monotonic() - started
        write_stamp(stamp_file, output, wanted, summary, seconds=self.seconds[name])
        self.log(f"{name}: done in {self.seconds[name]:.1f} s")
        return summary

    def keep_hashes(self, inputs: Iterable[Path | RemoteFile]) -> None:
        """Note the hashes of what lies outside this folder, for the next process."""
        own = self.folder.resolve()
        places = {path.resolve() for path in inputs if isinstance(path, Path) and not is_described(path)}
        files = {
            file
            for path in places
            if own not in path.parents
            for file in (files_below(path) if path.is_dir() else [path])
        }
        found = {str(file): [file.stat().st_size, file.stat().st_mtime_ns, hash_file(file)] for file in files}
        if any(self._hashes.get(file) != known for file, known in found.items()):
            self._hashes |= found
            write_atomically(self._hashes_file, json.dumps(self._hashes))
