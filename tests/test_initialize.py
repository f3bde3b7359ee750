"""Initialisers: FOCUS against its definition and against deepfocus, the simple methods, errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sample_tokenizers import ENGLISH, GERMAN, byte_level, metaspace

from langadapt.errors import ConfigError, DataError, MismatchError
from langadapt.swap.matching import match_vocabularies
from langadapt.swap.rows import focus
from langadapt.swap.rows.initialize import initialize_embeddings, plan_rows
from langadapt.swap.rows.options import SwapOptions
from langadapt.swap.rows.plan import RowPlan

WIDTH = 48


@pytest.fixture(scope="module")
def match():
    return match_vocabularies(byte_level(ENGLISH, 420), metaspace(GERMAN, 450))


@pytest.fixture(scope="module")
def rows(match):
    return torch.randn(match.source_size + 5, WIDTH, generator=torch.Generator().manual_seed(1)) + 0.3


@pytest.fixture(scope="module")
def vectors(match):
    values = np.random.default_rng(2).normal(size=(match.target_size, 20)).astype(np.float32)
    values[match.new_ids[3]] = 0
    values[match.overlap_ids[2]] = 0
    return values


def sparsemax(z: torch.Tensor) -> torch.Tensor:
    """By sorting, float64."""
    ordered = z.double().sort(descending=True).values
    k = torch.arange(1, len(z) + 1)
    inside = 1 + k * ordered > ordered.cumsum(0)
    tau = (ordered[inside].sum() - 1) / inside.sum()
    return (z.double() - tau).clamp(min=0)


def naive_focus(match, rows, vectors):
    """The definition, token by token; rows without a vector are left at zero."""
    unit = torch.nn.functional.normalize(torch.from_numpy(vectors).double(), dim=1)
    has = torch.from_numpy(np.any(vectors != 0, axis=1))
    anchors = [token for token in match.overlap_ids.tolist() if has[token]]
    out = torch.zeros(match.target_size, rows.shape[1], dtype=torch.float64)
    for token in range(match.target_size):
        if match.source_ids[token] >= 0:
            out[token] = rows[match.source_ids[token]].double()
        elif has[token]:
            out[token] = sparsemax(unit[anchors] @ unit[token]) @ rows[match.source_ids[anchors]].double()
    return out


@pytest.mark.parametrize("low_precision", [False, True])
def test_focus_equals_its_definition(match, rows, vectors, monkeypatch, low_precision) -> None:
    monkeypatch.setattr(focus, "multiplies_bfloat16", lambda: low_precision)
    made = initialize_embeddings("focus", rows, match, vectors=vectors).double()
    expected = naive_focus(match, rows, vectors)
    missing = match.new_ids[3]
    compared = np.setdiff1d(np.arange(match.target_size), [missing])
    error = (made[compared] - expected[compared]).norm(dim=1) / expected[compared].norm(dim=1)
    assert error.max() < 1e-6
    assert torch.equal(made[match.overlap_ids].float(), rows[match.source_ids[match.overlap_ids]])
    assert made[missing].abs().sum() > 0


def test_blocks_and_threads_do_not_change_the_weights(monkeypatch) -> None:
    generator = torch.Generator().manual_seed(3)
    new, anchors = (torch.nn.functional.normalize(torch.randn(n, 30, generator=generator)) for n in (70, 200))
    whole = focus.similarity_weights(new, anchors, threads=1)
    monkeypatch.setattr(focus, "BLOCK_BYTES", 4000)
    parts = focus.similarity_weights(new, anchors, threads=3)
    assert all(np.array_equal(a, b) for a, b in zip(whole, parts, strict=True))
    assert np.allclose(np.add.reduceat(whole[2], np.concatenate([[0], np.cumsum(whole[0])[:-1]])), 1, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_focus_equals_deepfocus(match, rows, vectors, monkeypatch) -> None:
    """Both with the same vectors, overlap and seed; rows without a vector are the same draws."""
    deepfocus = pytest.importorskip("deepfocus.focus", reason="deepfocus is not installed (pip install --no-deps)")
    names = match.target.names
    model = {name: vectors[token] for token, name in enumerate(names)}
    monkeypatch.setattr(deepfocus, "load_target_token_embedding", lambda **_: model)

    def same_overlap(target_tokenizer, source_tokenizer, **_):
        overlap, new = {}, {}
        for token, name in enumerate(names):
            info = deepfocus.NewToken(target=FakeToken(name, token))
            source = int(match.source_ids[token])
            if source >= 0:
                pair = {"source": [FakeToken(match.source.names[source], source)], "target": info.target}
                overlap[name] = deepfocus.OverlappingToken(**pair)
            else:
                new[name] = info
        return overlap, new

    monkeypatch.setattr(deepfocus, "get_overlapping_tokens", same_overlap)
    expected = deepfocus.FOCUS(names, match.source.names, rows, fasttext_model_path="given", seed=7, verbosity="silent")
    made = initialize_embeddings("focus", rows, match, vectors=vectors, seed=7)
    assert ((made - expected).norm(dim=1) / expected.norm(dim=1)).max() < 1e-5


class FakeToken:
    """What deepfocus reads of a token."""

    def __init__(self, native_form: str, token: int) -> None:
        self.native_form = native_form
        self.id = token


def test_every_method_fills_every_row(match, rows, vectors) -> None:
    counts = np.arange(match.target_size)
    for method in ("focus", "subword_mean", "mean", "normal", "random", "zipf", "omp"):
        options = {"counts": counts} if method == "zipf" else {}
        for dtype in (torch.float32, torch.bfloat16):
            made = initialize_embeddings(method, rows.to(dtype), match, vectors=vectors, seed=3, **options)
            assert made.shape == (match.target_size, WIDTH)
            assert made.dtype == dtype
            assert made.isfinite().all()
            assert (made.float().norm(dim=1) > 0).all()
            if method != "random":
                assert torch.equal(made[match.overlap_ids], rows.to(dtype)[match.source_ids[match.overlap_ids]])
            again = initialize_embeddings(method, rows.to(dtype), match, vectors=vectors, seed=3, **options)
            assert torch.equal(made, again)


def test_low_precision_sums_are_rounded_once(match, rows, vectors) -> None:
    low = rows.bfloat16()
    made = initialize_embeddings("focus", low, match, vectors=vectors)
    wide = initialize_embeddings("focus", low.float(), match, vectors=vectors)
    combined = plan_rows(match, SwapOptions("focus", vectors=vectors)).combined
    # A float32 sum in another order may tip a rounding.
    assert (made[combined] == wide[combined].bfloat16()).float().mean() > 0.995
    assert (made[combined].float() - wide[combined]).abs().max() <= wide.abs().max() * 2**-8


def test_mean_normal_and_random(match, rows) -> None:
    new = match.new_ids
    mean = initialize_embeddings("mean", rows, match)
    assert torch.allclose(mean[new], rows.mean(dim=0).expand(len(new), -1), atol=1e-6)
    normal = initialize_embeddings("normal", rows, match)[new]
    assert abs(float(normal.mean()) - float(rows.mean())) < 0.05
    assert abs(float(normal.std()) - float(rows.std())) < 0.05
    random = initialize_embeddings("random", rows, match)
    assert abs(float(random.mean())) < 0.05
    assert abs(float(random.std()) - float(rows.std())) < 0.05
    assert not torch.equal(random[match.overlap_ids], rows[match.source_ids[match.overlap_ids]])
    same = match_vocabularies(match.source, match.source)
    assert torch.equal(initialize_embeddings("random", rows, same), rows[: same.target_size])


@pytest.mark.parametrize("weighting", ["uniform", "characters"])
def test_subword_mean(match, rows, weighting) -> None:
    made = initialize_embeddings("subword_mean", rows, match, weighting=weighting)
    for token in match.new_ids[:50]:
        span = slice(match.piece_starts[token], match.piece_starts[token + 1])
        pieces, lengths = match.piece_ids[span], torch.from_numpy(match.piece_lengths[span]).float()
        if len(pieces) == 0:
            continue
        weights = lengths / lengths.sum() if weighting == "characters" else torch.full((len(pieces),), 1 / len(pieces))
        assert torch.allclose(made[token], weights @ rows[pieces], atol=1e-6)


def test_zipf_takes_rows_of_like_rank(match, rows) -> None:
    counts, source_counts = np.zeros(match.target_size, int), np.zeros(match.source_size, int)
    token, best = match.new_ids[10], match.source.ids["Ġthe"]
    counts[token], source_counts[best] = 100, 50
    made = initialize_embeddings("zipf", rows, match, counts=counts, source_counts=source_counts)
    assert torch.equal(made[token], rows[best])


def test_calibration_gives_combined_rows_the_norm_of_copied_ones(match, rows, vectors) -> None:
    plain = initialize_embeddings("focus", rows, match, vectors=vectors)
    scaled = initialize_embeddings("focus", rows, match, vectors=vectors, calibrate=True)
    combined = plan_rows(match, SwapOptions("focus", vectors=vectors)).combined
    norm = plain[match.overlap_ids].norm(dim=1).mean()
    assert torch.allclose(scaled[combined].norm(dim=1), norm.expand(len(combined)), rtol=1e-5)
    assert torch.nn.functional.cosine_similarity(plain[combined], scaled[combined]).min() > 0.9999
    assert torch.equal(plain[match.overlap_ids], scaled[match.overlap_ids])


def test_a_plan_serves_several_matrices_and_pads(match, rows, vectors) -> None:
    plan = plan_rows(match, SwapOptions("focus", vectors=vectors))
    first, second = plan.apply(rows, rows[:, :8] * 2, rows=512, seed=1)
    assert first.shape == (512, WIDTH)
    assert torch.allclose(second[plan.combined], first[plan.combined][:, :8] * 2, rtol=1e-5, atol=1e-6)
    assert (first[match.target_size :].norm(dim=1) > 0).all()
    assert len(np.unique(np.concatenate([plan.copied, plan.combined, plan.missing]))) == match.target_size


def test_the_fused_rule_gives_the_same_rows(match, rows, vectors) -> None:
    plain = plan_rows(match, SwapOptions("focus", vectors=vectors))
    fused = focus.plan_focus_on_gpu(match, vectors, torch.device("cpu"))
    assert isinstance(fused, RowPlan)
    assert np.array_equal(plain.combined, fused.combined)
    assert np.array_equal(plain.missing, fused.missing)
    for a, b in zip(plain.apply(rows, rows[:, :8]), fused.apply(rows, rows[:, :8]), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_bad_input_is_refused_with_numbers(match, rows, vectors) -> None:
    with pytest.raises(ConfigError, match="unknown method 'fokus'"):
        initialize_embeddings("fokus", rows, match)
    with pytest.raises(ConfigError, match="needs vectors of the target tokens"):
        initialize_embeddings("focus", rows, match)
    with pytest.raises(ConfigError, match="unknown weighting"):
        initialize_embeddings("subword_mean", rows, match, weighting="letters")
    with pytest.raises(MismatchError, match=rf"{match.source_size} ids but the model only 100"):
        initialize_embeddings("mean", rows[:100], match)
    with pytest.raises(MismatchError, match="another tokenizer"):
        initialize_embeddings("focus", rows, match, vectors=vectors[:-1])
    with pytest.raises(MismatchError, match="no anchors"):
        initialize_embeddings("focus", rows, match, vectors=np.zeros_like(vectors))
    broken = rows.clone()
    broken[17, 3] = float("nan")
    with pytest.raises(DataError, match=r"1 of .* row 17"):
        initialize_embeddings("mean", broken, match)
    bad = vectors.copy()
    bad[5, 1] = np.inf
    with pytest.raises(DataError, match="row is 5"):
        initialize_embeddings("focus", rows, match, vectors=bad)


def test_omp_takes_as_many_atoms_as_narrow_vectors_allow(match, rows, vectors) -> None:
    narrow = vectors[:, :6]
    made = initialize_embeddings("omp", rows, match, vectors=narrow)
    assert torch.equal(made, initialize_embeddings("omp", rows, match, vectors=narrow, atoms=6))
    with pytest.raises(ConfigError, match="width 6"):
        initialize_embeddings("omp", rows, match, vectors=narrow, atoms=7)
