"""Attention for packed documents on a CPU, beside a softmax over all pairs of tokens in float64."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor

from langadapt.models import attention
from langadapt.training import model
from langadapt.training.attention import pieces

KINDS = {torch.float32: 1e-6, torch.bfloat16: 4e-3, torch.float64: 1e-14}
"""Share by which results may be off: bf16 rounds by 2e-3, and what the gradients are made of is rounded, too."""


def positions_of(lengths: list[list[int]]) -> Tensor:
    """Of the documents of windows."""
    return torch.stack([torch.cat([torch.arange(length) for length in row]) for row in lengths])


def drawn(length: int, longest: int) -> list[int]:
    """Documents of 1 token up to ``longest`` that fill a window."""
    row: list[int] = []
    while sum(row) < length:
        row.append(min(random.randint(1, longest), length - sum(row)))
    return row


def states(heads: int, shared: int, positions: Tensor, width: int, dtype: torch.dtype) -> list[Tensor]:
    """Query, key and value; in memory as models make them."""
    shape = positions.shape
    made = [torch.randn(*shape, count, width).to(dtype) for count in (heads, shared, shared)]
    return [one.transpose(1, 2).requires_grad_() for one in made]


def naive(query: Tensor, key: Tensor, value: Tensor, positions: Tensor, window: int | None) -> Tensor:
    """Token by token, and document by document."""
    each = query.shape[1] // key.shape[1]
    key, value = (one.repeat_interleave(each, dim=1) for one in (key, value))
    made = []
    for row, places in enumerate(positions.tolist()):
        for at, place in enumerate(places):
            seen = slice(max(at - place, at + 1 - (window or at + 1)), at + 1)
            scores = torch.einsum("hd,hsd->hs", query[row, :, at], key[row, :, seen]) * query.shape[-1] ** -0.5
            made.append(torch.einsum("hs,hsd->hd", scores.softmax(-1), value[row, :, seen]))
    return torch.stack(made).view(*positions.shape, *made[0].shape)


def results(output: Tensor, inputs: list[Tensor], gradient: Tensor) -> list[Tensor]:
    """Output and gradients of the inputs."""
    return [output.detach(), *torch.autograd.grad(output, inputs, gradient.to(output.dtype))]


@pytest.mark.parametrize("dtype", KINDS, ids=str)
@pytest.mark.parametrize(("heads", "shared", "width"), [(4, 1, 16), (6, 2, 8), (3, 3, 4)])
@pytest.mark.parametrize("window", [None, 1, 7, 40])
def test_as_the_naive_one(
    dtype: torch.dtype, heads: int, shared: int, width: int, window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "BLOCK", 8)
    random.seed(width)
    torch.manual_seed(0)
    rows = [drawn(50, 4), drawn(50, 20), drawn(50, 60), [50], [9, 1, 8, 32], [1] * 50]
    positions = positions_of(rows)
    inputs = states(heads, shared, positions, width, dtype)
    gradient = torch.randn(*positions.shape, heads, width)
    found = results(pieces.forward(*inputs, pieces.Pieces(positions), None, window), inputs, gradient)
    exact = [one.detach().double().requires_grad_() for one in inputs]
    expected = results(naive(*exact, positions, window), exact, gradient.to(dtype))
    for ours, truth, given in zip(found, expected, [inputs[0].transpose(1, 2), *inputs], strict=True):
        assert ours.dtype == dtype and ours.shape == given.shape
        # Where tokens see themselves alone the gradients of query and key are zero, and what is rounded is not.
        assert (ours.double() - truth).norm() <= KINDS[dtype] * (truth.norm() + gradient.norm() / 10)


def test_gradients_are_those_of_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "BLOCK", 4)
    positions = positions_of([[2, 1, 9], [3, 3, 6]])
    inputs = states(4, 2, positions, 3, torch.float64)
    for window in (None, 3):
        found = pieces.Pieces(positions)
        assert torch.autograd.gradcheck(lambda *given, f=found, w=window: pieces.forward(*given, f, 0.7, w), inputs)


@pytest.mark.parametrize("window", [None, 10])
def test_nothing_passes_between_documents_or_from_later_tokens(window: int | None) -> None:
    """In one block of short ones and in several of a long one: gradients are zero, and not only small."""
    positions = positions_of([[5, 20, 30, 150, 3]])
    inputs = states(2, 1, positions, 8, torch.bfloat16)
    for at in (3, 24, 25, 54, 60, 130, 204, 207):
        output = pieces.forward(*inputs, pieces.Pieces(positions), None, window)
        query, *others = torch.autograd.grad(output[:, at].float().square().sum(), inputs)
        first = max(at - int(positions[0, at]), at + 1 - (window or at + 1))
        for one in others:
            assert not one[:, :, :first].any() and not one[:, :, at + 1 :].any()
        assert others[1][:, :, first : at + 1].any(dim=-1).all()
        assert not query[:, :, :at].any() and not query[:, :, at + 1 :].any()


@pytest.mark.parametrize("window", [None, 100])
@pytest.mark.parametrize("lengths", [[512], [1] * 512, [30] * 17 + [2], [300, 212], [65, 1, 63, 64, 319]])
def test_blocks_hold_each_token_once_and_few_pairs(lengths: list[int], window: int | None) -> None:
    blocks = pieces.Pieces(positions_of([lengths])).blocks(window)
    assert [at for block in blocks for at in range(512)[block.own]] == list(range(512))
    assert len(blocks) <= 2 * 512 / attention.BLOCK
    pairs = sum((block.own.stop - block.own.start) * (block.seen.stop - block.seen.start) for block in blocks)
    needed = sum(min(at + 1, window or 512) for length in lengths for at in range(length))
    assert pairs <= needed + 512 * attention.BLOCK


def test_autocast_does_not_reach_inside() -> None:
    positions = positions_of([[100, 20]])
    inputs = states(4, 2, positions, 16, torch.bfloat16)
    found: list[Any] = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            output = pieces.forward(*inputs, pieces.Pieces(positions), None, None)
            found.append(results(output, inputs, torch.ones(output.shape)))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_selective_recomputation_keeps_what_comes_out() -> None:
    assert "langadapt.attend_in_pieces.default" in {str(operation) for operation in model.expensive()}
