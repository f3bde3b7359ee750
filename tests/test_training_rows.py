"""Models that mix the documents of a window get a row for each: the logits are those of documents alone."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig

from langadapt.models.miniature import miniature
from langadapt.training import TrainSettings, model
from langadapt.training.attention import isolation
from langadapt.training.attention.choice import example, packed_inputs
from langadapt.training.data.batches import IGNORE, Batch
from langadapt.training.data.rows import MULTIPLE, Part, idle, rows, windows

CPU = torch.device("cpu")
HYBRID = (
    "qwen3_next",
    "qwen3_5_text",
    "nemotron_h",
    "granitemoehybrid",
    "falcon_h1",
    "mamba",
    "mamba2",
    "jamba",
    "bamba",
)


def batch_of(lengths: list[list[int]], length: int) -> Batch:
    """Windows of documents of so many pairs, padded at the end as `Windows.fill` does; every token another."""
    shape = (len(lengths), length)
    ids, labels = np.zeros(shape, np.int64), np.full(shape, IGNORE, np.int64)
    positions, place = np.zeros(shape, np.int64), 1
    for row, sizes in enumerate(lengths):
        start = 0
        for size in sizes:
            ids[row, start : start + size] = range(place, place + size)
            labels[row, start : start + size] = range(place + 1, place + size + 1)
            positions[row, start : start + size] = range(size)
            start, place = start + size, place + size
    return Batch(ids, labels, positions, np.arange(len(lengths)), (), int((labels != IGNORE).sum()))


@given(st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=6), min_size=1, max_size=5), st.integers(1, 3))
@settings(deadline=None)
def test_every_document_has_one_row_from_its_beginning(lengths: list[list[int]], size: int) -> None:
    length = max(map(sum, lengths))
    batch = batch_of(lengths, length)
    parts, found = rows(batch, size), []
    for part in parts:
        assert part.input_ids.size <= max(size * length, part.input_ids.shape[1])
        sizes = (part.labels != IGNORE).sum(axis=1)
        assert sizes.max() * 3 // 4 <= sizes.min()
        for ids, labels, positions, source, count in zip(
            part.input_ids, part.labels, part.positions, part.sources, sizes, strict=True
        ):
            assert (labels[:count] == ids[:count] + 1).all() and (positions == np.arange(len(ids))).all()
            found.append((int(ids[0]), int(count), int(source)))
    starts = [1, *np.cumsum([size for sizes in lengths for size in sizes]).tolist()]
    wanted = [(source, size) for source, sizes in enumerate(lengths) for size in sizes]
    assert sorted(found) == [
        (first + (number > 0), size, source)
        for number, (first, (source, size)) in enumerate(zip(starts[:-1], wanted, strict=True))
    ]
    assert not (idle(parts[-1]).labels != IGNORE).any()


def test_little_is_padding_where_a_step_has_many_documents() -> None:
    random, length = np.random.default_rng(0), 512
    lengths = [[int(one) for one in random.dirichlet(np.ones(6)) * (length - 12) + 1] for _ in range(64)]
    batch = batch_of(lengths, length)
    parts = rows(batch, 8)
    assert sum(part.input_ids.size for part in parts) < 1.2 * batch.learnt
    assert len(parts) <= len(windows(batch, 8)) + np.log(length / MULTIPLE) / np.log(4 / 3)


@pytest.mark.parametrize("kind", HYBRID)
def test_a_document_of_a_window_has_the_logits_it_has_alone(kind: str) -> None:
    network = miniature(AutoConfig.for_model(kind))
    assert network is not None
    how = TrainSettings(precision="fp32", rounding="nearest", sequence_length=40)
    _, way = model.set_attention(network, how, CPU)
    assert way == model.ROWS
    assert model.set_attention(network.to(torch.bfloat16), how, CPU)[1] == model.ROWS
    network.float().eval()
    batch = batch_of([[9, 1, 22], [30, 8]], 40)
    for part in rows(batch, 2):
        logits = logits_of(network, torch.tensor(part.input_ids))
        for row, labels, ids in zip(logits, part.labels, part.input_ids, strict=True):
            count = int((labels != IGNORE).sum())
            alone = logits_of(network, torch.tensor(ids[None, :count]))[0]
            torch.testing.assert_close(row[:count], alone, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def logits_of(network: Any, ids: torch.Tensor) -> torch.Tensor:
    return network(input_ids=ids, use_cache=False).logits


def told(plain: Any, bounds: str) -> Any:
    """A kernel that keeps documents apart, made of one that does not, as `flash-linear-attention` and `causal-conv1d`
    have them: ``bounds`` says by which argument it is told."""
    axis = 2 if bounds == "seq_idx" else 1

    def kernel(first: Any, *tensors: Any, **named: Any) -> Any:
        said = {name: named.pop(name, None) for name in ("seq_idx", "cu_seqlens", "cu_seq_lens_q")}[bounds]
        if said is None:
            return plain(first, *tensors, **named)
        length = first.shape[axis]
        ends = said.tolist() if axis == 1 else [*(positions_of(said[0]) == 0).nonzero()[:, 0].tolist(), length]

        def cut(one: Any, start: int, end: int) -> Any:
            whole = isinstance(one, torch.Tensor) and one.dim() > 2 and one.shape[axis] == length
            return one.narrow(axis, start, end - start) if whole else one

        parts = [
            plain(
                *(cut(one, *span) for one in (first, *tensors)),
                **{name: cut(one, *span) for name, one in named.items()},
            )
            for span in pairwise(ends)
        ]
        return torch.cat(parts, 2) if axis == 2 else (torch.cat([part[0] for part in parts], 1), None)

    return kernel


def positions_of(numbers: torch.Tensor) -> torch.Tensor:
    """Of tokens in their documents, from the documents' numbers."""
    return torch.tensor([int((numbers[:place] == number).sum()) for place, number in enumerate(numbers)])


def test_kernels_that_are_told_where_documents_begin_need_no_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.qwen3_next import modeling_qwen3_next as module

    for name, bounds in (("causal_conv1d_fn", "seq_idx"), ("torch_chunk_gated_delta_rule", "cu_seqlens")):
        monkeypatch.setattr(module, name, told(getattr(module, name), bounds))
    network = miniature(AutoConfig.for_model("qwen3_next"))
    ids, positions = example(64, 24, CPU)
    assert isolation.leaks(network, 64, "sdpa", CPU) and not isolation.leaks(network, 64, "sdpa", CPU, states=True)
    how = TrainSettings(precision="fp32", rounding="nearest", sequence_length=40, attention="sdpa")
    assert model.set_attention(network, how, CPU) == ("sdpa", model.STATES)
    both = packed_inputs(ids, positions, "sdpa", 2, states=True)
    with torch.no_grad():
        together = network.eval()(**both, use_cache=False).logits[0]
    for part in (slice(0, 24), slice(24, 48)):
        torch.testing.assert_close(together[part], logits_of(network, ids[:, part])[0], rtol=1e-3, atol=1e-4)


def test_a_pass_that_teaches_nothing_has_one_row() -> None:
    part = windows(batch_of([[5, 3], [8]], 8), 2)[0]
    assert isinstance(idle(part), Part) and idle(part).input_ids.shape == (1, 8) and part.documents == 3
