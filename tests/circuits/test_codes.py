"""Code counts on a table made by hand, and against the published dense arrays by brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circuits import codes
from circuits.statistics import auroc

# head 0: P = {4, 7}, N = {7}; head 1: P = {1}, N = {1, 2}; head 2: P = {0, 5}, N = {3, 6}
TABLE = np.array([[4, 1, 0], [7, 1, 5], [7, 1, 3], [7, 2, 6]])
POSITIVE = np.array([True, True, False, False])


def test_node_scores_by_hand() -> None:
    assert codes.node_scores(TABLE, POSITIVE).tolist() == [1, 0, 2]
    assert codes.node_scores(TABLE, POSITIVE, normalise=True).tolist() == [1 / 2, 0, 2 / 4]


def test_occurrences_by_hand() -> None:
    found = codes.occurrences(TABLE[:, :2], POSITIVE)
    assert list(zip(*map(np.ndarray.tolist, found), strict=True)) == [
        (0, 4, 1, 0), (0, 7, 1, 2), (1, 1, 2, 1), (1, 2, 0, 1)
    ]  # fmt: skip


def test_pair_scores_by_hand() -> None:
    # (4,1) and (7,1) on positives, (7,1) and (7,2) on negatives: one of heads 0 and 1 is exclusive.
    assert codes.pair_scores(TABLE, POSITIVE).tolist() == [[0, 1, 2], [1, 0, 2], [2, 2, 0]]
    normalised = codes.pair_scores(TABLE, POSITIVE, normalise=True)
    assert normalised[0, 1] == 1 / 4
    assert normalised[0, 2] == 2 / 4


def _dense(table: np.ndarray, positive: np.ndarray, n_codes: int, normalise: bool) -> np.ndarray:
    n_heads = table.shape[1]
    counts = np.zeros((2, n_heads, n_heads, n_codes, n_codes))
    for row, label in zip(table, positive, strict=True):
        for a in range(n_heads):
            for b in range(n_heads):
                if a != b:
                    counts[int(label), a, b, row[a], row[b]] += 1
    unique = ((counts[1] > 0) & (counts[0] == 0)).sum((2, 3)).astype(float)
    if normalise:
        total = (counts > 0).sum((0, 3, 4))
        return np.asarray(np.divide(unique, total, out=np.zeros_like(unique), where=total > 0))
    return np.asarray(unique)


tables = st.tuples(st.integers(2, 12), st.integers(2, 5), st.integers(0, 2**32 - 1))


@settings(max_examples=40)
@given(tables, st.booleans())
def test_scores_equal_sets_and_the_dense_arrays(shape: tuple[int, int, int], normalise: bool) -> None:
    n_examples, n_heads, seed = shape
    rng = np.random.default_rng(seed)
    table = rng.integers(0, 6, (n_examples, n_heads))
    positive = rng.permutation(np.arange(n_examples) < max(1, n_examples // 2))
    assert np.allclose(
        codes.pair_scores(table, positive, normalise=normalise), _dense(table, positive, 6, normalise)
    )
    for head, score in enumerate(codes.node_scores(table, positive, normalise=normalise)):
        p, n = set(table[positive, head]), set(table[~positive, head])
        assert score == pytest.approx(len(p - n) / (len(p | n) if normalise else 1))


def _walked(table: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The published rule with ties in random order: walk pairs, count the first n^2 / 2 endpoints."""
    n = len(table)
    pairs = [(a, b) for a in range(n) for b in range(n) if a != b]
    pairs = [pairs[i] for i in rng.permutation(len(pairs))]
    pairs.sort(key=lambda pair: -table[pair])
    endpoints = [head for pair in pairs for head in pair][: n**2 // 2]
    return np.bincount(endpoints, minlength=n)


def test_appearances_are_the_published_walk_where_nothing_ties_at_the_cut() -> None:
    # 4 heads: 8 endpoints, which are the four ordered forms of the two best pairs.
    table = np.array([[0, 9, 8, 1], [9, 0, 2, 3], [8, 2, 0, 4], [1, 3, 4, 0.0]])
    assert codes.appearances(table).tolist() == [4, 2, 2, 0]
    assert codes.appearances(table).tolist() == _walked(table, np.random.default_rng(0)).tolist()


@pytest.mark.parametrize("n_heads", [2, 3, 4, 5])
def test_appearances_are_the_mean_over_all_orders_of_ties(n_heads: int) -> None:
    rng = np.random.default_rng(n_heads)
    table = np.triu(rng.integers(0, 3, (n_heads, n_heads)), 1).astype(float)
    table += table.T
    mean = np.mean([_walked(table, rng) for _ in range(4000)], axis=0)
    assert np.allclose(codes.appearances(table), mean, atol=0.1)
    assert codes.appearances(table).sum() == pytest.approx(n_heads**2 // 2)


def test_one_head_has_no_pairs() -> None:
    assert codes.pair_head_scores(TABLE[:, :1], POSITIVE).tolist() == [0]


def test_auroc_is_invariant_to_the_published_softmax() -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 60, 144).astype(float)
    reference = rng.random(144) < 0.2
    kept = codes.above_threshold(scores, 1e-3)
    assert auroc(scores, reference) == auroc(np.exp(scores - scores.max()), reference)
    assert scores[kept].min() > scores[~kept].max()
