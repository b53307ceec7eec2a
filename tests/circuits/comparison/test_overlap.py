"""Overlap against hand sets, and its chance level against the enumeration of all sets."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuits.circuit import Circuit
from circuits.comparison.overlap import chance_jaccard, hypergeometric_pvalue, overlap, pairwise_overlaps
from circuits.errors import CircuitError
from circuits.scores import Scores

UNIVERSE = "abcdefgh"
subsets = st.sets(st.sampled_from(UNIVERSE))


def test_every_ratio_by_its_name() -> None:
    found = overlap("abcd", "cde", UNIVERSE)
    assert (found.shared, found.first_size, found.second_size, found.universe) == (2, 4, 3, 8)
    assert found.jaccard == 2 / 5
    assert found.overlap_coefficient == 2 / 3
    assert found.share_of_larger == found.share_of_first == 2 / 4
    assert found.share_of_second == 2 / 3


def test_chance_and_pvalue_against_enumeration() -> None:
    first = set("abc")
    shared, jaccards = [], []
    for second in combinations("abcdefg", 4):
        shared.append(len(first & set(second)))
        jaccards.append(len(first & set(second)) / len(first | set(second)))
    assert chance_jaccard(3, 4, 7) == pytest.approx(np.mean(jaccards))
    for x in range(4):
        assert hypergeometric_pvalue(x, 3, 4, 7) == pytest.approx(np.mean(np.array(shared) >= x))


def test_the_chance_level_of_equal_shares_is_near_k_over_two_minus_k() -> None:
    assert chance_jaccard(200, 200, 10_000) == pytest.approx(0.02 / 1.98, rel=0.02)


@given(subsets, subsets)
def test_overlap_is_symmetric_and_within_bounds(a: set[str], b: set[str]) -> None:
    there, back = overlap(a, b, UNIVERSE), overlap(b, a, UNIVERSE)
    assert there.jaccard == back.jaccard
    assert there.share_of_first == back.share_of_second
    assert (there.jaccard is None) == (not a and not b) == (there.chance_jaccard is None)
    for value in (there.jaccard, there.chance_jaccard, there.overlap_coefficient, there.p_value):
        assert value is None or -1e-12 <= value <= 1 + 1e-12
    assert there.p_value == pytest.approx(back.p_value)


@given(subsets.filter(bool))
def test_a_set_overlaps_itself_wholly(a: set[str]) -> None:
    found = overlap(a, a, UNIVERSE)
    assert found.jaccard == found.overlap_coefficient == 1.0


def test_a_component_from_outside_the_universe_is_named() -> None:
    with pytest.raises(CircuitError, match="z: not among the 8"):
        overlap("az", "a", UNIVERSE)


def _named(name: str, components: str, values: list[float], nodes: str) -> tuple[str, Scores, Circuit]:
    scores = Scores(name, tuple(components), np.array([values]))
    return name, scores, Circuit(tuple(nodes), name, "by hand")


def test_pairs_are_compared_on_what_both_methods_score() -> None:
    runs = [
        _named("patching", "abcdm", [1.0, -2.0, 3.0, 0.5, 9.0], "bcm"),
        _named("sae", "abcd", [1.0, 2.0, 3.0, 0.5], "ab"),
        _named("flat", "abcd", [1.0, 1.0, 1.0, 1.0], ""),
    ]
    first, *rest = pairwise_overlaps(runs)
    assert (first.first, first.second, len(rest)) == ("patching", "sae", 2)
    assert (first.overlap.universe, first.overlap.first_size, first.shared_nodes) == (4, 2, ("b",))
    assert first.left_out == ("m",)
    assert first.correlation is not None
    assert first.correlation_of_size is not None
    assert first.correlation_of_size.rho == pytest.approx(1.0)
    assert first.correlation.rho < 1
    assert rest[0].correlation is None
    json.dumps([asdict(pair) for pair in (first, *rest)], allow_nan=False)


def test_nothing_in_common_is_an_error() -> None:
    with pytest.raises(CircuitError, match="no component in common"):
        pairwise_overlaps([_named("x", "ab", [1.0, 2.0], "a"), _named("y", "cd", [1.0, 2.0], "c")])
