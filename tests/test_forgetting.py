"""What keeps a model from forgetting: columns that stay, a body that stays, the source model as a teacher."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sample_tokenizers import ENGLISH, GERMAN, byte_level, metaspace, save
from tiny import tiny_llama
from torch.nn import functional
from training_kit import MISTRAL, Stop, crash_after, settings, shares, weights

from langadapt import Recipe, tokenize_corpus
from langadapt.errors import ConfigError, MismatchError
from langadapt.tokenizer.alignment import Alignment
from langadapt.tokenizer.encoder import Tokenizer
from langadapt.tokenizer.vocabulary import read_vocabulary
from langadapt.training import StoreShare, train_model
from langadapt.training.job import OldModel
from langadapt.training.loss import HeadLoss
from langadapt.training.protect import freeze, importance, linear_layers, most_important, source_windows
from langadapt.training.teacher import SoftLabels, Teacher, carried


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> OldModel:
    """An English model of few parameters with its tokenizer and text."""
    folder = tmp_path_factory.mktemp("old")
    tiny_llama(vocab_size=320, num_attention_heads=4, num_key_value_heads=2).bfloat16().save_pretrained(folder)
    save(byte_level(ENGLISH, 320), folder, eos_token="<|endoftext|>")
    text = folder / "english.txt"
    text.write_text("\n".join(ENGLISH), encoding="utf-8")
    return OldModel(folder, [str(text)])


def trained(old: OldModel, out: Path, **changes: Any) -> dict[str, torch.Tensor]:
    """Weights after twelve steps."""
    train_model(old.folder, shares(), out, settings(**changes), progress=lambda *_: None, old=old)
    return weights(out / "final")


def test_the_most_important_columns_stay_bit_by_bit_whatever_interrupts(old, tmp_path, monkeypatch):
    before, after = weights(old.folder), trained(old, tmp_path / "whole", protect=0.5, checkpoint_every=4)
    with monkeypatch.context() as patched, pytest.raises(Stop):
        crash_after(6, patched)
        trained(old, tmp_path / "cut", protect=0.5, checkpoint_every=4)
    # What the checkpoint has is what counts: nothing is asked of the source model again.
    monkeypatch.setattr("langadapt.training.protect.protected_columns", lambda *_: pytest.fail("computed again"))
    again = trained(old, tmp_path / "cut", protect=0.5, checkpoint_every=4)
    for name, weight in before.items():
        assert torch.equal(after[name], again[name]), name
        moved = after[name] != weight
        if "proj" in name:
            share = moved.any(dim=0).float().mean()
            assert 0.4 <= share <= 0.5, name
        else:
            assert moved.any(), name


def test_importance_is_weight_times_norm_of_what_meets_it(old):
    from langadapt.models.folder import load_model

    model = load_model(old.folder, dtype=torch.float32).eval()
    windows = list(itertools.islice(source_windows(old, model, settings()), 5))
    assert all(window.shape[1] <= 32 and window[0, 0] == 0 for window in windows)
    found, layer = importance(model, windows), model.model.layers[1].mlp.gate_proj
    inputs: list[torch.Tensor] = []
    handle = layer.register_forward_hook(lambda _, given, __: inputs.append(given[0][0]))
    with torch.no_grad():
        for window in windows:
            model(window)
    handle.remove()
    norms = torch.cat(inputs).norm(dim=0)
    expected = (layer.weight.abs() * norms).sum(dim=0).double()
    torch.testing.assert_close(found["model.layers.1.mlp.gate_proj.weight"], expected, rtol=1e-5, atol=0)
    assert not any("lm_head" in name or "embed" in name for name in found)
    assert most_important({"w": torch.tensor([1.0, 3, 2, 3])}, 0.5)["w"].tolist() == [False, True, False, True]


def test_masks_of_another_model_and_models_without_columns_are_refused():
    from transformers import GPT2Config, GPT2LMHeadModel

    from langadapt_kernels import FusedAdamW

    other = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=16))
    with pytest.raises(ConfigError, match="GPT2LMHeadModel has no linear layers"):
        linear_layers(other)
    parameters = {"a": torch.nn.Parameter(torch.zeros(4, 6))}
    for name, columns in (("a", 5), ("b", 6)):
        with pytest.raises(MismatchError, match=f"masks of another model: {columns} columns of `{name}`"):
            freeze(parameters, FusedAdamW(parameters.values()), {name: torch.ones(columns, dtype=torch.bool)})


@pytest.mark.parametrize("accumulate", ["auto", "bf16"])
def test_training_rows_alone_leaves_the_body_without_gradients_and_states(old, tmp_path, accumulate, monkeypatch):
    from langadapt.training.step import Stepper

    seen: list[tuple[int, set[str]]] = []
    update = Stepper.update

    def watched(self: Stepper, step: int) -> None:
        seen.append((sum(p.grad is not None for p in self.model.parameters()), {name for name, _ in self.phase.named}))
        update(self, step)
        assert len(self.optimizer.state) == 2

    monkeypatch.setattr(Stepper, "update", watched)
    before = weights(old.folder)
    after = trained(old, tmp_path / "run", parts="embeddings", accumulate=accumulate)
    rows = {"model.embed_tokens.weight", "lm_head.weight"}
    assert set(before) >= rows and {name for name in before if not torch.equal(before[name], after[name])} == rows
    assert seen == [(2, rows)] * 12


def test_what_cannot_be_is_one_line_before_anything_is_done(old, tmp_path):
    for changes, message in (
        ({"protect": 0.5}, "no source text says what to protect"),
        ({"replay_loss": "kl"}, "no source text is replayed"),
    ):
        with pytest.raises(ConfigError, match=message):
            train_model(old.folder, shares(), tmp_path / "run", settings(**changes))
    with pytest.raises(ConfigError, match="no source text is replayed"):
        train_model(old.folder, shares()[:1], tmp_path / "run", settings(replay_loss="kl"), old=old)
    assert not (tmp_path / "run").exists()
    for changes, message in (
        ({"protect": 1.0}, "not a share"),
        ({"protect": 0.5, "parts": "embeddings"}, "keep one of them"),
        ({"protect": 0.5, "optimizer": "adamw-8bit", "rounding": "nearest"}, "whose step reads masks"),
    ):
        with pytest.raises(ConfigError, match=message):
            settings(**changes)
    recipe = {"name": "x", "model": "m", "out": "o", "corpus": {"target": ["de.txt"]}}
    for train in ({"protect": 0.5}, {"replay_loss": "kl"}):
        with pytest.raises(ConfigError, match=r"corpus\.source"):
            Recipe.from_dict({**recipe, "train": train})


PAIRS = {
    "byte level": (byte_level(ENGLISH, 320), byte_level(GERMAN + ENGLISH[:1], 380)),
    "metaspace to byte level": (metaspace(ENGLISH, 360), byte_level(GERMAN, 330)),
    "byte level to metaspace": (byte_level(ENGLISH, 320), metaspace(GERMAN, 400)),
    "itself": (byte_level(ENGLISH, 320), byte_level(ENGLISH, 320)),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_cuts_are_those_of_both(pair):
    own, new = (read_vocabulary(tokenizer) for tokenizer in PAIRS[pair])
    alignment, found = Alignment(own, new), 0
    for text in ENGLISH[:3]:
        ids = np.array(new.tokenizer.encode(text), np.int64)
        cuts = alignment.cuts(ids)
        assert cuts is not None
        whole = b"".join(new.texts[token] for token in ids)
        ends = [b"".join(new.texts[token] for token in ids[: i + 1]) for i in range(len(ids))]
        spelling = [b"".join(own.texts[token] for token in cuts.tokens[: i + 1]) for i in range(len(cuts.tokens))]
        shift = len(spelling[-1]) - len(whole)
        both = [(i, j) for i, a in enumerate(ends[:-1]) for j, b in enumerate(spelling) if len(b) - shift == len(a)]
        assert list(zip(cuts.new.tolist(), cuts.old.tolist(), strict=True)) == both
        words = [whole[len(ends[i]) - 1 : len(ends[i]) + 1] for i, _ in both]
        assert cuts.before_word.tolist() == [b" " in word for word in words]
        found += len(both)
    assert found > 20
    assert alignment.cuts(np.array([new.ids[name] for name in list(new.ids)[:0]], np.int64)) is None


def test_the_teacher_speaks_where_both_begin_a_word_alike(old):
    """Its logits are those of the source model read by hand, carried by first pieces, at words alone."""
    new = Tokenizer(byte_level(GERMAN + ENGLISH[:1], 380).to_str().encode())
    teacher = Teacher(old, new, settings(precision="fp32", rounding="nearest"), torch.device("cpu"))
    own, other = read_vocabulary(Tokenizer.from_pretrained(old.folder)), read_vocabulary(new)
    for token, to in enumerate(carried(own, other, 320)):
        expected = other.pieces(own.texts[token])[0] if own.texts[token] else -1
        assert to == expected
    ids = np.array(new.encode(ENGLISH[0]), np.int64)
    places, at, text = teacher.shared_words(ids)
    assert 3 <= len(places) < len(ids) and text[0] == 0
    for place, there in zip(places, at, strict=True):
        start = b"".join(other.texts[token] for token in ids[: place + 1])
        assert b"".join(own.texts[token] for token in text[1 : there + 1]) == start
        assert own.texts[text[there + 1]].startswith(other.texts[ids[place + 1]])
    store = [ids, np.array(new.encode(ENGLISH[1]), np.int64)]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("langadapt.training.teacher.CHUNK", 2)
        loss = taught_loss(teacher, store)
    assert loss > 0


def taught_loss(teacher: Teacher, texts: list[np.ndarray]) -> float:
    """Loss and gradients of a window of two texts through the taken-over head, against all distributions at once."""
    from langadapt.training.data.batches import IGNORE
    from langadapt.training.data.rows import Part

    length = sum(len(ids) - 1 for ids in texts) + 2
    inputs, labels, positions = (np.zeros((1, length), np.int64) for _ in range(3))
    labels[:], place = IGNORE, 0
    for ids in texts:
        stop = place + len(ids) - 1
        inputs[0, place:stop], labels[0, place:stop], positions[0, place:stop] = ids[:-1], ids[1:], range(len(ids) - 1)
        place = stop
    batch = Part(inputs, labels, positions, np.array([1]))
    assert teacher.teach(batch, ["source", "target"]) == (None, batch)
    soft, taught = teacher.teach(batch, ["target", "source"])
    left = torch.from_numpy(taught.labels)
    assert isinstance(soft, SoftLabels) and int((left == IGNORE).sum()) == len(soft.places) + 2
    torch.manual_seed(1)
    model = tiny_llama(vocab_size=384, num_attention_heads=4, num_key_value_heads=2).eval()
    given = {"input_ids": torch.from_numpy(inputs), "position_ids": torch.from_numpy(positions)}
    logits = model(**given, use_cache=False).logits[0]
    old = torch.softmax(soft.logits, dim=1)
    wanted = torch.zeros(len(old), 384)
    for token, to in enumerate(soft.carry.tolist()):
        if to >= 0:
            wanted[:, to] += old[:, token]
    wanted /= wanted.sum(dim=1, keepdim=True)
    log = torch.log_softmax(logits[soft.places], dim=1)
    kl = (wanted * (wanted.clamp(min=1e-30).log() - log)).sum()
    expected = 0.1 * (kl + functional.cross_entropy(logits, left[0], ignore_index=IGNORE, reduction="sum"))
    expected.backward()
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    for chunk in (7, 0):
        model.zero_grad()
        head = HeadLoss(model, chunk)
        head.soft = soft
        loss, _ = head(given, left, 0.1)
        loss.backward()
        head.release()
        torch.testing.assert_close(loss, expected.detach())
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-3, atol=1e-6)
    return float(loss.detach())


def test_a_teacher_of_its_own_tokenizer_and_weights_has_nothing_to_say(old, tmp_path):
    """At every word that is replayed the divergence is nought, and so is its gradient; a run with it differs from one
    by cross-entropy."""
    store = tokenize_corpus(old.text, Tokenizer.from_pretrained(old.folder), tmp_path / "store").folder
    both = [StoreShare(store, 0.5, "target"), StoreShare(store, 0.5, "source")]
    ends = []
    for loss in ("kl", "cross_entropy"):
        out = tmp_path / loss
        train_model(old.folder, both, out, settings(replay_loss=loss), progress=lambda *_: None, old=old)
        ends.append(weights(out / "final")["lm_head.weight"])
    assert not torch.equal(*ends)
    teacher = Teacher(old, Tokenizer.from_pretrained(old.folder), settings(), torch.device("cpu"))
    ids = np.array(Tokenizer.from_pretrained(old.folder).encode(ENGLISH[0]), np.int64)
    places, at, text = teacher.shared_words(ids)
    assert (at == places + 1).all() and (text[1:] == ids).all()
    logits = torch.randn(len(places), 320, requires_grad=True)
    soft = SoftLabels(torch.arange(len(places)), logits.detach(), torch.arange(320))
    loss = soft.loss(lambda where: logits[where], 320)
    loss.backward()
    assert abs(float(loss.detach())) < 1e-4 and float(logits.grad.abs().max()) < 1e-6


def test_the_plan_counts_the_teacher_and_what_does_not_move():
    from langadapt.costs.flops import Shape
    from langadapt.costs.memory import Layout, estimate

    shape = Shape.of(MISTRAL)
    plain, rows, kl = (
        estimate(shape, Layout("pure-bf16", "stochastic", **more), 2048)
        for more in ({}, {"parts": "embeddings"}, {"teacher": True})
    )
    tables = 2 * 32000 * 4096
    assert (rows.states, rows.gradients, rows.parameters) == (4 * tables, 2 * tables, plain.parameters)
    assert plain.teacher == 0 and kl.teacher == 2 * (shape.parameters + 32000 * 2048)
    assert kl.peak - plain.peak == pytest.approx(1.03 * kl.teacher, rel=1e-6)
    assert rows.peak < 0.55 * plain.peak
