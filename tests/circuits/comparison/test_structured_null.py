"""Chance within strata: against all sets enumerated, against shuffles, and on circuits that overlap by chance."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuits.comparison.structured_null import (
    edge_strata,
    node_strata,
    permutation_pvalue,
    shuffles,
    structured_chance,
)
from circuits.graph import Graph

STRATA = np.array([0, 0, 0, 1, 1, 1, 1, 2])
masks = st.lists(st.booleans(), min_size=8, max_size=8).map(np.array)


def _mask(*places: int) -> np.ndarray:
    return np.isin(np.arange(8), places)


def test_chance_against_the_enumeration_of_all_sets() -> None:
    first, second = _mask(0, 1, 3, 7), _mask(0, 3, 4, 5, 7)
    shared, jaccards = [], []
    for a, b in product(combinations(range(3), 1), combinations(range(3, 7), 3)):
        other = _mask(*a, *b, 7)
        shared.append(int((first & other).sum()))
        jaccards.append(shared[-1] / int((first | other).sum()))
    found = structured_chance(first, second, STRATA)
    assert found.expected_shared == pytest.approx(np.mean(shared))
    assert found.jaccard == pytest.approx(np.mean(jaccards))
    assert found.p_value == pytest.approx(np.mean(np.array(shared) >= 3))
    assert found.floor == pytest.approx(np.mean(np.array(shared) == max(shared)))


@given(masks, masks)
def test_it_is_symmetric_and_a_circuit_reaches_the_floor_against_itself(a: np.ndarray, b: np.ndarray) -> None:
    there, back = structured_chance(a, b, STRATA), structured_chance(b, a, STRATA)
    assert there.p_value == pytest.approx(back.p_value)
    assert there.jaccard == pytest.approx(back.jaccard)
    assert 0 < there.floor <= there.p_value + 1e-12 <= 1 + 1e-12
    itself = structured_chance(a, a, STRATA)
    assert itself.p_value == pytest.approx(itself.floor)


def test_one_stratum_is_the_hypergeometric() -> None:
    from scipy.stats import hypergeom

    rng = np.random.default_rng(0)
    first, second = rng.random(300) < 0.2, rng.random(300) < 0.3
    found = structured_chance(first, second, np.zeros(300, dtype=int))
    law = hypergeom(300, int(first.sum()), int(second.sum()))
    assert found.p_value == pytest.approx(law.sf((first & second).sum() - 1))
    assert found.expected_shared == pytest.approx(law.mean())


def test_shuffles_keep_every_item_in_its_stratum_and_agree_with_the_exact_distribution() -> None:
    first, second = _mask(0, 1, 3, 7), _mask(0, 3, 4, 5, 7)
    orders = np.concatenate(list(shuffles(STRATA, 20_000, seed=1)))
    assert (STRATA[orders] == STRATA).all()
    assert (np.sort(orders, axis=1) == np.arange(8)).all()
    shared = (first & second[orders]).sum(1)
    found = structured_chance(first, second, STRATA)
    assert shared.mean() == pytest.approx(found.expected_shared, abs=0.02)
    assert (shared >= 3).mean() == pytest.approx(found.p_value, abs=0.02)


def test_shuffles_come_in_pieces_and_are_seeded() -> None:
    strata = np.zeros(3_000_000, dtype=int)
    assert [len(piece) for piece in shuffles(strata, 2, 0)] == [1, 1]
    a, b, c = (next(shuffles(STRATA, 50, seed)) for seed in (3, 3, 4))
    assert (a == b).all()
    assert (a != c).any()


def test_pvalues_are_uniform_where_two_circuits_share_by_chance() -> None:
    """Crowded into late layers both: the plain hypergeometric is fooled by that, the strata are not."""
    graph = Graph(8, 128, 128)
    strata = node_strata(graph)
    layer = np.array([graph.node(name).layer for name in graph.components])
    rng = np.random.default_rng(0)
    inside, anywhere = [], []
    for _ in range(2000):
        first, second = (rng.random(len(strata)) < np.where(layer >= 5, 0.4, 0.02) for _ in range(2))
        inside.append(structured_chance(first, second, strata).p_value)
        anywhere.append(structured_chance(first, second, np.zeros_like(strata)).p_value)
    # Counts are discrete, so a p-value is at or below a level at most as often as that, and nearly as often.
    for level in (0.05, 0.2, 0.5):
        assert 0.6 * level < np.mean(np.array(inside) <= level) < 1.1 * level
    assert np.mean(np.array(anywhere) <= 0.05) > 0.5


def test_strata_are_layers_and_kinds() -> None:
    graph = Graph(2, 2, 1)
    assert node_strata(graph).tolist() == [0, 0, 1, 2, 2, 3]
    stratum = dict(zip(graph.places, edge_strata(graph).tolist(), strict=True))
    assert stratum["a0.h0->a1.h0<q>"] == stratum["a0.h1->a1.h1<q>"] != stratum["a0.h0->a1.h0<k>"]
    assert (
        len(
            {
                stratum[e]
                for e in ("m0->logits", "a0.h0->logits", "a1.h0->logits", "input->logits", "m0->a1.h0<q>")
            }
        )
        == 5
    )


def test_the_permutation_pvalue_never_is_zero() -> None:
    assert permutation_pvalue(9.0, [1.0, 2.0, 3.0]) == 0.25
    assert permutation_pvalue(2.0, [1.0, 2.0 - 1e-15, 3.0]) == 0.75
