"""Token distillation, and what every method leaves as it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sample_tokenizers import ENGLISH, GERMAN, byte_level, metaspace, save, wordpiece
from tiny import tiny_llama

from langadapt import tokenize_corpus
from langadapt.errors import ConfigError, DataError, MismatchError
from langadapt.models.folder import load_model
from langadapt.swap.distill import DistillSettings, Lesson, choose, distil_rows
from langadapt.swap.files import swap_folder
from langadapt.swap.loaded import swap_tokenizer
from langadapt.swap.matching import match_vocabularies
from langadapt.swap.rows.names import METHODS
from langadapt.swap.rows.options import SwapOptions
from langadapt.tokenizer.encoder import Tokenizer
from langadapt.training import TrainSettings
from langadapt.trials.inputs import MethodInputs
from langadapt.trials.probe import after

OWN, NEW = byte_level(ENGLISH, 320), byte_level(GERMAN, 360)
QUICK = DistillSettings(length=8, each=3, batch=4)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Models, tied and not, with their tokenizer; a store of German."""
    root = tmp_path_factory.mktemp("distill")
    for name, tied in (("untied", False), ("tied", True)):
        model = tiny_llama(vocab_size=320, num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=tied)
        model.save_pretrained(root / name)
        save(OWN, root / name, eos_token="<|endoftext|>")
    new = Tokenizer(NEW.to_str().encode())
    new.save_pretrained(root / "new")
    return {"store": tokenize_corpus(texts=GERMAN, tokenizer=new, out=root / "store"), "root": root}


def own_logits(tokenizer: Any, method: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of a text before and after a swap to the model's own tokenizer, with what the method needs."""
    size = tokenizer.get_vocab_size()
    model = tiny_llama(vocab_size=size, num_attention_heads=4, num_key_value_heads=2).bfloat16().eval()
    ids = torch.tensor([tokenizer.encode(ENGLISH[0]).ids])
    vectors = np.random.default_rng(0).normal(size=(size, 16)).astype(np.float32)
    needs: dict[str, Any] = {"vectors": vectors} if method in ("focus", "omp", "wechsel") else {}
    needs |= {"source_vectors": vectors[:, ::-1].copy()} if method == "wechsel" else {}
    needs |= {"helper_rows": vectors} if method == "clp" else {}
    with torch.no_grad():
        before = model(ids).logits
        if method == "distill":
            lesson = Lesson(model, model, match_vocabularies(tokenizer, tokenizer), QUICK)
            needs["learnt_rows"] = lesson.learnt(0)
        swap_tokenizer(model, tokenizer, tokenizer, method=method, **needs)
        return before, model(ids).logits


@pytest.mark.parametrize("family", ["byte level", "metaspace", "wordpiece"])
@pytest.mark.parametrize("method", METHODS)
def test_a_swap_to_its_own_tokenizer_leaves_every_logit(method, family):
    tokenizer = {"byte level": OWN, "metaspace": metaspace(ENGLISH, 330), "wordpiece": wordpiece(ENGLISH, 200)}[family]
    before, after_it = own_logits(tokenizer, method)
    assert after_it.shape[-1] % 128 == 0
    assert torch.equal(before, after_it[..., : before.shape[-1]])


@pytest.mark.parametrize("name", ["untied", "tied"])
def test_new_rows_alone_move_towards_the_old_models_states(folders, name):
    folder, store = folders["root"] / name, folders["store"]
    rows = distil_rows(folder, store, folder, NEW, settings=QUICK)
    again = distil_rows(folder, store, folder, NEW, settings=QUICK)
    assert torch.equal(rows.input, again.input) and torch.equal(rows.output, again.output)
    assert torch.equal(rows.input, rows.output) == (name == "tied") and rows.tokens % 8 == 0 and rows.tokens > 0
    match = match_vocabularies(folder, NEW)
    snippets = choose(store, match, QUICK, 5)
    distances, models = [], {}
    for method, needs in (("subword_mean", {}), ("distill", {"learnt_rows": rows})):
        student = load_model(folder, dtype=torch.float32)
        report = swap_tokenizer(student, folder, NEW, method=method, **needs)
        lesson = Lesson(load_model(folder, dtype=torch.float32), student, match, QUICK)
        distances.append([float(loss.detach()) for loss in lesson.losses(snippets)])
        models[method] = student
    assert distances[1][0] < 0.95 * distances[0][0] and distances[1][1] < distances[0][1]
    assert report.copied == len(match.overlap_ids) and report.copied + report.combined == match.target_size
    learnt = models["distill"].get_input_embeddings().weight
    assert torch.equal(learnt[torch.from_numpy(match.new_ids)], rows.input)
    others = dict(models["distill"].named_parameters())
    for key, parameter in models["subword_mean"].named_parameters():
        same = (parameter == others[key]).flatten(1).all(dim=1) if parameter.dim() > 1 else parameter == others[key]
        moved = np.flatnonzero(~same.numpy())
        tables = key.startswith("lm_head") or "embed_tokens" in key
        assert set(moved) <= set(match.new_ids) if tables else not len(moved), key


def test_losses_are_those_of_both_models_read_by_hand(folders):
    folder = folders["root"] / "untied"
    match = match_vocabularies(folder, NEW)
    teacher, student = (load_model(folder, dtype=torch.float32).eval() for _ in range(2))
    swap_tokenizer(student, folder, NEW, method="subword_mean")
    texts = (GERMAN[0], GERMAN[1][:30])
    snippets = [np.array(Tokenizer(NEW.to_str().encode()).encode(text), np.int64) for text in texts]
    found = Lesson(teacher, student, match, QUICK).losses(snippets)
    gap = size = 0.0
    losses: list[torch.Tensor] = []
    for text, ids in zip(texts, snippets, strict=True):
        old = Tokenizer(OWN.to_str().encode()).encode(text).astype(np.int64)
        ends = [np.cumsum([len(v.texts[t]) for t in x]) for v, x in ((match.source, old), (match.target, ids))]
        with torch.no_grad():
            wanted = teacher.base_model(torch.tensor([[0, *old]])).last_hidden_state[0]
            states = student.base_model(torch.tensor([[0, *ids]])).last_hidden_state[0]
            logits = student.lm_head(states[:-1])
        losses.append(torch.nn.functional.cross_entropy(logits, torch.from_numpy(ids), reduction="none"))
        for i, end in enumerate(ends[1][:-1]):
            for j in np.flatnonzero(ends[0] == end):
                gap += float((states[i + 1] - wanted[j + 1]).square().sum())
                size += float(wanted[j + 1].square().sum())
    found = [loss.detach() for loss in found]
    assert float(found[0]) == pytest.approx(gap / size, rel=1e-4)
    assert float(found[1]) == pytest.approx(float(torch.cat(losses).mean().detach()), rel=1e-4)


def test_snippets_show_each_new_token_as_often_as_there_is_text(folders):
    match, store = match_vocabularies(OWN, NEW), folders["store"]
    found = choose(store, match, QUICK, 1)
    shown = np.bincount(np.concatenate(found), minlength=match.target_size)
    documents = [np.asarray(store[i]) for i in range(len(store))]
    whole = np.concatenate([one[: len(one) // 8 * 8] for one in documents])
    there = np.bincount(whole, minlength=match.target_size)
    assert (shown[match.new_ids] >= np.minimum(there, 3)[match.new_ids]).all() and len(found) < len(whole) // 8
    assert len(choose(store, match, replace(QUICK, most=2), 1)) == 2


def test_a_swap_on_disk_by_distill_and_what_is_refused(folders, tmp_path):
    folder, store = folders["root"] / "untied", folders["store"]
    inputs = MethodInputs(model=folder, tokenizer=str(folders["root"] / "new"), store=store.folder)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("langadapt.trials.inputs.distil_rows", lambda *a, **k: distil_rows(*a, **k, settings=QUICK))
        patched.setattr(MethodInputs, "target_vectors", {})
        swap = inputs.complete(SwapOptions("distill"))
    report = swap_folder(folder, folders["root"] / "new", tmp_path / "out", swap=swap)
    made = load_model(tmp_path / "out", dtype=torch.float32)
    new = torch.from_numpy(swap.learnt_rows.target_ids)
    assert report.method == "distill" and torch.equal(made.lm_head.weight[new], swap.learnt_rows.output)
    with pytest.raises(ConfigError, match="give its token store as --store"):
        MethodInputs(model=folder, tokenizer=str(folders["root"] / "new")).options("distill")
    with pytest.raises(ConfigError, match="`distill` needs rows that the old model has taught"):
        swap_tokenizer(made, NEW, OWN, method="distill")
    with pytest.raises(MismatchError, match="other new tokens"):
        swap_tokenizer(made, NEW, OWN, method="distill", learnt_rows=swap.learnt_rows)
    with pytest.raises(DataError, match="no 900 tokens of one document"):
        choose(store, match_vocabularies(OWN, NEW), replace(QUICK, length=900), 1)


def test_a_bake_off_gives_it_as_many_steps_fewer_as_it_cost(folders):
    rows = Lesson(*(load_model(folders["root"] / "tied"),) * 2, match_vocabularies(OWN, OWN), QUICK).learnt(1000)
    settings = TrainSettings(steps=50, sequence_length=8, batch_sequences=4)
    assert after(settings, None) is settings
    assert (after(settings, rows).steps, after(settings, replace(rows, tokens=10**6)).steps) == (50 - 31, 1)
