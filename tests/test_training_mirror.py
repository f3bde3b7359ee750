"""Checkpoints in a store while training goes on: a run whose machine is gone goes on on another one, from there."""

from __future__ import annotations

import json
import logging
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from remote_kit import Request, Server, behaves, put, s3_of_module, url
from tiny import byte_tokenizer, tiny_llama
from training_kit import Stop, crash_after, journal, tiny_model, torchrun, train, weights

from langadapt import ConfigError, LangadaptError, MismatchError, adapt
from langadapt.artefacts import mirror
from langadapt.artefacts.mirror import Mirror, copies, newest_copy
from langadapt.artefacts.names import UPLOAD_NAME
from langadapt.artefacts.remote import open_store
from langadapt.training.checkpoint import STATE, found

__all__ = ["behaves", "s3_of_module", "url"]  # fixtures


def run(out: Path, url: str, **changes: Any) -> Any:
    return train(out, checkpoints_url=url, checkpoint_every=2, **changes)


def each_arrives(patch: pytest.MonkeyPatch) -> None:
    """As if steps took as long as sending a checkpoint does."""
    plain = Mirror.send

    def send(self: Mirror, folder: Path, kept: Any) -> None:
        plain(self, folder, kept)
        self.finish()

    patch.setattr(Mirror, "send", send)


def test_a_run_goes_on_where_its_machine_has_gone(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put(f"{url}/notes.txt", b"somebody else's")
    put(f"{url}/step-00000001/notes.txt", b"this, too")
    with monkeypatch.context() as patch:
        each_arrives(patch)
        crash_after(9, patch)
        with pytest.raises(Stop):
            run(tmp_path / "gone", url)
    assert list(copies(url)) == ["step-00000006", "step-00000008"]
    shutil.rmtree(tmp_path / "gone")
    with caplog.at_level(logging.INFO):
        run(tmp_path / "here", url)
    assert f"fetching {url}/step-00000008" in caplog.text
    assert [line["step"] for line in journal(tmp_path / "here") if "loss" in line] == [10, 12]
    train(tmp_path / "plain")
    one, other = weights(tmp_path / "here" / "final"), weights(tmp_path / "plain" / "final")
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    # The copies are those that are here, and what is not ours is still there.
    assert sorted(copies(url)) == [path.name for path in found(tmp_path / "here" / "checkpoints")]
    store, path = open_store(url)
    assert store.cat_file(f"{path}/notes.txt") and store.cat_file(f"{path}/step-00000001/notes.txt")


def test_a_recipe_goes_on_on_another_machine(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tiny_llama(vocab_size=257, max_position_embeddings=64).save_pretrained(tmp_path / "model")
    byte_tokenizer(eos_token="<e>").save_pretrained(tmp_path / "model")
    machines = [tmp_path / "gone", tmp_path / "here"]
    for machine in machines:
        machine.mkdir()
    content: dict[str, Any] = {
        "name": "x",
        "out": "out",
        "model": str(tmp_path / "model"),
        "corpus": {
            "target": [str(Path(__file__).parent / "texts" / "german.jsonl")],
            "validation_bytes": 3000,
            "validation_share": 0.2,
        },
        "tokenizer": {"vocab_size": 340},
        "swap": {"method": "mean"},
        "train": {"steps": 6, "sequence_length": 32, "batch_sequences": 2, "micro_batch": 1, "checkpoint_every": 2}
        | {"device": "cpu", "threads": 1, "checkpoints_url": f"{url}/"},
        "evaluate": {"bytes_while_training": 300},
    }
    with monkeypatch.context() as patch:
        each_arrives(patch)
        crash_after(4, patch)
        with pytest.raises(Stop):
            patch.chdir(machines[0])
            adapt(content)
    assert list(copies(f"{url}/mean")) == ["step-00000002", "step-00000004"]
    monkeypatch.chdir(machines[1])
    with caplog.at_level(logging.INFO):
        adapt(content)
    assert f"fetching {url}/mean/step-00000004" in caplog.text
    assert next(line["step"] for line in journal(Path("out/trained/mean")) if "loss" in line) > 4


@pytest.mark.slow
def test_two_processes_fetch_what_two_have_sent(tmp_path: Path, url: str) -> None:
    tiny_model().save_pretrained(tmp_path / "model")
    given: dict[str, Any] = {"model": str(tmp_path / "model"), "steps": 6, "checkpoint_every": 2, "device": "cpu"}
    for name in ("first", "second"):
        torchrun(2, out=str(tmp_path / name), checkpoints_url=url, **given)
        assert list(copies(url))[-1] == "step-00000006"
    # The second began at the first one's end.
    assert not [line for line in journal(tmp_path / "second") if "loss" in line]
    assert len([*(tmp_path / "second" / "checkpoints").glob("step-00000006/shard-*")]) == 2
    one, other = weights(tmp_path / "first" / "final"), weights(tmp_path / "second" / "final")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_half_a_copy_is_none(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        each_arrives(patch)
        run(tmp_path / "first", url)
    assert list(copies(url)) == ["step-00000010", "step-00000012"]
    put(f"{url}/step-00000012/{UPLOAD_NAME}", json.dumps({"whole": False, "files": {}}).encode())
    run(tmp_path / "second", url)
    assert [line["step"] for line in journal(tmp_path / "second") if "loss" in line] == [12]


def test_another_run_lies_there(tmp_path: Path, url: str) -> None:
    run(tmp_path / "first", url)
    with pytest.raises(MismatchError, match=rf"{url}: holds a run with other settings \(seed: 42 there, 7 here\)"):
        run(tmp_path / "second", url, seed=7)
    assert not (tmp_path / "second" / "checkpoints").exists()


def test_a_store_that_takes_nothing_is_said_at_the_start(tmp_path: Path, url: str, s3: Server) -> None:
    s3.fault = lambda request: "403" if request.method == "PUT" else None
    with pytest.raises(PermissionError, match="access denied"):
        run(tmp_path / "out", url)
    with pytest.raises(ConfigError, match="folders go to s3://"):
        run(tmp_path / "out", "https://somewhere/else")


def test_a_store_that_fails_later_costs_no_training(
    tmp_path: Path, url: str, s3: Server, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(request: Request) -> str | None:
        return "403" if request.method == "PUT" and "step-" in request.path else None

    s3.fault = refuse
    assert run(tmp_path / "out", url).steps == 12
    assert "step-00000012 was not sent: " in caplog.text and "access denied" in caplog.text


def test_the_newest_is_sent_and_ctrl_c_ends_it(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [tmp_path / f"step-{number}" for number in range(3)]
    for folder in folders:
        folder.mkdir()
        (folder / STATE).write_text(json.dumps({"name": folder.name}))
    sender = Mirror(url)
    for folder in folders:
        sender.send(folder, [])
    assert sender.busy == {"step-0", "step-2"}
    sender.finish()
    assert newest_copy(url, STATE) == ("step-2", {"name": "step-2"}) and not sender.busy
    assert list(copies(url)) == ["step-2"]
    sender.send(folders[0], [])
    child = sender.child
    assert child is not None

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(child, "wait", interrupted)
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        sender.finish()
    monkeypatch.undo()
    assert child.wait() < 0 and time.monotonic() - begun < 1


def test_a_description_that_cannot_be_read(tmp_path: Path, url: str) -> None:
    for content, said in ((b"[1]", "damaged"), (b"{}", "says nothing of its run")):
        (tmp_path / "step-1").mkdir(exist_ok=True)
        (tmp_path / "step-1" / STATE).write_bytes(content)
        mirror.send(tmp_path / "step-1", url, [])
        with pytest.raises(LangadaptError, match=said):
            run(tmp_path / "out", url)
