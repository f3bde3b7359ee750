"""Stores on this machine: S3 as `moto` plays it, behind a server that misbehaves on request; and files on the web."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from langadapt.artefacts import remote
from langadapt.artefacts.remote import open_store

Fault = Callable[["Request"], str | None]
"""What goes wrong with a request: a status, ``cut``, ``reset``, ``slow``, or nothing."""
DENIED = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>SECRET</Message></Error>"
SLOW_DOWN = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Slow</Message></Error>"


class Request:
    """What was asked."""

    def __init__(self, method: str, path: str, range: str | None) -> None:
        self.method, self.path, self.range = method, path, range

    @property
    def start(self) -> int:
        """First byte that is wanted."""
        return int(self.range.removeprefix("bytes=").partition("-")[0]) if self.range else 0


class Server:
    """A server on 127.0.0.1: of `files`, by path, or in front of another one."""

    def __init__(self, behind: str | None = None) -> None:
        self.behind = behind
        self.files: dict[str, bytes] = {}
        self.headers: dict[str, str] = {}
        """More of them, in each answer."""
        self.fault: Fault = lambda request: None
        self.requests: list[Request] = []
        self.ranges = True
        self.patience = 3.0
        """Seconds of silence of ``slow``."""
        handler = type("Handler", (Handler,), {"owner": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        # Who asked may be gone by now.
        self.server.handle_error = lambda request, address: None  # type: ignore[method-assign]
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def reset(self) -> None:
        """Behave again."""
        self.fault, self.requests, self.headers, self.ranges = lambda request: None, [], {}, True

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


class Handler(BaseHTTPRequestHandler):
    """Answers one request, well or not."""

    owner: Server
    protocol_version = "HTTP/1.1"

    def handle_one(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = Request(self.command, self.path, self.headers.get("Range"))
        self.owner.requests.append(request)
        wrong = self.owner.fault(request)
        self.close_connection = True
        if wrong == "reset":
            return
        if wrong == "slow":
            time.sleep(self.owner.patience)
        if wrong is not None and wrong.isdecimal():
            self.answer(int(wrong), {}, DENIED if wrong == "403" else SLOW_DOWN)
            return
        status, headers, content = self.passed_on(body) if self.owner.behind else self.own(request)
        self.answer(status, headers, content, cut=wrong == "cut")

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_one

    def own(self, request: Request) -> tuple[int, dict[str, str], bytes]:
        content = self.owner.files.get(request.path)
        if content is None:
            return 404, {}, b"no"
        tag = {"ETag": f'"{len(content)}-{hash(content)}"', "Last-Modified": formatdate(0), **self.owner.headers}
        if request.range is None or not self.owner.ranges:
            return 200, tag, content
        first, _, last = request.range.removeprefix("bytes=").partition("-")
        part = content[int(first) : int(last) + 1]
        return 206, {"Content-Range": f"bytes {first}-{last}/{len(content)}", **tag}, part

    def passed_on(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        wanted = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
        # Else `urllib` calls it a form, and the store takes it for one.
        wanted.setdefault("Content-Type", "binary/octet-stream")
        asked = urllib.request.Request(
            f"{self.owner.behind}{self.path}", data=body or None, headers=wanted, method=self.command
        )
        try:
            with urllib.request.urlopen(asked) as answer:
                return answer.status, dict(answer.headers), answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, dict(error.headers), error.read()

    def answer(self, status: int, headers: dict[str, str], content: bytes, *, cut: bool = False) -> None:
        self.send_response_only(status)
        length = headers.get("Content-Length", str(len(content))) if self.command == "HEAD" else str(len(content))
        told = {**headers, "Content-Length": headers.get("Content-Length") and length, "Connection": "close"}
        if "Content-Length" not in headers:
            told["Content-Length"] = length
        for name, value in told.items():
            if value and name.lower() not in ("transfer-encoding", "server", "date"):
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if cut else content)

    def log_message(self, *given: Any) -> None:
        """Not a word."""


def once(wrong: str, wanted: Callable[[Request], bool], times: int = 1) -> Fault:
    """A fault of the first so many requests of a kind."""
    left = [times]

    def fault(request: Request) -> str | None:
        if left[0] > 0 and wanted(request):
            left[0] -= 1
            return wrong
        return None

    return fault


@contextlib.contextmanager
def s3_server() -> Iterator[Server]:
    """A server that plays S3, with a bucket ``texts``, and credentials for it in the environment."""
    moto = pytest.importorskip("moto.server", reason="`moto` is not installed (.ci/requirements-dev.txt)")
    s3fs = pytest.importorskip("s3fs", reason="`s3fs` is not installed (the extra `langadapt[remote]`)")
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    store = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    store.start()
    host, port = store.get_host_and_port()
    server = Server(f"http://{host}:{port}")
    keys = {"AWS_ENDPOINT_URL": server.url, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "SECRET-OF-S3"}
    keys |= {"AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true", "NO_PROXY": "127.0.0.1"}
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
            patch.delenv(name, raising=False)
        for name, value in keys.items():
            patch.setenv(name, value)
        patch.setattr(remote, "WAIT", 0.01)
        # Of another such server, maybe; and what `moto` keeps belongs to the process.
        s3fs.S3FileSystem.clear_instance_cache()
        urllib.request.urlopen(f"{server.behind}/moto-api/reset", data=b"").close()
        open_store("s3://texts")[0].mkdir("texts")
        yield server
    s3fs.S3FileSystem.clear_instance_cache()
    server.close()
    store.stop()


def put(url: str, content: bytes) -> None:
    """Lay a file into a store."""
    store, path = open_store(url)
    store.pipe_file(path, content)


def put_folder(folder: Path, url: str) -> None:
    """Lay all files of a folder into a store."""
    for file in folder.rglob("*"):
        if file.is_file():
            put(f"{url}/{file.relative_to(folder).as_posix()}", file.read_bytes())


@pytest.fixture(scope="module", name="s3")
def s3_of_module() -> Iterator[Server]:
    with s3_server() as server:
        yield server


@pytest.fixture(autouse=True)
def behaves(request: pytest.FixtureRequest) -> Iterator[None]:
    """Faults last no longer than the test that asked for them."""
    yield
    if "s3" in request.fixturenames:
        request.getfixturevalue("s3").reset()


@pytest.fixture
def url(request: pytest.FixtureRequest, s3: Server) -> str:
    """A folder of its own for each test."""
    return f"s3://texts/{request.node.name}"
