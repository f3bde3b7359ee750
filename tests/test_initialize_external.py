"""Initialisers that bring knowledge of their own: matching pursuit, CLP, WECHSEL; and the files of fastText."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sample_tokenizers import ENGLISH, GERMAN, byte_level, metaspace

from langadapt.errors import ConfigError, DataError, LangadaptError, MismatchError
from langadapt.swap.matching import match_vocabularies
from langadapt.swap.rows.initialize import initialize_embeddings, plan_rows
from langadapt.swap.rows.omp import pursue
from langadapt.swap.rows.options import SwapOptions
from langadapt.swap.rows.wechsel import align, aligned_token_vectors, read_dictionary
from langadapt.trials.bake_off import Probe, bake_off
from langadapt.vectors.cbow import load_vectors
from langadapt.vectors.published import WordVectors, ngram_hash, ngrams_of, read_word_vectors, word_model_vectors

DIM = 20


@pytest.fixture(scope="module")
def match():
    return match_vocabularies(byte_level(ENGLISH, 420), metaspace(GERMAN, 450))


@pytest.fixture(scope="module")
def rows(match):
    return torch.randn(match.source_size, 32, generator=torch.Generator().manual_seed(1)) + 0.3


@pytest.fixture(scope="module")
def vectors(match):
    return np.random.default_rng(2).normal(size=(match.target_size, DIM)).astype(np.float32)


def naive_pursuit(target: np.ndarray, anchors: np.ndarray, k: int) -> tuple[list[int], np.ndarray]:
    """One target, least squares by numpy."""
    chosen: list[int] = []
    residual = target.astype(np.float64)
    for _ in range(k):
        fit = np.abs(anchors @ residual) / np.linalg.norm(anchors, axis=1)
        fit[chosen] = -1
        chosen.append(int(fit.argmax()))
        values = np.linalg.lstsq(anchors[chosen].T.astype(np.float64), target.astype(np.float64), rcond=None)[0]
        residual = target - anchors[chosen].T @ values
    return chosen, values


def test_pursuit_equals_the_naive_one() -> None:
    generator = np.random.default_rng(5)
    targets, anchors = (generator.normal(size=(n, DIM)).astype(np.float32) for n in (12, 80))
    chosen, values = pursue(torch.from_numpy(targets), torch.from_numpy(anchors), 6, 1e-6)
    for i, target in enumerate(targets):
        expected, coefficients = naive_pursuit(target, anchors, 6)
        assert chosen[i].tolist() == expected
        assert np.allclose(values[i], coefficients, atol=1e-4)


def test_pursuit_finds_the_sum_that_a_vector_is(match, rows, vectors) -> None:
    token, parts = match.new_ids[4], match.overlap_ids[[10, 20]]
    made = vectors.copy()
    made[token] = 2 * made[parts[0]] - made[parts[1]]
    out = initialize_embeddings("omp", rows, match, vectors=made, atoms=2, ridge=1e-6)
    expected = 2 * rows[match.source_ids[parts[0]]] - rows[match.source_ids[parts[1]]]
    assert torch.allclose(out[token], expected, atol=1e-4)
    with pytest.raises(ConfigError, match="width 20: 21"):
        initialize_embeddings("omp", rows, match, vectors=made, atoms=21)
    with pytest.raises(ConfigError, match="ridge must be above 0"):
        initialize_embeddings("omp", rows, match, vectors=made, ridge=0.0)


def test_nearly_parallel_anchors_do_not_blow_rows_up() -> None:
    """Two anchors a hair apart can spell the difference only with huge coefficients of opposite signs."""
    generator = torch.Generator().manual_seed(0)
    anchors = torch.randn(1, 8, generator=generator).repeat(2, 1)
    anchors[1, 0] += 1e-2
    target = anchors[:1].clone()
    target[0, 0] -= 0.5
    assert pursue(target, anchors, 2, 1e-6)[1].abs().max() > 10
    assert pursue(target, anchors, 2)[1].abs().max() < 1


def test_equal_anchors_do_not_break_pursuit() -> None:
    anchors = torch.ones(5, 4)
    _, values = pursue(torch.ones(2, 4), anchors, 3, 1e-6)
    assert values.isfinite().all()
    assert torch.allclose(values.sum(dim=1), torch.ones(2, dtype=torch.float64), atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_clp_equals_its_definition(match, rows, dtype) -> None:
    helper = np.random.default_rng(3).normal(size=(match.target_size + 7, 16)).astype(np.float32) + 0.5
    source = rows.to(dtype)
    made = initialize_embeddings("clp", source, match, helper_rows=torch.from_numpy(helper).bfloat16())
    unit = torch.nn.functional.normalize(torch.from_numpy(helper).bfloat16().double(), dim=1)
    anchors = match.overlap_ids
    for token in plan_rows(match, SwapOptions("clp", helper_rows=torch.from_numpy(helper).bfloat16())).combined[:40]:
        similarities = unit[anchors] @ unit[token]
        expected = similarities @ source[match.source_ids[anchors]].double() / similarities.sum()
        tolerance = 1e-5 if dtype == torch.float32 else 2**-8 * float(expected.abs().max())
        assert torch.allclose(made[token].double(), expected, atol=tolerance)


def test_clp_draws_rows_that_have_no_mean(match, rows) -> None:
    helper = np.abs(np.random.default_rng(3).normal(size=(match.target_size, 16))).astype(np.float32)
    helper[match.new_ids[0]] *= -1
    plan = plan_rows(match, SwapOptions("clp", helper_rows=helper))
    assert match.new_ids[0] in plan.missing
    assert match.new_ids[1] in plan.combined


def spaces(rotation: np.ndarray) -> tuple[WordVectors, WordVectors, list[tuple[str, str]]]:
    """Two languages whose words differ by a rotation and a prefix."""
    values = np.random.default_rng(7).normal(size=(120, DIM)).astype(np.float32)
    english = [*[f"word{i}" for i in range(118)], "house", "river"]
    german = [*[f"wort{i}" for i in range(118)], "Haus", "Fluss"]
    source = WordVectors({word: i for i, word in enumerate(english)}, values)
    target = WordVectors({word: i for i, word in enumerate(german)}, values @ rotation.astype(np.float32))
    return source, target, [(a, b) for a, b in zip(english[:118], german[:118], strict=True)]


def random_rotation() -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(8).normal(size=(DIM, DIM)))[0]


def test_alignment_finds_the_rotation() -> None:
    rotation = random_rotation()
    source, target, pairs = spaces(rotation)
    assert np.allclose(align(source, target, pairs), rotation, atol=1e-4)
    with pytest.raises(MismatchError, match="only 10 pairs"):
        align(source, target, pairs[:10])
    with pytest.raises(MismatchError, match="20 wide, target vectors 5"):
        align(source, WordVectors(target.index, target.rows[:, :5]), pairs)


def test_wechsel_takes_rows_of_translations(match, rows) -> None:
    source, target, pairs = spaces(random_rotation())
    source_vectors, vectors = aligned_token_vectors(match, source, target, pairs)
    made = initialize_embeddings(
        "wechsel", rows, match, vectors=vectors, source_vectors=source_vectors, neighbours=3, temperature=0.01
    )
    house, haus = match.source.ids["Ġhouse"], match.target.ids["▁Haus"]
    assert torch.allclose(made[haus], rows[house], atol=1e-3)
    wide = initialize_embeddings(
        "wechsel", rows, match, vectors=vectors, source_vectors=source_vectors, neighbours=3, temperature=0.5
    )
    unit = torch.nn.functional.normalize(torch.from_numpy(source_vectors).double(), dim=1)
    one = torch.nn.functional.normalize(torch.from_numpy(vectors[haus]).double(), dim=0)
    best = (unit @ one).masked_fill(unit.norm(dim=1) == 0, -9).topk(3)
    expected = torch.softmax(best.values / 0.5, dim=0) @ rows[best.indices].double()
    assert torch.allclose(wide[haus].double(), expected, atol=1e-5)
    with pytest.raises(MismatchError, match="source vectors of shape"):
        initialize_embeddings("wechsel", rows, match, vectors=vectors, source_vectors=source_vectors[:5])
    with pytest.raises(ConfigError, match="`source_vectors`"):
        initialize_embeddings("wechsel", rows, match, vectors=vectors)


def test_dictionaries(tmp_path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("house\tHaus\nto go\tgehen\n\nriver Fluss\n")
    assert read_dictionary(path) == [("house", "Haus"), ("to go", "gehen"), ("river", "Fluss")]
    path.write_text("house Haus\nriver\n")
    with pytest.raises(DataError, match=":2: not a pair"):
        read_dictionary(path)


def test_text_vectors(tmp_path) -> None:
    path = tmp_path / "words.vec"
    path.write_text("2 3\nhouse 1 2 3\nriver 0 0.5 -1 \n")
    words = read_word_vectors(path)
    assert words.vector("river").tolist() == [0, 0.5, -1]
    assert words.vector("unknown") is None
    path.write_text("house 1 2 3\nriver 1 2\n")
    with pytest.raises(DataError, match=r"words\.vec:2: 2 numbers instead of 3"):
        read_word_vectors(path)


def test_hashes_are_fasttexts() -> None:
    """FNV-1a over signed bytes; values from fastText's `Dictionary::hash`."""
    assert ngram_hash(b"") == 2166136261
    assert ngram_hash(b"a") == 0xE40C292C
    assert ngram_hash("ä".encode()) != ngram_hash(b"a")
    assert [ngram.decode() for ngram in ngrams_of("ab", 1, 2)] == ["<a", "a", "ab", "b", "b>"]


def test_fasttext_models_give_fasttexts_vectors(match, tmp_path) -> None:
    """A model trained by fastText itself on tokenized text, read without fastText."""
    fasttext = pytest.importorskip("fasttext", reason="fasttext is not installed")
    corpus = tmp_path / "tokens.txt"
    backend = match.target.backend
    corpus.write_text("\n".join(" ".join(backend.encode(line).tokens) for line in GERMAN * 5))
    model = fasttext.train_unsupervised(str(corpus), model="cbow", dim=10, minCount=10, epoch=1, thread=1, verbose=0)
    model.save_model(str(tmp_path / "tokens.bin"))
    vectors = load_vectors(tmp_path / "tokens.bin", tokenizer=match.target)
    names = set(model.words)
    for token, name in enumerate(match.target.names):
        expected = model.get_word_vector(name) if name in names else np.zeros(10)
        assert np.allclose(vectors[token], expected, atol=1e-6), name
    words = read_word_vectors(tmp_path / "tokens.bin")
    assert np.allclose(words.vector("Größenwahn"), model.get_word_vector("Größenwahn"), atol=1e-6)
    assert (word_model_vectors(words, match.source) != 0).any(axis=1).sum() > 50
    with pytest.raises(ConfigError, match="pass the tokenizer"):
        load_vectors(tmp_path / "tokens.bin")
    whole = (tmp_path / "tokens.bin").read_bytes()
    for length in (20, 200, 5000):
        (tmp_path / "cut.bin").write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"cut\.bin"):
            read_word_vectors(tmp_path / "cut.bin")


def test_a_bake_off_ranks_by_target_then_source() -> None:
    results = {
        "focus": Probe(target=1.500, source=1.3),
        "mean": Probe(target=1.501, source=1.1),
        "random": Probe(target=2.0, source=1.0),
    }

    def probe(method: str) -> Probe:
        if method == "omp":
            raise MismatchError("no anchors")
        return results[method]

    ranking = bake_off(["random", "focus", "omp", "mean"], probe)
    assert [row["method"] for row in ranking.rows] == ["mean", "focus", "random", "omp"]
    assert ranking.best == "mean"
    assert ranking.rows[-1]["failed"] == "no anchors"
    with pytest.raises(LangadaptError, match="no method could run"):
        bake_off(["omp"], probe)
    with pytest.raises(ConfigError, match="different methods"):
        bake_off(["mean", "mean"], probe)
