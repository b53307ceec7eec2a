"""Stability: the same circuit where prompts agree, chance where they say nothing."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from circuits.comparison.overlap import chance_jaccard
from circuits.evaluation.stability import pairwise_jaccard, stability
from circuits.graph import Graph
from circuits.scores import Scores

GRAPH = Graph(4, 8, 8)


def _scores(samples: np.ndarray, edges: bool = False, unit: str = "prompt") -> Scores:
    return Scores("made-up", tuple(GRAPH.places) if edges else GRAPH.components, samples, unit)


@pytest.mark.parametrize("edges", [False, True])
def test_scores_without_noise_give_one_circuit(edges: bool) -> None:
    n = len(GRAPH.places) if edges else len(GRAPH.components)
    row = np.random.default_rng(0).normal(size=n)
    found = stability(GRAPH, _scores(np.tile(row, (20, 1)), edges), 12, edges=edges, seed=0, n_resamples=10)
    assert found is not None
    assert found.jaccard == found.low == 1
    assert found.stable
    assert set(found.kept.values()) == {1.0}
    assert len(found.kept) == 12


def test_scores_of_noise_alone_are_hardly_more_alike_than_chance() -> None:
    """Draws of the same prompts share some noise, so they are more alike than chance, and far from stable."""
    rng, values = np.random.default_rng(0), []
    for seed in range(30):
        found = stability(
            GRAPH, _scores(rng.normal(size=(200, 36))), 9, edges=False, seed=seed, n_resamples=12
        )
        assert found is not None
        values.append(found.jaccard)
        by_formula = chance_jaccard(9, 9, 36)
        assert found.chance == pytest.approx(by_formula, abs=0.06)
    assert chance_jaccard(9, 9, 36) < np.mean(values) < 0.5  # type: ignore[operator]


def test_noise_across_disjoint_prompts_is_at_chance() -> None:
    rng = np.random.default_rng(0)
    circuits = [_scores(rng.normal(size=(5, 36))).ranking()[:9] for _ in range(60)]
    found = pairwise_jaccard(circuits, GRAPH.components)
    assert found.mean() == pytest.approx(chance_jaccard(9, 9, 36), abs=0.02)


def test_circuits_grown_from_noise_are_more_alike_than_drawn_ones() -> None:
    """What enters the logits is reached first, so chance is taken by the same rule."""
    rng = np.random.default_rng(0)
    found = stability(
        GRAPH, _scores(rng.normal(size=(50, len(GRAPH.places))), edges=True), 20, edges=True, seed=0
    )
    assert found is not None
    assert found.chance > 2 * chance_jaccard(20, 20, len(GRAPH.places))  # type: ignore[operator]


def test_jaccards_are_those_of_the_sets() -> None:
    circuits = [{"a0.h0", "m0"}, {"m0"}, {"m1", "m2"}]
    found = pairwise_jaccard(circuits, GRAPH.components)
    assert found.tolist() == [len(a & b) / len(a | b) for a, b in combinations(circuits, 2)]


@pytest.mark.parametrize(("n", "unit", "size"), [(1, "prompt", 3), (9, "estimate", 3), (9, "prompt", 0)])
def test_where_nothing_can_be_drawn_there_is_none(n: int, unit: str, size: int) -> None:
    samples = np.random.default_rng(0).normal(size=(n, 36))
    assert stability(GRAPH, _scores(samples, unit=unit), size, edges=False, seed=0) is None
