"""A short run does what its settings say, and says what it did."""

from __future__ import annotations

import json
import logging
import shutil
import sys
import warnings
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_kit import VOCABULARY, MemoryStore, journal, losses, settings, shares, tiny_model, train, weights

from langadapt.errors import ConfigError, DataError, LangadaptError, MismatchError
from langadapt.training import StoreShare


def test_a_run_learns_logs_and_leaves_a_model_that_loads_without_warnings(tmp_path: Path) -> None:
    validated = []

    def validate(model: torch.nn.Module, step: int) -> dict[str, float]:
        assert not model.training and not torch.is_grad_enabled()
        validated.append(step)
        return {"bits": 1.5}

    result = train(tmp_path / "run", validate=validate, validate_every=5, tensorboard=True, steps=40)
    assert result.steps == 40 and result.tokens == 40 * 128
    assert validated == [0, 5, 10, 15, 20, 25, 30, 35, 40] and result.validation == {"bits": 1.5}
    lines = [line for line in journal(tmp_path / "run") if "loss" in line]
    assert [line["step"] for line in lines] == list(range(2, 41, 2))
    assert losses(tmp_path / "run")[-1] < 0.6 * losses(tmp_path / "run")[0]
    last = lines[-1]
    assert last["progress"] == 1.0 and set(last["loss_by_source"]) == {"target", "source"}
    assert last["learning_rate"]["matrices"] == pytest.approx(1e-3)
    assert last["tokens_per_second"] > 0 and last["bytes_per_second"] > 0 and last["peak_memory_bytes"] > 0
    # Bytes of text, not of special tokens: each window holds about 3.9 bytes per position here.
    ratio = last["bytes_per_second"] / last["tokens_per_second"]
    assert 3.5 < ratio < 4.1
    assert list((tmp_path / "run" / "tensorboard").iterdir())
    from transformers import AutoModelForCausalLM

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = AutoModelForCausalLM.from_pretrained(result.final)
    assert model.dtype == torch.bfloat16 and model.config.use_cache
    assert sum(result.epochs.values()) > 0 and min(result.fullness.values()) > 0.99


def test_every_run_is_one_of_its_own_for_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recipes with the same method train into folders of the same name."""
    from types import ModuleType, SimpleNamespace

    begun: list[dict[str, Any]] = []
    lines: list[int] = []
    fake = ModuleType("wandb")
    fake.Error = RuntimeError  # type: ignore[attr-defined]
    run = SimpleNamespace(log=lambda numbers, step: lines.append(step), finish=lambda: None)
    fake.init = lambda **given: (begun.append(given), run)[1]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", fake)
    plan = {"schedule": "wsd", "wandb_project": "p"}
    for name in ("a", "b"):
        train(tmp_path / name / "trained" / "focus", **plan)
    again = tmp_path / "a" / "trained" / "focus"
    shutil.rmtree(again / "final")
    train(again, **plan)
    train(again, **plan, steps=14, extend=True)
    assert [given["name"] for given in begun] == ["a-focus", "b-focus", "a-focus", "a-focus-from-10"]
    ids = [given["id"] for given in begun]
    assert ids[0] == ids[2] and len(set(ids)) == 3
    assert lines == [2, 4, 6, 8, 10, 12] * 2 + [12, 14]

    def refuse(**given: Any) -> None:
        raise RuntimeError("No API key configured")

    fake.init = refuse  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"W&B does not start: No API key.*WANDB_MODE=offline"):
        train(tmp_path / "c", **plan)


def test_the_same_call_again_returns_the_same_result_at_once(tmp_path: Path) -> None:
    first = train(tmp_path)
    (tmp_path / "log.jsonl").unlink()
    assert train(tmp_path) == first
    assert not (tmp_path / "log.jsonl").exists()


def test_micro_batches_and_precision_of_sums_do_not_change_the_loss(tmp_path: Path) -> None:
    curves = {}
    for micro in (1, 2, 4):
        train(tmp_path / str(micro), micro_batch=micro, precision="fp32", rounding="nearest", steps=6)
        curves[micro] = losses(tmp_path / str(micro))
    assert curves[1] == pytest.approx(curves[4], rel=1e-5) and curves[2] == pytest.approx(curves[4], rel=1e-5)


def test_mean_is_over_tokens_not_over_micro_batches(tmp_path: Path) -> None:
    """A window that is mostly padding must not weigh as much as a full one."""
    store = MemoryStore(documents=6, longest=40)
    grads = {}
    for micro in (1, 4):
        train(
            tmp_path / str(micro),
            stores=[(store, 1, "a")],
            micro_batch=micro,
            steps=1,
            precision="fp32",
            rounding="nearest",
        )
        grads[micro] = journal(tmp_path / str(micro))[-1]["grad_norm"]
    assert grads[1] == pytest.approx(grads[4], rel=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "mixed-bf16", "rounding": "nearest"},
        {"rounding": "kahan"},
        {"rounding": "split", "norms_in_fp32": True},
        {"rounding": "nearest", "accumulate": "bf16"},
        {"activation_checkpointing": "full"},
        {"activation_checkpointing": "selective"},
        {"loss_chunk": 0},
        {"isolate_documents": False},
        {"max_grad_norm": None},
        {"epochs": 0.3},
        {"tokens": 1000},
        {"schedule": "wsd"},
    ],
    ids=lambda changes: "-".join(f"{key}-{value}" for key, value in changes.items()),
)
def test_every_way_of_training_learns(tmp_path: Path, changes: dict[str, object]) -> None:
    train(tmp_path, **{"steps": 14, **changes} if not {"epochs", "tokens"} & changes.keys() else changes)
    curve = losses(tmp_path)
    assert curve[-1] < curve[0]
    assert weights(tmp_path / "final")["model.norm.weight"].dtype == torch.bfloat16


def test_recomputing_activations_changes_nothing(tmp_path: Path) -> None:
    for how in ("none", "full", "selective"):
        train(tmp_path / how, activation_checkpointing=how, steps=4)
    assert losses(tmp_path / "none") == losses(tmp_path / "full") == losses(tmp_path / "selective")


def test_tied_embeddings_are_one_matrix_and_stay_tied(tmp_path: Path) -> None:
    result = train(tmp_path, tiny_model(tied=True), steps=4)
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(result.final)
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_no_decay_on_norms_biases_and_embeddings(tmp_path: Path) -> None:
    """With huge decay and a vanishing update, only weight matrices shrink; embeddings have their own rate."""
    model = tiny_model(attention_bias=True)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    train(
        tmp_path,
        model,
        steps=3,
        schedule="constant",
        warmup=0.0,
        learning_rate=1e-4,
        min_learning_rate=0.0,
        embedding_learning_rate=1e-30,
        weight_decay=3000.0,
        max_grad_norm=1e-12,
        eps=1.0,
        rounding="split",
    )
    after = weights(tmp_path / "final")
    for name, old in before.items():
        ratio = float((after[name].float().norm() + 1e-9) / (old.float().norm() + 1e-9))
        expected = 1.0 if "norm" in name or "bias" in name or "embed" in name or "lm_head" in name else 0.7**3
        assert ratio == pytest.approx(expected, rel=0.02), name


def test_embedding_rate_is_logged_and_scheduled(tmp_path: Path) -> None:
    train(tmp_path, embedding_learning_rate=5e-2)
    rates = [line["learning_rate"] for line in journal(tmp_path) if "loss" in line]
    for line in rates:
        assert line["embeddings"] == pytest.approx(5 * line["matrices"])


def test_a_swap_raises_the_rate_of_embeddings(tmp_path: Path) -> None:
    for name, ratio, new_rows in (("swapped", 3, [7]), ("own", 1, None), ("extended by nothing", 1, [])):
        train(tmp_path / name, new_rows=new_rows, steps=2, min_learning_rate=0.0)
        for line in journal(tmp_path / name):
            if "loss" in line:
                assert line["learning_rate"]["embeddings"] == pytest.approx(ratio * line["learning_rate"]["matrices"])


def test_a_first_phase_moves_new_rows_only_and_exactly(tmp_path: Path) -> None:
    model = tiny_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    new = [7, 20, 21]
    train(tmp_path, model, new_rows=new, embeddings_first_steps=5, steps=2, checkpoint_every=5, keep_checkpoints=9)
    from safetensors.torch import load_file

    saved = load_file(tmp_path / "checkpoints" / "step-00000005" / "shard-00000.safetensors")
    kept = [row for row in range(64) if row not in new]
    for name, old in before.items():
        now = saved[f"model.{name}"]
        if "embed_tokens" in name or "lm_head" in name:
            assert torch.equal(now[kept], old[kept]) and not torch.equal(now[new], old[new])
            assert saved[f"optimizer.{name}.exp_avg"].shape == (3, 32)
        else:
            assert torch.equal(now, old)
    assert sum(1 for key in saved if key.startswith("optimizer.") and key.endswith("exp_avg")) == 2
    rates = [line["learning_rate"] for line in journal(tmp_path) if "loss" in line]
    assert set(rates[0]) == {"embeddings"} and set(rates[-1]) == {"embeddings", "matrices", "vectors"}


def test_embeddings_first_without_named_rows_trains_all_rows(tmp_path: Path) -> None:
    model = tiny_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    train(
        tmp_path,
        model,
        embeddings_first_steps=3,
        steps=1,
        learning_rate=0.0,
        min_learning_rate=0.0,
        embeddings_first_learning_rate=1e-2,
    )
    after = weights(tmp_path / "final")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"model.embed_tokens.weight", "lm_head.weight"}


def test_a_budget_of_hours_ends_in_time_with_the_decay_complete(tmp_path: Path) -> None:
    result = train(tmp_path, hours=4 / 3600, steps=None)
    lines = [line for line in journal(tmp_path) if "loss" in line]
    assert lines[-1]["progress"] == 1.0 and lines[-1]["learning_rate"]["matrices"] == pytest.approx(1e-3)
    assert 2.0 < result.seconds < 6.0 and result.steps > 12


def test_steps_that_take_long_are_looked_at_one_by_one() -> None:
    """On a GPU, where a step of a large model takes minutes: ten of them may be more than a deadline leaves."""
    from types import SimpleNamespace

    from langadapt.training.loop import Trainer
    from langadapt.training.parallel import ProcessGroup

    for pace, meets in ((None, True), (0.1, False), (40.0, True)):
        course = SimpleNamespace(step_seconds=pace)
        for processes in (ProcessGroup(device=torch.device("cuda")), ProcessGroup(size=2)):
            assert Trainer.meets(SimpleNamespace(processes=processes, course=course, log_is_due=lambda: False)) == meets


def test_a_finished_run_is_known_after_its_deadline(tmp_path: Path) -> None:
    result = train(tmp_path, steps=2)
    assert train(tmp_path, steps=2, deadline="2020-01-01T00:00") == result
    with pytest.raises(ConfigError, match="already past"):
        train(tmp_path / "other", steps=2, deadline="2020-01-01T00:00")


def test_a_loss_that_is_no_number_stops_names_the_documents_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    from langadapt.training import step

    plain, calls = step.Stepper.forward_backward, []

    def poisoned(self, *args, **named):  # type: ignore[no-untyped-def]
        calls.append(1)
        found = plain(self, *args, **named)
        return found * float("nan") if len(calls) > 12 else found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step.Stepper, "forward_backward", poisoned)
        with pytest.raises(
            LangadaptError, match=r"step 7: the loss is not a number. Documents in its batch: .*target: \d+"
        ):
            train(tmp_path, checkpoint_every=3)
    assert [path.name for path in sorted((tmp_path / "checkpoints").iterdir())] == ["step-00000003", "step-00000006"]


def test_most_updates_lost_is_a_logged_number_and_a_warning_that_names_the_remedy(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        train(tmp_path, rounding="nearest", learning_rate=1e-6, min_learning_rate=1e-7, stale_every=4)
    shares_logged = [line["stale_share"] for line in journal(tmp_path) if "stale_share" in line]
    assert len(shares_logged) == 3 and min(shares_logged) > 0.9
    assert "rounding: stochastic" in caplog.text and caplog.text.count("did not move") == 1


def test_out_of_memory_halves_the_micro_batch_and_loses_nothing(tmp_path: Path) -> None:
    from langadapt.training import step

    plain = step.Stepper.forward_backward

    def tight(self, ids, *args, **named):  # type: ignore[no-untyped-def]
        if len(ids) > 1:
            raise torch.OutOfMemoryError("pretended")
        return plain(self, ids, *args, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step.Stepper, "forward_backward", tight)
        train(tmp_path / "tight", micro_batch=4)
    train(tmp_path / "one", micro_batch=1)
    assert losses(tmp_path / "tight") == losses(tmp_path / "one")


def test_stores_of_another_tokenizer_are_refused(tmp_path: Path) -> None:
    large = MemoryStore()
    large.manifest["summary"]["vocab_size"] = 1000
    with pytest.raises(MismatchError, match=r"store a: .* more than 999 entries, but the model has 64 embedding rows"):
        train(tmp_path / "a", stores=[(large, 1, "a")])

    class Fake:
        bos_token_id, eos_token_id, vocab_size, fingerprint = 1, 2, 64, "abc"

        def save_pretrained(self, folder: str) -> None:
            Path(folder, "tokenizer.json").write_text("{}")

    from langadapt.training import train_model

    other = MemoryStore()
    other.manifest["inputs"]["tokenizer"] = "xyz"
    with pytest.raises(MismatchError, match=r"another tokenizer .fingerprint xyz, this run's is abc"):
        train_model(tiny_model(), [(other, 1, "a")], tmp_path / "b", settings(), tokenizer=Fake())
    other.manifest["inputs"]["tokenizer"] = "abc"
    result = train_model(tiny_model(), [(other, 1, "a")], tmp_path / "c", settings(steps=1), tokenizer=Fake())
    assert (result.final / "tokenizer.json").read_text() == "{}"


def test_a_damaged_store_is_an_error_that_names_the_document_and_the_id(tmp_path: Path) -> None:
    store = MemoryStore()
    document = 40
    place = int(store.offsets[document]) + 7
    assert place < store.offsets[document + 1] - 1
    for vocabulary in (VOCABULARY, None):
        store.tokens[place] = VOCABULARY + 6
        store.manifest["summary"]["vocab_size"] = vocabulary
        with pytest.raises(
            DataError, match="store a: token 7 of document 40 is id 70, but its tokenizer has 64 entries"
        ):
            train(tmp_path / "a", stores=[(store, 1, "a")], steps=200)
    store.offsets[-1] += 5
    with pytest.raises(DataError, match="store a: the bounds of its documents do not fit its"):
        train(tmp_path / "b", stores=[(store, 1, "a")])


def test_impossible_requests_say_why(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="lower batch_tokens"):
        train(tmp_path / "a", stores=[(MemoryStore(documents=1), 1, "a")], batch_sequences=64)
    with pytest.raises(ConfigError, match="two stores are named 'a'"):
        train(tmp_path / "b", stores=[(MemoryStore(), 1, "a"), (MemoryStore(), 1, "a")])
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="torch sees no GPU"):
            train(tmp_path / "c", device="cuda")
    with pytest.raises(ConfigError, match="new_rows: 64 is no row of the 64"):
        train(tmp_path / "d", new_rows=[64], embeddings_first_steps=1)
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        with pytest.raises(ConfigError, match="pip install torchao"):
            train(tmp_path / "e", optimizer="adamw-8bit", rounding="nearest")


def test_store_shares_may_be_tuples_or_objects(tmp_path: Path) -> None:
    train(tmp_path / "a", stores=[(MemoryStore(), 1.0, "a")], steps=2)
    train(tmp_path / "b", stores=[StoreShare(MemoryStore(), 5.0, "a")], steps=2)
    assert losses(tmp_path / "a") == losses(tmp_path / "b")
    assert len(shares()) == 2 and np.isfinite(losses(tmp_path / "a")).all()
    assert json.loads((tmp_path / "a" / "run.json").read_text())["settings"]["steps"] == 2


def test_a_retry_after_running_out_of_memory_holds_nothing_of_the_failed_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from langadapt.training import step

    plain, alive = step.Stepper.forward_backward, []
    failed: list[Any] = []

    def tight(self, ids, *args, **named):  # type: ignore[no-untyped-def]
        if len(ids) > 1:
            activations = torch.ones(10)
            failed.append(weakref.ref(activations))
            raise torch.OutOfMemoryError("pretended")
        return plain(self, ids, *args, **named)

    monkeypatch.setattr(step.Stepper, "forward_backward", tight)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: alive.append(failed[-1]() is not None))
    train(tmp_path, micro_batch=4, steps=1)
    assert alive == [False, False]


def test_an_optimizer_that_runs_out_of_memory_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from langadapt_kernels import FusedAdamW

    def full(self: Any, closure: Any = None) -> None:
        raise torch.OutOfMemoryError("pretended")

    monkeypatch.setattr(FusedAdamW, "step", full)
    with pytest.raises(LangadaptError, match=r"step 1: out of memory in the optimizer.*rounding: stochastic"):
        train(tmp_path, rounding="kahan")
