"""Pushing a model, against a stand-in for the hub that speaks the few calls which an upload makes."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tiny import byte_tokenizer, tiny_llama

from langadapt.artefacts.folders import write_manifest
from langadapt.errors import ConfigError, DataError, LangadaptError
from langadapt.export import push_to_hub

# Of the hub's client about itself.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


class Hub(ThreadingHTTPServer):
    """Repositories in memory; large files come past the commit, by their hash."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server_address[1]}"
        self.files: dict[str, bytes] = {}
        self.objects: dict[str, bytes] = {}
        self.made: list[dict[str, Any]] = []
        self.commits: list[str] = []
        self.refuses: dict[str, int] = {}


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: Any) -> None:
        """Nothing on stderr."""

    def reply(self, content: Any, status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def answer(self) -> None:
        hub, path, body = self.server, self.path.partition("?")[0], self.body()
        for part, status in hub.refuses.items():
            if part in path:
                return self.reply({"error": "no"}, status)
        if path == "/api/repos/create":
            hub.made.append(json.loads(body))
            return self.reply({"url": f"{hub.address}/o/m"})
        if "/tree/" in path:
            return self.reply([{"type": "file", "path": name, "size": 1, "oid": "0" * 40} for name in hub.files])
        if "/preupload/" in path:
            asked = json.loads(body)["files"]
            mode = {True: "lfs", False: "regular"}
            found = [{"path": one["path"], "uploadMode": mode[one["path"].endswith(".safetensors")]} for one in asked]
            return self.reply({"files": [{**one, "shouldIgnore": False} for one in found]})
        if path.endswith("/info/lfs/objects/batch"):
            upload = {"href": f"{hub.address}/put"}
            objects = [
                {**one, "actions": {"upload": {"href": f"{upload['href']}/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            return self.reply({"transfer": "basic", "objects": objects})
        if path.startswith("/put/"):
            hub.objects[path.removeprefix("/put/")] = body
            return self.reply({})
        if path == "/api/validate-yaml":
            return self.reply({"errors": [], "warnings": []})
        if "/commit/" not in path:
            return self.reply({}, 404)
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                hub.commits.append(value["summary"])
            elif line["key"] == "file":
                hub.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                hub.files[value["path"]] = hub.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                del hub.files[value["path"]]
        return self.reply({"commitUrl": f"{hub.address}/o/m/commit/1", "commitOid": "1", "hookOutput": ""})

    do_GET = do_POST = do_PUT = answer


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    from huggingface_hub import constants

    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    for name, value in {"HF_HUB_DISABLE_XET": True, "HF_HUB_OFFLINE": False}.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setenv("HF_TOKEN", "hf_none")
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "final"
    tiny_llama().save_pretrained(folder)
    byte_tokenizer(eos_token="<e>").save_pretrained(folder)
    write_manifest(folder, "train", {}, {}, summary={})
    (folder / "README.md").write_text("---\nbase_model: x\n---\n")
    (folder / ".notes").write_text("mine")
    return folder


def test_what_arrives_is_the_folder_and_its_card(hub: Hub, model: Path) -> None:
    hub.files = {"model-00001-of-00002.safetensors": b"old", "LICENSE": b"theirs"}
    assert push_to_hub(model, "o/m") == f"{hub.address}/o/m/commit/1"
    assert hub.made[0]["visibility"] == "private" and hub.commits == ["final, made with langadapt"]
    sent = {file.name: file.read_bytes() for file in model.iterdir() if not file.name.startswith(".")}
    assert "model.safetensors" in sent and hub.files == {**sent, "LICENSE": b"theirs"}


def test_a_damaged_model_is_not_sent(hub: Hub, model: Path) -> None:
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    with pytest.raises(DataError, match="differs from its manifest"):
        push_to_hub(model, "o/m")
    (model / "README.md").unlink()
    weights.unlink()
    with pytest.raises(DataError):
        push_to_hub(model, "o/m")
    assert not hub.made


def test_why_the_hub_does_not_take_it(hub: Hub, model: Path) -> None:
    hub.refuses = {"/api/repos/create": 401}
    with pytest.raises(LangadaptError, match=r"o/m: not sent, the hub wants a token that may write there"):
        push_to_hub(model, "o/m")
    hub.refuses = {"/preupload/": 403}
    with pytest.raises(LangadaptError, match="a token that may write"):
        push_to_hub(model, "o/m")
    with pytest.raises(LangadaptError, match="names are like `owner/model`"):
        push_to_hub(model, "o/m o")
    (model / "README.md").unlink()
    with pytest.raises(ConfigError, match=r"no README.md; `langadapt report RUN` writes the model card"):
        push_to_hub(model, "o/m")
