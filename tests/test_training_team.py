"""Several processes train as one does."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from training_kit import Stop, crash_after, journal, losses, tiny_model, torchrun, train, weights

from langadapt.training import checkpoint


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one_and_resume_as_one_and_as_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_model().save_pretrained(tmp_path / "model")
    exact = {"precision": "fp32", "rounding": "nearest", "checkpoint_every": 4, "keep_checkpoints": 9, "log_every": 1}
    run = {"model": str(tmp_path / "model"), "embeddings_first_steps": 2, "new_rows": [5, 40], **exact}
    train(tmp_path / "one", run["model"], new_rows=[5, 40], embeddings_first_steps=2, **exact)
    torchrun(2, out=str(tmp_path / "two"), **run)
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-5)
    one, two = weights(tmp_path / "one" / "final"), weights(tmp_path / "two" / "final")
    for name in one:
        torch.testing.assert_close(two[name].float(), one[name].float(), rtol=1e-2, atol=1e-4)
    # Two processes' checkpoint in the middle, gone on with by one; that one's checkpoint, gone on with by two.
    for step in ("00000012", "00000014"):
        shutil.rmtree(tmp_path / "two" / "checkpoints" / f"step-{step}")
    shutil.rmtree(tmp_path / "two" / "final")
    with monkeypatch.context() as patch, pytest.raises(Stop):
        crash_after(13, patch)
        train(tmp_path / "two", run["model"], new_rows=[5, 40], embeddings_first_steps=2, **exact)
    assert checkpoint.newest(tmp_path / "two" / "checkpoints")[0].name == "step-00000012"
    torchrun(2, out=str(tmp_path / "two"), **run)
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-5)


@pytest.mark.slow
def test_two_machines_of_two_processes_shard_inside_and_replicate_between(tmp_path: Path) -> None:
    """Norms are of another dtype than the rest and travel by themselves; the norm counts each shard once; gradients of
    two micro-batches are summed before they are sent; checkpoints are written meanwhile."""
    tiny_model().save_pretrained(tmp_path / "model")
    run = {"model": str(tmp_path / "model"), "embeddings_first_steps": 2, "new_rows": [5, 40], "log_every": 1}
    run |= {"norms_in_fp32": True, "steps": 4, "batch_sequences": 8, "micro_batch": 1}
    train(tmp_path / "one", **run)
    torchrun(2, nodes=2, out=str(tmp_path / "four"), sharding="hybrid", checkpoint_every=2, background=True, **run)
    assert losses(tmp_path / "four") == pytest.approx(losses(tmp_path / "one"), rel=1e-3)
    one, four = ([line["grad_norm"] for line in journal(tmp_path / name) if "loss" in line] for name in ("one", "four"))
    assert four == pytest.approx(one, rel=5e-2)
    saved = list((tmp_path / "four" / "checkpoints" / "step-00000006").glob("*.safetensors"))
    assert len(saved) == 4


@pytest.mark.slow
def test_compiled_blocks_of_two_processes_go_on_with_the_losses_of_one_that_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_model(num_hidden_layers=1).save_pretrained(tmp_path / "model")
    run = {"precision": "fp32", "rounding": "nearest", "checkpoint_every": 2, "log_every": 1, "steps": 5}
    train(tmp_path / "whole", str(tmp_path / "model"), **run)
    with monkeypatch.context() as patch, pytest.raises(Stop):
        crash_after(2, patch)
        train(tmp_path / "run", str(tmp_path / "model"), **run)
    # Traced and differentiated as always; a C++ compiler would take two minutes (and gives the same losses).
    compiled = {"compile": True, "activation_checkpointing": "selective", "backend": "aot_eager"}
    torchrun(2, out=str(tmp_path / "run"), model=str(tmp_path / "model"), **run, **compiled)
    assert losses(tmp_path / "run") == pytest.approx(losses(tmp_path / "whole"), rel=1e-5)
    one, two = weights(tmp_path / "whole" / "final"), weights(tmp_path / "run" / "final")
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(two[name].float(), one[name].float(), rtol=1e-2, atol=1e-4)


PARTNER = """
import os, sys, time, signal
from pathlib import Path
from langadapt.errors import LangadaptError
from langadapt.training import TrainSettings, parallel

parallel.NETWORK_DISK = 0.5
processes = parallel.join(TrainSettings(steps=1, batch_sequences=2, device="cpu"))
here = Path(sys.argv[1])

def slow():
    time.sleep(0.5)
    (here / "made").touch()
    return "made"

assert parallel.main_process_first(processes, here, slow) == "made" and (here / "made").exists()
try:
    parallel.main_process_first(processes, here if processes.is_main else here.parent, slow)
except LangadaptError as error:
    print(error, flush=True)
if processes.rank == 1:
    os.kill(os.getpid(), signal.SIGKILL)
try:
    with parallel.explain_lost_process(processes, here):
        processes.all_gather(1)
except LangadaptError as error:
    print(error, flush=True)
os._exit(0)
"""


def test_processes_wait_for_the_first_need_one_folder_and_end_with_each_other(tmp_path: Path) -> None:
    """As on two machines: without a launcher that ends the one when the other dies."""
    (tmp_path / "out").mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    command = [sys.executable, "-c", PARTNER, str(tmp_path / "out")]
    begun = time.monotonic()
    started = [
        subprocess.Popen(
            command, env={**os.environ, **place, "RANK": str(rank), "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE
        )
        for rank in range(2)
    ]
    texts = [process.communicate(timeout=60)[0].decode() for process in started]
    assert [process.returncode for process in started] == [0, -signal.SIGKILL] and time.monotonic() - begun < 50
    assert all("is not seen on" in text and "set `out` to a folder that all machines share" in text for text in texts)
    assert "process 0 of 2: another process has ended or cannot be reached; its own output says why" in texts[0]
    assert not list(tmp_path.rglob(".shared-*"))
