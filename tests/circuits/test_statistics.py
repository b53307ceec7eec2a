"""Statistics against hand-worked numbers, enumeration, and their own promises under simulation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from circuits import statistics


def test_bootstrap_covers_the_true_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    samples = rng.exponential(2.0, size=(60, 300))
    low, high = statistics.bootstrap_interval(samples, resamples=1000)
    assert 0.88 < ((low <= 2.0) & (high >= 2.0)).mean() < 0.98


def test_bootstrap_of_a_ratio_of_means_covers_the_true_ratio() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(150):
        below = rng.normal(4.0, 1.0, 50)
        above = 0.5 * below + rng.normal(0, 0.3, 50)
        interval = statistics.bootstrap_ratio_interval(above, below, resamples=400)
        assert interval is not None
        hits += bool(interval.low <= 0.5 <= interval.high)
    assert 0.87 < hits / 150 <= 1.0


def test_bootstrap_is_seeded_and_of_a_constant_is_that_constant() -> None:
    samples = np.random.default_rng(2).normal(size=(20, 3))
    first, second = (statistics.bootstrap_interval(samples, seed=3) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert np.allclose(statistics.bootstrap_interval(np.full(5, 7.0)), 7.0)


def test_bootstrap_says_no_where_it_cannot() -> None:
    assert statistics.bootstrap_ratio_interval(np.ones(4), np.zeros(4)) is None
    with pytest.raises(ValueError, match="no samples"):
        statistics.bootstrap_interval(np.empty(0))
    with pytest.raises(ValueError, match="no samples"):
        statistics.sign_flip_pvalues(np.empty((0, 2)))


def test_sign_flips_agree_with_enumeration() -> None:
    samples = np.random.default_rng(4).normal(0.4, 1.0, size=(8, 3))
    signs = np.array(list(itertools.product([-1, 1], repeat=8)))
    exact = (np.abs(signs @ samples) >= np.abs(samples.sum(0)) - 1e-9).mean(0)
    assert np.allclose(statistics.sign_flip_pvalues(samples, permutations=20000), exact, atol=0.02)


def test_sign_flip_pvalues_are_uniform_under_the_null_and_small_for_an_effect() -> None:
    rng = np.random.default_rng(5)
    null = statistics.sign_flip_pvalues(rng.normal(size=(40, 400)), permutations=999)
    assert 0.02 < (null <= 0.05).mean() < 0.09
    effect = statistics.sign_flip_pvalues(rng.normal(2.0, 1.0, size=(40, 5)), permutations=999)
    assert np.allclose(effect, 1 / 1000)
    assert np.array_equal(statistics.sign_flip_pvalues(np.zeros((5, 2)), permutations=10), [1.0, 1.0])


def test_corrections_against_hand_numbers() -> None:
    p = np.array([0.01, 0.04, 0.03, 0.005])
    assert np.allclose(statistics.adjust_pvalues(p, "bonferroni"), [0.04, 0.16, 0.12, 0.02])
    assert np.allclose(statistics.adjust_pvalues(p, "holm"), [0.03, 0.06, 0.06, 0.02])
    assert np.allclose(statistics.adjust_pvalues(p, "benjamini-hochberg"), [0.02, 0.04, 0.04, 0.02])
    with pytest.raises((ValueError, TypeError), match="fdr"):
        statistics.adjust_pvalues(p, "fdr")  # type: ignore[arg-type]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_corrections_are_ordered_and_stay_probabilities(pvalues: list[float]) -> None:
    p = np.array(pvalues)
    bh = statistics.adjust_pvalues(p, "benjamini-hochberg")
    holm, bonferroni = statistics.adjust_pvalues(p, "holm"), statistics.adjust_pvalues(p, "bonferroni")
    slack = 1e-12
    assert (p <= bh + slack).all()
    assert (bh <= holm + slack).all()
    assert (holm <= bonferroni + slack).all()
    assert bonferroni.max() <= 1


def test_auroc_counts_ties_half_and_is_none_where_undefined() -> None:
    scores, positives = np.array([3.0, 2.0, 2.0, 1.0]), np.array([True, False, True, False])
    assert statistics.auroc(scores, positives) == (1 + 1 + 0.5 + 1) / 4
    assert statistics.auroc(scores, np.ones(4, dtype=bool)) is None
    assert statistics.auroc(scores, np.zeros(4, dtype=bool)) is None
    assert statistics.auroc(np.array([np.nan, 1, 2, 3]), positives) is None
    assert statistics.best_f1(scores, np.zeros(4, dtype=bool)) is None


@given(st.lists(st.tuples(st.integers(0, 200), st.booleans()), min_size=2, max_size=30))
def test_auroc_equals_pair_counting_and_is_invariant_to_softmax(rows: list[tuple[int, bool]]) -> None:
    scores, positives = np.array([float(s) for s, _ in rows]), np.array([p for _, p in rows])
    value = statistics.auroc(scores, positives)
    if positives.all() or not positives.any():
        assert value is None
        return
    wins = [(a > b) + 0.5 * (a == b) for a in scores[positives] for b in scores[~positives]]
    assert value == pytest.approx(np.mean(wins))
    assert value == pytest.approx(statistics.auroc(softmax(scores), positives))


def test_the_published_circuits_give_the_figures_of_the_survey() -> None:
    universe = [str(i) for i in range(144)]
    reference, kept = universe[:26], [*universe[:19], *universe[30:51]]
    assert len(kept) == 40
    assert statistics.precision(kept, reference) == pytest.approx(0.475)
    assert statistics.true_positive_rate(kept, reference) == pytest.approx(0.731, abs=5e-4)
    assert statistics.f1(kept, reference) == pytest.approx(0.576, abs=5e-4)


def test_the_balanced_harmonic_score_is_not_f1() -> None:
    universe = list("abcdefgh")
    # TPR 1/2, FPR 1/6.
    score = statistics.balanced_harmonic_score("ac", "ab", universe)
    assert score == pytest.approx(2 * 0.5 * (5 / 6) / (0.5 + 5 / 6))
    assert statistics.f1("ac", "ab") == 0.5


def test_empty_sets_score_zero() -> None:
    assert statistics.precision([], "ab") == statistics.f1([], []) == 0.0
    assert statistics.true_positive_rate("a", []) == statistics.false_positive_rate("a", "a", "a") == 0.0


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=15))
def test_the_best_over_thresholds_is_the_best_of_all_kept_sets(rows: list[tuple[int, bool]]) -> None:
    scores, positives = np.array([float(s) for s, _ in rows]), np.array([p for _, p in rows])
    universe = range(len(rows))
    reference = [str(i) for i in universe if positives[i]]
    f1 = statistics.best_f1(scores, positives)
    balanced = statistics.best_balanced_harmonic_score(scores, positives)
    if f1 is None or balanced is None:
        assert positives.all() or not positives.any()
        return
    kept_at = {t: [str(i) for i in universe if scores[i] >= t] for t in set(scores)}
    everything = [str(i) for i in universe]
    f1s = {t: statistics.f1(kept, reference) for t, kept in kept_at.items()}
    harmonics = {t: statistics.balanced_harmonic_score(k, reference, everything) for t, k in kept_at.items()}
    assert f1.value == pytest.approx(max(f1s.values()))
    assert f1s[f1.threshold] == pytest.approx(f1.value)
    assert balanced.value == pytest.approx(max(harmonics.values()))
    assert harmonics[balanced.threshold] == pytest.approx(balanced.value)


def test_rank_correlation_sees_order_alone_and_is_none_for_a_constant() -> None:
    a = np.array([1.0, 2.0, 3.0, 4.0])
    found = statistics.rank_correlation(a, np.exp(a))
    assert found is not None
    assert found.rho == pytest.approx(1.0)
    assert statistics.rank_correlation(a, np.ones(4)) is None
    assert statistics.rank_correlation(a[:2], a[:2]) is None
