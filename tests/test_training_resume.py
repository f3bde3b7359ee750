"""Interrupted at any moment, a run goes on to the very same weights, and never into another run's."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from training_kit import (
    MemoryStore,
    Stop,
    crash_after,
    in_background,
    journal,
    losses,
    settings,
    tiny_model,
    train,
    weights,
)

from langadapt.errors import ConfigError, DataError, LangadaptError, MismatchError, TrainingStopped
from langadapt.training import checkpoint, meters
from langadapt.training.loop import Trainer

KIT = Path(__file__).with_name("training_kit.py")


def same(one: Path, other: Path) -> bool:
    """Whether two model folders hold the same bits."""
    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
def test_killed_at_random_moments_the_final_weights_are_bit_identical(tmp_path: Path) -> None:
    tiny_model(attention_dropout=0.1).save_pretrained(tmp_path / "model")
    run = {
        "steps": 26,
        "checkpoint_every": 2,
        "embeddings_first_steps": 4,
        "new_rows": [5, 6],
        "rounding": "stochastic",
    }
    train(tmp_path / "whole", str(tmp_path / "model"), **run)
    script = {"out": str(tmp_path / "killed"), "kill": 1, "model": str(tmp_path / "model"), **run}
    done = subprocess.run([sys.executable, str(KIT), json.dumps(script)], capture_output=True, timeout=280, check=True)
    assert int(done.stdout) >= 3
    assert same(tmp_path / "whole" / "final", tmp_path / "killed" / "final")
    steps = [line["step"] for line in journal(tmp_path / "killed")]
    assert steps == sorted(set(steps)) == [line["step"] for line in journal(tmp_path / "whole")]


@pytest.mark.parametrize(
    "changes",
    [
        {"rounding": "stochastic"},
        {"rounding": "split"},
        {"rounding": "nearest", "norms_in_fp32": True},
        {"precision": "mixed-bf16", "rounding": "nearest"},
        {"stores": [(MemoryStore(documents=8), 1, "few")]},
    ],
    ids=["stochastic", "split", "norms", "mixed", "later-epoch"],
)
def test_resume_is_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]) -> None:
    train(tmp_path / "whole", **changes)
    with monkeypatch.context() as patch, pytest.raises(Stop):
        crash_after(10, patch)
        train(tmp_path / "crashed", checkpoint_every=4, **changes)
    train(tmp_path / "crashed", checkpoint_every=4, **changes)
    assert same(tmp_path / "whole" / "final", tmp_path / "crashed" / "final")
    assert losses(tmp_path / "whole") == losses(tmp_path / "crashed")


def test_a_damaged_checkpoint_is_named_and_an_older_one_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    train(tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(Stop):
        crash_after(9, patch)
        train(tmp_path / "run", checkpoint_every=4)
    shard = tmp_path / "run" / "checkpoints" / "step-00000008" / "shard-00000.safetensors"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    train(tmp_path / "run", checkpoint_every=4)
    assert f"{shard}: altered or half-written" in caplog.text
    assert same(tmp_path / "whole" / "final", tmp_path / "run" / "final")
    (shard.parent.parent / "step-00000012" / "state.json").write_text("{")
    for broken, wrong in (
        ("[" * 100_000, "cannot be read"),
        ("[]", "cannot be read"),
        ('{"shards": []}', "lacks course, "),
    ):
        (shard.parent.parent / "step-00000012" / "state.json").write_text(broken)
        with pytest.raises(DataError, match=f"step-00000012/state.json: {wrong}"):
            checkpoint.read_state(shard.parent.parent / "step-00000012")
    (shard.parent.parent / "step-00000012" / "state.json").write_text("{")
    with pytest.raises(DataError, match=r"step-00000012/state.json: cannot be read"):
        checkpoint.read_state(shard.parent.parent / "step-00000012")


def test_another_run_in_the_folder_is_refused_and_free_settings_may_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(Stop):
        crash_after(9, patch)
        train(tmp_path, checkpoint_every=4)
    with pytest.raises(MismatchError, match=r"learning_rate: 0.01 there, 0.02 here"):
        train(tmp_path, learning_rate=0.02)
    with pytest.raises(MismatchError, match=r"steps: 12 there, 20 here.*go on by `extend`"):
        train(tmp_path, steps=20)
    with pytest.raises(
        MismatchError, match=r"holds a run on another .*store target at weight 1.*store target at weight 3"
    ):
        train(tmp_path, stores=[("nowhere", 1, "target")])
    train(tmp_path, log_every=1, keep_checkpoints=1, micro_batch=4)
    with pytest.raises(MismatchError, match="learning_rate"):
        train(tmp_path, learning_rate=0.02)


def test_checkpoints_are_pruned_and_hold_no_pickles(tmp_path: Path) -> None:
    train(tmp_path, checkpoint_every=2, keep_checkpoints=2)
    assert [path.name for path in checkpoint.found(tmp_path / "checkpoints")] == ["step-00000010", "step-00000012"]
    names = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
    assert names <= {".safetensors", ".json", ".jsonl"}


def test_a_full_disk_leaves_the_previous_checkpoint_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, calls = checkpoint.save_file, []

    def full(tensors: Any, file: Path) -> None:
        calls.append(file)
        if len(calls) > 1:
            Path(file).write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))
        plain(tensors, file)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", full)
        with pytest.raises(
            LangadaptError, match=r"the disk is full; the checkpoint .*step-00000004 is whole; free some"
        ):
            train(tmp_path / "run", checkpoint_every=4)
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000004"]
    train(tmp_path / "run", checkpoint_every=4)
    train(tmp_path / "whole")
    assert same(tmp_path / "run" / "final", tmp_path / "whole" / "final")


def test_checkpoints_written_in_the_background_are_those_of_their_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU: training goes on while a checkpoint is written, and what it changes is not in it."""
    train(tmp_path / "whole", checkpoint_every=4, keep_checkpoints=9)
    for name in ("save_file", "Writer"):
        monkeypatch.setattr(checkpoint, name, getattr(checkpoint, name))
    monkeypatch.setattr(checkpoint.Writer, "__init__", checkpoint.Writer.__init__)
    in_background()
    pending: list[bool] = []
    asked = threading.Event()
    complete, save = checkpoint.Writer.complete_if_written, checkpoint.save_file

    def ask(self: checkpoint.Writer) -> None:
        pending.append(self.draft is not None)
        if pending[-1]:
            asked.set()
        complete(self)

    def late(tensors: Any, file: Path) -> None:
        asked.wait(2)
        asked.clear()
        save(tensors, file)

    monkeypatch.setattr(checkpoint.Writer, "complete_if_written", ask)
    monkeypatch.setattr(checkpoint, "save_file", late)
    train(tmp_path / "run", checkpoint_every=4, keep_checkpoints=9)
    # The last one is not asked for: the run waits for it.
    assert sum(pending) >= 2
    for step in (4, 8, 12):
        shards = [
            tmp_path / run / "checkpoints" / f"step-{step:08d}" / "shard-00000.safetensors" for run in ("whole", "run")
        ]
        assert shards[0].read_bytes() == shards[1].read_bytes()

    def full(tensors: Any, file: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", full)
        with pytest.raises(
            LangadaptError, match=r"step-00000004: cannot write the checkpoint: the disk is full; there"
        ):
            train(tmp_path / "full", checkpoint_every=4)
    assert not list((tmp_path / "full" / "checkpoints").iterdir())


def test_a_signal_while_a_checkpoint_is_written_writes_no_second_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time that Slurm grants is short, and for the moment of its renaming a checkpoint would be none."""
    plain, calls = checkpoint.save_file, []

    def warned(tensors: Any, file: Path) -> None:
        calls.append(file)
        os.kill(os.getpid(), signal.SIGUSR1)
        plain(tensors, file)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", warned)
        with pytest.raises(TrainingStopped, match="stopped after step 4"):
            train(tmp_path / "run", checkpoint_every=4)
    assert len(calls) == 1
    # Asked again before a step is done, there is nothing new to write.
    plain_handle = Trainer.handle_requests

    def asked(self: Any, requests: Any) -> None:
        requests.stop = "SIGTERM"
        plain_handle(self, requests)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", warned)
        patch.setattr(Trainer, "handle_requests", asked)
        with pytest.raises(TrainingStopped, match="stopped after step 4"):
            train(tmp_path / "run", checkpoint_every=4)
    assert len(calls) == 1
    train(tmp_path / "run", checkpoint_every=4)
    train(tmp_path / "whole")
    assert same(tmp_path / "run" / "final", tmp_path / "whole" / "final")


def test_torchrun_that_would_kill_too_soon_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from langadapt.training.signals import TOLD, warn_of_short_grace

    TOLD.clear()
    warn_of_short_grace(100.0)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    warn_of_short_grace(20.0)
    assert not caplog.text
    warn_of_short_grace(100.0)
    warn_of_short_grace(101.0)
    assert caplog.text.count("kills its processes 30 s after a signal") == 1
    assert "TORCH_ELASTIC_SHUTDOWN_TIMEOUT=240" in caplog.text
    monkeypatch.setenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "240")
    caplog.clear()
    warn_of_short_grace(100.0)
    assert not caplog.text


def test_a_disk_that_will_be_full_is_told_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from types import SimpleNamespace

    train(tmp_path / "roomy")
    assert "are free, but" not in caplog.text
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=100, f_frsize=1000))
    train(tmp_path / "tight", schedule="wsd")
    assert "0.0 GB are free, but checkpoints of 0.0 GB and the trained model may take" in caplog.text


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGINT"])
def test_signals_leave_a_checkpoint_and_the_same_call_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    from langadapt.training.step import Stepper

    plain = Stepper.step

    def signalling(self: Any, batch: Any, number: int, **rates: Any) -> None:
        plain(self, batch, number, **rates)
        if number == 4:
            os.kill(os.getpid(), getattr(signal, name))

    with monkeypatch.context() as patch:
        patch.setattr(Stepper, "step", signalling)
        with pytest.raises(KeyboardInterrupt if name == "SIGINT" else TrainingStopped) as stopped:
            train(tmp_path / "run")
    if name != "SIGINT":
        assert f"{name}: stopped after step 5" in str(stopped.value)
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000005"]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    train(tmp_path / "run")
    train(tmp_path / "whole")
    assert same(tmp_path / "run" / "final", tmp_path / "whole" / "final")


def test_a_log_that_cannot_be_written_says_so_and_is_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk takes a part of a line, then nothing."""
    plain = meters.Journal.write

    class Full:
        def __init__(self, file: Any) -> None:
            self.file, self.room = file, 30

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

        def write(self, data: bytes) -> int:
            if not self.room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            count: int = self.file.write(data[: self.room])
            self.room -= count
            return count

    def write(self: meters.Journal, line: dict[str, Any]) -> None:
        if line["step"] == 8:
            self.file = Full(self.file)
        plain(self, line)

    with monkeypatch.context() as patch:
        patch.setattr(meters.Journal, "write", write)
        with pytest.raises(LangadaptError, match=r"log.jsonl: cannot write the log: No space left on device; whole"):
            train(tmp_path, checkpoint_every=4)
    assert not (tmp_path / "log.jsonl").read_text().endswith("\n")
    train(tmp_path, checkpoint_every=4)
    assert [line["step"] for line in journal(tmp_path)] == [2, 4, 6, 8, 10, 12]


@pytest.mark.parametrize(
    ("name", "library"),
    [("adamw-8bit", "torchao"), ("adamw-8bit", "bitsandbytes")],
)
@pytest.mark.filterwarnings("ignore")
def test_optimizers_of_other_libraries_resume_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, library: str
) -> None:
    pytest.importorskip(library)
    if library == "bitsandbytes":
        monkeypatch.setitem(sys.modules, "torchao.optim", None)
    wide = {"hidden_size": 256, "intermediate_size": 512}
    run = {"optimizer": name, "rounding": "nearest", "steps": 6, "checkpoint_every": 3}
    train(tmp_path / "whole", tiny_model(**wide), **run)
    with monkeypatch.context() as patch, pytest.raises(Stop):
        crash_after(4, patch)
        train(tmp_path / "run", tiny_model(**wide), **run)
    train(tmp_path / "run", tiny_model(**wide), **run)
    assert same(tmp_path / "whole" / "final", tmp_path / "run" / "final")


def test_an_optimizer_that_takes_its_rate_as_a_tensor_gets_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As torchao's do; its states keep their own dtype, which torch would change, and share memory, as those of
    bitsandbytes do."""
    from types import ModuleType

    table = torch.ones(3, dtype=torch.float64)

    class AdamW8bit(torch.optim.AdamW):
        def __init__(self, groups: Any, lr: float, **settings: Any) -> None:
            super().__init__(groups, lr=torch.tensor(lr), foreach=False, **settings)

        def step(self, closure: Any = None) -> Any:
            tensors = [group["lr"] for group in self.param_groups]
            assert all(isinstance(rate, torch.Tensor) for rate in tensors)
            for group in self.param_groups:
                group["lr"] = float(group["lr"])
            super().step(closure)
            for group, rate in zip(self.param_groups, tensors, strict=True):
                group["lr"] = rate
            for state in self.state.values():
                assert state.setdefault("kept", table).dtype == torch.float64

    library, fake = ModuleType("torchao"), ModuleType("torchao.optim")
    fake.AdamW8bit = AdamW8bit  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchao", library)
    monkeypatch.setitem(sys.modules, "torchao.optim", fake)
    run = {"optimizer": "adamw-8bit", "precision": "fp32", "rounding": "nearest", "steps": 6, "checkpoint_every": 3}
    train(tmp_path / "whole", **run)
    with monkeypatch.context() as patch, pytest.raises(Stop):
        crash_after(4, patch)
        train(tmp_path / "run", **run)
    train(tmp_path / "run", **run)
    assert same(tmp_path / "whole" / "final", tmp_path / "run" / "final")
    rates = [line["learning_rate"]["matrices"] for line in journal(tmp_path / "run") if "loss" in line]
    assert rates[-1] == pytest.approx(1e-3)


def test_optimizers_of_other_libraries_train_in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    from langadapt.training.parallel import join

    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="adamw-8bit works in one process, but there are 2; use adamw"):
        join(settings(optimizer="adamw-8bit", rounding="nearest"))
