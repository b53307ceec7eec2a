"""Figures of two rankings against their definitions, written out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from circuits.comparison.rank_overlap import Ranked, agreement_figures, rank_agreements, ranked
from circuits.comparison.structured_null import shuffles

vectors = st.lists(st.floats(-9, 9).map(lambda x: round(x, 3)), min_size=6, max_size=6).map(np.array)


def _ranked(values: list[float] | np.ndarray, p: float = 0.9) -> Ranked:
    found = ranked(np.array(values), p)
    assert found is not None
    return found


def _biased_by_definition(a: np.ndarray, b: np.ndarray, p: float) -> float:
    """Webber et al. 2010, equation 32, whose prefix is the whole list."""
    first, second = (np.argsort(-np.abs(x), kind="stable").tolist() for x in (a, b))
    n = len(a)
    shared = [len(set(first[:d]) & set(second[:d])) for d in range(1, n + 1)]
    return shared[-1] / n * p**n + (1 - p) / p * sum(x / d * p**d for d, x in enumerate(shared, start=1))


@given(vectors, vectors)
def test_every_figure_by_its_definition(a: np.ndarray, b: np.ndarray) -> None:
    first, second = ranked(a), ranked(b)
    if first is None or second is None:
        return
    rho, biased, weighted = agreement_figures(first, second)
    x, y = (np.abs(v) / np.abs(v).sum() for v in (a, b))
    assert rho == pytest.approx(spearmanr(np.abs(a), np.abs(b)).statistic)
    assert biased == pytest.approx(_biased_by_definition(a, b, 0.9))
    assert weighted == pytest.approx(np.minimum(x, y).sum() / np.maximum(x, y).sum())
    assert agreement_figures(second, first) == pytest.approx(np.array([rho, biased, weighted]))
    found = rank_agreements({"a": first, "b": second}, [("a", "b")], shuffles(np.zeros(6, int), 9, 0))[
        "a", "b"
    ]
    assert found.rank_correlation.value == rho
    for figure in (found.rank_correlation, found.rank_biased_overlap, found.weighted_jaccard):
        assert -1 <= figure.value <= 1
        assert 0.1 <= figure.p_value <= 1


def test_by_hand() -> None:
    first, second = _ranked([3.0, -2.0, 1.0], 0.5), _ranked([-1.0, 2.0, 3.0], 0.5)
    # Overlap at depths 1, 2, 3 is 0, 1, 3; with p = 1/2: 3/3/8 + (0 + 1/2/4 + 3/3/8).
    _, biased, weighted = agreement_figures(first, second)
    assert biased == pytest.approx(1 / 8 + 1 / 8 + 1 / 8)
    assert weighted == pytest.approx((1 + 2 + 1) / (3 + 2 + 3))


def test_signs_and_units_do_not_matter_and_itself_is_one_at_the_floor() -> None:
    scores = np.random.default_rng(0).normal(size=60)
    sides = {"a": _ranked(scores), "b": _ranked(-7.5 * scores)}
    found = rank_agreements(sides, [("a", "b")], shuffles(np.arange(60) // 10, 99, 0))["a", "b"]
    for figure in (found.rank_correlation, found.rank_biased_overlap, found.weighted_jaccard):
        assert figure.value == pytest.approx(1.0)
        assert figure.p_value == 0.01
        assert figure.chance < 0.7


def test_scores_that_crowd_alike_in_strata_are_no_find() -> None:
    """Large sizes in the same strata correlate, and so do all shuffles of them: p-values are uniform."""
    rng, strata = np.random.default_rng(1), np.arange(60) // 20
    scale = np.array([0.1, 1.0, 10.0])[strata]
    sides = {str(i): _ranked(scale * rng.random(60)) for i in range(200)}
    pairs = [(str(i), str(i + 1)) for i in range(0, 200, 2)]
    found = rank_agreements(sides, pairs, shuffles(strata, 99, 0)).values()
    assert min(f.rank_correlation.value for f in found) > 0.6
    for name in ("rank_correlation", "rank_biased_overlap", "weighted_jaccard"):
        levels = np.array([getattr(f, name).p_value for f in found])
        assert 0.38 < levels.mean() < 0.62, name
        assert (levels <= 0.1).mean() < 0.22, name


def test_ranks_that_say_nothing_are_none() -> None:
    assert ranked(np.array([1.0, 2.0])) is None
    assert ranked(np.array([1.0, -1.0, 1.0, 1.0])) is None
