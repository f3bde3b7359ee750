"""`plan --rates`: which rates short runs recommend, where the truth is known and on a real run."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from test_pilot import Cli, cli, recipe

from langadapt.errors import LangadaptError
from langadapt.planning.rates import RateAdvice, Tried, advise
from langadapt.recipe.recipe import Recipe

__all__ = ["cli", "recipe"]  # fixtures


def valley(body: float, embeddings: float, *, noise: float = 0.0, edge: float = math.inf) -> Callable[..., Tried]:
    """Bits per byte with one lowest point, on a logarithmic scale; infinite above ``edge``."""

    def attempt(rate: float, other: float, seed: int) -> Tried:
        away = math.log(rate / body) ** 2 + math.log(other / embeddings) ** 2
        target = math.inf if rate > edge else 2.0 + 0.1 * away + (noise if seed else 0.0)
        return Tried(rate, other, target, 3.0, seed)

    return attempt


@pytest.mark.parametrize(
    ("truth", "found"),
    [
        ((1e-3, 3e-3), (1e-3, 3e-3)),
        # Two steps beyond the first three; the embeddings' ratio after the body's.
        ((2.7e-2, 8.1e-2), (2.7e-2, 8.1e-2)),
        ((1e-3, 6e-3), (1e-3, 9e-3)),
        # Farther than it looks: the outermost that was tried.
        ((1.0, 3.0), (2.7e-2, 2.187)),
    ],
)
def test_the_lowest_point_is_found(truth: tuple[float, float], found: tuple[float, float]) -> None:
    advice = advise(1e-3, 3.0, 0, 40, attempt=valley(*truth))
    assert (advice.learning_rate, advice.embedding_learning_rate) == pytest.approx(found, rel=0.01)
    assert len({(one.body, one.embeddings, one.seed) for one in advice.tried}) == len(advice.tried) <= 11


def test_within_noise_the_lowest_rate_is_taken() -> None:
    sure = advise(1e-3, 3.0, 0, 40, attempt=valley(1e-3, 3e-3))
    unsure = advise(1e-3, 3.0, 0, 40, attempt=valley(1e-3, 3e-3, noise=0.3))
    assert unsure.noise == pytest.approx(0.3) and sure.noise == pytest.approx(0.004)
    assert unsure.learning_rate < sure.learning_rate


def test_what_diverges_is_no_best() -> None:
    advice = advise(1e-3, 3.0, 0, 40, attempt=valley(1e-2, 1e-2, edge=2e-3))
    assert advice.learning_rate == pytest.approx(1e-3)
    with pytest.raises(LangadaptError, match="every rate made the model diverge"):
        advise(1e-3, 3.0, 0, 40, attempt=valley(1e-2, 1e-2, edge=0.0))


def test_a_real_one_on_the_command_line(recipe: Recipe, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("langadapt.planning.rates.find_rates.__defaults__", (4,))
    place = recipe.out + ".yaml"
    Path(place).write_text(recipe.to_yaml(), encoding="utf-8")
    code, out = cli("plan", place, "--rates", "--json")
    advice = RateAdvice(**json.JSONDecoder().raw_decode(out)[0])
    assert code == 0
    tried = [Tried(**one) for one in advice.tried]
    assert len(tried) >= 6 and all(math.isfinite(one.target) for one in tried)
    assert (advice.learning_rate, advice.embedding_learning_rate) in {(one.body, one.embeddings) for one in tried}
    # Finished runs are not run again, and it says what it cannot tell.
    _, shown = cli("plan", place, "--rates")
    assert "recommended: train.learning_rate=" in shown and shown.count("cannot tell: ") == 3
    assert cli("plan", place, "--rates", "--pilot")[0] != 0
