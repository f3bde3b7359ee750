"""Artefacts that are whole or absent, and know what they were made from.

Whatever is written is written in a temporary folder beside its final place, flushed and renamed: a killed process
leaves the old state, and the next one that writes there clears away what it left (:func:`remove_leftovers`). A folder's
``manifest.json`` holds the stage's name, the settings, fingerprints of the inputs, sizes and hashes of all files and a
summary for people; :func:`verify` finds a half-written or altered artefact and names it.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import json
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from langadapt import __version__, _core
from langadapt.artefacts.names import MANIFEST_NAME
from langadapt.artefacts.places import check_above, check_folder, check_kind, renamed
from langadapt.artefacts.remote import RemoteFile
from langadapt.errors import ConfigError, DataError

SWAP_REPORT_NAME = "swap.json"
"""What was swapped, in the folder of a swapped model, which has no manifest: the report, and which rows are new."""
FINISH_REPORT_NAME = "finish.json"
"""What an instruct model gave, in the folder of the model that got it."""
STAMP_NAME = ".stamp.json"
"""What a single command made a folder from, in that folder."""
CARD_NAME = "README.md"
"""A model's card is written after everything was measured; it makes no other model of it."""
TICK = 0.02
"""Seconds between two times that a file system can tell apart, at most."""
_numbers = itertools.count()


def write_atomically(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` as UTF-8 so that after a crash the file is either the old or the new one, whole."""
    with whole_file(path) as file:
        file.write_text(text, encoding="utf-8")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A place to write a file to, which becomes ``path`` when the block ends well.

    Raises:
        FileExistsError: as of `places.check_kind`.
    """
    check_kind(path)
    with temporary_beside(path) as folder:
        file = folder / path.name
        yield file
        sync_file(file)
        file.replace(path)
    sync_folder(path.parent)


@contextmanager
def new_folder(out: Path, inputs: Iterable[str | Path] = ()) -> Iterator[Path]:
    """A temporary folder that becomes ``out`` when the block ends well, and vanishes when it does not.
    An existing ``out`` is replaced only at that moment, and only if it is empty or a folder of langadapt.

    Raises:
        FileExistsError: ``out`` is a file, or holds what langadapt has not written; what was put there meanwhile, too,
            stays, and what was made lies beside it.
        ConfigError: ``out`` holds one of ``inputs``, what it is to be made from.
    """
    out = Path(out).resolve()
    check_replaceable(out, inputs)
    with replacing(out) as temporary:
        yield temporary
        try:
            check_kind(out)
            check_replaceable(out)
        except OSError:
            # Somebody has put something there meanwhile; neither that nor the work is to be lost.
            kept = out.with_name(f"{out.name}.made-{os.getpid()}")
            temporary.rename(kept)
            problem = f"holds by now what langadapt has not written; what was made lies in {kept}"
            raise FileExistsError(errno.EEXIST, problem, str(out)) from None


@contextmanager
def replacing(out: Path) -> Iterator[Path]:
    """:func:`new_folder` for callers who know that what lies in ``out`` may go."""
    out = Path(out).resolve()  # "." has no name to put a temporary folder beside
    with temporary_beside(out) as temporary:
        yield temporary
        for file in temporary.rglob("*"):
            sync_file(file)
        replaced = []
        while True:
            replaced.append(hidden_beside(out, "old"))
            with suppress(FileNotFoundError):
                out.rename(replaced[-1])
            try:
                temporary.rename(out)
                break
            except OSError as error:
                # Another process may put its own there between the two renames, or bring the old one back.
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
        sync_folder(out.parent)
        for folder in replaced:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def scratch_folder(name: str, beside: Path | None = None) -> Iterator[Path]:
    """A folder for what is not kept, in ``beside`` or where temporary files go; it is gone with the block, and what a
    killed process has left when the next one asks for the same name."""
    with temporary_beside((beside or Path(tempfile.gettempdir())) / name) as folder:
        folder.chmod(0o700)
        yield folder


def hidden_beside(out: Path, kind: str) -> Path:
    """A name beside ``out`` that nobody has used; see :func:`remove_leftovers`."""
    return out.with_name(f".{out.name}.{os.getpid()}-{next(_numbers)}.{kind}")


@contextmanager
def temporary_beside(out: Path) -> Iterator[Path]:
    """A folder beside ``out`` for one writer of it, gone with the block unless it was renamed. The lock, which ends
    with this process, however that ends, tells others that it is no leftover."""
    check_above(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(out)
    temporary = hidden_beside(out, "tmp")
    temporary.mkdir()
    lock = os.open(temporary, os.O_RDONLY)
    try:
        # Some network disks know no locks; there nothing is ever taken for a leftover.
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield temporary
    except OSError as error:
        known = renamed(error, temporary, out)
        if known is None:
            raise
        raise known from error
    finally:
        os.close(lock)
        shutil.rmtree(temporary, ignore_errors=True)


def remove_leftovers(out: Path) -> None:
    """Delete what killed writers of ``out`` left beside it, and bring back an ``out`` caught between two renames.

    A leftover is known by its name, which is made of ``out``'s and a process's, and by its lock, which nobody holds;
    whatever else lies there is somebody's work.
    """
    name = re.compile(rf"\.{re.escape(out.name)}\.\d+(-\d+)?\.(tmp|old)")
    for path in out.parent.iterdir() if out.parent.is_dir() else ():
        if not name.fullmatch(path.name) or is_locked(path):
            continue
        if path.suffix == ".old" and not out.exists():
            # Killed between the two renames of `new_folder`: the old state is the only whole one.
            with suppress(OSError):  # Its writer may be alive, and have put the new one there meanwhile.
                path.rename(out)
        elif path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def is_locked(path: Path) -> bool:
    """Whether a process holds ``path``, or nobody can tell."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def check_replaceable(out: Path, inputs: Iterable[str | Path] = ()) -> None:
    """Refuse to replace what may be somebody's work: ``--out ~`` must not cost a home directory.

    Raises:
        FileExistsError, ConfigError: see :func:`new_folder`.
    """
    for path in inputs:
        whole = Path(path).resolve()
        if out.resolve() in (whole, *whole.parents):
            raise ConfigError(f"{out}: would replace {path}, which it is to be made from; name another place")
    check_folder(out)
    if out.is_dir() and any(out.iterdir()) and not is_ours(out):
        problem = "holds files that langadapt has not written, and would be replaced; name another folder"
        raise FileExistsError(errno.EEXIST, problem, str(out))


def is_ours(folder: Path) -> bool:
    """Whether langadapt made ``folder``."""
    return any(
        (folder / name).is_file() for name in (SWAP_REPORT_NAME, FINISH_REPORT_NAME, STAMP_NAME)
    ) or is_described(folder)


def sync_file(file: Path) -> None:
    """Flush one file, or the entries of one folder, to the disk, with the rights of any new file at least: safetensors
    writes files that only their owner can read, and a folder's access list may give more than the umask."""
    if file.is_dir():
        sync_folder(file)
        return
    descriptor = os.open(file, os.O_RDONLY)
    try:
        umask = os.umask(0o077)
        os.umask(umask)
        os.fchmod(descriptor, stat.S_IMODE(os.fstat(descriptor).st_mode) | (0o666 & ~umask))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make renames inside ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_hashed: dict[tuple[int, int], tuple[int, int, str]] = {}
"""Of this process, by device and inode, which renames leave alone: size, time of change, hash."""


def hash_file(file: Path) -> str:
    """A 128-bit hash of a file's bytes, in hex; an unchanged file is read once in a process."""
    status = file.stat()
    identity, state = (status.st_dev, status.st_ino), (status.st_size, status.st_mtime_ns)
    if identity not in _hashed or _hashed[identity][:2] != state:
        # A change in the same tick of the clock would go unseen afterwards.
        time.sleep(max(0.0, min(TICK, status.st_mtime + TICK - time.time())))
        _hashed[identity] = (*state, _core.hash_file(file))
    return _hashed[identity][2]


def recall_hash(file: Path, size: int, changed: int, known: str) -> None:
    """Take over what another process has found, where the file is as it was then."""
    with suppress(OSError):
        status = file.stat()
        if (status.st_size, status.st_mtime_ns) == (size, changed):
            _hashed.setdefault((status.st_dev, status.st_ino), (size, changed, known))


def fingerprint(path: Path) -> str:
    """A 128-bit hash, in hex, of a file's bytes, or of the names and bytes of all files below a folder.

    A described folder is known by its manifest, which holds the hashes of all its files.

    Raises:
        FileNotFoundError: there is nothing.
    """
    path = Path(path)
    if not path.is_dir():
        return hash_file(path)
    if is_described(path):
        return hash_file(path / MANIFEST_NAME)
    lines = [f"{file.relative_to(path).as_posix()} {hash_file(file)}" for file in files_below(path)]
    return str(_core.hash_bytes("\n".join(lines).encode()))


def fingerprints(paths: Mapping[str, Path | RemoteFile]) -> dict[str, str]:
    """:func:`fingerprint` of each; a file in a store is known by what the store says of it."""
    return {name: one.fingerprint if isinstance(one, RemoteFile) else fingerprint(one) for name, one in paths.items()}


def files_below(folder: Path) -> list[Path]:
    """All files below ``folder`` in a fixed order; hidden ones, which are notes and leftovers, and cards left out."""
    found = (
        file
        for file in folder.rglob("*")
        if file.is_file()
        and file.name != CARD_NAME
        and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    )
    return sorted(found, key=lambda file: file.relative_to(folder).as_posix())


def describe_files(path: Path, others: Mapping[Path, int] | None = None) -> dict[str, dict[str, Any]]:
    """Sizes and hashes of a file, or of all files below a folder, by relative name.

    Its manifest is left out, and ``others`` as long as they have the time of change, in ns, that is given.
    """
    files = {"": path} if path.is_file() else {file.relative_to(path).as_posix(): file for file in files_below(path)}
    return {
        name: {"bytes": file.stat().st_size, "xxh3_128": hash_file(file)}
        for name, file in files.items()
        if name != MANIFEST_NAME and (others or {}).get(file) != file.stat().st_mtime_ns
    }


def check_files(path: Path, expected: Mapping[str, Mapping[str, Any]], *, hashes: bool = True) -> None:
    """Compare a file or folder with what :func:`describe_files` once said.

    Raises:
        DataError: names the first file that is missing or differs.
    """
    for name, wanted in expected.items():
        file = path / name if name else path
        # A damaged manifest may name anything; a message is one line.
        shown = file if name.isprintable() else f"{path}: {name!r}"
        if not file.is_file():
            raise DataError(f"{shown}: missing, although the manifest lists it; delete {path} and make it again")
        if file.stat().st_size != wanted["bytes"] or (hashes and hash_file(file) != wanted["xxh3_128"]):
            raise DataError(
                f"{shown}: altered or half-written, it differs from its manifest; delete {path} and make it again"
            )


def write_manifest(
    folder: Path,
    stage: str,
    settings: Mapping[str, Any],
    inputs: Mapping[str, str],
    *,
    summary: Mapping[str, Any],
    files: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Describe all files of ``folder``, made from ``inputs`` (name to fingerprint), and return the manifest.

    ``files``: what is known of them already, as :func:`describe_files` gives it.
    """
    manifest = {
        "stage": stage,
        "langadapt": __version__,
        "settings": dict(settings),
        "inputs": dict(inputs),
        "summary": dict(summary),
        "files": describe_files(folder) if files is None else dict(files),
    }
    write_atomically(folder / MANIFEST_NAME, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
    return manifest


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of ``folder``.

    Raises:
        DataError: there is none, or it is not one of ours.
    """
    path = Path(folder) / MANIFEST_NAME
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{folder}: no {MANIFEST_NAME}; this is no finished langadapt folder, make it again") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not a valid manifest ({error}); delete the folder and make it again") from None
    whole = isinstance(manifest, dict) and {"stage", "files", "settings", "inputs"} <= manifest.keys()
    if not whole or not are_described(manifest["files"]):
        raise DataError(f"{path}: not a langadapt manifest; delete the folder and make it again")
    return dict(manifest)


def is_described(folder: Path) -> bool:
    """Whether ``folder`` has a manifest of ours."""
    try:
        read_manifest(folder)
    except (DataError, OSError):
        return False
    return True


def are_described(files: Any) -> bool:
    """Whether a value from a manifest is one that :func:`describe_files` once gave."""
    return isinstance(files, dict) and all(
        isinstance(entry, dict) and {"bytes", "xxh3_128"} <= entry.keys() for entry in files.values()
    )


def verify(folder: Path, *, hashes: bool = True) -> dict[str, Any]:
    """Check the files of ``folder`` against its manifest and return the manifest.

    ``hashes=False`` compares sizes only: enough against half-written files, and free on large stores.

    Raises:
        DataError: names the first file that is missing or differs.
    """
    manifest = read_manifest(folder)
    check_files(Path(folder), manifest["files"], hashes=hashes)
    return manifest
