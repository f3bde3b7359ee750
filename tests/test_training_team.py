"""Several processes train as one does."""

from __future__ import annotations

import shutil
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


def test_processes_of_one_launch_know_each_other_on_every_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    from langadapt.pipeline import launch

    names = []
    for parent, port in ((10, "29500"), (20, "29500"), (30, "29501")):
        monkeypatch.setattr("os.getppid", lambda parent=parent: parent)
        for name, value in {
            "WORLD_SIZE": "4",
            "LOCAL_WORLD_SIZE": "2",
            "MASTER_ADDR": "a",
            "MASTER_PORT": port,
        }.items():
            monkeypatch.setenv(name, value)
        names.append(launch())
    assert names[0] == names[1] != names[2]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert launch() != names[2] and "30" in launch()
