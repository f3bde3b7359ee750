"""Log-likelihoods with shared beginnings are those of every request alone, as lm-eval computes them, for less work."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
import torch
from tiny import byte_tokenizer, tiny_llama
from torch.nn import functional
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoConfig,
    MambaConfig,
    MistralConfig,
    Qwen2MoeConfig,
)

from langadapt.errors import MismatchError
from langadapt.evaluation.requests import Likelihoods, Request, Row, batches, common, rows_of
from langadapt.evaluation.scoring import read_by_rows

SMALL = {
    "vocab_size": 260,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "initializer_range": 0.3,
}
OLD = {"vocab_size": 260, "initializer_range": 0.3, "n_layer": 2, "n_head": 2}
LOCAL = {"window_size": 8, "hidden_size": 32, "num_layers": 2, "num_heads": 2, "attention_types": [[["local"], 2]]}
KINDS: dict[str, Any] = {
    "gpt2": GPT2Config(**OLD, n_embd=32, n_positions=256),
    # Positions are biases of the attention, made from a mask of two dimensions.
    "bloom": BloomConfig(**OLD, hidden_size=32),
    # No attention, and so no mask.
    "mamba": MambaConfig(vocab_size=260, hidden_size=32, num_hidden_layers=2, initializer_range=0.3),
    # Windows shorter than the beginnings, by a mask that a given one replaces or as a matter of each layer.
    "mistral": MistralConfig(**SMALL, sliding_window=8),
    "gemma3": Gemma3TextConfig(**SMALL, sliding_window=8, layer_types=["sliding_attention", "full_attention"]),
    "gpt_neo": GPTNeoConfig(vocab_size=260, initializer_range=0.3, max_position_embeddings=256, **LOCAL),
    # Logits change after the output matrix.
    "gemma2": Gemma2Config(**SMALL, final_logit_softcapping=2.0, sliding_window=4096),
    "moe": Qwen2MoeConfig(
        **SMALL, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16, shared_expert_intermediate_size=16
    ),
}
SHARING = {"gpt2", "gemma2", "moe"}
"""Kinds whose models see what they are told to; the others compute each request alone."""


def made(config: Any) -> Any:
    """A model of random weights, the same each time."""
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()


def questions(seed: int = 0, number: int = 6) -> list[Request]:
    """Contexts of middling length with two to five continuations each, some of one token, one text twice."""
    chance = random.Random(seed)
    found = []
    for at in range(number):
        context = [chance.randrange(260) for _ in range(chance.randrange(20, 60))]
        for _ in range(chance.randrange(2, 6)):
            rest = [chance.randrange(260) for _ in range(1 if at == 0 else chance.randrange(1, 9))]
            found.append(Request(tuple([*context, *rest][:-1]), tuple(rest)))
    found += [found[-1], Request((5,), (7,))]
    return found


@torch.no_grad()
def naive(model: Any, requests: list[Request]) -> list[tuple[float, bool]]:
    """One request at a time, logits of all of it."""
    results = []
    for one in requests:
        logits = model(torch.tensor([one.inputs])).logits[0].float().log_softmax(-1)[-len(one.targets) :]
        wanted = torch.tensor(one.targets)
        results.append((float(logits.gather(1, wanted[:, None]).sum()), bool((logits.argmax(-1) == wanted).all())))
    return results


def same(found: list[tuple[float, bool]], expected: list[tuple[float, bool]], **tolerance: float) -> None:
    assert [value for value, _ in found] == pytest.approx([value for value, _ in expected], **tolerance)
    assert [likeliest for _, likeliest in found] == [likeliest for _, likeliest in expected]


@pytest.mark.parametrize("batch", [1, 3, 8, 100])
def test_equals_each_request_alone(batch: int) -> None:
    model, requests = tiny_llama(max_position_embeddings=512), questions()
    scorer = Likelihoods(model, batch=batch)
    same(scorer.score(requests), naive(model, requests), rel=1e-6, abs=1e-5)
    assert scorer.shares is (batch > 1)


@pytest.mark.parametrize("places", [1, 5, 40])
def test_places_wait_for_each_other_before_the_output_matrix(monkeypatch: pytest.MonkeyPatch, places: int) -> None:
    monkeypatch.setattr("langadapt.evaluation.requests.LOGIT_TOKENS", places)
    model, requests = tiny_llama(max_position_embeddings=512), questions(6)
    same(Likelihoods(model, batch=3).score(requests), naive(model, requests), rel=1e-6, abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_models_that_take_no_mask_compute_each_alone(kind: str) -> None:
    model, requests = made(KINDS[kind]), questions(1)
    scorer = Likelihoods(model, batch=8)
    same(scorer.score(requests), naive(model, requests), rel=1e-6, abs=1e-5)
    assert scorer.shares is (kind in SHARING)


def test_windows_longer_than_all_texts_hinder_nothing() -> None:
    model, requests = made(MistralConfig(**SMALL, sliding_window=256)), questions(2)
    scorer = Likelihoods(model, batch=8)
    same(scorer.score(requests), naive(model, requests), rel=1e-6, abs=1e-5)
    assert scorer.shares


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_bf16_agrees_to_its_digits(attention: str) -> None:
    model = tiny_llama(max_position_embeddings=512, initializer_range=0.1).to(torch.bfloat16)
    model.set_attn_implementation(attention)
    requests = questions(3)
    scorer = Likelihoods(model, batch=8)
    found, expected = scorer.score(requests), naive(model, requests)
    assert scorer.shares
    for (mine, _), (theirs, _), one in zip(found, expected, requests, strict=True):
        assert abs(mine - theirs) < 0.05 * len(one.targets)


def test_the_likeliest_token_is_found() -> None:
    model = tiny_llama(max_position_embeddings=512)
    requests = []
    for one in questions(4):
        with torch.no_grad():
            top = int(model(torch.tensor([one.inputs])).logits[0, -1].argmax())
        requests += [Request(one.inputs, (top,)), Request(one.inputs, ((top + 1) % 260,))]
    found = Likelihoods(model, batch=8).score(requests)
    assert [likeliest for _, likeliest in found] == [True, False] * (len(requests) // 2)
    same(found, naive(model, requests), rel=1e-6, abs=1e-5)


@pytest.mark.parametrize("bytes_at_once", [64, 4 << 20])
def test_of_equal_logits_the_first_is_the_likeliest(monkeypatch: pytest.MonkeyPatch, bytes_at_once: int) -> None:
    monkeypatch.setattr("langadapt.evaluation.scoring.CPU_LOGIT_BYTES", bytes_at_once)
    torch.manual_seed(0)
    head = torch.nn.Linear(4, 40, bias=False)
    with torch.no_grad():
        # Each row three times: every largest logit is there three times.
        head.weight.copy_(head.weight[:10].repeat(4, 1)[:40])
    hidden = torch.randn(7, 4)
    places, targets = torch.arange(7).repeat_interleave(40), torch.arange(40).repeat(7)
    with torch.no_grad():
        logits = head(hidden)
        nats, likeliest = read_by_rows(hidden, head, places, targets, likeliest=True)
    assert torch.equal(likeliest.view(7, 40), functional.one_hot(logits.argmax(1), 40).bool())
    assert torch.allclose(nats.view(7, 40), -logits.log_softmax(1), atol=1e-6)


def test_work_is_what_is_new() -> None:
    model = tiny_llama(max_position_embeddings=512)
    context = list(range(100))
    requests = [Request(tuple([*context, *rest][:-1]), tuple(rest)) for rest in ([3, 4, 5], [6, 7], [8, 9, 10], [11])]
    scorer = Likelihoods(model, batch=8)
    same(scorer.score(requests), naive(model, requests), rel=1e-6, abs=1e-5)
    # The context, and the continuations but for what nothing is predicted from.
    assert scorer.work.tokens == 100 + 2 + 1 + 2
    # The context's last token predicts four continuations at once.
    assert scorer.work.logits == 1 + 2 + 1 + 2


def test_letters_as_choices_are_read_at_one_place() -> None:
    model = tiny_llama(max_position_embeddings=512)
    requests = [Request(tuple(range(30)), (letter,)) for letter in (65, 66, 67, 68)]
    scorer = Likelihoods(model, batch=1)
    same(scorer.score(requests), naive(model, requests), rel=1e-6, abs=1e-5)
    assert (scorer.work.tokens, scorer.work.logits) == (30, 1)


def test_rows_hold_each_sequence_once() -> None:
    for seed in range(20):
        chance = random.Random(seed)
        stems = [[chance.randrange(9) for _ in range(chance.randrange(1, 40))] for _ in range(4)]
        rests = [[chance.randrange(9) for _ in range(chance.randrange(9))] for _ in range(30)]
        sequences = {(*chance.choice(stems), *rest) for rest in rests}
        rows = rows_of(list(sequences), 4, 192.0)
        assert sorted(one for row in rows for one in row.sequences) == sorted(sequences)
        assert sum(row.length for row in rows) < sum(map(len, sequences))
        for row in rows:
            assert len(row.sequences) <= 4
            assert all(common(row.sequences[0], one) >= row.shared for one in row.sequences)
        for batch in batches(rows, 8):
            assert sum(len(row.sequences) for row in batch) <= 8
        assert sum(len(batch) for batch in batches(rows, 8)) == len(rows)


def test_batches_waste_as_little_as_can_be() -> None:
    """Beside all ways to cut a list."""
    for seed in range(40):
        chance = random.Random(seed)
        lengths = sorted((chance.randrange(1, 60) for _ in range(chance.randrange(1, 9))), reverse=True)
        rows = [Row(length, (tuple(range(length)),)) for length in lengths]
        passes, most = chance.choice([0, 5, 1000]), chance.randrange(1, 5)
        costs = []
        for cuts in itertools.product([False, True], repeat=len(rows) - 1):
            ends = [0, *(at for at, cut in enumerate(cuts, 1) if cut), len(rows)]
            parts = [rows[start:end] for start, end in itertools.pairwise(ends)]
            if max(map(len, parts)) <= most:
                costs.append(sum(passes + len(part) * part[0].length for part in parts))
        found = list(batches(rows, most, passes))
        assert [row for batch in found for row in batch] == rows
        assert sum(passes + len(part) * part[0].length for part in found) == min(costs)


def test_short_beginnings_are_not_worth_a_mask() -> None:
    begin = (1,)
    sequences = [(*begin, *range(10 * at, 10 * at + 400)) for at in range(1, 5)]
    assert all(len(row.sequences) == 1 for row in rows_of(sequences, 8, 6.0 * 32))


def test_progress_ends_at_the_total_and_ids_are_checked() -> None:
    model, told = tiny_llama(max_position_embeddings=512), []
    scorer = Likelihoods(model, batch=4)
    scorer.score(questions(), lambda *values: told.append(values))
    assert told[0][1] == 0 and told[-1][1] == told[-1][2] and {one[3] for one in told} == {"tokens"}
    assert [one[1] for one in told] == sorted(one[1] for one in told)
    assert scorer.score([]) == []
    with pytest.raises(MismatchError, match="id 260, but the model has 260"):
        scorer.score([Request((1, 260), (3,))])


def test_as_lm_eval_itself_computes_them() -> None:
    pytest.importorskip("lm_eval")
    from lm_eval.models.huggingface import HFLM

    from langadapt.evaluation.harness import Model

    model, tokenizer = tiny_llama(max_position_embeddings=64), byte_tokenizer(bos_token="<s>", eos_token="</s>")
    ours, theirs = Model(model, tokenizer, batch_size=4), HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4)
    # Texts longer than the model's context are cut from the left, as there.
    asked = []
    for at, one in enumerate(questions(5)):
        context = [0, *one.inputs[: -len(one.targets)]]
        asked.append(((f"{at}", "x"), context * 2 if at % 3 else context, list(one.targets)))
    found, expected = ours._loglikelihood_tokens(asked), theirs._loglikelihood_tokens(asked, disable_tqdm=True)
    same(found, expected, rel=1e-6, abs=1e-5)
