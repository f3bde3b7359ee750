"""Files beyond this machine, by URL: which there are, how long they are, and their bytes, in ranges.

The package ``fsspec`` and its kin speak to the stores and find credentials where each store's own tools look for them.
What a message, a stamp or a manifest says of a file is :func:`shown`, which has neither query nor password; texts of
foreign errors, which may have both, are never passed on.
"""

from __future__ import annotations

import errno
import importlib
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from langadapt import _core
from langadapt.artefacts.names import MANIFEST_NAME, UPLOAD_NAME
from langadapt.errors import ConfigError, DataError, LangadaptError

Value = TypeVar("Value")

SCHEMES = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs", "hf": "huggingface_hub", "https": "aiohttp", "http": "aiohttp"}
"""Of URLs, and the package that each needs besides ``fsspec``."""
WEB = ("https", "http")
"""Of single files, which nobody lists."""
CHUNK, BLOCK = 8 << 20, 1 << 16
"""Bytes that are asked for at a time, and that are taken at a time."""
TRIES, PATIENCE = 6, 60.0
"""Of one question to a store: how often, and for how many seconds of silence each time."""
WAIT, LONGEST_WAIT = 0.5, 8.0
"""Seconds before the second try, doubled before each further one, and at most."""
URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
TEXT = re.compile(r".*(\.(jsonl|ndjson|txt)(\.gz|\.zst)?|\.json(\.gz|\.zst)|\.parquet)", re.IGNORECASE | re.DOTALL)
"""Endings of what is text in a folder; a plain ``.json`` there nearly always describes others."""
VERSIONS = ("ETag", "etag", "md5Hash", "blob_id", "Last-Modified", "LastModified", "last_modified", "mtime")
"""What stores call that which changes with a file, best first."""
FINAL = {errno.EINVAL, errno.EPERM, errno.ENOSYS, errno.ENAMETOOLONG}


@dataclass(frozen=True)
class RemoteFile:
    """One file in a store, as it was when it was looked up."""

    url: str = field(repr=False)
    """To ask for it again; may hold a signature, so nobody is shown it."""
    name: str
    """For people, manifests and stamps."""
    size: int
    """Bytes."""
    version: str
    """What changes with its content; empty where the store tells nothing of the kind."""

    def __str__(self) -> str:
        return self.name

    @property
    def fingerprint(self) -> str:
        """Changes with its name, size or version: what stands for its content, which nobody has read yet."""
        return str(_core.hash_bytes(f"{self.name}\n{self.size}\n{self.version}".encode()))

    def fetch(self, to: Path, stop: threading.Event) -> None:
        """Write it to ``to``; a range that does not come whole is asked for again.

        Raises:
            DataError: it is not as long as the store says, or has changed meanwhile.
            FileNotFoundError, PermissionError, LangadaptError: see :func:`patiently`.
        """
        with to.open("wb") as out:
            for start in range(0, self.size, CHUNK):
                got = bytearray()
                patiently(self.name, partial(self.more, got, start, min(start + CHUNK, self.size)), stop=stop)
                out.write(got)
                if stop.is_set():
                    return
        now = looked_up(self.url, stop=stop)
        if (now.size, now.version) != (self.size, self.version):
            raise DataError(f"{self.name}: changed while it was read; run the same command again")

    def more(self, got: bytearray, start: int, end: int) -> None:
        """Add to ``got`` what it lacks of the bytes from ``start`` up to ``end``; what has come when it fails stays."""
        store, path = open_store(self.url)
        first, ask = start + len(got), STREAMED.get(scheme_of(self.url))
        if first < end and ask is not None:
            importlib.import_module("fsspec.asyn").sync(store.loop, ask, store, path, (first, end, self.size), got)
        elif first < end:
            got += store.cat_file(path, start=first, end=end)
        if len(got) != end - start:
            problem = f"{len(got):,} bytes at {start:,}, where its size of {self.size:,} promises {end - start:,}"
            got.clear()
            raise Wrong(problem)


class Wrong(OSError):
    """An answer that is not what was asked for; may be better at the next try."""


async def of_web(store: Any, url: str, part: tuple[int, int, int], got: bytearray) -> None:
    """Add bytes of a file on the web, as they come: from, to, and how many it has in all."""
    start, end, whole = part
    session = await store.set_session()
    headers = {"Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity"}
    async with session.get(store.encode_url(url), headers=headers) as answer:
        answer.raise_for_status()
        if answer.status != 206:
            raise NotImplementedError("its server gives no ranges, so nothing could be resumed; download it first")
        told = answer.headers.get("Content-Range", "").rpartition("/")[2]
        if told.isdecimal() and int(told) != whole:
            raise ValueError(f"{int(told):,} bytes long by one answer of its server, {whole:,} by another")
        async for block in answer.content.iter_any():
            got += block


async def of_s3(store: Any, path: str, part: tuple[int, int, int], got: bytearray) -> None:
    """Add bytes of a file in S3, as they come; `cat_file` of `s3fs` would give all of them or none."""
    bucket, key, version = store.split_path(path)
    named = {"Bucket": bucket, "Key": key, **({"VersionId": version} if version else {})}
    body = (await store._call_s3("get_object", Range=f"bytes={part[0]}-{part[1] - 1}", **named))["Body"]
    try:
        while block := await body.read(BLOCK):
            got += block
    finally:
        body.close()


STREAMED = {"https": of_web, "http": of_web, "s3": of_s3}
"""Of stores whose bytes are had as they come, so that a dropped connection is taken up at the byte."""


def is_remote(name: str) -> bool:
    """Whether a name is a URL."""
    return URL.match(name) is not None


def scheme_of(name: str) -> str:
    """The scheme of a URL."""
    return name.partition("://")[0].lower()


def shown(name: str) -> str:
    """A name as it may be seen: a URL without password, query and fragment."""
    if not is_remote(name):
        return name
    scheme, _, rest = name.partition("://")
    if scheme.lower() in WEB:
        rest = re.split(r"[?#]", rest, maxsplit=1)[0]
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2] if scheme.lower() in WEB else host}{slash}{path}"


def all_shown(value: Any) -> Any:
    """Plain values in which each URL is as it may be seen."""
    if isinstance(value, str):
        return shown(value)
    if isinstance(value, Mapping):
        return {key: all_shown(one) for key, one in value.items()}
    return [all_shown(one) for one in value] if isinstance(value, list | tuple) else value


def open_store(url: str, *, tries: int = 1) -> tuple[Any, str]:
    """What speaks to a URL's store, asking ``tries`` times by itself where it can, and the path there.

    Raises:
        ConfigError: an unknown scheme, a package that is not installed, a password in the URL.
    """
    scheme = scheme_of(url)
    if scheme not in SCHEMES:
        known = ", ".join(f"{one}://" for one in SCHEMES)
        raise ConfigError(f"{shown(url)}: {scheme}:// is no scheme that is read here; there are {known}")
    package = SCHEMES[scheme]
    if find_spec("fsspec") is None or find_spec(package) is None:
        extra = "`langadapt[remote]`" if scheme in ("s3", *WEB) else f"`{package}`"
        raise ConfigError(f"{shown(url)}: {scheme}:// needs the package `{package}`; install {extra}")
    if scheme in WEB and "@" in url.partition("://")[2].partition("/")[0]:
        raise ConfigError(f"{shown(url)}: a password in a URL is seen by all; put it into ~/.netrc")
    fsspec = importlib.import_module("fsspec")
    options: dict[str, Any] = {"use_listings_cache": False}
    if scheme == "s3":
        # All others are those of `patiently`.
        once = {"mode": "standard", "total_max_attempts": tries}
        options["config_kwargs"] = {"connect_timeout": PATIENCE, "read_timeout": PATIENCE, "retries": once}
    elif scheme in WEB:
        silence = importlib.import_module("aiohttp").ClientTimeout(None, sock_connect=PATIENCE, sock_read=PATIENCE)
        options["client_kwargs"] = {"timeout": silence, "trust_env": True}
    try:
        store = fsspec.filesystem(scheme, **options)
    except (ValueError, TypeError, OSError) as error:
        raise ConfigError(f"{shown(url)}: cannot be reached ({type(error).__name__}); are its settings set?") from None
    if scheme == "s3":
        store.retries = tries
    return store, str(store._strip_protocol(url))


def patiently(name: str, ask: Callable[[], Value], *, stop: threading.Event | None = None) -> Value:
    """What a store answers, asked again after each failure that may pass: :data:`TRIES` times in all.

    Raises:
        FileNotFoundError, PermissionError: there is nothing of this name, or no right to it.
        LangadaptError: nothing came; says what was the matter.
    """
    stop = threading.Event() if stop is None else stop
    for number in range(TRIES):
        try:
            return ask()
        except (ConfigError, DataError):
            raise
        except Exception as error:
            problem, passes = explained(error)
            if not passes:
                raise named(problem, name) from None
        if stop.wait(min(WAIT * 2**number, LONGEST_WAIT)):
            break
    raise LangadaptError(f"{name}: {TRIES} tries were in vain ({problem}); run the same command again") from None


def named(problem: str | OSError, name: str) -> Exception:
    """The error for a problem with a file."""
    if isinstance(problem, OSError):
        return type(problem)(problem.errno, problem.strerror, name)
    return LangadaptError(f"{name}: {problem}")


def explained(error: BaseException) -> tuple[str | OSError, bool]:
    """What is the matter, in words of our own, and whether it may pass."""
    chain = [*causes(error)]
    last = chain[-1]
    status = next((found for found in map(status_of, reversed(chain)) if found is not None), None)
    if status in (401, 403) or any(isinstance(one, PermissionError) for one in chain):
        return PermissionError(errno.EACCES, "access denied; this machine's credentials have no right to it"), False
    if any(word in type(one).__name__ for one in chain for word in ("Credential", "Token", "ProfileNotFound")):
        return "no valid credentials; set them up as for the store's own command line (for S3: AWS_PROFILE)", False
    if status in (404, 410) or (status is None and isinstance(last, FileNotFoundError)):
        return FileNotFoundError(errno.ENOENT, "no such file, folder or bucket"), False
    if isinstance(last, Wrong):
        return str(last), True
    if isinstance(last, ValueError | NotImplementedError) and type(last).__module__ == "builtins" and len(chain) == 1:
        return str(last), False
    if status is not None and 400 <= status < 500 and status not in (408, 409, 425, 429):
        return f"the store refuses it (status {status})", False
    if isinstance(error, OSError) and error.errno in FINAL and status is None:
        return f"the store refuses it ({type(last).__name__})", False
    return (f"status {status}" if status is not None and status >= 400 else type(last).__name__), True


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it was raised from."""
    while error is not None:
        yield error
        error = error.__cause__


def status_of(error: BaseException) -> int | None:
    """Of HTTP, where an answer had one."""
    answer = getattr(error, "response", None)
    if isinstance(answer, Mapping):
        found = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        found = getattr(error, "status", None) or getattr(answer, "status_code", None)
        # The parser of `aiohttp` has a code too, 400, for an answer that broke off.
        if found is None and not type(error).__module__.startswith("aiohttp"):
            found = getattr(error, "code", None)
    return found if isinstance(found, int) and 100 <= found < 600 else None


def looked_up(url: str, *, stop: threading.Event | None = None) -> RemoteFile:
    """The file at ``url``.

    Raises:
        DataError: the store does not say how long it is, or it is a folder.
        ConfigError, FileNotFoundError, PermissionError, LangadaptError: see :func:`open_store`, :func:`patiently`.
    """
    found = about(url, stop=stop)
    if found.get("type") == "directory":
        raise DataError(f"{shown(url)}: a folder, where a file is wanted")
    return described(url, found)


def about(url: str, *, stop: threading.Event | None = None) -> Mapping[str, Any]:
    """What a store says of a file or folder, asked anew."""
    store, path = open_store(url)

    def ask() -> Mapping[str, Any]:
        store.invalidate_cache()
        found: Mapping[str, Any] = store.info(path)
        return found

    return patiently(shown(url), ask, stop=stop)


def described(url: str, found: Mapping[str, Any]) -> RemoteFile:
    """A file as its store describes it."""
    size = found.get("size")
    if not isinstance(size, int):
        raise DataError(f"{shown(url)}: its store does not say how long it is, so nobody knows when it is whole")
    if not shown(url).isprintable():
        raise DataError(f"{shown(url)!a}: a name with characters that no line can hold; rename the file")
    told = next((found[key] for key in VERSIONS if found.get(key)), "")
    version = told.isoformat() if hasattr(told, "isoformat") else str(told).strip('"')
    return RemoteFile(url, shown(url), size, version)


def expand(name: str) -> list[RemoteFile]:
    """The files of text that a URL stands for: a file, a folder or a pattern, in the order of a local disk.

    Raises:
        DataError: a folder or pattern without files, a half upload.
        ConfigError, FileNotFoundError, PermissionError, LangadaptError: see :func:`open_store`, :func:`patiently`.
    """
    store, path = open_store(name)
    if scheme_of(name) in WEB:
        return [looked_up(name)]
    try:
        first = about(name)
    except FileNotFoundError:
        if not any(mark in path for mark in "*?["):
            raise
        found = listed(name, partial(store.glob, path, detail=True))
        if not found:
            raise DataError(f"{name}: no file matches this pattern") from None
        return [*found.values()]
    if first.get("type") != "directory":
        return [described(name, first)]
    return texts_below(name.rstrip("/"), listed(name, partial(store.find, path, detail=True)), path.rstrip("/"))


def listed(name: str, ask: Callable[[], Mapping[str, Mapping[str, Any]]]) -> dict[str, RemoteFile]:
    """Files by path, sorted by its parts, as paths on a disk are."""
    store, _ = open_store(name)

    def anew() -> Mapping[str, Mapping[str, Any]]:
        store.invalidate_cache()
        return ask()

    found = patiently(name, anew)
    files = {path: one for path, one in found.items() if one.get("type") == "file" and not path.endswith("/")}
    scheme = scheme_of(name)
    order = sorted(files, key=lambda path: [part.encode() for part in path.split("/")])
    return {path: described(f"{scheme}://{path}", files[path]) for path in order}


def texts_below(name: str, found: Mapping[str, RemoteFile], folder: str) -> list[RemoteFile]:
    """Those files of a folder that are its text; of a corpus, the training text.

    Raises:
        DataError: there are none, or the folder is not whole.
    """
    files = {path[len(folder) + 1 :]: one for path, one in found.items()}
    check_whole(name, files)
    if MANIFEST_NAME in files and "train.jsonl.zst" in files:
        return [files["train.jsonl.zst"]]
    texts = [
        one
        for path, one in files.items()
        if TEXT.fullmatch(path) and not any(part.startswith(".") for part in path.split("/"))
    ]
    if not texts:
        raise DataError(f"{name}: no file with a known ending below this folder: .jsonl, .ndjson, .txt, .parquet ...")
    return texts


def check_whole(name: str, files: Mapping[str, RemoteFile]) -> None:
    """Raise DataError for a folder that is being uploaded, or was and is not whole."""
    record = files.get(UPLOAD_NAME)
    half = record is not None and not read_record(record)["whole"]
    if half or ({"train.jsonl.zst", "validation.jsonl.zst"} <= files.keys() and MANIFEST_NAME not in files):
        raise DataError(f"{name}: a half upload, without its {MANIFEST_NAME}; end it with `langadapt upload`")


def content(file: RemoteFile) -> bytes:
    """All bytes of a small file."""
    got = bytearray()
    patiently(file.name, partial(file.more, got, 0, file.size))
    return bytes(got)


def read_record(file: RemoteFile) -> dict[str, Any]:
    """What an upload says of itself: ``whole``, and ``files`` by name with ``bytes`` and ``xxh3_128``.

    Raises:
        DataError: it says nothing of the kind.
    """
    try:
        record = json.loads(content(file))
    except (ValueError, RecursionError):
        record = None
    files = record.get("files") if isinstance(record, dict) else None
    kinds = {"bytes": int, "xxh3_128": str}
    if not isinstance(files, dict) or not all(
        isinstance(one, dict) and all(isinstance(one.get(key), kind) for key, kind in kinds.items())
        for one in files.values()
    ):
        raise DataError(f"{file.name}: damaged; delete the folder and upload it again")
    return {"whole": record.get("whole") is True, "files": files}
