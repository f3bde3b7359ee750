"""Artefact folders that are whole or absent, and know what they were made from.

Every stage writes its result into a folder beside the final place, describes it in ``manifest.json`` and renames it: a
killed process leaves the old state. A manifest holds the stage's name, the settings, fingerprints of the inputs, sizes
and hashes of all files and a summary for people. :func:`matches` tells whether a stage need not run again;
:func:`verify` finds a half-written or altered artefact and names it.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from langadapt import __version__, _core
from langadapt.errors import DataError

MANIFEST_NAME = "manifest.json"
SWAP_REPORT_NAME = "swap.json"
"""What was swapped, in the folder of a swapped model, which has no manifest: the report, and which rows are new."""


def write_atomically(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` as UTF-8 so that after a crash the file is either the old or the new one, whole."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        temporary.unlink(missing_ok=True)
        # A failed write does not say of which file.
        raise OSError(error.errno, error.strerror, str(path)) from error
    temporary.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames inside ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A temporary folder that becomes ``out`` when the block ends well, and vanishes when it does not.

    An existing ``out`` is replaced only at that moment, and only if it is empty or a folder of langadapt.

    Raises:
        FileExistsError: ``out`` is a file, or holds what langadapt has not written.
    """
    out = Path(out).resolve()  # "." has no name to put a temporary folder beside
    check_replaceable(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.rglob("*"):
            sync_file(file)
        replaced = out.with_name(f".{out.name}.{os.getpid()}.old")
        if out.exists():
            out.rename(replaced)
        temporary.rename(out)
        sync_folder(out.parent)
        shutil.rmtree(replaced, ignore_errors=True)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def check_replaceable(out: Path) -> None:
    """Refuse to replace what may be somebody's work: ``--out ~`` must not cost a home directory.

    Raises:
        FileExistsError: see :func:`new_folder`.
    """
    if out.is_dir():
        if any(out.iterdir()) and not is_ours(out):
            problem = "holds files that langadapt has not written, and would be replaced; name another folder"
            raise FileExistsError(errno.EEXIST, problem, str(out))
    elif out.exists():
        raise FileExistsError(errno.EEXIST, "is a file; name a folder", str(out))


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


def is_ours(folder: Path) -> bool:
    """Whether langadapt made ``folder``."""
    if (folder / SWAP_REPORT_NAME).is_file():
        return True
    try:
        return bool(read_manifest(folder))
    except DataError:
        return False


def sync_file(file: Path) -> None:
    """Flush one file, or the entries of one folder, to the disk."""
    if file.is_dir():
        sync_folder(file)
        return
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(out: Path) -> None:
    """Delete what killed runs left beside ``out`` and in it; call only while no other run writes there."""
    for path in (*out.parent.glob(f".{out.name}.*"), *out.glob(".*.tmp")):
        if path.suffix == ".old" and not out.exists():
            # Killed between the two renames of `new_folder`: the old state is the only whole one.
            path.rename(out)
        elif path.suffix in {".tmp", ".old"}:
            shutil.rmtree(path, ignore_errors=True)
            with suppress(OSError):
                path.unlink()


def fingerprint(path: Path) -> str:
    """A 128-bit hash, in hex, of a file's bytes, or of the names and bytes of all files below a folder."""
    path = Path(path)
    if path.is_dir():
        manifest = path / MANIFEST_NAME
        # A described folder is known by its description, which holds the hashes of all its files.
        if manifest.is_file():
            return str(_core.hash_file(manifest))
        lines = [f"{file.relative_to(path)} {_core.hash_file(file)}" for file in files_below(path)]
        return str(_core.hash_bytes("\n".join(lines).encode()))
    return str(_core.hash_file(path))


def files_below(folder: Path) -> list[Path]:
    """All files below ``folder`` in a fixed order, hidden ones left out."""
    found = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def describe_files(path: Path) -> dict[str, dict[str, Any]]:
    """Sizes and hashes of a file, or of all files below a folder (its manifest left out), by relative name."""
    if path.is_file():
        return {"": {"bytes": path.stat().st_size, "xxh3_128": _core.hash_file(path)}}
    return {
        file.relative_to(path).as_posix(): {"bytes": file.stat().st_size, "xxh3_128": _core.hash_file(file)}
        for file in files_below(path)
        if file != path / MANIFEST_NAME
    }


def check_files(path: Path, expected: Mapping[str, Mapping[str, Any]], *, hashes: bool = True) -> None:
    """Compare a file or folder with what :func:`describe_files` once said.

    Raises:
        DataError: names the first file that is missing or differs.
    """
    for name, wanted in expected.items():
        file = path / name if name else path
        if not file.is_file():
            raise DataError(f"{file}: missing, although the manifest lists it; delete {path} and make it again")
        if file.stat().st_size != wanted["bytes"] or (hashes and _core.hash_file(file) != wanted["xxh3_128"]):
            raise DataError(
                f"{file}: altered or half-written, it differs from its manifest; delete {path} and make it again"
            )


def write_manifest(
    folder: Path, stage: str, settings: Mapping[str, Any], inputs: Mapping[str, str], summary: Mapping[str, Any]
) -> dict[str, Any]:
    """Describe all files of ``folder`` and return the manifest.

    ``settings`` and ``inputs`` (name to fingerprint) decide whether the stage need run again; ``summary`` does not.
    """
    manifest = {
        "stage": stage,
        "langadapt": __version__,
        "settings": dict(settings),
        "inputs": dict(inputs),
        "summary": dict(summary),
        "files": describe_files(folder),
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
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a valid manifest ({error}); delete the folder and make it again") from None
    whole = isinstance(manifest, dict) and {"stage", "files", "settings", "inputs"} <= manifest.keys()
    if not whole or not are_described(manifest["files"]):
        raise DataError(f"{path}: not a langadapt manifest; delete the folder and make it again")
    return dict(manifest)


def are_described(files: Any) -> bool:
    """Whether a value from a manifest is one that :func:`describe_files` once gave."""
    return isinstance(files, dict) and all(
        isinstance(entry, dict) and {"bytes", "xxh3_128"} <= entry.keys() for entry in files.values()
    )


def matches(folder: Path, stage: str, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> bool:
    """Whether ``folder`` holds a whole result of ``stage`` for these settings and inputs.

    Raises:
        DataError: the folder has a manifest but its files are not those that the manifest lists.
    """
    if not (Path(folder) / MANIFEST_NAME).is_file():
        return False
    manifest = read_manifest(folder)
    wanted = json.loads(json.dumps({"stage": stage, "settings": dict(settings), "inputs": dict(inputs)}))
    if {key: manifest[key] for key in wanted} != wanted:
        return False
    verify(folder, hashes=False)
    return True


def verify(folder: Path, *, hashes: bool = True) -> dict[str, Any]:
    """Check the files of ``folder`` against its manifest and return the manifest.

    ``hashes=False`` compares sizes only: enough against half-written files, and free on large stores.

    Raises:
        DataError: names the first file that is missing or differs.
    """
    manifest = read_manifest(folder)
    check_files(Path(folder), manifest["files"], hashes=hashes)
    return manifest
