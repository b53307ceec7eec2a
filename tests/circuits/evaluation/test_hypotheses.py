"""Hypothesis tests: the right size where the hypothesis holds, power where it does not."""

from __future__ import annotations

import numpy as np
import pytest
from made_bench import made_bench
from scipy import stats

from circuits.circuit import Circuit
from circuits.evaluation.hypotheses import (
    equivalence,
    hypothesis_tests,
    independence,
    partial_necessity,
    sufficiency,
)
from circuits.graph import Graph

TRIALS = 300


def _most(level: float) -> float:
    """Rejections that so many trials at `level` exceed once in a thousand times."""
    return float(stats.binom.isf(0.001, TRIALS, level))


@pytest.mark.parametrize("share", [0.5, 0.4, 0.6])
def test_equivalence_keeps_its_level_within_the_margin(share: float) -> None:
    rng = np.random.default_rng(0)
    model = np.zeros(80)
    rejected = sum(
        equivalence(np.where(rng.random(80) < share, 0.1, -5.0), model).rejected for _ in range(TRIALS)
    )
    assert rejected <= _most(0.05)


def test_equivalence_counts_prompts_and_not_how_far_they_lie() -> None:
    """The mean difference is far below zero, and yet the two win equally often; then the other way around."""
    model = np.zeros(100)
    fair = np.where(np.arange(100) % 2, 0.01, -50.0)
    assert not equivalence(fair, model).rejected
    always_a_little_worse = np.full(100, -0.01)
    found = equivalence(always_a_little_worse, model)
    assert found.rejected
    assert found.statistic == 0
    assert not found.favourable


def test_equivalence_by_hand_and_with_ties() -> None:
    """Of ten prompts nine are won: P(X >= 9) + P(X <= 1) at 0.6."""
    circuit = np.array([1.0] * 9 + [-1.0])
    by_hand = 10 * 0.6**9 * 0.4 + 0.6**10 + 0.4**10 + 10 * 0.6 * 0.4**9
    assert equivalence(circuit, np.zeros(10)).p_value == pytest.approx(by_hand)
    assert equivalence(np.zeros(10), np.zeros(10)).p_value == 1
    assert equivalence(np.full(10, 1e-7), np.zeros(10), tie=1e-6).statistic == 0.5


def test_independence_keeps_its_level_and_sees_what_correlation_does_not() -> None:
    rng = np.random.default_rng(0)
    rejected = sum(
        independence(rng.normal(size=40), rng.normal(size=40), permutations=99, seed=i).rejected
        for i in range(TRIALS)
    )
    assert rejected <= _most(0.05)
    assert rejected >= 3
    x = rng.uniform(-1, 1, size=100)
    found = independence(x**2 + 0.05 * rng.normal(size=100), x, permutations=499)
    assert abs(np.corrcoef(x, x**2)[0, 1]) < 0.3
    assert found.p_value == 1 / 500
    assert not found.favourable


def test_what_is_constant_is_independent() -> None:
    assert independence(np.zeros(20), np.arange(20.0), permutations=99).p_value == 1


@pytest.mark.parametrize("test", [sufficiency, partial_necessity])
def test_a_circuit_like_nine_of_ten_random_ones_is_seldom_told_apart(test: object) -> None:
    """At the edge of the hypothesis: it beats a random circuit with a chance of exactly nine in ten."""
    rng, rejected = np.random.default_rng(0), 0
    own = 0.1 if test is sufficiency else 0.9
    for _ in range(TRIALS):
        rejected += test(own, rng.random(100), 8).rejected  # type: ignore[operator]
    assert 3 <= rejected <= _most(0.05)


def test_what_beats_all_is_told_apart_and_ties_do_not_count() -> None:
    assert sufficiency(0.0, np.ones(100), 8).favourable
    assert partial_necessity(2.0, np.ones(100), 8).favourable
    assert not sufficiency(1.0, np.ones(100), 8).rejected
    assert sufficiency(0.0, np.ones(100), 8).p_value == pytest.approx(0.9**100)


def test_a_planted_circuit_passes_and_a_random_one_does_not() -> None:
    """The metric is what four heads give; the prompts' noise is that of the rest, and too small to matter."""
    graph, rng = Graph(6, 6, 6), np.random.default_rng(0)
    planted = ("a1.h1", "a2.h2", "a3.h3", "a4.h4")
    signal, noise = rng.normal(3, 1, size=60), rng.normal(size=60)

    def worth(kept: frozenset[str]) -> np.ndarray:
        return signal * len(kept & set(planted)) / 4 + 0.01 * noise * (len(kept) % 2)

    at = made_bench(graph, worth)
    good = {t.name: t for t in hypothesis_tests(at, at, Circuit(planted, "test", "planted"), seed=0)}
    assert good["sufficiency"].favourable
    assert good["partial necessity"].favourable
    assert good["independence"].favourable
    bad = {
        t.name: t for t in hypothesis_tests(at, at, Circuit(("a0.h0", "a1.h2"), "test", "a guess"), seed=0)
    }
    assert not any(test.favourable for test in bad.values())
    assert all(test.words.endswith(".") for test in (*good.values(), *bad.values()))
