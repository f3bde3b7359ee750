"""Logits of new tokens that are shifted to how often these come: what moves, how far, and what does not."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sample_tokenizers import ENGLISH, GERMAN, byte_level, save
from tiny import tiny_llama
from transformers import Gemma2Config, Gemma2ForCausalLM

from langadapt import tokenize_corpus
from langadapt.cli.main import main
from langadapt.costs.devices import cpu
from langadapt.errors import MismatchError
from langadapt.models.folder import load_model
from langadapt.store import TokenStore
from langadapt.swap import frequencies
from langadapt.swap.files import swap_folder
from langadapt.swap.frequencies import fit_frequencies, shift_logits, token_counts
from langadapt.swap.loaded import swap_tokenizer
from langadapt.swap.matching import match_vocabularies
from langadapt.swap.rows.options import SwapOptions
from langadapt.tokenizer.encoder import Tokenizer
from langadapt.trials.inputs import MethodInputs

OWN, NEW = byte_level(ENGLISH, 320), byte_level(GERMAN, 360)
SWAP = SwapOptions("subword_mean", pad_to_multiple_of=8)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, tied and not, with their tokenizer; the new one, and a store of German."""
    root = tmp_path_factory.mktemp("frequencies")
    for name, tied in (("untied", False), ("tied", True)):
        model = tiny_llama(vocab_size=320, num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=tied)
        model.bfloat16().save_pretrained(root / name)
        save(OWN, root / name, eos_token="<|endoftext|>")
    new = Tokenizer(NEW.to_str().encode())
    new.save_pretrained(root / "new")
    tokenize_corpus(texts=GERMAN * 20, tokenizer=new, out=root / "store")
    return root


def fitted(places: Path, name: str) -> Any:
    """The shift of a model."""
    return fit_frequencies(places / name, TokenStore.open(places / "store"), OWN, places / "new", swap=SWAP)


def swapped(places: Path, name: str, **options: Any) -> Any:
    """A model in memory after the swap."""
    model = load_model(places / name, dtype=torch.bfloat16)
    swap_tokenizer(model, OWN, places / "new", swap=SWAP.updated(options))
    return model.eval()


@torch.no_grad()
def distance(model: Any, places: Path) -> float:
    """Of the mean probabilities of new tokens from their frequencies: mean |log p - log q|, by frequency."""
    tokens, new = np.asarray(TokenStore.open(places / "store").tokens), match_vocabularies(OWN, places / "new").new_ids
    windows = torch.from_numpy(tokens[: len(tokens) // 32 * 32].astype(np.int64)).view(-1, 32)
    size = NEW.get_vocab_size()
    chances = model(windows).logits[..., :size].float().softmax(-1).flatten(0, 1).mean(0)[new].double().numpy()
    wanted = (token_counts(tokens, size) / len(tokens))[new]
    seen = wanted > 0
    return float(np.sum(wanted[seen] * np.abs(np.log(wanted[seen] / chances[seen]))) / wanted.sum())


# Tied rows are read, too: with weights drawn at random what they are read as moves states at once.
@pytest.mark.parametrize(("name", "left"), [("untied", 0.35), ("tied", 0.7)])
def test_new_tokens_come_as_often_as_in_the_text(places: Path, name: str, left: float) -> None:
    plain, shifted = swapped(places, name), swapped(places, name, logit_shift=fitted(places, name))
    assert distance(plain, places) > 0.8
    assert distance(shifted, places) < left * distance(plain, places)


@pytest.mark.parametrize("name", ["untied", "tied"])
def test_nothing_but_new_output_rows_moves_and_those_along_one_line(places: Path, name: str) -> None:
    shift = fitted(places, name)
    plain, shifted = swapped(places, name).state_dict(), swapped(places, name, logit_shift=shift).state_dict()
    new = match_vocabularies(OWN, places / "new").new_ids
    head = "model.embed_tokens.weight" if name == "tied" else "lm_head.weight"
    for key, before in plain.items():
        after = shifted[key]
        if key in (head, "lm_head.weight"):
            kept = np.setdiff1d(np.arange(len(before)), new)
            assert torch.equal(after[kept], before[kept])
            moved = shift.amounts[:, None] * shift.direction
            assert torch.allclose(after[new].float(), before[new].float() + moved, rtol=2**-8, atol=1e-6)
        else:
            assert torch.equal(after, before), key


@pytest.mark.parametrize("name", ["untied", "tied"])
def test_files_get_what_a_model_in_memory_gets(places: Path, tmp_path: Path, name: str) -> None:
    shift = fitted(places, name)
    report = swap_folder(places / name, places / "new", tmp_path / "out", swap=replace(SWAP, logit_shift=shift))
    assert any("were shifted to how often these come" in note for note in report.notes)
    wanted, found = swapped(places, name, logit_shift=shift).state_dict(), load_model(tmp_path / "out").state_dict()
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)
    again = swapped(places, name)
    shift_logits(again, TokenStore.open(places / "store").tokens, OWN, places / "new", swap=SWAP)
    assert all(torch.equal(again.state_dict()[key], wanted[key]) for key in wanted)


def test_a_shift_of_other_tokenizers_or_models_is_refused(places: Path) -> None:
    shift = fitted(places, "untied")
    with pytest.raises(MismatchError, match="it is of other tokenizers"):
        swapped(places, "untied", logit_shift=replace(shift, target_ids=shift.target_ids[:-1]))
    with pytest.raises(MismatchError, match="31 wide, the model's rows 32"):
        swapped(places, "untied", logit_shift=replace(shift, direction=shift.direction[:-1]))


def test_what_has_no_shift(places: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    store = TokenStore.open(places / "store")
    # The model's own tokenizer: nothing is new.
    assert fit_frequencies(places / "tied", store, OWN, OWN, swap=SWAP) is None
    # Logits that are bent after the output matrix.
    config = Gemma2Config(
        vocab_size=320,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        final_logit_softcapping=30.0,
    )
    model = Gemma2ForCausalLM(config)
    swap_tokenizer(model, OWN, places / "new", swap=SWAP)
    match = match_vocabularies(OWN, places / "new")
    assert frequencies.fit(model, store.tokens, match, SWAP) is None
    assert frequencies.fit(swapped(places, "tied"), store.tokens[:1], match, SWAP) is None
    monkeypatch.setattr(frequencies, "cpu", lambda: replace(cpu(), memory=1000))
    with caplog.at_level(logging.WARNING):
        assert fitted(places, "tied") is None
    assert "are not shifted to their frequencies" in caplog.text and "the swap goes on" in caplog.text


def test_the_store_of_the_inputs_is_what_it_is_fitted_to(places: Path) -> None:
    inputs = MethodInputs(model=places / "untied", tokenizer=str(places / "new"), store=places / "store")
    assert inputs.complete(SWAP).logit_shift is None
    made = replace(inputs, match_frequencies=True).complete(SWAP).logit_shift
    wanted = fitted(places, "untied")
    assert torch.equal(made.amounts, wanted.amounts) and made.tokens == wanted.tokens > 0
    assert replace(inputs, match_frequencies=True, store=None).complete(SWAP).logit_shift is None


@pytest.mark.parametrize("flag", ["--match-frequencies", "--no-match-frequencies"])
def test_the_command(places: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str) -> None:
    command = ["swap", str(places / "tied"), "--tokenizer", str(places / "new"), "--store", str(places / "store")]
    command += ["--method", "subword_mean", "--out", str(tmp_path / "out"), "--json", flag]
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert ended.value.code in (0, None)
    notes = json.loads(capsys.readouterr().out)["notes"]
    assert any("shifted" in note for note in notes) == (flag == "--match-frequencies")
